"""What a user asks for: the sections of a recipe, as frozen values that stages receive.

Each section checks itself when made. Knows no YAML (`recipe.py` reads that) and no results
(`facts/`). Sizes are always (height, width) in pixels.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

from engineworks.codec import later, place
from engineworks.errors import RecipeError

Size = tuple[int, int]

#: Pixels of the largest picture that is read unless somebody asks for more: 8192 x 8192. Decoding
#: one takes up to 0.8 GiB, whatever the file holds (a progressive JPEG keeps 9 bytes a pixel).
MAX_PIXELS = 2**26

#: Detection heads that the runtime decodes; anything else is a `module:function` of the recipe.
LAYOUTS = ("yolox", "yolov8", "end2end", "detr", "rtdetr")

#: Calls from which the 99th percentile is known (MLPerf LoadGen's early-stopping figure).
P99_CALLS = 660

#: What a classifier's scores are; `auto` is settled on the source model, once.
ScoreKind = Literal["auto", "logits", "probabilities", "independent", "independent_logits"]

#: Read by pydantic when it validates these classes from YAML: unknown keys are refused, and the
#: text under a field is its description in the JSON Schema.
STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


def is_reference(text: str) -> bool:
    """Whether it says `module:name` (and not a path, not even one with a drive letter)."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text) is not None


