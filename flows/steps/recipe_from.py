"""A recipe from wherever a form or a command names it: a file, its text, a bucket, a repository.

What did not come from this machine brings no code, unless the machine's owner has allowed its
origin (ENGINEWORKS_RECIPE_CODE). Knows where recipes come from, no stage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from engineworks import files, yaml_text
from engineworks import recipe as recipes
from engineworks.errors import RecipeError
from engineworks.recipe import Loaded, Overrides, Recipe
from flows.steps import recipe_git, recipe_s3
from tasks import _run

#: Origins whose recipes may bring code here, by blanks or commas: `text`, `s3://bucket/folder`,
#: `https://host/repository`; each stands for all that lies below it.
ALLOWED = "ENGINEWORKS_RECIPE_CODE"

TEXT = "text"

#: The name in a recipe's text, for people: nothing is decided by it.
_NAME = re.compile(
    r"""^[\s{]*["']?name["']?\s*:\s*["']?([a-z0-9][a-z0-9_.-]{0,62})""", re.MULTILINE
)


def is_text(recipe: str) -> bool:
    """Whether it is a recipe's own text, not where it lies."""
    return "\n" in recipe.strip() or recipe.lstrip().startswith("{")


def title(recipe: str) -> str:
    """What a recipe is called in a line, however it was given."""
    if is_text(recipe):
        name = _NAME.search(recipe)
        return f"{name[1]} (text)" if name else "a recipe's text"
    return re.sub(r"@([0-9a-f]{12})[0-9a-f]{28,}#", r"@\1#", recipe)[:200]


def load(recipe: str, overrides: Overrides) -> Loaded:
    """Read and check a recipe.

    Args:
        recipe: A file, relative to the working folder; or the text itself; or
            `s3://bucket/folder/recipe.yaml`; or
            `git+https://host/repository@COMMIT#folder/recipe.yaml`.
        overrides: What is another for this run.

    Raises:
        RecipeError: It cannot be had, or is none, or brings code from where none is taken.
        DataError: Its labels are missing.
        StoreError: A bucket or repository does not answer.
    """
    home = _run.home()
    if is_text(recipe):
        sha256, here = hashlib.sha256(recipe.encode()).hexdigest(), Path.cwd()
        loaded = recipes.parse(
            _sized(recipe), path=Path("the recipe's text"), folder=here,
            origin=f"text {sha256[:12]}", overrides=overrides, accept=_refuses(TEXT, here, here),
        )  # fmt: skip
        return dataclasses.replace(loaded, address=title(recipe))
    if recipe.startswith(recipe_git.SCHEME):
        git = recipe_git.parse(recipe)
        file = recipe_git.fetch(git, home)
        root = file.parents[len(git.path.parts) - 1]
        return _of_folder(file, root, recipe, f"{git.url}#{git.path}", git.url, overrides)
    if recipe.startswith(recipe_s3.SCHEME):
        file = recipe_s3.fetch(recipe, home)
        return _of_folder(file, file.parent, recipe, recipe, recipe, overrides)
    if re.match(r"[a-z][a-z0-9+.-]+://", recipe):
        raise RecipeError(
            f"{recipe[:200]!r} is an address that recipes are not taken from",
            hint="give a file, its text, s3://bucket/folder/recipe.yaml or "
            "git+https://host/repository@COMMIT#folder/recipe.yaml",
        )
    return recipes.load(Path(recipe), overrides)


def _sized(text: str) -> str:
    if len(text.encode()) > yaml_text.MOST_BYTES:
        raise RecipeError(
            f"a recipe's text of {len(text)} characters is none that a person has written",
            hint=f"give at most {yaml_text.MOST_BYTES} bytes",
        )
    return text


def _of_folder(
    file: Path, root: Path, address: str, origin: str, allowed_as: str, overrides: Overrides
) -> Loaded:
    """A recipe that was fetched with its folder."""
    try:
        text = files.read_text(file, most=yaml_text.MOST_BYTES)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{address} cannot be read ({getattr(error, 'strerror', None) or error})",
            hint="give the address of a recipe, a YAML file",
        ) from error
    loaded = recipes.parse(
        text, path=file, folder=file.parent, origin=origin, overrides=overrides,
        accept=_refuses(allowed_as, file.parent, root),
    )  # fmt: skip
    return dataclasses.replace(loaded, address=address)


def _refuses(origin: str, folder: Path, root: Path) -> Callable[[Recipe], None]:
    """What holds a recipe from elsewhere to its limits, before anything that it names is read."""

    def refuse(recipe: Recipe) -> None:
        labels = recipe.task.labels
        if isinstance(labels, str) and not _inside(root, folder, labels):
            raise RecipeError(
                f"task.labels: {labels!r} lies outside the recipe's folder, and this recipe came "
                f"from {_said(origin)}: it may not have files of this machine read out",
                hint="put the labels beside the recipe, or write them into it as a list",
            )
        code = recipes.code_in(recipe)
        if code and not allowed(origin):
            raise RecipeError(
                f"a recipe from {_said(origin)} brings no code to this machine, and this one does: "
                f"{'; '.join(code)}",
                hint="give the model as .onnx and a layout that is known here; or have the "
                f"machine's owner allow that origin: {ALLOWED}={origin}",
            )

    return refuse


def _said(origin: str) -> str:
    return "a form or a command, as text," if origin == TEXT else origin


def _inside(root: Path, folder: Path, name: str) -> bool:
    """Whether a path that is relative to a recipe's folder stays in what was fetched with it."""
    return (folder / name).resolve().is_relative_to(root.resolve())


def allowed(origin: str) -> bool:
    """Whether this machine's owner lets recipes of an origin bring code."""
    entries = os.environ.get(ALLOWED, "").replace(",", " ").split()
    return any(
        origin == entry or (entry != TEXT and origin.startswith(f"{entry.rstrip('/')}/"))
        for entry in entries
    )
