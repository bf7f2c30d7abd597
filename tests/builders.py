"""Small values for tests: one of every dataclass, tiny models, tiny pictures."""

from __future__ import annotations

import dataclasses
import json
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union

import numpy as np

from engineworks.codec import from_json, to_json
from engineworks.export import reference
from engineworks.facts.model import PinnedModel
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact, Provenance, Requires, TensorSpec
from engineworks.specs import InputSpec, ModelSpec, Preprocess, TaskSpec
from engineworks.store import LocalStore

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
MADE_HERE = Provenance(stage="test", parents=("0" * 64,), tools={"numpy": "2"}, host="here")

#: Fields whose value must obey a rule of their class.
_RULED = {
    "source": "model:build",
    "weights": "weights.pt",
    "layout": "yolov8",
    "color": "bgr",
    "channels": 1,
    "opset": 17,
    "mean": (0.5, 0.25, 0.125),
    "std": (1.5, 2.0, 3.0),
    "iou": 0.5,
    "confidence": 0.25,
    "pad": 7,
    "dtype": "float16",
    "label": "graph",
}


def example(kind: type) -> Any:
    """An instance of a dataclass in which every field differs from its default."""
    hints = typing.get_type_hints(kind)
    return kind(
        **{
            field.name: _ruled(hints[field.name], field.name)
            or _value(hints[field.name], field.name)
            for field in dataclasses.fields(kind)
        }
    )


def _ruled(kind: Any, name: str) -> Any:
    """Rules are of plain values: a field of that name that holds a dataclass has none."""
    held = any(map(dataclasses.is_dataclass, typing.get_args(kind) or (kind,)))
    return None if held else _RULED.get(name)


def _value(kind: Any, name: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return example(kind)
    if origin in (Union, types.UnionType):
        return _value(next(option for option in args if option is not type(None)), name)
    if origin is Literal:
        return args[-1]
    if origin is tuple:
        kinds = args[:1] * 2 if args[-1] is Ellipsis else args
        return tuple(_value(kind, f"{name}{i}") for i, kind in enumerate(kinds))
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {"one": _value(args[1], name), "two": _value(args[1], name)}
    if kind is Any:
        return {"nested": [1, 2.5, "three", None, True]}
    plain: dict[type, Any] = {str: f"a {name}", int: 41, float: 0.75, bool: True}
    return plain[kind]


def tensor(name: str = "images", shape: tuple[int | str, ...] = ("batch", 3, 16, 16)) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


def shared(store: LocalStore, **changes: Any) -> Shared:
    values: dict[str, Any] = {
        "name": "tiny",
        "preprocess": Preprocess(),
        "task": TaskSpec(),
        "labels": (),
        "recipe_sha256": "r" * 64,
        "store": str(store.root),
    }
    return Shared(**{**values, **changes})


def put_bytes(
    store: LocalStore, folder: Path, content: bytes = b"bytes", **fields: Any
) -> Artifact:
    """An artifact of one file `model.bin`."""
    path = folder / "source.bin"
    path.write_bytes(content)
    values = {"kind": "onnx", "name": "tiny", "entry": "model.bin", "provenance": MADE_HERE}
    return store.put({"model.bin": path}, **{**values, **fields})


def put_onnx(store: LocalStore, onnx: Path) -> Artifact:
    """An ONNX artifact as the export stage leaves it."""
    from engineworks.export.torch_onnx import signature

    inputs, outputs, opset = signature(onnx)
    return store.put(
        {"model.onnx": onnx},
        kind="onnx",
        name="tiny",
        entry="model.onnx",
        inputs=inputs,
        outputs=outputs,
        details={"opset": opset},
        provenance=MADE_HERE,
    )


def put_reference(
    store: LocalStore, folder: Path, inputs: Any, outputs: Mapping[str, Any]
) -> Artifact:
    """A reference artifact as the reference stage leaves it."""
    path = folder / reference.FILE
    reference.save(path, inputs, outputs)
    return store.put(
        {reference.FILE: path},
        kind="reference",
        name="tiny",
        entry=reference.FILE,
        provenance=MADE_HERE,
    )


def samples(rows: int = 4, size: tuple[int, int] = (16, 16), channels: int = 3) -> Any:
    """(rows, channels, height, width) float32 noise, the same each time."""
    return np.random.default_rng(3).random((rows, channels, *size), np.float32)


def tiny_module(seed: int = 0) -> Any:
    """Conv, grouped conv, mean, linear: (b, 3, 16, 16) -> (b, 5)."""
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.grouped = nn.Conv2d(8, 8, 3, groups=4)
            self.linear = nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.grouped(torch.relu(self.conv(x))))
            return self.linear(x.mean((2, 3)))

    torch.manual_seed(seed)
    return Tiny().eval()


