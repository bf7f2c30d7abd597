"""Measures the candidates of a search: built, scored and timed for real, each at most once.

Everything is in a journal, so that a search that is run again decides on what it decided on before.
Knows how good and how fast a candidate is; not which ones to try.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.bench import compare, protocol
from engineworks.calibrate.collect import Statistics
from engineworks.calibrate.derive import derive
from engineworks.codec import digest
from engineworks.errors import ArtifactError, BuildError
from engineworks.facts.int8 import Trial
from engineworks.manifest import Artifact
from engineworks.qdq import pairs
from engineworks.qdq.graph import Graph
from engineworks.qdq.ranges import Ranges
from engineworks.search.journal import Journal
from engineworks.search.trial import Answers, Workshop, agreement
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


class Spent(Exception):
    """The search's time or evaluations are spent."""


class Measurements:
    """What is known of the candidates of one search, measured when it is asked for first."""

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
        self.tried: dict[str, Candidate] = {}
        self.spent = 0
        """Evaluations so far."""
        self._ranges: dict[str, Ranges] = {}
        self._until = time.monotonic() + spec.limit_s
        self._float: Answers | None = None
        self._engines: dict[str, Artifact] = {}
        self._shelf = Path()

    @contextlib.contextmanager
    def shelf(self) -> Iterator[None]:
        """Measure inside: engines lie in a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            self._shelf = Path(folder)
            yield

    @property
    def reference(self) -> float | None:
        """The task metric of the float engine, where there is one."""
        return self._float.metric if self._float else None

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

    def score(self, candidate: Candidate) -> None:
        """Build it and hold its answers against the float engine's.

        Raises:
            Spent: There is no time left for it.
            EngineworksError: It is the first, and cannot be built.
        """
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
            self.journal.put(f"score {candidate.key}", {"agreement": -1.0, "elapsed_s": 0.0})
            return
        assert self._float is not None  # noqa: S101 - `run` has asked it first
        value = {
            "metric": answers.metric,
            "agreement": agreement(self._float, answers),
            "agrees": answers.agrees,
            "size_bytes": engine.size_bytes,
            "elapsed_s": time.monotonic() - started,
        }
        self.journal.put(f"score {candidate.key}", value)
        log.info("%s: %s: %s", candidate.step, candidate.label, value)

    def _scored_any(self) -> bool:
        return any("agreement" in self.known(candidate) for candidate in self.tried.values())

    def score_float(self) -> None:
        """Ask the float engine, which all others are held against."""
        with self.workshop.open(self._engine(None)) as session:
            self._float = self.workshop.answers(session)

    def race(
        self, candidates: list[Candidate], *, anchor: Candidate | None = None, last: bool = False
    ) -> None:
        """Time candidates against the float engine, all in alternating blocks.

        Many open engines disturb one another, so ratios of two races do not compare. An anchor runs
        in this one too, and its ratio of before sets the scale.

        Args:
            candidates: Those that were timed before are left out.
            anchor: What the others are measured against; timed first if it was not.
            last: Longer, and kept apart: a search that is run again must decide on what it decided
                on before.

        Raises:
            Spent: There is no time left for it.
        """
        word, rounds = ("final", FINAL_ROUNDS) if last else ("time", ROUNDS)
        if not self.workshop.timed:
            return
        if anchor is not None:
            self.race([anchor], last=last)
        for candidate in candidates:
            self.tried.setdefault(candidate.key, candidate)
        unique = {candidate.placement_key: candidate for candidate in reversed(candidates)}
        waiting = [c for k, c in unique.items() if self.journal.get(f"{word} {k}") is None]
        if not waiting:
            return
        self._spend()
        started = time.monotonic()
        medians = self._alternated(waiting, anchor, rounds, word)
        scale = 1.0
        if anchor is not None and "anchor" in medians:
            known = self.journal.get(f"{word} {anchor.placement_key}") or {}
            scale = known["ratio"] / _best_ratio(medians["anchor"], medians["float"])[0]
        timed = [candidate for candidate in waiting if candidate.key in medians]
        for candidate in timed:
            ratio, interval = _best_ratio(medians[candidate.key], medians["float"])
            ratio, interval = ratio * scale, (interval[0] * scale, interval[1] * scale)
            value = {"ratio": ratio, "ci95": interval,
                     "elapsed_s": (time.monotonic() - started) / len(timed)}  # fmt: skip
            self.journal.put(f"{word} {candidate.placement_key}", value)
            log.info("%s: %s: %.3f of float", candidate.step, candidate.label, ratio)

    def _alternated(
        self, candidates: list[Candidate], anchor: Candidate | None, rounds: int, word: str
    ) -> dict[str, Array]:
        """Block medians of the float engine ("float"), the anchor ("anchor") and the candidates.

        What cannot be built, and what there is no time to build, is left out.
        """
        with contextlib.ExitStack() as stack:

            def opened(candidate: Candidate | None) -> Any:
                return self.workshop.call(
                    stack.enter_context(self.workshop.open(self._engine(candidate)))
                )

            calls = {"float": opened(None)}
            if anchor is not None and self.journal.get(f"{word} {anchor.placement_key}"):
                calls["anchor"] = opened(anchor)
            for candidate in candidates:
                if time.monotonic() > self._until:
                    break  # those that are built are timed; then it ends
                try:
                    calls[candidate.key] = opened(candidate)
                except (BuildError, ArtifactError) as error:
                    log.warning("%s: %s: %s", candidate.step, candidate.label, error.message)
            for call in calls.values():
                protocol.warm_up(call, limit_s=1.0)
            return compare.alternate(calls, rounds)

    def _spend(self) -> None:
        if time.monotonic() > self._until:
            raise Spent(f"the time limit of {self.spec.limit_s:g} s was reached")
        if self.spent >= self.spec.evaluations:
            raise Spent(f"the limit of {self.spec.evaluations} evaluations was reached")
        self.spent += 1

    def known(self, candidate: Candidate) -> dict[str, Any]:
        """All that was measured of it."""
        scored = self.journal.get(f"score {candidate.key}") or {}
        timed = self.journal.get(f"time {candidate.placement_key}") or {}
        cost = scored.get("elapsed_s", 0.0) + timed.get("elapsed_s", 0.0)
        return {**scored, **timed, "elapsed_s": cost}

    def value(self, candidate: Candidate, name: str) -> float:
        """One of its figures."""
        return float(self.known(candidate)[name])

    def ratio(self, candidate: Candidate) -> float:
        """Its latency / that of the float engine; infinite: not known."""
        return float(self.known(candidate).get("ratio", np.inf))

    def final(self, candidate: Candidate) -> float:
        """The same, by the longer race of the last few."""
        known = self.journal.get(f"final {candidate.placement_key}")
        return float(known["ratio"]) if known else self.ratio(candidate)

    def quality(self, candidate: Candidate) -> tuple[float, float]:
        """To order by: the task metric, then the agreement with the float engine."""
        known = self.known(candidate)
        metric = known.get("metric")
        return (-1.0 if metric is None else metric, known.get("agreement", -1.0))

    def drop(self, candidate: Candidate) -> float | None:
        """Loss of the task metric against the float engine; None: there is none."""
        metric = self.known(candidate).get("metric")
        if metric is None or self._float is None or self._float.metric is None:
            return None
        return float(self._float.metric - metric)

    def holds(self, candidate: Candidate) -> bool:
        """Whether it is accurate enough, as the verdict will see it."""
        known = self.known(candidate)
        if "agreement" not in known:
            return False
        drop = self.drop(candidate)
        if drop is None:
            return bool(known.get("agrees", False))
        return self.max_drop is None or drop <= self.max_drop + ROUNDING

    def trial(self, candidate: Candidate) -> Trial:
        """What is known of it, for the report."""
        known = self.known(candidate)
        final = self.journal.get(f"final {candidate.placement_key}") or {}
        cost = known["elapsed_s"] + final.get("elapsed_s", 0.0)
        known = {**known, **final}
        interval = known.get("ci95")
        return Trial(
            step=candidate.step,
            label=candidate.label,
            method=candidate.method,
            integer_layers=len(self.layers(candidate)),
            layers=len(self.graph.computing),
            metric=known.get("metric"),
            drop=self.drop(candidate),
            agreement=known.get("agreement"),
            ratio=known.get("ratio"),
            ci95=(interval[0], interval[1]) if interval else None,
            size_bytes=known.get("size_bytes"),
            elapsed_s=cost,
            holds=self.holds(candidate),
        )

    def trials(self) -> tuple[Trial, ...]:
        """All that were measured; the last may not be: the search was stopped in front of it."""
        return tuple(self.trial(c) for c in self.tried.values() if len(self.known(c)) > 1)

    def layers(self, candidate: Candidate) -> tuple[str, ...]:
        """Its layers in integers."""
        return tuple(node for node in self.graph.computing if node in candidate.nodes)


def _best_ratio(mine: Array, floats: Array) -> tuple[float, tuple[float, float]]:
    """(latency / latency of the float engine, its 95 % interval).

    The best blocks tell engines apart where the machine is not quiet; one lucky block on a busy
    machine must not say what no other block does.
    """
    _, interval = compare.ratio(mine, floats)
    return min(max(float(mine.min() / floats.min()), interval[0]), interval[1]), interval
