"""What was found about the source model and its graph."""

from __future__ import annotations

from dataclasses import dataclass

from engineworks.codec import later, place
from engineworks.facts.data import Chance, Frames
from engineworks.manifest import Artifact
from engineworks.specs import ModelSpec, ScoreKind


@dataclass(frozen=True, kw_only=True)
class PinnedCode:
    """The code that one `module:name` may use, fixed file by file."""

    reference: str
    files: dict[str, str] = place()
    """sha256 by path; relative to the recipe's folder, or to that of an installed package."""
    sha256: str
    """Of all of them."""


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """A model source whose every byte is fixed by digests."""

    spec: ModelSpec
    folder: str = place()
    """Folder of the recipe: the factory's module is looked for here first."""
    path: str = place()
    """The model file; for a factory its weights file, or empty."""
    stored: Artifact | None = place(default=None)
    """kind `source`: the store's own copy of that file and of those beside it that hold its
    weights. Stages read this one."""
    code: tuple[PinnedCode, ...] = place(default=())
    """The factory's code, and that of the recipe's own decoder."""
    code_sha256: str
    """Of all code."""
    bytes_sha256: str
    """Of the weights or model file; empty when a factory has no weights file."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the source model itself answers: the truth for all engines."""

    artifact: Artifact
    """kind `reference`: inputs and outputs of the parity samples."""
    predictions: Artifact | None
    """kind `predictions`: its answers on the data."""
    metric: str
    value: float | None
    images: int
    detail: dict[str, float]
    outputs: tuple[str, ...]
    scores: ScoreKind = later(default="auto")
    """What a classifier's scores are, as settled on it."""
    chance: Chance | None = later(default=None)
    """Whether its score is better than chance."""
    note: str = later(default="")
    """Where the weights were found, when their file holds more than a plain state_dict; outputs
    that are near silent on the parity samples."""
    frames: Frames | None = later(default=None)
    """Whether boxes were drawn on the images as they are stored; None: no image is turned."""
    elapsed_s: float = place()


@dataclass(frozen=True, kw_only=True)
class ExportAttempt:
    """One exporter's try."""

    exporter: str
    passed: bool
    reason: str
    max_abs_diff: float | None
    nodes: int | None
    size_bytes: int | None
    elapsed_s: float = place()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The ONNX graph that was kept, and every attempt."""

    onnx: Artifact
    chosen: str
    reason: str
    opset: int
    attempts: tuple[ExportAttempt, ...]


@dataclass(frozen=True, kw_only=True)
class Simplified:
    """The graph after simplification, or the unchanged one with the reason."""

    onnx: Artifact
    kept: bool
    reason: str
    nodes_before: int
    nodes_after: int
    size_before_bytes: int
    size_after_bytes: int
    max_abs_diff: float | None


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One node: its weights and its multiply-accumulates at batch 1."""

    name: str
    operator: str
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the graph consists of. 1 MAC = 2 FLOPs; both at the model's own size, batch 1."""

    parameters: int
    flops: int
    nodes: int
    weight_bytes: dict[str, int]
    """Size of the weights at fp32, fp16 and int8."""
    operators: dict[str, int]
    largest: tuple[LayerCost, ...]
    unsupported_operators: dict[str, tuple[str, ...]]
    """Operators that a planned target cannot run, by target."""
    uncounted: tuple[str, ...] = ()
    """Operators that do arithmetic and are not in `flops`, or why nothing was counted."""
    heaviest: tuple[LayerCost, ...] = ()
    """The ten nodes with the most parameters; `largest` has those with the most work."""