def export_tiny(path: Path) -> Path:
    """Write `tiny_module` as ONNX with an open batch."""
    import torch

    torch.onnx.export(
        tiny_module(),
        (torch.from_numpy(samples(1)),),
        str(path),
        dynamo=False,
        input_names=["images"],
        output_names=["scores"],
        dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}},
        opset_version=17,
    )
    return path


def conv_net(path: Path, size: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    """Write an ONNX net with SiLU, ReLU, a shortcut and both kinds of matrix products.

    images (batch, 3, height, width) -> scores (batch, 5). Arithmetic: stem, left, deep, mixed,
    scores, each named by its output.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(seed)
    weights: list[Any] = []

    def weight(name: str, *shape: int) -> str:
        value = rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(name: str, source: str, before: int, after: int, *, bias: bool = True) -> Any:
        inputs = [source, weight(f"{name}_w", after, before, 3, 3)]
        inputs += [weight(f"{name}_b", after)] if bias else []
        return helper.make_node("Conv", inputs, [name], name, pads=[1] * 4)

    nodes = [
        conv("stem", "images", 3, 8),
        helper.make_node("Sigmoid", ["stem"], ["gate"]),
        helper.make_node("Mul", ["stem", "gate"], ["act"]),
        conv("left", "act", 8, 8),
        helper.make_node("Relu", ["left"], ["relu"]),
        helper.make_node("Add", ["act", "relu"], ["sum"]),
        helper.make_node("MaxPool", ["sum"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("deep", "pool", 8, 16, bias=False),
        helper.make_node("LeakyRelu", ["deep"], ["leaky"]),
        helper.make_node("GlobalAveragePool", ["leaky"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", weight("mixed_w", 16, 16)], ["mixed"]),
        helper.make_node(
            "Gemm", ["mixed", weight("scores_w", 5, 16), weight("scores_b", 5)], ["scores"],
            transB=1,
        ),
    ]  # fmt: skip
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *size])
    wanted = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "net", [given], [wanted], weights)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    checker.check_model(model, full_check=True)
    save(model, str(path))
    return path


def deep_net(path: Path) -> Path:
    """Write an ONNX net of 40 convolutions c0 ... c39: 30 at 16 x 16, then 10 at 8 x 8."""
    from onnx import helper, numpy_helper, save

    nodes, weights = [], []
    last = "x"
    for number in range(40):
        kernel = np.zeros((2, 2, 1, 1), np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        strides = [2, 2] if number == 30 else [1, 1]
        nodes.append(
            helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], strides=strides)
        )
        last = f"c{number}"
    given = helper.make_tensor_value_info("x", 1, [1, 2, 16, 16])
    wanted = helper.make_tensor_value_info(last, 1, [1, 2, 8, 8])
    save(helper.make_model(helper.make_graph(nodes, "deep", [given], [wanted], weights)), str(path))
    return path


def quantized(onnx: Path, path: Path, scheme: Any, inputs: Any) -> Path:
    """Write the Q/DQ form of a net, all its arithmetic in integers, calibrated on some rows."""
    from onnx import save

    from engineworks.calibrate import collect, derive
    from engineworks.qdq import pairs
    from engineworks.qdq.graph import Graph

    graph = Graph(onnx)
    statistics = collect.collect(graph, [row[None] for row in inputs], threads=1)
    bounds = derive.derive(graph, statistics, "minmax", scheme)
    save(pairs.emit(graph, bounds, graph.computing, scheme), str(path))
    return path


def through_json(stage: str, request: Any) -> Any:
    """Run a stage as its child process does: request and value cross as JSON."""
    from engineworks.stages import STAGES

    entry = STAGES[stage]
    request = from_json(entry.request, json.loads(json.dumps(to_json(request))))
    value = entry.run(request)
    again = from_json(entry.value, json.loads(json.dumps(to_json(value))))
    assert again == value
    return again


def pinned(folder: Path, source: str, **spec: Any) -> PinnedModel:
    """A model source in a folder, as `recipe.pin_model` gives it."""
    spec = {"input": InputSpec(size=(16, 16)), **spec}
    model = ModelSpec(source=source, **spec)
    path = spec.get("weights") or "" if model.form == "factory" else source
    return PinnedModel(
        spec=model,
        folder=str(folder),
        path=str(folder / path) if path else "",
        code_sha256="c" * 64,
        bytes_sha256="b" * 64,
    )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def picture(path: Path, height: int = 24, width: int = 32, seed: int = 0) -> Path:
    """A noise picture, in the format that the name's ending says."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), image)
    return path


def coco(path: Path, files: Mapping[str, tuple[int, int]], boxes: list[Any], names: Any) -> Path:
    """COCO JSON: file -> (height, width); boxes (file, category name, bbox); name -> id."""
    ids = {name: 100 + position for position, name in enumerate(files)}
    raw = {
        "images": [
            {"id": ids[name], "file_name": name, "height": size[0], "width": size[1]}
            for name, size in files.items()
        ],
        "categories": [{"id": number, "name": name} for name, number in names.items()],
        "annotations": [
            {"image_id": ids[file], "category_id": names[name], "bbox": bbox}
            for file, name, bbox in boxes
        ],
    }
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def photos() -> list[Path]:
    """The openly licensed photos of the YOLOX example, sorted by name."""
    return sorted((EXAMPLES / "yolox_nano" / "data" / "val2017").glob("*.jpg"))


def export_yolox(path: Path, size: tuple[int, int] = (416, 416), batch: int | None = None) -> Path:
    """Write the example's trained YOLOX-Nano as ONNX; the batch stays open without a number."""
    import torch

    from engineworks.usercode import load

    folder = EXAMPLES / "yolox_nano"
    model = load("model:build", folder, "model.source")().eval()
    model.load_state_dict(torch.load(folder / "yolox_nano_coco.pt", weights_only=True))
    torch.onnx.export(
        model,
        (torch.zeros(batch or 1, 3, *size),),
        str(path),
        dynamo=False,
        input_names=["images"],
        output_names=["detections"],
        dynamic_axes=None if batch else {"images": {0: "batch"}, "detections": {0: "batch"}},
        opset_version=17,
    )
    return path


def behind_pixels(yolox: Path, path: Path) -> Path:
    """Write YOLOX with uint8 (batch, 416, 416, 3) as its input: Cast and Transpose before it."""
    import onnx
    from onnx import TensorProto, compose, helper

    back = onnx.load(yolox)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    ends = [
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 416, 416, 3]),
        helper.make_tensor_value_info("planes", TensorProto.FLOAT, ["batch", 3, 416, 416]),
    ]
    front = helper.make_model(
        helper.make_graph(nodes, "front", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=back.ir_version,
    )
    onnx.save(compose.merge_models(front, back, io_map=[("planes", "images")]), path)
    return path


def power_onnx(path: Path) -> Path:
    """A graph whose answer has batch ** 8 numbers: one image is nothing, 64 are a petabyte."""
    import onnx
    from onnx import TensorProto, helper

    squares = [
        helper.make_node("Mul", [a, a], [b])
        for a, b in (("whole", "two"), ("two", "four"), ("four", "eight"))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["images"], ["whole"], end=1),
            *squares,
            helper.make_node("ReduceMean", ["images"], ["one"], axes=[0, 1, 2, 3], keepdims=0),
            helper.make_node("Expand", ["one", "eight"], ["scores"]),
        ],
        "power",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["many"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, path)
    return path