def _must(rule_holds: bool, message: str, hint: str) -> None:
    if not rule_holds:
        raise RecipeError(message, hint=hint)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The model's one image input."""

    __pydantic_config__ = STRICT

    size: Size
    """Height and width in pixels that the model is trained for."""
    name: str = "images"
    """Name of the input in the exported graph."""
    channels: int = 3
    """Number of colour channels: 3, or 1 for grey images."""

    def __post_init__(self) -> None:
        _must(
            min(self.size) > 0 and max(self.size) <= 2**16 and self.channels in (1, 3),
            f"model.input: size {list(self.size)} x {self.channels} channels is no image",
            "give size: [height, width] in pixels and channels: 1 or 3",
        )


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where the trained model comes from."""

    __pydantic_config__ = STRICT

    source: str
    """`module:factory` (a Python callable beside the recipe or installed that returns a torch
    module), or a file: `.onnx`, `.pt2` (torch.export), `.torchscript`."""
    input: InputSpec
    """The model's image input."""
    weights: str | None = place(default=None)
    """A state_dict file for a `module:factory` source, relative to the recipe."""
    weights_key: str = later(default="")
    """Which weights, where a file holds several for this network: for example `ema.module`. Left
    out: the only ones that fit."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for the factory."""
    outputs: tuple[str, ...] | None = None
    """Names for the outputs, in order. Left out: the exporter's names."""
    trust: bool = False
    """Open `weights`, `.pt2` and TorchScript files that hold more than a network: pickled Python
    code, or code that reads and writes files. Whoever made the file can then run anything on this
    machine: set it only for files you made yourself."""

    @property
    def form(self) -> Literal["factory", "onnx", "pt2", "torchscript"]:
        """Which kind of source this is, by its shape: a file ending or `module:factory`.

        Raises:
            RecipeError: It is neither.
        """
        source = self.source.lower()
        if source.endswith(".onnx"):
            return "onnx"
        if source.endswith(".pt2"):
            return "pt2"
        if source.endswith((".torchscript", ".ts")):
            return "torchscript"
        module, _, factory = self.source.partition(":")
        if factory.isidentifier() and all(part.isidentifier() for part in module.split(".")):
            return "factory"
        if source.endswith((".pt", ".pth", ".ckpt", ".bin", ".safetensors")):
            raise RecipeError(
                f"model.source: {self.source!r} may be weights or a whole network, its name does "
                "not say which",
                hint="weights: write for example source: model:build, the function that makes the "
                "network, and give this file as model.weights. TorchScript (torch.jit.save): name "
                f"the file {self.source.rpartition('.')[0]}.torchscript",
            )
        raise RecipeError(
            f"model.source: {self.source!r} is neither module:factory nor a "
            ".onnx, .pt2 or .torchscript file",
            hint="write for example `model:build`, where model.py lies beside the recipe",
        )

    def __post_init__(self) -> None:
        _must(
            self.form == "factory" or not self.arguments,
            f"model.arguments: a {self.form} source takes none",
            "remove model.arguments",
        )
        _must(
            self.form != "onnx" or not self.trust,
            "model.trust: an ONNX file holds no code that runs here",
            "remove model.trust",
        )
        _must(
            self.form != "onnx" or self.outputs is None,
            "model.outputs: an ONNX file names its outputs itself",
            "remove model.outputs",
        )
        _must(
            self.outputs is None or len(set(self.outputs)) == len(self.outputs) > 0,
            f"model.outputs: {list(self.outputs or ())} must name every output, each once",
            "give every output a name of its own",
        )
        _must(
            self.form == "factory" or self.weights is None,
            f"model.weights: a {self.form} source carries its own weights, "
            f"got {self.weights!r} as well",
            "remove model.weights",
        )
        _must(
            self.weights is not None or not self.weights_key,
            "model.weights_key: there is no model.weights to look it up in",
            "give model.weights, or remove model.weights_key",
        )


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the model's input. Travels with every engine in its manifest.

    value = (pixel * scale - mean[c]) / std[c], pixels 0..255, channels in `color` order.
    """

    __pydantic_config__ = STRICT

    color: Literal["rgb", "bgr", "gray"] = "rgb"
    """Channel order that the model was trained with."""
    resize: Literal["letterbox", "stretch", "center_crop"] = "stretch"
    """letterbox keeps the aspect ratio and pads; stretch does not keep it; center_crop scales
    the shorter side and cuts the middle."""
    anchor: Literal["center", "top_left"] = "center"
    """Where a letterboxed image sits in its frame."""
    pad: int = 114
    """Grey value 0..255 of the letterbox border."""
    scale: float = 1 / 255
    """Factor on pixel values, before mean and std."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Subtracted per channel, after scale."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Divided by per channel, last."""

    def __post_init__(self) -> None:
        _must(0 <= self.pad <= 255, f"preprocess.pad: {self.pad} is not in 0..255", "use 114")
        _must(
            all(value > 0 and math.isfinite(value) for value in (*self.std, self.scale))
            and all(map(math.isfinite, self.mean)),
            f"preprocess: std {list(self.std)} and scale {self.scale} must be greater than 0, "
            f"mean {list(self.mean)} a number",
            "use std: [1, 1, 1] when the model needs none",
        )
        _must(
            len(self.mean) == len(self.std) == (1 if self.color == "gray" else 3),
            f"preprocess: mean has {len(self.mean)} and std {len(self.std)} values for "
            f"color {self.color}",
            "give one value per channel",
        )


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What the outputs mean, and so which metric scores them."""

    __pydantic_config__ = STRICT

    kind: Literal["none", "detection", "classification"] = "none"
    """none: outputs are compared with the source model's, and no metric is computed."""
    layout: str = "yolox"
    """Detection head: `yolox`, `yolov8`, `end2end`, `detr`, `rtdetr`, or `module:function` of your
    own decoder."""
    labels: tuple[str, ...] | str = ()
    """Class names in index order: a list, or a text file with one name per line."""
    confidence: float = 0.01
    """Detections below this score are dropped (0.01 for AP, higher for display)."""
    iou: float = 0.65
    """Overlap above which the weaker of two boxes of one class is suppressed."""
    max_detections: int = 100
    """Boxes kept per image."""
    scores: ScoreKind = later(default="auto")
    """What a classifier's output is. `auto`: settled once, on the source model. `logits`: a softmax
    makes confidences of them. `probabilities`: they are confidences, and sum to 1. `independent`:
    confidences of labels that do not exclude each other. `independent_logits`: a sigmoid makes
    confidences of them."""

    def __post_init__(self) -> None:
        _must(
            0 <= self.confidence < 1 and 0 < self.iou <= 1,
            f"task: confidence {self.confidence} and iou {self.iou} must lie between 0 and 1",
            "COCO evaluation uses confidence: 0.01 and iou: 0.65",
        )
        _must(
            self.max_detections > 0,
            f"task.max_detections: {self.max_detections} boxes cannot be judged",
            "COCO evaluation uses 100",
        )
        _must(
            self.scores == "auto" or self.kind == "classification",
            f"task.scores: {self.scores} is for classification, this task is {self.kind}",
            "remove task.scores; the layout of a detector says what its scores are",
        )
        # An empty one holds the place of a class without a name.
        given = () if isinstance(self.labels, str) else tuple(filter(None, self.labels))
        names = [unicodedata.normalize("NFC", name) for name in given]
        _must(
            len(set(names)) == len(names),
            f"task.labels: {next((n for n in names if names.count(n) > 1), '')!r} stands there "
            "twice",
            "name every class once",
        )
        custom = ":" in self.layout
        _must(
            custom or self.layout in LAYOUTS,
            f"task.layout: {self.layout!r} is unknown",
            f"use {', '.join(LAYOUTS)} or module:function (see docs/recipe.md, 'Your own decoder')",
        )


