"""Where the trained model comes from and how it becomes ONNX. Knows no weights and no graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from engineworks.codec import later, place
from engineworks.errors import RecipeError
from engineworks.specs.ground import STRICT, Size, must


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
        must(
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
        must(
            self.form == "factory" or not self.arguments,
            f"model.arguments: a {self.form} source takes none",
            "remove model.arguments",
        )
        must(
            self.form != "onnx" or not self.trust,
            "model.trust: an ONNX file holds no code that runs here",
            "remove model.trust",
        )
        must(
            self.form != "onnx" or self.outputs is None,
            "model.outputs: an ONNX file names its outputs itself",
            "remove model.outputs",
        )
        must(
            self.outputs is None or len(set(self.outputs)) == len(self.outputs) > 0,
            f"model.outputs: {list(self.outputs or ())} must name every output, each once",
            "give every output a name of its own",
        )
        must(
            self.form == "factory" or self.weights is None,
            f"model.weights: a {self.form} source carries its own weights, "
            f"got {self.weights!r} as well",
            "remove model.weights",
        )
        must(
            self.weights is not None or not self.weights_key,
            "model.weights_key: there is no model.weights to look it up in",
            "give model.weights, or remove model.weights_key",
        )


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
        must(
            13 <= self.opset <= 25,
            f"export.opset: {self.opset} is outside 13..25, which the exporters can write",
            "use 20, or 17 for old runtimes",
        )
        must(
            0 < self.tolerance < math.inf,
            f"export.tolerance: {self.tolerance} must be greater than 0",
            "use 0.001",
        )
        must(
            1 <= self.largest_batch <= 1024,
            f"export.largest_batch: {self.largest_batch} is outside 1..1024",
            "give the largest batch that a server will send, for example 8",
        )
        must(
            len(self.exporters) > 0,
            "export.exporters: the list is empty",
            "use [dynamo, legacy]",
        )
