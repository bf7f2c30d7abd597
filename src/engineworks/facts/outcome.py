"""What became of one variant, from its plan to its verdict: one value, wherever it was found."""

from __future__ import annotations

from dataclasses import dataclass

from engineworks import precisions
from engineworks.codec import later
from engineworks.facts.engine import Built, Checked
from engineworks.facts.host import HostCard
from engineworks.facts.int8 import Quantized
from engineworks.facts.package import Packaged
from engineworks.facts.plan import PlannedVariant, Verdict
from engineworks.facts.sealed import SealedTest
from engineworks.facts.timing import Benchmark, PrecisionComparison


@dataclass(frozen=True, kw_only=True)
class VariantOutcome:
    """A variant's verdict and the facts behind it, as far as they were reached."""

    planned: PlannedVariant
    verdict: Verdict
    quantized: Quantized | None = None
    """Where integers were asked for: the search that found its graph."""
    built: Built | None = None
    checked: Checked | None = None
    timed: Benchmark | None = None
    compared: PrecisionComparison | None = None
    """Where integers were asked for: the next higher precision, timed side by side."""
    packages: tuple[Packaged, ...] = later(default=())
    """What servers load of it, with their proofs; of a shipped variant only."""
    sealed: SealedTest | None = later(default=None)
    """The test that goes with it; of a shipped variant only."""
    host: HostCard | None = None
    """The machine of the fleet that found all this; None: the one that runs the flow."""

    @property
    def shipped(self) -> bool:
        """Whether it may go to devices."""
        return self.verdict.verdict == "shipped"

    @property
    def unread(self) -> bool:
        """Whether its numbers are coarse and nothing could tell what they mean."""
        checked = self.checked
        meaning = checked.meaning if checked else None
        known = bool(checked and checked.accuracy) or bool(meaning and meaning.judged)
        return precisions.get(self.planned.precision).coarse and not known