def _check_max_pixels(section: str, value: int) -> None:
    _must(
        1 <= value <= 2**30,
        f"{section}.max_pixels: {value} is outside 1..1073741824",
        f"leave it out for {MAX_PIXELS}, which is 8192 x 8192",
    )


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Images with known answers, on which every engine is judged."""

    __pydantic_config__ = STRICT

    images: str = place()
    """Folder of images, for classification with one folder per class; or a `.txt` file that lists
    them, a path a line, relative to that file."""
    annotations: str | None = place(default=None)
    """Boxes (detection): COCO JSON, or YOLO labels, as their folder or their data.yaml."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """An unreadable image: stop the run, or name it in the report and go on without."""
    limit: int | None = None
    """Use only the first N images, sorted by name."""
    max_pixels: int = later(default=MAX_PIXELS)
    """A larger image is unreadable, by its header; 67108864 is 8192 x 8192. Reading one takes up to
    12 bytes of memory for each pixel."""
    frame: Literal["upright", "unturned"] | None = later(default=None)
    """What boxes were drawn on: pictures that their EXIF turns upright, or as they are stored; the
    latter are turned with their pictures. Left out: upright, unless the evidence speaks against
    it."""
    accept: tuple[Literal["impossible_boxes", "near_zero"], ...] = later(default=())
    """Findings that stop a run and are right for this data. `impossible_boxes`: many boxes leave
    their pictures; `near_zero`: the source model scores no better than chance."""

    def __post_init__(self) -> None:
        _must(
            self.limit is None or self.limit > 0,
            f"data.limit: {self.limit} images cannot judge anything",
            "give a number of at least 1, or leave it out for all images",
        )
        _check_max_pixels("data", self.max_pixels)


@dataclass(frozen=True, kw_only=True)
class CalibrationSpec:
    """Images that show INT8 which values occur. Not the ones that judge the engines."""

    __pydantic_config__ = STRICT

    images: str = place()
    """Folder of images; or a `.txt` file that lists them, a path a line, relative to that file; or
    `module:function` beside the recipe, which yields images: uint8 (height, width, 3), BGR."""
    annotations: str | None = place(default=None)
    """Boxes of these images, as in `data`: only images that they name are used, and the report
    counts classes."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """An unreadable image: stop the run, or go on without it."""
    limit: int = 512
    """Use at most this many, spread evenly over the names; of a function the first."""
    minimum: int = 16
    """Refuse to calibrate with fewer: their ranges say little."""

    max_pixels: int = later(default=MAX_PIXELS)
    """As `data.max_pixels`."""

    @property
    def made(self) -> bool:
        """Whether a function of the user's makes the images."""
        return is_reference(self.images)

    def __post_init__(self) -> None:
        _check_max_pixels("calibration", self.max_pixels)
        _must(
            not self.made or self.annotations is None,
            f"calibration.annotations: images that {self.images!r} makes have no file names",
            "leave annotations out; they only serve the report's class counts",
        )
        _must(
            1 <= self.minimum <= self.limit,
            f"calibration: minimum {self.minimum} and limit {self.limit} do not fit",
            "use for example minimum: 16 and limit: 512",
        )


