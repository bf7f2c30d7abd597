"""The search from the usual INT8, which may lose too much or gain nothing, to one worth shipping.

Every trial is built, scored and timed for real (`measure.py`). The order: what everybody gets; all
ways to choose ranges; the layers that integers pay for on this machine; the parts that lose
most, left in float; last, what still makes it faster. Bounded by time and evaluations, resumed
from its journal. Knows no vendor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.calibrate.collect import Statistics
from engineworks.errors import EngineworksError
from engineworks.facts.int8 import Sensitivity, Trial
from engineworks.qdq.graph import Graph
from engineworks.search import placement, sensitivity
from engineworks.search.journal import Journal
from engineworks.search.measure import Candidate, Measurements, Spent
from engineworks.search.trial import Workshop
from engineworks.specs import Int8Spec
from engineworks.targets._base import Int8Rules

#: A change that wins less than this is noise.
WORTH = 0.01

#: The one way to round weights where activations have no ranges.
WEIGHTS = "minmax"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a search."""

    candidate: Candidate
    trial: Trial
    trials: tuple[Trial, ...]
    sensitivity: tuple[Sensitivity, ...]
    reference: float | None
    evaluations: int
    stopped: str


class Search:
    """One target's search: which candidate is tried next."""

    def __init__(
        self,
        *,
        graph: Graph,
        statistics: Statistics,
        rules: Int8Rules,
        workshop: Workshop,
        spec: Int8Spec,
        max_drop: float | None,
        journal: Journal,
    ) -> None:
        self.graph, self.rules, self.workshop, self.spec = graph, rules, workshop, spec
        self.measured = Measurements(
            graph=graph,
            statistics=statistics,
            rules=rules,
            workshop=workshop,
            spec=spec,
            max_drop=max_drop,
            journal=journal,
        )
        # Where integers do not simply pass, every carrier requantizes: it costs accuracy, and
        # whether it pays is tried at the end.
        self.kinds = placement.JOINING if rules.scheme.passing else frozenset()
        self.sensitivity: tuple[Sensitivity, ...] = ()

    def run(self) -> Outcome:
        """Search until done or out of time.

        Raises:
            EngineworksError: Not even the first candidate could be built.
        """
        stopped = ""
        with self.measured.shelf():
            self.measured.score_float()
            try:
                self._climb()
            except Spent as stop:
                stopped = str(stop)
            best = self._best()
        return Outcome(
            candidate=best,
            trial=self.measured.trial(best),
            trials=self.measured.trials(),
            sensitivity=self.sensitivity,
            reference=self.measured.reference,
            evaluations=self.measured.spent,
            stopped=stopped,
        )

    def model(self, candidate: Candidate) -> Any:
        """The candidate's graph (onnx.ModelProto)."""
        return self.measured.model(candidate)

    def _climb(self) -> None:
        computing, between = self.graph.computing, self.graph.between
        if self.rules.scheme.activation == "float":
            self._grow(self._new("usual", "all weights", WEIGHTS, computing))
            return
        usual = self._new("usual", "all operators, MinMax", "minmax", (*computing, *between))
        self.measured.score(usual)
        everything = placement.with_carriers(self.graph, computing, self.kinds)
        swept = [
            self._new("calibrator", f"all layers, {method}", method, everything)
            for method in self.spec.methods
        ]
        for candidate in swept:
            self.measured.score(candidate)
        if not self.workshop.timed:
            self._by_accuracy_alone(max(swept, key=self.measured.quality))
            return
        methods = [c.method for c in sorted(swept, key=self.measured.quality, reverse=True)]
        placed = self._placements(methods[0])
        self.measured.race([usual, *placed])
        start = min(placed, key=self.measured.ratio)
        if self.spec.goal == "size":
            start = placed[-1]
        for method in methods[:2]:
            grown = self._grow(self._like(start, "placement", method))
            if self.measured.holds(grown):
                break
        if held := self._held():
            self._refine(min(held, key=self.measured.ratio))

    def _by_accuracy_alone(self, best: Candidate) -> None:
        """As many layers as the budget bears, where no time can be measured."""
        if self.measured.holds(best):
            return
        for candidate in reversed(self._placements(best.method)):
            self.measured.score(candidate)
            if self.measured.holds(candidate):
                break
        self._grow(best)  # dearer, and may keep more layers

    def _placements(self, method: str) -> list[Candidate]:
        all_layers = len(self.graph.computing)
        return [
            self._new(
                "placement",
                f"the {len(layers)} layers that compute most per value"
                if len(layers) < all_layers
                else f"all layers, {method}",
                method,
                placement.with_carriers(self.graph, layers, self.kinds),
            )
            for layers in placement.first_layers(self.graph)
        ]

    def _grow(self, start: Candidate) -> Candidate:
        """Leave the parts that lose most in float, one after the other, until the budget holds."""
        self.measured.score(start)
        if self.measured.holds(start):
            return start
        layers = self.measured.layers(start)
        pieces = [p for p in sensitivity.parts(self.graph, layers) if len(p) < len(layers)]
        without = [
            self._new(
                "sensitivity", f"{start.label}, without {placement.name_of(self.graph, piece)}",
                start.method, placement.with_carriers(
                    self.graph, set(layers) - set(piece), self.kinds
                ),
            )
            for piece in pieces
        ]  # fmt: skip
        for candidate in without:
            self.measured.score(candidate)
        self.measured.race(without, anchor=start)
        gains = [
            Sensitivity(
                part=piece[0],
                layers=len(piece),
                gain=self.measured.value(candidate, "agreement")
                - self.measured.value(start, "agreement"),
                ratio=_divided(self.measured.ratio(candidate), self.measured.ratio(start)),
            )
            for piece, candidate in zip(pieces, without, strict=True)
        ]
        order = sorted(range(len(gains)), key=lambda n: -gains[n].gain)
        self.sensitivity = tuple(gains[n] for n in order)
        current = start
        for n in order:
            if gains[n].gain <= 0:
                break
            name = placement.name_of(self.graph, pieces[n])
            grown = self._new(
                "float_block", f"{current.label}, {name} in float", start.method,
                placement.with_carriers(
                    self.graph, set(self.measured.layers(current)) - set(pieces[n]), self.kinds
                ),
            )  # fmt: skip
            if not self.measured.layers(grown):
                break
            self.measured.score(grown)
            self.measured.race([grown], anchor=start)
            better = self.measured.quality(grown) > self.measured.quality(current)
            if not better and not self.measured.holds(grown):
                continue
            current = grown
            if self.measured.holds(current):
                break
        return current

    def _refine(self, held: Candidate) -> None:
        """Other ranges for the chosen layers; then parts in or out where that is faster."""
        for method in self.spec.methods:
            self.measured.score(self._like(held, "refine", method))
        same = [c for c in self._held() if c.nodes == held.nodes]
        best = max(same, key=self.measured.quality)
        self.measured.race([best])
        for _ in range(2):
            steps = placement.changes(self.graph, best.nodes)
            toggled = [
                self._new(
                    "refine", f"{best.label}, {step.label}", best.method,
                    placement.changed(self.graph, best.nodes, [step]),
                )
                for step in steps
            ]  # fmt: skip
            self.measured.race(toggled, anchor=best)
            faster = [
                n for n, c in enumerate(toggled)
                if self.measured.ratio(c) < self.measured.ratio(best) * (1 - WORTH)
            ]  # fmt: skip
            if not faster:
                break
            together = self._new(
                "refine", f"{best.label}, all faster changes at once", best.method,
                placement.changed(self.graph, best.nodes, [steps[n] for n in faster]),
            )  # fmt: skip
            self.measured.race([together], anchor=best)
            fronts = sorted([together, *(toggled[n] for n in faster)], key=self.measured.ratio)
            for candidate in fronts:
                if self.measured.ratio(candidate) < self.measured.ratio(best) * (1 - WORTH):
                    self.measured.score(candidate)
                    if self.measured.holds(candidate):
                        break
            else:
                break
            best = candidate

    def _held(self) -> list[Candidate]:
        return [c for c in self.measured.tried.values() if self.measured.holds(c)]

    def _new(self, step: str, label: str, method: str, nodes: Iterable[str]) -> Candidate:
        candidate = Candidate(method=method, nodes=frozenset(nodes), label=label, step=step)
        return self.measured.tried.get(candidate.key, candidate)

    def _like(self, other: Candidate, step: str, method: str) -> Candidate:
        label = other.label if method == other.method else f"{other.label}, {method}"
        return self._new(step, label, method, other.nodes)

    def _best(self) -> Candidate:
        """Accurate enough and fastest (or smallest); else the most accurate."""
        scored = [c for c in self.measured.tried.values() if "agreement" in self.measured.known(c)]
        if not scored:
            raise EngineworksError(
                f"the search for INT8 ended before anything was scored ({self.spec.limit_s:g} s)",
                hint="raise int8.limit_s",
            )
        held = [c for c in scored if self.measured.holds(c)]
        if not held:
            return max(scored, key=self.measured.quality)
        if not self.workshop.timed:
            return max(held, key=lambda c: (len(self.measured.layers(c)), self.measured.quality(c)))
        if self.spec.goal == "size":
            return min(
                held, key=lambda c: (self.measured.value(c, "size_bytes"), self.measured.ratio(c))
            )
        places: dict[frozenset[str], Candidate] = {}
        for candidate in sorted(held, key=self.measured.ratio):
            places.setdefault(candidate.nodes, candidate)
        fronts = list(places.values())[:4]
        with contextlib.suppress(Spent):
            self.measured.race(fronts, last=True)
        fastest = min(self.measured.final(c) for c in fronts)
        equal = {c.nodes for c in fronts if self.measured.final(c) <= fastest * (1 + WORTH)}
        return max((c for c in held if c.nodes in equal), key=self.measured.quality)


def _divided(ratio: float, base: float) -> float | None:
    """One latency over another; None when one of them could not be timed."""
    return ratio / base if np.isfinite(ratio) and np.isfinite(base) else None
