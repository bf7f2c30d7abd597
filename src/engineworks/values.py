"""What stages find: one frozen value per arrow of the pipeline.

Knows no stage, no file and no vendor. Times are milliseconds or seconds as the names say;
accuracy metrics lie in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from engineworks.codec import later, place
from engineworks.manifest import Artifact
from engineworks.specs import DataSpec, ModelSpec, ScoreKind, Size

Outcome = Literal["shipped", "rejected", "skipped", "failed", "pending"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One discrete NVIDIA GPU."""

    name: str
    compute_capability: str
    """For example "8.9"."""
    memory_mib: int
    driver: str
    power_limit_w: float = 0.0
    """0 where the board does not tell."""
    max_clock_mhz: int = 0


@dataclass(frozen=True, kw_only=True)
class Jetson:
    """What one Jetson is, and in which power mode it runs."""

    module: str
    l4t: str
    """For example "36.4.3"."""
    jetpack: str = ""
    """Version of the package nvidia-jetpack; empty when only parts of it are installed."""
    dla_cores: int = 0
    power_mode: str = ""
    gpu_clock_mhz: int = place(default=0)
    gpu_max_clock_mhz: int = 0


@dataclass(frozen=True, kw_only=True)
class HostCard:
    """What one machine can build and run."""

    name: str = place()
    os: str
    arch: str
    python: str
    cpu: str
    cores: int
    cpu_flags: tuple[str, ...]
    memory_mib: int = place()
    packages: dict[str, str] = place()
    """Installed runtimes by distribution name; a stage's key holds those that matter to it."""
    gpus: tuple[Gpu, ...] = ()
    jetson: Jetson | None = None
    cuda: str = ""
    """Newest CUDA that the driver serves."""
    tensorrt: str = ""
    """Of the system's own TensorRT; that of a Python environment is in `packages`."""
    cudnn: str = ""


@dataclass(frozen=True, kw_only=True)
class RegisteredHost:
    """A machine of the fleet, as its worker last described it."""

    card: HostCard
    pool: str
    """Work pool that its worker serves."""
    code_sha256: str
    """Of the library that it runs."""
    instance: str
    """Tells two machines of one name apart."""
    age_s: float = place(default=0.0)
    """Seconds since it was last heard of, by the store's clock."""


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
class BadImage:
    """An image that cannot be used, and why."""

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Turned:
    """An image with boxes that its EXIF turns upright."""

    file: str
    orientation: int
    """EXIF's number, 2..8."""


@dataclass(frozen=True, kw_only=True)
class PinnedData:
    """Images and labels fixed by one digest over the usable ones."""

    spec: DataSpec
    files: tuple[str, ...] = place()
    """Usable images, relative to the folder of `spec.images`, in its order."""
    digests: dict[str, str] = place(default_factory=dict)
    """sha256 of every image's bytes, by name: whoever reads one holds it against this."""
    sha256: str
    bad: tuple[BadImage, ...] = ()
    objects: int = 0
    """Labelled boxes (detection) or images (classification)."""
    truth: Artifact | None = later(default=None)
    """kind `annotations`: the boxes as they were understood, COCO JSON named as the files are."""
    notes: tuple[str, ...] = later(default=())
    """What was left out, merged or matched to read the labels, in words."""
    turned: tuple[Turned, ...] = later(default=())
    """Images with boxes that are decoded in another way up than they are stored."""


