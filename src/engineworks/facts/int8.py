"""What calibration saw, and what a search for integers found."""

from __future__ import annotations

from dataclasses import dataclass

from engineworks.codec import place
from engineworks.manifest import Artifact


@dataclass(frozen=True, kw_only=True)
class MovingRange:
    """A range that more samples still move; `change` is relative to half the samples."""

    tensor: str
    change: float


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What calibration samples cover."""

    samples: int
    tensors: int
    channels: int
    dead_channels: int
    """Channels with one value on all samples."""
    outlier_channels: int
    """Channels whose extreme is 8 times the typical one of their tensor, or more: they stretch
    the range of all others."""
    narrow_channels: int
    """Channels that use less than 1/32 of their tensor's range, so at most 8 of 256 levels."""
    steps: tuple[int, ...]
    """Numbers of samples at which ranges were looked at."""
    convergence: tuple[float, ...]
    """At each step: how far the median range is from its last value, relative."""
    moving: tuple[MovingRange, ...]
    """The ranges that still move most."""
    classes: dict[str, int]
    """Labelled objects by class; empty without labels."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Images that a function of the user's has made."""

    artifact: Artifact
    """kind `samples`: lossless images, numbered in the order in which they came."""
    images: int
    elapsed_s: float = place()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Target-neutral statistics of every activation, and what their samples cover."""

    artifact: Artifact
    """kind `calibration`: histograms, channel extremes and means."""
    coverage: Coverage
    samples: Artifact | None = None
    """kind `samples`: some of the images, as the model sees them; they judge without labels."""
    elapsed_s: float = place()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One integer graph that was tried: what it scores, what it takes, what it cost to know."""

    step: str
    """Which step of the search tried it: usual, calibrator, placement, sensitivity, float_block or
    refine; given: the model came quantized."""
    label: str
    method: str
    """How its ranges were chosen."""
    integer_layers: int
    layers: int
    metric: float | None
    """Task metric on the search's images, when it was scored."""
    drop: float | None
    """Float engine's metric - its own, on the same images."""
    agreement: float | None
    """Agreement with the float engine's answers, 0..1."""
    ratio: float | None
    """Latency / latency of the float engine of the same target, side by side; None: not timed."""
    ci95: tuple[float, float] | None
    size_bytes: int | None
    elapsed_s: float
    holds: bool
    """Whether it is inside the accuracy budget."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What one part of the graph loses in integers."""

    part: str
    """First layer of the part, or the layer itself."""
    layers: int
    gain: float
    """Agreement won by leaving it in float."""
    ratio: float | None
    """Latency with it in float / with it in integers; None: not timed."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The integer graph that was chosen, with the whole search."""

    onnx: Artifact
    chosen: Trial
    holds: bool
    """Whether it is inside the accuracy budget."""
    reason: str
    metric: str
    reference: float | None
    """Float engine's metric on the search's images."""
    images: int
    trials: tuple[Trial, ...]
    sensitivity: tuple[Sensitivity, ...]
    nodes: tuple[str, ...]
    """Nodes that compute in integers, in graph order, by their first output."""
    float_layers: tuple[str, ...]
    """Layers left in float, in graph order."""
    evaluations: int
    stopped: str
    """Why the search ended before it was done; empty when it was not cut short."""
    elapsed_s: float = place()


@dataclass(frozen=True, kw_only=True)
class Requantized:
    """The graph of another input size, quantized in the same way."""

    onnx: Artifact
