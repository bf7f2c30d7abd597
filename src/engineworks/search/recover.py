"""The ladder from the usual INT8, which may lose too much or gain nothing, to one worth shipping.

Every rung is built, scored and timed for real (`trial.py`). The order: what everybody gets; all
ways to choose ranges; the layers that integers pay for on this machine; the parts that lose
most, left in float; last, what still makes it faster. Bounded by time and evaluations, resumed
from its journal. Knows no vendor.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.bench import compare, protocol
from engineworks.calibrate.collect import Statistics
from engineworks.calibrate.derive import derive
from engineworks.codec import digest
from engineworks.errors import ArtifactError, BuildError, EngineworksError
from engineworks.facts.int8 import Rung, Sensitivity
from engineworks.manifest import Artifact
from engineworks.qdq import pairs
from engineworks.qdq.graph import Graph
from engineworks.qdq.ranges import Ranges
from engineworks.search import placement, sensitivity
from engineworks.search.journal import Journal
from engineworks.search.trial import Answers, Workshop, fidelity
from engineworks.specs import Int8Spec
from engineworks.targets._base import Int8Rules
from engineworks.verdict import ROUNDING

Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

#: Rounds of alternating blocks while searching, and for the last few. The search ranks by the
#: best block of each (its error on a busy machine is a third of a median's); the verdict that
#: follows has an interval.
ROUNDS, FINAL_ROUNDS = 9, 15

#: Engines that are kept while searching: most candidates are scored and timed soon after.
SHELF = 24

#: A change that wins less than this is noise.
WORTH = 0.01

#: The one way to round weights where activations have no ranges.
WEIGHTS = "minmax"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One integer graph: how its ranges are chosen, and which nodes are integers."""

    method: str
    nodes: frozenset[str]
    label: str = field(compare=False)
    step: str = field(compare=False)

    @property
    def key(self) -> str:
        """What identifies it in the journal."""
        return digest([self.method, sorted(self.nodes)])

    @property
    def placement_key(self) -> str:
        """What its speed depends on: other ranges of the same nodes take the same time."""
        return digest(sorted(self.nodes))


class _Stopped(Exception):
    """The search's time or evaluations are spent."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a search."""

    candidate: Candidate
    rung: Rung
    rungs: tuple[Rung, ...]
    sensitivity: tuple[Sensitivity, ...]
    reference: float | None
    evaluations: int
    stopped: str


