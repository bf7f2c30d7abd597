"""What each stage is asked: one frozen value per stage.

A request's digest (everything but the fields made by `place`) is its stage's cache key, so a
field belongs to the key exactly when another value of it would give another result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engineworks.codec import later, place
from engineworks.facts.data import PinnedData
from engineworks.facts.host import HostCard
from engineworks.facts.model import PinnedCode, PinnedModel
from engineworks.manifest import Artifact
from engineworks.specs import (
    BenchmarkSpec,
    DataSpec,
    ExportSpec,
    Int8Spec,
    Preprocess,
    Size,
    TaskSpec,
)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What several stages need of a recipe."""

    name: str
    preprocess: Preprocess
    task: TaskSpec
    labels: tuple[str, ...]
    recipe_sha256: str = place()
    """For the record only: a key that held it would make every change re-run everything."""
    store: str = place()


@dataclass(frozen=True, kw_only=True)
class ScreenRequest:
    """Decode every image once and hold labels against images."""

    shared: Shared
    data: DataSpec
    digests: dict[str, str] = place(default_factory=dict)
    """sha256 of every image that was listed, by name and in that order; empty: the stage lists
    them itself."""
    answers: Artifact | None = place(default=None)
    """The store's copy of the annotations."""
    bytes_sha256: str


@dataclass(frozen=True, kw_only=True)
class ReferenceRequest:
    """Run the source model: its answers on samples, its score on the data."""

    shared: Shared
    model: PinnedModel
    data: PinnedData | None
    size: Size
    score: bool
    """Whether to run the task metric too, not only the samples."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Source model to ONNX."""

    shared: Shared
    model: PinnedModel
    spec: ExportSpec
    reference: Artifact
    size: Size


@dataclass(frozen=True, kw_only=True)
class SimplifyRequest:
    """ONNX to simpler ONNX."""

    shared: Shared
    onnx: Artifact
    reference: Artifact
    tolerance: float
    limit_s: float
    """In the key: more time may let onnxsim succeed."""
    folder: str = place()


@dataclass(frozen=True, kw_only=True)
class AnalyzeRequest:
    """Count a graph, and ask each planned target what it lacks."""

    onnx: Artifact
    size: Size
    targets: tuple[str, ...]
    tools: dict[str, str]
    limit_s: float
    folder: str = place()
    store: str = place()


@dataclass(frozen=True, kw_only=True)
class GatherRequest:
    """Take images from a function of the user's."""

    shared: Shared
    function: str
    """`module:name`."""
    limit: int
    code_sha256: str
    """What the function reads beside its code is not known: other code is other images."""
    code: tuple[PinnedCode, ...] = place(default=())
    folder: str = place()


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """Statistics of every activation over the calibration images."""

    shared: Shared
    onnx: Artifact
    data: PinnedData
    size: Size
    minimum: int
    judged_too: int = 0
    """How many of these images judge the engines, too."""
    keep: int = later(default=0)
    """How many of them are kept to judge what engines' answers mean, where there are no labels."""


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest:
    """Search one target's INT8 graph."""

    shared: Shared
    onnx: Artifact
    calibration: Artifact | None
    """None: only for a model that came quantized, and where only weights are packed."""
    reference: Artifact
    target: str
    options: dict[str, Any]
    precision: str = "int8"
    """One of `targets.SEARCHED`."""
    spec: Int8Spec
    max_drop: float | None
    data: PinnedData | None
    samples: Artifact | None = later(default=None)
    """Images that judge what answers mean, where `data` has no labels."""
    size: Size
    threads: int
    tools: dict[str, str]
    host: HostCard
    """A search times candidates: its result belongs to this machine."""
    folder: str = place()
    """The recipe's, for its own decoder."""
    code: tuple[PinnedCode, ...] = place(default=())
    code_sha256: str
    journals: str = place()
    """Folder that keeps what interrupted searches have measured."""


@dataclass(frozen=True, kw_only=True)
class RequantizeRequest:
    """The graph of another input size, quantized as a search has chosen."""

    shared: Shared
    onnx: Artifact
    calibration: Artifact | None
    target: str
    precision: str = "int8"
    method: str
    nodes: tuple[str, ...]
    host: HostCard


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """ONNX to an engine of one variant."""

    shared: Shared
    onnx: Artifact
    reference: Artifact | None
    """Only for a target that needs it."""
    target: str
    precision: str
    options: dict[str, Any]
    tools: dict[str, str]
    """Versions of the target's packages."""
    host: HostCard | None
    """The builder's card when the engine depends on it, else None."""
    builder: HostCard = place()
    largest_batch: int = 0
    """For a target whose engines have an optimization profile; 0 for others, which any batch
    fits."""
    limit_s: float = place(default=0.0)
    """Time limit of the stage."""


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """Parity and task metric of one engine."""

    shared: Shared
    engine: Artifact
    reference: Artifact
    metric: str
    value: float | None
    """The source model's own score."""
    data: PinnedData | None
    size: Size
    largest_batch: int
    float_predictions: Artifact | None
    """The source model's answers, to tell object by object what changed."""
    float_onnx: Artifact | None = later(default=None)
    """The graph before it was quantized. Where no labels judge, its answers stand for them."""
    samples: Artifact | None = later(default=None)
    """Images for that; without them the inputs of `reference` are used."""
    folder: str = place()
    code: tuple[PinnedCode, ...] = place(default=())
    code_sha256: str
    threads: int
    tools: dict[str, str]
    host: HostCard
    replay: bool = False
    """Run what the engine holds with ONNX Runtime: its own runtime is not on this host."""


@dataclass(frozen=True, kw_only=True)
class SizedEngine:
    """The engine of one input size."""

    size: Size
    engine: Artifact


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """All sizes and batches of one variant."""

    engines: tuple[SizedEngine, ...]
    spec: BenchmarkSpec
    tools: dict[str, str]
    host: HostCard
    store: str = place()


@dataclass(frozen=True, kw_only=True)
class NamedEngine:
    """The engine of one variant."""

    variant: str
    engine: Artifact


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """Shipped variants against each other."""

    engines: tuple[NamedEngine, ...]
    size: Size
    threads: int
    tools: dict[str, str]
    host: HostCard
    store: str = place()