def put_engine(
    store: LocalStore,
    onnx: Path,
    *,
    runtime: str = "onnxruntime",
    name: str = "yolox-nano",
    preprocess: Preprocess | None = None,
    task: TaskSpec | None = None,
    details: dict[str, Any] | None = None,
) -> Artifact:
    """An engine whose file is the ONNX graph itself, which every runtime here can open."""
    from engineworks.export.torch_onnx import signature

    inputs, outputs, _ = signature(onnx)
    return store.put(
        {"model.onnx": onnx},
        kind="engine",
        name=name,
        entry="model.onnx",
        inputs=inputs,
        outputs=outputs,
        preprocess=preprocess or YOLOX_PREPROCESS,
        task=task or yolox_task(),
        target=runtime,
        precision="fp32",
        requires=Requires(runtime=runtime),
        details=details if details is not None else _exact(runtime),
        provenance=MADE_HERE,
    )


def _exact(runtime: str) -> dict[str, Any]:
    """OpenVINO would compute in bfloat16 where the CPU has it."""
    return {"compile": {"INFERENCE_PRECISION_HINT": "f32"}} if runtime == "openvino" else {}


#: As examples/yolox_nano/recipe.yaml has it.
YOLOX_PREPROCESS = Preprocess(
    color="bgr", resize="letterbox", anchor="top_left", pad=114, scale=1.0
)


def yolox_task(confidence: float = 0.3) -> TaskSpec:
    labels = (EXAMPLES / "yolox_nano" / "labels.txt").read_text(encoding="utf-8").split("\n")
    return TaskSpec(
        kind="detection",
        layout="yolox",
        labels=tuple(name for name in labels if name),
        confidence=confidence,
    )
