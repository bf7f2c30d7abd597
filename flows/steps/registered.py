"""A recipe with the network of a registered version in the place of its own.

What an event asks for brings no code: the recipe is the worker's own, and the network is ONNX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.registry import trained
from engineworks import recipe as recipes
from engineworks.errors import RecipeError
from engineworks.recipe import Loaded
from engineworks.recipe.schema import meaning_sha256
from tasks import _run


def parts(registered: str) -> tuple[str, str]:
    """(model, version) of `NAME/VERSION`.

    Raises:
        RecipeError: It is not of that form.
    """
    model, slash, version = registered.rpartition("/")
    if not (model and slash and version.isdecimal()):
        raise RecipeError(f"{registered!r} is not NAME/VERSION", hint="for example yolox_nano/7")
    return model, version


def own_recipe(recipe: str) -> str:
    """A recipe, if it lies in the folder that the run works in: the worker's checkout.

    Raises:
        RecipeError: It lies elsewhere.
    """
    here, most = Path.cwd().resolve(), 1000
    if (
        len(recipe) > most
        or Path(recipe).is_absolute()
        or not (here / recipe).resolve().is_relative_to(here)
    ):
        raise RecipeError(
            f"{recipe[:most]!r} lies outside the worker's checkout",
            hint="a request names a recipe relative to it, e.g. examples/yolox_nano/recipe.yaml",
        )
    return recipe


@contextmanager
def loaded(recipe: str, registered: str) -> Iterator[Loaded]:
    """The recipe; while the context lasts, the version's ONNX file lies where it names its model.

    Args:
        recipe: Its file.
        registered: `NAME/VERSION`; empty: the recipe's own model.

    Raises:
        EngineworksError: Recipe or version cannot be used.
    """
    if not registered:
        yield recipes.load(Path(recipe))
        return
    model, version = parts(registered)
    own = recipes.load(Path(own_recipe(recipe)))
    with trained.onnx_file(_run.home(), model, version) as path:
        spec = dataclasses.replace(
            own.recipe.model, source=str(path), weights=None, weights_key="", arguments={},
            outputs=None, trust=False,
        )  # fmt: skip
        changed = own.recipe.model_copy(update={"model": spec})
        meant = {"model": dataclasses.replace(spec, source=path.name)}
        yield dataclasses.replace(
            own, recipe=changed,
            sha256=meaning_sha256(changed.model_copy(update=meant), own.labels),
        )  # fmt: skip
