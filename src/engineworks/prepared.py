"""A prepared run: the same value for a run here, an order to another machine and what waits.

Holds no bytes: graphs, samples, photos and code are artifacts in the store. Its digest says what
shall be built, not where anything lies. Knows neither machines nor flows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.codec import place, to_json
from engineworks.facts.host import HostCard
from engineworks.facts.plan import PlannedVariant
from engineworks.facts.prepared import Attachments, PreparedModel
from engineworks.recipe.schema import Loaded, Recipe, meaning_sha256, sections


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A recipe whose model is exported at every size, ready to be built for any target."""

    recipe: dict[str, Any] = place()
    """The resolved recipe."""
    recipe_sha256: str
    """Of the meaning of `recipe`."""
    text: str = place()
    """The recipe as its author wrote it."""
    origin: str = place()
    """The file that it was read from, on the machine `host`."""
    host: HostCard = place()
    """The machine that prepared the model."""
    model: PreparedModel
    sized: tuple[PreparedModel, ...]
    """The same at further input sizes."""
    attachments: Attachments = Attachments()

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.shared.name

    def loaded(self, path: Path, folder: Path) -> Loaded:
        """The recipe again, without its file and folder of then.

        Args:
            path: What stands for its file.
            folder: Where the recipe's own code lies here.
        """
        return Loaded(
            recipe=Recipe.model_validate(self.recipe),
            path=path,
            folder=folder,
            labels=self.model.shared.labels,
            sha256=self.recipe_sha256,
            text=self.text,
            origin=self.origin,
        )

    def only(self, planned: PlannedVariant) -> PreparedRun:
        """What of it concerns one variant: no other target, and nothing that others ask of it."""
        recipe = Recipe.model_validate(self.recipe)
        mine = tuple(spec for spec in recipe.targets if planned.is_of(spec))
        recipe = recipe.model_copy(update={"targets": mine})
        return dataclasses.replace(
            self,
            recipe=to_json(sections(recipe)),
            recipe_sha256=meaning_sha256(recipe, self.model.shared.labels),
            model=_bare(self.model),
            sized=tuple(map(_bare, self.sized)),
        )


def prepared(loaded: Loaded, host: HostCard, models: tuple[PreparedModel, ...]) -> PreparedRun:
    """A recipe's prepared run.

    Args:
        loaded: The recipe.
        host: This machine.
        models: At the model's own size, then at the further ones.
    """
    model, *sized = models
    return PreparedRun(
        recipe=to_json(sections(loaded.recipe)),
        recipe_sha256=loaded.sha256,
        text=loaded.text,
        origin=loaded.origin,
        host=host,
        model=model,
        sized=tuple(sized),
    )


def _bare(model: PreparedModel) -> PreparedModel:
    """Without what depends on the recipe's other targets."""
    if model.analysis is None:
        return model
    analysis = dataclasses.replace(model.analysis, unsupported_operators={}, largest=())
    return dataclasses.replace(model, analysis=analysis)
