"""What a shadow run found: a candidate beside the champion, on the same frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: Form of the record; raised when a change makes older ones unreadable.
SCHEMA = 1

#: `same`, `different`: there was nothing to judge by. `failed`: the candidate's process ended.
Decision = Literal[
    "better", "worse", "not worse", "not decided", "same", "different", "failed"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShadowEngine:
    """Which engine it was."""

    name: str
    target: str
    precision: str
    sha256: str
    """Of its manifest; of an ONNX file that was the reference, of its bytes."""


@dataclass(frozen=True, kw_only=True)
class ShadowFrames:
    """What became of the frames."""

    seen: int = 0
    """By the champion: all of them."""
    sampled: int = 0
    compared: int = 0
    """Answered by both, and counted."""
    over_share: int = 0
    """Sampled and left out, since the candidate had used up its share of the CPU."""
    busy: int = 0
    """Sampled and left out, since the candidate was still at an earlier one."""
    held_back: int = 0
    """Sampled and left out, since the champion had become slower than was allowed."""
    unanswered: int = 0
    """Compared, and the candidate raised an error: no answer is one without an object."""


@dataclass(frozen=True, kw_only=True)
class ShadowAgreement:
    """What the two see differently, whoever is right; objects are visible from a score of 0.3."""

    objects: bool = True
    """Whether answers are of objects; else of classes: another one is lost and gained."""
    frames: int = 0
    """In which an object was lost, gained or moved; for classes, in which the answer is another."""
    share: float = 0.0
    """Of the compared frames."""
    share_interval: tuple[float, float] = (0.0, 1.0)
    """95 %, valid at every time together."""
    matched: int = 0
    lost: int = 0
    gained: int = 0
    moved: int = 0
    mean_shift: float = 0.0
    """Score of the candidate - score of the champion, mean over matched objects."""
    largest_shift: float = 0.0
    """Largest of them, either way."""


@dataclass(frozen=True, kw_only=True)
class ShadowLatency:
    """The champion's milliseconds per frame, without and beside a run of the candidate."""

    alone: int = 0
    """Frames during which the candidate rested."""
    alone_p50_ms: float = 0.0
    alone_p95_ms: float = 0.0
    beside: int = 0
    beside_p50_ms: float = 0.0
    beside_p95_ms: float = 0.0
    growth: float | None = None
    """A frame beside the candidate / its nearest neighbours alone, the median of such pairs; None:
    fewer than 20."""


@dataclass(frozen=True, kw_only=True)
class ShadowRecord:
    """Everything that a shadow run leaves."""

    champion: ShadowEngine
    candidate: ShadowEngine
    reference: ShadowEngine | None
    judged_by: Literal["labels", "reference", "nothing"]
    labels_sha256: str = ""
    """Of the annotations' file; empty: folders, or no labels."""
    simulated: bool = False
    """Whether one of the engines is a double."""
    sources: tuple[str, ...]
    started: str
    """ISO 8601, UTC."""
    ended: str
    why_ended: Literal["decided", "frames", "source", "stopped", "failed"]
    frames: ShadowFrames
    block_s: float
    """Frames of so many seconds are one observation; 0: each is its own."""
    observations: int
    correlation: float
    """Lag-1 autocorrelation of the observations' differences."""
    metric: str
    """Of an observation; empty: there was nothing to judge by."""
    champion_score: float | None
    """Mean over the observations."""
    candidate_score: float | None
    difference: float | None
    """Candidate - champion."""
    interval: tuple[float, float] | None
    """Of the difference: 95 %, valid at every time together."""
    pooled_metric: str = ""
    """Of all frames on one curve, which nothing here tests; empty: `metric` is it."""
    pooled: tuple[float, float] | None = None
    """Champion and candidate, by that."""
    max_drop: float | None
    """Largest loss that `not worse` allows; None: it was not asked."""
    decision: Decision
    decided_frame: int | None = None
    """Frames that had been compared when it fell."""
    decided: str = ""
    """When it fell: ISO 8601, UTC."""
    needed: int = 0
    """About how many more frames would bring a decision; 0: none is open, or no number would."""
    reason: str
    """The decision in words."""
    agreement: ShadowAgreement
    latency: ShadowLatency
    cpu_share: float
    """That the candidate was allowed, of all cores."""
    cpu_share_used: float
    max_delay: float | None
    """Share by which the champion's median may grow beside the candidate; None: any."""
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that ran them."""
    schema: int = SCHEMA