class Search:
    """One target's search."""

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
        self.graph, self.statistics, self.rules = graph, statistics, rules
        self.workshop, self.spec, self.max_drop = workshop, spec, max_drop
        self.journal = journal
        # Where integers do not simply pass, every carrier requantizes: it costs accuracy, and
        # whether it pays is tried at the end.
        self.kinds = placement.JOINING if rules.scheme.passing else frozenset()
        self.tried: dict[str, Candidate] = {}
        self.sensitivity: tuple[Sensitivity, ...] = ()
        self._ranges: dict[str, Ranges] = {}
        self._until = time.monotonic() + spec.limit_s
        self._spent = 0
        self._float: Answers | None = None
        self._engines: dict[str, Artifact] = {}
        self._shelf = Path()

    def run(self) -> Outcome:
        """Search until done or out of time.

        Raises:
            EngineworksError: Not even the first candidate could be built.
        """
        stopped = ""
        with tempfile.TemporaryDirectory() as folder:
            self._shelf = Path(folder)
            self._answers_of_float()
            try:
                self._climb()
            except _Stopped as stop:
                stopped = str(stop)
            best = self._best()
        return Outcome(
            candidate=best,
            rung=self._rung(best),
            # The last one may be unmeasured: the search was stopped in front of it.
            rungs=tuple(self._rung(c) for c in self.tried.values() if len(self._known(c)) > 1),
            sensitivity=self.sensitivity,
            reference=self._float.metric if self._float else None,
            evaluations=self._spent,
            stopped=stopped,
        )

    # The ladder -------------------------------------------------------------------------------

    def _climb(self) -> None:
        computing, between = self.graph.computing, self.graph.between
        if self.rules.scheme.activation == "float":
            self._grow(self._new("usual", "all weights", WEIGHTS, computing))
            return
        usual = self._new("usual", "all operators, MinMax", "minmax", (*computing, *between))
        self._score(usual)
        everything = placement.with_carriers(self.graph, computing, self.kinds)
        swept = [
            self._new("calibrator", f"all layers, {method}", method, everything)
            for method in self.spec.methods
        ]
        for candidate in swept:
            self._score(candidate)
        if not self.workshop.timed:
            self._by_accuracy_alone(max(swept, key=self._quality))
            return
        methods = [c.method for c in sorted(swept, key=self._quality, reverse=True)]
        placed = self._placements(methods[0])
        self._race([usual, *placed])
        start = min(placed, key=self._ratio)
        if self.spec.goal == "size":
            start = placed[-1]
        for method in methods[:2]:
            grown = self._grow(self._like(start, "placement", method))
            if self._holds(grown):
                break
        held = [c for c in self.tried.values() if self._holds(c)]
        if held:
            self._polish(min(held, key=self._ratio))

    def _by_accuracy_alone(self, best: Candidate) -> None:
        """As many layers as the budget bears, where no time can be measured."""
        if self._holds(best):
            return
        for candidate in reversed(self._placements(best.method)):
            self._score(candidate)
            if self._holds(candidate):
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
        self._score(start)
        if self._holds(start):
            return start
        layers = self._layers(start)
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
            self._score(candidate)
        self._race(without, anchor=start)
        found = [
            Sensitivity(
                part=piece[0],
                layers=len(piece),
                gain=self._value(candidate, "fidelity") - self._value(start, "fidelity"),
                ratio=_divided(self._ratio(candidate), self._ratio(start)),
            )
            for piece, candidate in zip(pieces, without, strict=True)
        ]
        order = sorted(range(len(found)), key=lambda n: -found[n].gain)
        self.sensitivity = tuple(found[n] for n in order)
        current = start
        for n in order:
            if found[n].gain <= 0:
                break
            name = placement.name_of(self.graph, pieces[n])
            grown = self._new(
                "island", f"{current.label}, {name} in float", start.method,
                placement.with_carriers(
                    self.graph, set(self._layers(current)) - set(pieces[n]), self.kinds
                ),
            )  # fmt: skip
            if not self._layers(grown):
                break
            self._score(grown)
            self._race([grown], anchor=start)
            if self._quality(grown) <= self._quality(current) and not self._holds(grown):
                continue
            current = grown
            if self._holds(current):
                break
        return current

    def _polish(self, held: Candidate) -> None:
        """Other ranges for the chosen layers; then parts in or out where that is faster."""
        for method in self.spec.methods:
            self._score(self._like(held, "polish", method))
        same = [c for c in self.tried.values() if c.nodes == held.nodes and self._holds(c)]
        best = max(same, key=self._quality)
        self._race([best])
        for _ in range(2):
            steps = placement.changes(self.graph, best.nodes)
            toggled = [
                self._new(
                    "polish", f"{best.label}, {step.label}", best.method,
                    placement.changed(self.graph, best.nodes, [step]),
                )
                for step in steps
            ]  # fmt: skip
            self._race(toggled, anchor=best)
            faster = [
                n for n, c in enumerate(toggled)
                if self._ratio(c) < self._ratio(best) * (1 - WORTH)
            ]  # fmt: skip
            if not faster:
                break
            together = self._new(
                "polish", f"{best.label}, all faster changes at once", best.method,
                placement.changed(self.graph, best.nodes, [steps[n] for n in faster]),
            )  # fmt: skip
            self._race([together], anchor=best)
            fronts = sorted([together, *(toggled[n] for n in faster)], key=self._ratio)
            for candidate in fronts:
                if self._ratio(candidate) < self._ratio(best) * (1 - WORTH):
                    self._score(candidate)
                    if self._holds(candidate):
                        break
            else:
                break
            best = candidate

    # One candidate ----------------------------------------------------------------------------

    def _new(self, step: str, label: str, method: str, nodes: Iterable[str]) -> Candidate:
        candidate = Candidate(method=method, nodes=frozenset(nodes), label=label, step=step)
        return self.tried.get(candidate.key, candidate)

    def _like(self, other: Candidate, step: str, method: str) -> Candidate:
        label = other.label if method == other.method else f"{other.label}, {method}"
        return self._new(step, label, method, other.nodes)

    def _layers(self, candidate: Candidate) -> tuple[str, ...]:
        return tuple(node for node in self.graph.computing if node in candidate.nodes)

    def model(self, candidate: Candidate) -> Any:
        """The candidate's graph (onnx.ModelProto)."""
        scheme, method = self.rules.scheme, candidate.method
        if method not in self._ranges:
            self._ranges[method] = derive(self.graph, self.statistics, method, scheme)
        model = pairs.emit(self.graph, self._ranges[method], candidate.nodes, scheme)
        if self.rules.rewrite is not None:
            self.rules.rewrite(model)
        return model

    def _engine(self, candidate: Candidate | None) -> Artifact:
        """The candidate's engine, or the float one, built at most once while it is in reach."""
        import onnx

        key = candidate.key if candidate else "float"
        if key in self._engines:
            return self._engines[key]
        if candidate is None:
            built = self.workshop.build(
                self.graph.path, self.workshop.target.precisions[0], self._shelf / key
            )
        else:
            path = self._shelf / "candidate.onnx"
            onnx.save(self.model(candidate), str(path))
            built = self.workshop.build(path, self.workshop.precision, self._shelf / key)
            if len(self._engines) > SHELF:
                oldest = next(k for k in self._engines if k != "float")
                shutil.rmtree(self._shelf / oldest)
                del self._engines[oldest]
        self._engines[key] = built
        return built

    def _score(self, candidate: Candidate) -> None:
        self.tried.setdefault(candidate.key, candidate)
        if self.journal.get(f"score {candidate.key}") is not None:
            return
        self._spend()
        started = time.monotonic()
        try:
            engine = self._engine(candidate)
            with self.workshop.open(engine) as session:
                answers = self.workshop.answers(session)
        except (BuildError, ArtifactError) as error:
            if not self._scored_any():
                raise
            # One graph that this runtime cannot take is no reason to give up the others.
            log.warning("%s: %s: %s", candidate.step, candidate.label, error.message)
            self.journal.put(f"score {candidate.key}", {"fidelity": -1.0, "elapsed_s": 0.0})
            return
        assert self._float is not None  # noqa: S101 - `run` has asked it first
        value = {
            "metric": answers.metric,
            "fidelity": fidelity(self._float, answers),
            "agrees": answers.agrees,
            "size_bytes": engine.size_bytes,
            "elapsed_s": time.monotonic() - started,
        }
        self.journal.put(f"score {candidate.key}", value)
        log.info("%s: %s: %s", candidate.step, candidate.label, value)

    def _scored_any(self) -> bool:
        return any("fidelity" in self._known(candidate) for candidate in self.tried.values())

    def _answers_of_float(self) -> None:
        with self.workshop.open(self._engine(None)) as session:
            self._float = self.workshop.answers(session)

    def _race(
        self,
        candidates: list[Candidate],
        rounds: int = ROUNDS,
        word: str = "time",
        anchor: Candidate | None = None,
    ) -> None:
        """Time candidates against the float engine, all in alternating blocks.

        Many open engines disturb one another, so ratios of two races do not compare. An anchor runs
        in this one too, and its ratio of before sets the scale.

        Args:
            candidates: Those that were timed before under the same word are left out.
            rounds: Blocks of each.
            anchor: What the others are measured against; timed first if it was not.
            word: `final` keeps the last, longer comparison apart: a search that is run again
                must decide on what it decided on before.
        """
        if not self.workshop.timed:
            return
        if anchor is not None:
            self._race([anchor], rounds, word)
        for candidate in candidates:
            self.tried.setdefault(candidate.key, candidate)
        unique = {candidate.placement_key: candidate for candidate in reversed(candidates)}
        waiting = [c for k, c in unique.items() if self.journal.get(f"{word} {k}") is None]
        if not waiting:
            return
        self._spend()
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            calls = {}
            session = stack.enter_context(self.workshop.open(self._engine(None)))
            calls["float"] = self.workshop.call(session)
            if anchor is not None and self.journal.get(f"{word} {anchor.placement_key}"):
                session = stack.enter_context(self.workshop.open(self._engine(anchor)))
                calls["anchor"] = self.workshop.call(session)
            for candidate in list(waiting):
                if time.monotonic() > self._until:
                    waiting.remove(candidate)  # those that are built are timed; then it ends
                    continue
                try:
                    engine = self._engine(candidate)
                    session = stack.enter_context(self.workshop.open(engine))
                    calls[candidate.key] = self.workshop.call(session)
                except (BuildError, ArtifactError) as error:
                    log.warning("%s: %s: %s", candidate.step, candidate.label, error.message)
                    waiting.remove(candidate)
            for call in calls.values():
                protocol.warm_up(call, limit_s=1.0)
            medians = compare.alternate(calls, rounds)
        scale = 1.0
        if anchor is not None and "anchor" in calls:
            known = self.journal.get(f"{word} {anchor.placement_key}") or {}
            scale = known["ratio"] / _best_ratio(medians["anchor"], medians["float"])[0]
        for candidate in waiting:
            ratio, interval = _best_ratio(medians[candidate.key], medians["float"])
            ratio, interval = ratio * scale, (interval[0] * scale, interval[1] * scale)
            value = {"ratio": ratio, "ci95": interval,
                     "elapsed_s": (time.monotonic() - started) / len(waiting)}  # fmt: skip
            self.journal.put(f"{word} {candidate.placement_key}", value)
            log.info("%s: %s: %.3f of float", candidate.step, candidate.label, ratio)

    def _spend(self) -> None:
        if time.monotonic() > self._until:
            raise _Stopped(f"the time limit of {self.spec.limit_s:g} s was reached")
        if self._spent >= self.spec.evaluations:
            raise _Stopped(f"the limit of {self.spec.evaluations} evaluations was reached")
        self._spent += 1

    # What is known of a candidate -------------------------------------------------------------

    def _known(self, candidate: Candidate) -> dict[str, Any]:
        scored = self.journal.get(f"score {candidate.key}") or {}
        timed = self.journal.get(f"time {candidate.placement_key}") or {}
        cost = scored.get("elapsed_s", 0.0) + timed.get("elapsed_s", 0.0)
        return {**scored, **timed, "elapsed_s": cost}

    def _value(self, candidate: Candidate, name: str) -> float:
        return float(self._known(candidate)[name])

    def _ratio(self, candidate: Candidate) -> float:
        return float(self._known(candidate).get("ratio", np.inf))

    def _final(self, candidate: Candidate) -> float:
        known = self.journal.get(f"final {candidate.placement_key}")
        return float(known["ratio"]) if known else self._ratio(candidate)

    def _quality(self, candidate: Candidate) -> tuple[float, float]:
        known = self._known(candidate)
        metric = known.get("metric")
        return (-1.0 if metric is None else metric, known.get("fidelity", -1.0))

    def _drop(self, candidate: Candidate) -> float | None:
        metric = self._known(candidate).get("metric")
        if metric is None or self._float is None or self._float.metric is None:
            return None
        return float(self._float.metric - metric)

    def _holds(self, candidate: Candidate) -> bool:
        known = self._known(candidate)
        if "fidelity" not in known:
            return False
        drop = self._drop(candidate)
        if drop is None:
            return bool(known.get("agrees", False))
        return self.max_drop is None or drop <= self.max_drop + ROUNDING

    def _rung(self, candidate: Candidate) -> Rung:
        known = self._known(candidate)
        final = self.journal.get(f"final {candidate.placement_key}") or {}
        cost = known["elapsed_s"] + final.get("elapsed_s", 0.0)
        known = {**known, **final}
        interval = known.get("ci95")
        return Rung(
            step=candidate.step,
            label=candidate.label,
            method=candidate.method,
            integer_layers=len(self._layers(candidate)),
            layers=len(self.graph.computing),
            metric=known.get("metric"),
            drop=self._drop(candidate),
            fidelity=known.get("fidelity"),
            ratio=known.get("ratio"),
            ci95=(interval[0], interval[1]) if interval else None,
            size_bytes=known.get("size_bytes"),
            elapsed_s=cost,
            holds=self._holds(candidate),
        )

    def _best(self) -> Candidate:
        """Accurate enough and fastest (or smallest); else the most accurate."""
        scored = [c for c in self.tried.values() if "fidelity" in self._known(c)]
        if not scored:
            raise EngineworksError(
                f"the search for INT8 ended before anything was scored ({self.spec.limit_s:g} s)",
                hint="raise int8.limit_s",
            )
        held = [c for c in scored if self._holds(c)]
        if not held:
            return max(scored, key=self._quality)
        if not self.workshop.timed:
            return max(held, key=lambda c: (len(self._layers(c)), self._quality(c)))
        if self.spec.goal == "size":
            return min(held, key=lambda c: (self._value(c, "size_bytes"), self._ratio(c)))
        places: dict[frozenset[str], Candidate] = {}
        for candidate in sorted(held, key=self._ratio):
            places.setdefault(candidate.nodes, candidate)
        fronts = list(places.values())[:4]
        with contextlib.suppress(_Stopped):
            self._race(fronts, FINAL_ROUNDS, word="final")
        fastest = min(self._final(c) for c in fronts)
        equal = {c.nodes for c in fronts if self._final(c) <= fastest * (1 + WORTH)}
        return max((c for c in held if c.nodes in equal), key=self._quality)


def _best_ratio(mine: Array, floats: Array) -> tuple[float, tuple[float, float]]:
    """(latency / latency of the float engine, its 95 % interval).

    The best blocks tell engines apart where the machine is not quiet; one lucky block on a busy
    machine must not say what no other block does.
    """
    _, interval = compare.ratio(mine, floats)
    return min(max(float(mine.min() / floats.min()), interval[0]), interval[1]), interval


def _divided(ratio: float, base: float) -> float | None:
    """One latency over another; None when one of them could not be timed."""
    return ratio / base if np.isfinite(ratio) and np.isfinite(base) else None
