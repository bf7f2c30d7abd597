"""Tries candidates for real: the target's own builder, the runtime's own session and judge.

What scores well here is what will be shipped, byte for byte of the same recipe. Knows how to
build, score and time one candidate; not which ones to try.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.evaluate import judge, meaning, parity, tasks
from engineworks.evaluate.groups import EQUAL_DB
from engineworks.evaluate.meaning import Judge
from engineworks.facts.data import PinnedData
from engineworks.facts.engine import Meaning
from engineworks.facts.host import HostCard
from engineworks.manifest import Artifact, Provenance, TensorSpec
from engineworks.runtime.heads import Decoder
from engineworks.runtime.session import Session, open_engine
from engineworks.specs import Preprocess, Size, TaskSpec
from engineworks.store import LocalStore
from engineworks.targets._base import BuildInput, Target

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ScoringSet:
    """What candidates are held against: images with answers, or recorded outputs."""

    data: PinnedData | None
    task: TaskSpec
    labels: tuple[str, ...]
    preprocess: Preprocess
    size: Size
    decode: Decoder | None
    inputs: Array
    """float32 (n, channels, height, width): samples for timing, and for judging without data."""
    wanted: Mapping[str, Array]
    """The source model's outputs for `inputs`."""
    judge: Judge | None = None
    """Where no labels judge: what the source's answers mean, as the verdict will see it."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one engine answers on the scoring set."""

    metric: float | None
    predictions: list[Any]
    task: TaskSpec
    """What the predictions are answers to."""
    snr_db: float
    """Lowest signal-to-noise ratio of its outputs for the recorded inputs, over all groups of
    channels."""
    meaning: Meaning | None = None
    agrees: bool = True
    """Without a metric: whether its numbers, and what they mean, hold the verdict's limits."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Builds, opens and measures engines of one target on this machine."""

    target: Target
    options: dict[str, Any]
    host: HostCard
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scoring_set: ScoringSet
    threads: int
    precision: str
    """Of the engines that are searched for: how their numbers are judged."""
    timed: bool = True
    """False where another runtime stands in for the target's: its times say nothing."""

    def build(self, onnx: Path, precision: str, folder: Path) -> Artifact:
        """Build an engine into a store of its own, in `folder`.

        Raises:
            BuildError: The vendor's builder refused the graph.
        """
        with tempfile.TemporaryDirectory() as work:
            built = self.target.build(
                BuildInput(
                    onnx=onnx,
                    inputs=self.inputs,
                    outputs=self.outputs,
                    precision=precision,
                    options=self.options,
                    host=self.host,
                    work=Path(work),
                    draft=True,
                )
            )
            return LocalStore(folder).put(
                built.files,
                kind="engine",
                name="candidate",
                entry=built.entry,
                inputs=self.inputs,
                outputs=self.outputs,
                requires=built.requires,
                details=built.details,
                provenance=Provenance(stage="trial"),
            )

    def open(self, engine: Artifact) -> Session:
        """Open an engine of `build` as a device will; close it by leaving its `with` block."""
        return open_engine(Path(engine.uri), threads=self.threads)

    def answers(self, session: Session) -> Answers:
        """Score an engine on the scoring set."""
        scoring = self.scoring_set
        name = session.inputs[0].name

        def infer(batch: Array) -> dict[str, Array]:
            outputs = session.infer({name: np.ascontiguousarray(batch)})
            return {key: np.array(value) for key, value in outputs.items()}

        metric: float | None = None
        predictions: list[Any] = []
        if scoring.data is not None and scoring.task.judged:
            metrics, predictions = judge.judge(
                infer, scoring.data, scoring.task, scoring.labels, scoring.preprocess, scoring.size,
                scoring.decode,
            )  # fmt: skip
            metric = metrics[tasks.metric(scoring.task)]
        judged = scoring.judge.compare(scoring.judge.answers(infer)) if scoring.judge else None
        limit, others = meaning.limits(self.precision, judged)
        agreed = parity.compare(infer, scoring.inputs, scoring.wanted, [1], limit, others)
        return Answers(
            metric=metric,
            predictions=predictions,
            task=scoring.task,
            snr_db=min((row.group_snr_db for row in agreed.rows), default=EQUAL_DB),
            meaning=judged,
            agrees=agreed.holds and (judged is None or judged.holds),
        )

    def call(self, session: Session) -> Any:
        """One inference on a recorded input, for timing."""
        feeds = {session.inputs[0].name: np.ascontiguousarray(self.scoring_set.inputs[:1])}
        return partial(session.infer, feeds)


def agreement(reference: Answers, answers: Answers) -> float:
    """Agreement of two engines in 0..1: of what they see, or of their outputs without a task."""
    if answers.meaning is not None and answers.meaning.agreement is not None:
        return answers.meaning.agreement
    if reference.predictions:
        kind = tasks.load(reference.task.kind)
        return kind.agreement(reference.predictions, answers.predictions)
    return float(1.0 - 10.0 ** (-max(0.0, answers.snr_db) / 20.0))
