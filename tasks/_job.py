"""What every task works with: the run, the recipe, the machine, and the variant it is for."""

from __future__ import annotations

from dataclasses import dataclass

from engineworks import targets
from engineworks.evaluate import tasks as kinds
from engineworks.facts.host import HostCard
from engineworks.facts.model import PinnedCode
from engineworks.facts.plan import PlannedVariant
from engineworks.facts.prepared import PreparedModel
from engineworks.precisions import Precision
from engineworks.precisions import get as precision_of
from engineworks.recipe import Loaded, Recipe
from engineworks.targets import Target
from tasks._run import Run


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run of a recipe on this machine."""

    run: Run
    loaded: Loaded
    host: HostCard

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe

    def own_code(self, model: PreparedModel) -> tuple[tuple[PinnedCode, ...], str]:
        """The code that judges and is not of this library, with its digest; nothing without any."""
        if not kinds.own_code(self.recipe.task):
            return (), ""
        return model.pinned.code, model.pinned.code_sha256


@dataclass(frozen=True, kw_only=True)
class VariantJob(Job):
    """The part of a run that makes one variant."""

    planned: PlannedVariant
    beside: tuple[PlannedVariant, ...]
    """All variants of the same target and option set that are asked for."""

    @property
    def target(self) -> Target:
        """What builds it."""
        return targets.load(self.planned.target)

    @property
    def precision(self) -> Precision:
        """What it is built in."""
        return precision_of(self.planned.precision)

    @property
    def tools(self) -> dict[str, str]:
        """Versions of the target's packages."""
        return targets.tools(self.planned.target)

    def label(self, model: PreparedModel) -> str:
        """Name of the row, with the size where it is not the model's own."""
        if model.size == self.recipe.model.input.size:
            return self.planned.name
        return f"{self.planned.name} {model.size[0]}x{model.size[1]}"
