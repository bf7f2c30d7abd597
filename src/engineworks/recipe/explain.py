"""Why a recipe is refused, in its author's words: where, what, and the nearest right spelling."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engineworks.errors import RecipeError
from engineworks.recipe.schema import Recipe


def explain(path: Path, error: ValidationError) -> RecipeError:
    """The first problems in the user's words: where, what, and the nearest right spelling."""
    lines, hints = [], []
    for problem in _meant(error)[:5]:
        location = [str(part) for part in problem["loc"] if part not in _FORMS]
        where = ".".join(location)
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(f"{where}: unknown key")
            near = difflib.get_close_matches(location[-1], _keys(location[:-1]), 1, 0.5)
            allowed = ", ".join(_keys(location[:-1]))
            hints.append(f"did you mean {near[0]!r}?" if near else f"allowed here: {allowed}")
        elif problem["type"] in ("missing", "missing_keyword_only_argument"):
            lines.append(f"{where}: missing")
            hints.append(f"add {where}")
        elif problem["type"] == "string_type" and not isinstance(problem["input"], list | dict):
            read = json.dumps(problem["input"], default=repr)[:60]
            lines.append(f"{where}: YAML reads {read} there, no text")
            hints.append("put names in quotes that look like numbers, yes, no, on, off or null")
        else:
            got = repr(problem.get("input"))[:60]
            lines.append(f"{where}: {problem['msg'].lower()}, got {got}")
            hints.append(f"correct {where}")
    return RecipeError(
        f"{path}: " + "; ".join(lines),
        hint="; ".join(dict.fromkeys(hints)) + " (all keys: docs/recipe.md)",
    )


#: What pydantic calls the two forms that a value may have (`task.labels`) in its places.
_FORMS = ("tuple[str, ...]", "str")


def _meant(error: ValidationError) -> list[Any]:
    """The problems, those of the form left out that a value does not have."""
    return [
        problem
        for problem in error.errors()
        if not (problem["loc"][-1:] == ("str",) and isinstance(problem["input"], list))
        and not (problem["loc"][-1:] == ("tuple[str, ...]",) and problem["type"] == "tuple_type")
    ]


def refuse_converted(raw: Any, read: Any, path: str, where: str = "") -> None:
    """Refuse what pydantic would convert: true for 1, 1 for true, "32" and 32.0 for 32.

    Args:
        raw: A value of the recipe as YAML reads it.
        read: What it was read as.
        path: The recipe.
        where: Place in it.

    Raises:
        RecipeError: Names the place.
    """
    problem = _converted(raw, read)
    if problem is not None:
        rule, hint = problem
        value = json.dumps(raw, default=repr)[:60]
        raise RecipeError(f"{path}: {where}: {value} {rule}", hint=f"correct {where} ({hint})")
    if isinstance(raw, dict):
        for key, value in raw.items():
            part = read.get(key) if isinstance(read, dict) else getattr(read, key)
            refuse_converted(value, part, path, f"{where}.{key}".lstrip("."))
    elif isinstance(raw, list):
        for number, (value, part) in enumerate(zip(raw, read, strict=True)):
            refuse_converted(value, part, path, f"{where}.{number}")


def _converted(raw: Any, read: Any) -> tuple[str, str] | None:
    """Which rule a converted value broke, and what to write instead; None: it is as written."""
    number = isinstance(read, int | float) and not isinstance(read, bool)
    if isinstance(raw, bool) and number:
        return "is no number", "yes, no, on and off are true or false in YAML"
    if isinstance(read, bool) and not isinstance(raw, bool):
        return "is neither true nor false", "write true or false, without quotes"
    if isinstance(raw, str) and number:
        return "is text, no number", "write a number without quotes and without zeros in front"
    if isinstance(raw, float) and isinstance(read, int):
        return "is no whole number", "write it without a point and without an exponent"
    return None


def _keys(location: list[str]) -> list[str]:
    """Keys that the recipe allows at a place such as ["model", "input"]."""
    kind: Any = Recipe
    for part in location:
        if not part.isdigit():
            hint = typing.get_type_hints(kind).get(part)
            options = (hint, *typing.get_args(hint))
            kind = next((option for option in options if dataclasses.is_dataclass(option)), None)
        if kind is None:
            return []
    return [name for name in typing.get_type_hints(kind) if name in getattr(
        kind, "model_fields", getattr(kind, "__dataclass_fields__", ())
    )]  # fmt: skip