@dataclass(frozen=True, kw_only=True)
class PlannedVariant:
    """One row of the plan."""

    target: str
    precision: str
    options: dict[str, Any]
    required: bool
    action: Literal["run", "skip", "pending"]
    """pending: there are machines for it, and none can take it now."""
    reason: str
    host: str = ""
    """Machine of the fleet that it is for; empty: the one that runs the flow."""
    pool: str = ""
    everywhere: bool = False
    """Whether other machines build it too."""

    @property
    def name(self) -> str:
        """Name of the row in every table: `target/precision`, or `target/precision@host`."""
        return f"{self.target}/{self.precision}" + (f"@{self.host}" if self.everywhere else "")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every variant of a recipe: what runs where, and why the others do not."""

    host: HostCard
    variants: tuple[PlannedVariant, ...]


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
class Suspect:
    """One thing that may be wrong with a recipe, tried on some photos."""

    words: str
    """What was changed, as a recipe would say it."""
    value: float
    """The score with it."""
    photos: int
    better: bool
    """Whether that is better than chance."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The source model's AP on images that EXIF turns, with boxes taken in two ways."""

    photos: int
    upright: float
    """Boxes as if drawn on the upright images, as they were taken."""
    unturned: float
    """Boxes as if drawn on the images as they are stored."""
    doubtful: bool
    """Whether the second is better, with 95 % confidence where there are photos enough."""


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Whether the source model's score is better than chance, with 95 % confidence."""

    word: Literal["better", "near zero", "not judged"]
    reason: str
    objects: int
    """Labelled objects that were looked at."""
    photos: int
    value: float | None = None
    """The score on them."""
    others: float | None = None
    """The best that the same answers reach on the labels of other photos."""
    constant: float | None = None
    """What one answer for all photos reaches."""
    suspects: tuple[Suspect, ...] = ()
    """For a score near zero: what was tried, the best first."""


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
    lacking: dict[str, tuple[str, ...]]
    """Operators that a planned target cannot run, by target."""
    uncounted: tuple[str, ...] = ()
    """Operators that do arithmetic and are not in `flops`, or why nothing was counted."""
    heaviest: tuple[LayerCost, ...] = ()
    """The ten nodes with the most parameters; `largest` has those with the most work."""


@dataclass(frozen=True, kw_only=True)
class PrecisionTruth:
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
    truth: PrecisionTruth
    build_s: float = place()


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
    fidelity: float
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
    fidelity: float | None
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
class BenchmarkRow:
    """Latency of one input size and batch. Milliseconds per call, not per image."""

    height: int
    width: int
    batch: int
    threads: int
    mean_ms: float
    std_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    """None with fewer than 660 calls: too few to tell (MLPerf LoadGen's early-stopping figure)."""
    ci95_ms: tuple[float, float]
    """95 % interval of the median, from order statistics of block medians."""
    cpu_ms: float
    """CPU time of all threads per call."""
    throughput_per_s: float
    """Images per second: batch / mean."""
    n: int
    warmup: int
    inconclusive: str
    """Why the figures cannot be trusted; empty when they can."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All rows of one variant, with the circumstances."""

    rows: tuple[BenchmarkRow, ...]
    environment: dict[str, Any]
    elapsed_s: float = place()


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
class Gathered:
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
class Rung:
    """One integer graph that was tried: what it scores, what it takes, what it cost to know."""

    step: str
    """Which part of the ladder tried it: usual, calibrator, placement, sensitivity, island or
    polish; given: the model came quantized."""
    label: str
    method: str
    """How its ranges were chosen."""
    integer_layers: int
    layers: int
    metric: float | None
    """Task metric on the search's images, when it was scored."""
    drop: float | None
    """Float engine's metric - its own, on the same images."""
    fidelity: float | None
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
    """Fidelity won by leaving it in float."""
    ratio: float | None
    """Latency with it in float / with it in integers; None: not timed."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The integer graph that was chosen, with the whole search."""

    onnx: Artifact
    found: Rung
    holds: bool
    """Whether it is inside the accuracy budget."""
    reason: str
    metric: str
    reference: float | None
    """Float engine's metric on the search's images."""
    images: int
    rungs: tuple[Rung, ...]
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


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The next higher precision of the same target, timed side by side with this variant."""

    variant: str
    speedup: float
    """Its latency / this variant's: above 1 this variant is faster."""
    ci95: tuple[float, float]
    size_bytes: int


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


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One shipped variant in the final side-by-side timing."""

    variant: str
    ratio: float
    """Its latency / the fastest's: median of pairs of adjacent blocks."""
    ci95: tuple[float, float]
    p50_ms: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Shipped variants timed in one process in alternating blocks, fastest first."""

    size: Size
    batch: int
    contenders: tuple[Contender, ...]
    recommended: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision about one variant, in a word and in numbers."""

    verdict: Outcome
    reason: str