@dataclass(frozen=True, kw_only=True)
class Int8Spec:
    """How long the search for an INT8 engine that holds the budget may take."""

    __pydantic_config__ = STRICT

    goal: Literal["latency", "size"] = "latency"
    """What INT8 must gain over the next precision to be shipped, once it is accurate enough."""
    limit_s: float = 600.0
    """Time for one target's search, in seconds; the best found by then is taken."""
    evaluations: int = 200
    """Most candidates that are scored or timed."""
    images: int = 128
    """Images of `data` that score a candidate, spread evenly; the chosen one is then checked on
    all."""
    methods: tuple[str, ...] = (
        "minmax",
        "percentile-99.9",
        "percentile-99.99",
        "percentile-99.999",
        "entropy",
        "mse",
    )
    """How ranges may be chosen from what calibration saw."""

    def __post_init__(self) -> None:
        _must(
            0 < self.limit_s <= 1e9 and self.evaluations > 0 and self.images > 0,
            f"int8: limit_s {self.limit_s}, evaluations {self.evaluations} and images "
            f"{self.images} must be greater than 0",
            "leave them out for their defaults",
        )
        _must(len(self.methods) > 0, "int8.methods: the list is empty", "leave it out")


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """How the model becomes ONNX."""

    __pydantic_config__ = STRICT

    opset: int = 20
    """ONNX opset. 20 is read by ONNX Runtime, OpenVINO and TensorRT 10 or newer."""
    exporters: tuple[Literal["dynamo", "legacy"], ...] = ("dynamo", "legacy")
    """Tried in turn; of those that agree with the source model the first is kept."""
    dynamic_batch: bool = True
    """Leave the batch dimension open. Needed for batches above 1."""
    largest_batch: int = 8
    """Largest batch that engines must serve. Parity is checked at batch 1 and at this one."""
    tolerance: float = 1e-3
    """Largest difference from the source model that is allowed, relative to
    max(1, largest value of that output)."""
    simplify: bool = True
    """Run onnxsim on the result, checked numerically and rolled back on any doubt."""

    def __post_init__(self) -> None:
        _must(
            13 <= self.opset <= 25,
            f"export.opset: {self.opset} is outside 13..25, which the exporters can write",
            "use 20, or 17 for old runtimes",
        )
        _must(
            0 < self.tolerance < math.inf,
            f"export.tolerance: {self.tolerance} must be greater than 0",
            "use 0.001",
        )
        _must(
            1 <= self.largest_batch <= 1024,
            f"export.largest_batch: {self.largest_batch} is outside 1..1024",
            "give the largest batch that a server will send, for example 8",
        )
        _must(
            len(self.exporters) > 0,
            "export.exporters: the list is empty",
            "use [dynamo, legacy]",
        )


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """One target and the precisions wanted on it."""

    __pydantic_config__ = STRICT

    target: str
    """Name of a target: see `engineworks targets`."""
    precisions: tuple[str, ...] = ("fp32",)
    """Each becomes one variant, for example openvino/fp16."""
    required: bool = True
    """The run fails when a required variant is not shipped."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this target: see `engineworks targets NAME`."""
    pool: str = place(default="")
    """With `--fleet`: only machines of this work pool build it. Left out: any that can."""
    devices: Literal["one", "all"] = place(default="one")
    """With `--fleet`: build it on one machine that can, or on all of them, a row each."""

    def __post_init__(self) -> None:
        _must(
            len(self.precisions) == len(set(self.precisions)) > 0,
            f"targets: {self.target} has precisions {list(self.precisions)}",
            "name each wanted precision once, for example [fp32, fp16]",
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec:
    """What is timed, and how thoroughly."""

    __pydantic_config__ = STRICT

    sizes: tuple[Size, ...] = ()
    """Input sizes [height, width] beside the model's own, which is always timed. Each is exported
    and built for itself, so that every row is the engine one would really deploy."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes."""
    threads: int = 0
    """CPU threads for inference; 0: all that this process may use."""
    seconds: float = 3.0
    """Time spent on each row after warm-up."""
    calls: int = later(default=30)
    """Least number of calls of each row, however long they take; p99 needs 660."""

    def __post_init__(self) -> None:
        _must(
            2 <= self.calls <= 1_000_000,
            f"benchmark.calls: {self.calls} is out of range",
            "leave it out for 30, or use 660, from which p99 is given",
        )
        _must(
            len(self.batches) > 0 and all(1 <= batch <= 1024 for batch in self.batches),
            f"benchmark.batches: {list(self.batches)} must be numbers from 1 to 1024",
            "use for example [1, 4, 8]",
        )
        _must(
            all(min(size) > 0 and max(size) <= 2**16 for size in self.sizes),
            f"benchmark.sizes: {[list(size) for size in self.sizes]} must be sizes in pixels",
            "use for example [[416, 416]]",
        )
        _must(
            self.threads >= 0 and 0 < self.seconds <= 3600,
            f"benchmark: threads {self.threads} and seconds {self.seconds} are out of range",
            "use threads: 0 (all cores) and seconds: 3",
        )


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """What a variant may cost. It is shipped only if it holds every limit that is given."""

    __pydantic_config__ = STRICT

    max_drop: float | None = 0.01
    """Largest loss of the task metric against the source model, absolute (0.01 = 1 point)."""
    max_p50_ms: float | None = None
    """Largest median latency at the model's own size and batch 1, in milliseconds."""
    max_p95_ms: float | None = later(default=None)
    """Largest latency of 95 % of the calls, there too."""
    max_p99_ms: float | None = later(default=None)
    """Largest latency of 99 % of the calls, there too; needs benchmark.calls: 660."""
    max_size_mib: float | None = None
    """Largest engine, in MiB."""

    def __post_init__(self) -> None:
        limits = (
            self.max_drop, self.max_p50_ms, self.max_p95_ms, self.max_p99_ms, self.max_size_mib
        )  # fmt: skip
        _must(
            all(limit is None or 0 <= limit < math.inf for limit in limits),
            f"budget: limits {limits} must be numbers of at least 0, not infinite",
            "leave a limit out when there is none",
        )

    @property
    def latencies(self) -> dict[str, float]:
        """The limits of latency that are given, by percentile: p50, p95, p99."""
        limits = {"p50": self.max_p50_ms, "p95": self.max_p95_ms, "p99": self.max_p99_ms}
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True, kw_only=True)
class LimitsSpec:
    """Time limits in seconds; a stage that passes its limit is stopped and its variant fails."""

    __pydantic_config__ = STRICT

    export_s: float = 900.0
    """Screening of the data, export, simplification and analysis, each."""
    build_s: float = 1800.0
    """One engine build."""
    check_s: float = 1800.0
    """Parity and task metric of one engine, or of the source model."""
    benchmark_s: float = 1800.0
    """All benchmark rows of one variant."""
    calibrate_s: float = 3600.0
    """One pass of the float model over the calibration images."""

    def __post_init__(self) -> None:
        limits = (
            self.export_s, self.build_s, self.check_s, self.benchmark_s, self.calibrate_s
        )  # fmt: skip
        _must(
            all(0 < limit <= 1e9 for limit in limits),
            f"limits: {limits} must all be greater than 0 and at most 1e9 seconds",
            "leave a limit out for its default",
        )
