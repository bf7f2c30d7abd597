"""What was found about one engine: its precision, its parity, its accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field

from engineworks.codec import later, place
from engineworks.manifest import Artifact


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Task metric of one engine beside the source model's on the same images."""

    metric: str
    value: float
    reference: float
    drop: float
    """reference - value: above 0 is a loss."""
    images: int
    detail: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeliveredPrecision:
    """Precision read back from the built engine, not from what was asked."""

    asked: str
    delivered: str
    holds: bool
    stored_bytes: dict[str, int]
    """Bytes of constants by dtype."""
    computed_nodes: dict[str, int]
    """Executed nodes by the dtype they compute in."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine and the truth about it."""

    engine: Artifact
    delivered_precision: DeliveredPrecision
    build_s: float = place()
    whole_from_s: float = later(default=0.0)
    """`limits.build_s` from which more would have been built beside it; 0: all of it was."""

    def holds_within(self, limit_s: float) -> bool:
        """Whether a build of this time limit would leave out the same."""
        return not self.whole_from_s or limit_s < self.whole_from_s


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """One output at one batch size, against the source model."""

    output: str
    batch: int
    max_abs_diff: float | None
    """None when the answers cannot be compared: another shape, NaN or infinite values."""
    relative_diff: float | None
    """Largest difference / max(1, largest reference value), of the worst group of channels."""
    snr_db: float
    """Signal-to-noise ratio: 20 log10(|reference| / |difference|), 200 when equal."""
    group: str = ""
    """The group of channels that agrees least; empty for the whole output."""
    group_snr_db: float = 0.0
    """SNR of that group, without its mean."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Numeric agreement with the source model."""

    holds: bool
    reason: str
    limit: str
    """The rule it was held to, in words."""
    max_abs_diff: float | None
    relative_diff: float | None
    snr_db: float
    identical_rows_diff: float | None
    """Largest difference between answers to identical rows of one batch."""
    rows: tuple[ParityRow, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What some outputs mean, and whether they still mean it."""

    kind: str
    """detections, classes, numbers, masks or scores."""
    outputs: tuple[str, ...]
    sure: str
    """given by the recipe; else recognised: certain or likely."""
    why: str
    """What it was recognised by."""
    judged: bool
    """False where the source itself shows too little."""
    holds: bool
    reason: str
    figures: dict[str, float]
    agreement: float
    """Agreement in 0..1."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """Whether an engine's answers mean what the source model's mean, judged without labels."""

    judged: bool
    """Whether anything could be read."""
    whole: bool
    """Whether every output was read and judged."""
    holds: bool
    reason: str
    words: str
    agreement: float | None
    images: int
    readings: tuple[Reading, ...]
    unread: tuple[str, ...]
    """Outputs that nothing can read: only their numbers were compared."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Parity and task metric of one engine."""

    parity: Parity
    accuracy: Accuracy | None
    predictions: Artifact | None
    meaning: Meaning | None = None
    """Where no metric judges an engine that rounds coarsely."""
    difference: DetectionDiff | None = None
    """What a detector sees differently from the source model."""
    replayed: bool = False
    """Whether ONNX Runtime stood in for the engine's own runtime."""
    elapsed_s: float = place()


@dataclass(frozen=True, kw_only=True)
class PhotoDiff:
    """Differences on one image."""

    image_id: int
    lost: int
    gained: int
    moved: int


@dataclass(frozen=True, kw_only=True)
class DetectionDiff:
    """Objects that two models see differently."""

    confidence: float
    """Objects at or above it count."""
    matched: int
    lost: int
    gained: int
    moved: int
    """Matched with an overlap below 0.8."""
    lost_by_class: dict[str, int]
    """By category id."""
    gained_by_class: dict[str, int]
    by_size: dict[str, tuple[int, int, int]]
    """small, medium, large (COCO's areas) -> lost, gained, moved."""
    worst: tuple[PhotoDiff, ...]
    words: str = later(default="")
    """What is compared, and how, where that is not objects by their boxes."""
    things: str = later(default="objects")
    """What is counted."""
