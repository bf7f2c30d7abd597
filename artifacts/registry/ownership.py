"""Whose a registered model is: a name alone does not tell two recipes apart.

What an application must know to use a model (task, labels, input, preprocessing) is its contract.
Another recipe of the same contract may go on with the model, and says whose alias it took; one of
another contract is refused. Knows MLflow's tags, no stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engineworks.codec import digest
from engineworks.errors import StoreError
from engineworks.specs import InputSpec, Preprocess, TaskSpec

#: Tags of a registered model: who made it what it is.
RECIPE_TAG, CONTRACT_TAG, WORDS_TAG = (
    "engineworks.recipe", "engineworks.contract", "engineworks.what",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The recipe that registers, and what its model is to whoever uses it."""

    recipe: str
    """Its file and machine."""
    contract: str
    """Digest of task, labels, input and preprocessing."""
    words: str
    """The same, for people."""


def owner(
    recipe: str, task: TaskSpec, labels: tuple[str, ...], given: InputSpec, preprocess: Preprocess
) -> Owner:
    """The owner that a recipe is.

    Args:
        recipe: Its file and machine.
        task: What the outputs mean.
        labels: Class names in index order.
        given: The image input.
        preprocess: How an image becomes that input.
    """
    named = ", ".join(labels[:3]) + (" ..." if len(labels) > 3 else "")
    kind = f"{task.kind} of {len(labels)} classes ({named})" if labels else task.kind
    size = f"{given.size[0]}x{given.size[1]}"
    return Owner(
        recipe=recipe,
        contract=digest([task.kind, labels, given, preprocess]),
        words=f"{kind}, {size} {preprocess.color}",
    )


def is_said(model: Any) -> bool:
    """Whether a model says whose it is."""
    return bool(dict(model.tags or {}).get(RECIPE_TAG))


def stranger(name: str, mine: Owner) -> StoreError:
    """The error of a model that no recipe has registered.

    Args:
        name: The model's.
        mine: Who wants to register.
    """
    return StoreError(
        f"the registered model {name!r} is not of engineworks: neither it nor a version of it says "
        "of which recipe it is",
        hint=f"give this recipe another name; or, if its engines belong into that model, set the "
        f"tag {RECIPE_TAG} of the model {name} to {mine.recipe} in MLflow, then run again",
    )


def check(model: Any, name: str, mine: Owner) -> None:
    """Refuse a model of this name that is another one.

    Args:
        model: MLflow's registered model.
        name: The model's.
        mine: Who wants to register.

    Raises:
        StoreError: Another recipe registered it, with another contract.
    """
    tags = dict(model.tags or {})
    theirs = tags.get(RECIPE_TAG, "")
    if theirs in ("", mine.recipe) or tags.get(CONTRACT_TAG) in (None, mine.contract):
        return
    raise StoreError(
        f"the registered model {name!r} is another one: it is of {theirs} "
        f"({tags.get(WORDS_TAG, '')}), this recipe is {mine.recipe} ({mine.words})",
        hint=f"give this recipe another name; or, if it takes that model over, delete the tag "
        f"{RECIPE_TAG} of the model {name} in MLflow, then run again",
    )


def claim(mlflow: Any, model: Any, name: str, mine: Owner) -> None:
    """Write down whose a model is now."""
    wanted = {RECIPE_TAG: mine.recipe, CONTRACT_TAG: mine.contract, WORDS_TAG: mine.words}
    for tag, value in wanted.items():
        if dict(model.tags or {}).get(tag) != value:
            mlflow.set_registered_model_tag(name, tag, value)
