"""Reads a recipe: the YAML a user writes, parsed once, checked, with every path made absolute.

Nothing is run and nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engineworks import files, yaml_text
from engineworks.errors import RecipeError, said
from engineworks.recipe.explain import explain, refuse_converted
from engineworks.recipe.labels import read_labels
from engineworks.recipe.overrides import NONE, Overrides
from engineworks.recipe.rules import check_sections
from engineworks.recipe.schema import Loaded, Recipe, meaning_sha256
from engineworks.specs import SealedSpec


def load(path: Path, overrides: Overrides = NONE) -> Loaded:
    """Read and check a recipe.

    Args:
        path: Its file.
        overrides: What is another for this run.

    Raises:
        RecipeError: No YAML, an unknown key, a value out of range, an unknown target.
        DataError: The labels file is missing.
    """
    try:
        text = files.read_text(path, most=yaml_text.MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(
            f"{path} does not exist",
            hint="give a recipe file, for example examples/yolox_nano/recipe.yaml",
        ) from None
    except OSError as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(
            f"the recipe {str(path)[:200]!r} cannot be read: {reason}",
            hint="give a recipe file, for example examples/yolox_nano/recipe.yaml",
        ) from error
    except ValueError as error:
        raise _no_yaml(path, error) from error
    folder = path.absolute().parent
    return parse(text, path=path, folder=folder, origin=str(path.absolute()), overrides=overrides)


def parse(
    text: str,
    *,
    path: Path,
    folder: Path,
    origin: str,
    overrides: Overrides = NONE,
    accept: Callable[[Recipe], None] | None = None,
) -> Loaded:
    """Check the text of a recipe.

    Args:
        text: YAML.
        path: What it is called in messages and reports.
        folder: What its paths are relative to.
        origin: Whose models are registered.
        overrides: What is another for this run.
        accept: Called with the recipe before anything that it names is looked at; raises to refuse.

    Raises:
        RecipeError: As `load`.
        DataError: The labels file is missing.
    """
    raw = _sections(text, path)
    if overrides.words:
        raw = overrides.apply(raw)
        text = f"# Of {path}, for one run: {overrides.words}\n" + yaml.safe_dump(
            raw, sort_keys=False, allow_unicode=True
        )
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise explain(path, error) from error
    refuse_converted(raw, recipe, str(path))
    where, what = yaml_text.foreign(raw)
    if what:
        raise RecipeError(
            f"{path}: {where}: {what}",
            hint="write text, numbers, true, false, null, lists and mappings; put keys in quotes "
            "that look like numbers, yes, no, on, off or null",
        )
    if accept is not None:
        accept(recipe)
    recipe = _absolute(recipe, folder)
    labels = read_labels(recipe.task, folder)
    check_sections(recipe, labels)
    return Loaded(
        recipe=recipe,
        path=path,
        folder=folder,
        labels=labels,
        sha256=meaning_sha256(recipe, labels),
        text=text,
        origin=origin,
    )


def _sections(text: str, path: Path) -> dict[str, Any]:
    try:
        raw = yaml_text.parse(text)
    except (yaml.YAMLError, ValueError) as error:
        raise _no_yaml(path, error) from error
    if raw is None:
        raise RecipeError(f"{path} is empty", hint="start from examples/yolox_nano/recipe.yaml")
    if not isinstance(raw, dict):
        raise RecipeError(
            f"{path} holds {type(raw).__name__}, not a mapping of sections",
            hint="start from examples/yolox_nano/recipe.yaml",
        )
    return raw


def _no_yaml(path: Path, error: Exception) -> RecipeError:
    return RecipeError(
        f"{path} is not YAML: {said(error)}",
        hint="check indentation and colons at the place named",
    )


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """Paths relative to the recipe become absolute."""

    def place(value: str | None) -> str | None:
        return None if value is None else str((folder / Path(value).expanduser()).absolute())

    model = dataclasses.replace(recipe.model, weights=place(recipe.model.weights))
    data = recipe.data
    if data is not None:
        data = dataclasses.replace(
            data, images=place(data.images) or "", annotations=place(data.annotations)
        )
    calibration = recipe.calibration
    if calibration is not None:
        calibration = dataclasses.replace(
            calibration,
            images=calibration.images if calibration.made else place(calibration.images) or "",
            annotations=place(calibration.annotations),
        )
    return recipe.model_copy(
        update={
            "model": model,
            "data": data,
            "calibration": calibration,
            "sealed": recipe.sealed and _with_places(recipe.sealed, place),
        }
    )


def _with_places(spec: SealedSpec, place: Callable[[str | None], str | None]) -> SealedSpec:
    """`sealed` with absolute paths."""
    photos = spec.photos
    if photos is None or isinstance(photos, str):
        return dataclasses.replace(spec, photos=place(photos))
    return dataclasses.replace(spec, photos=tuple(place(photo) or "" for photo in photos))
