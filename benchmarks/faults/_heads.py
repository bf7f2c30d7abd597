"""Nets with real weights behind every public head, and damage done to their answers on purpose.

YOLOX-Nano's trained answers are rewritten, inside the graph, into the rows that other detectors
give: the shapes are public layouts, the objects are those that a real net sees in real photos.
ResNet-20's logits become probabilities, class numbers and a list of the best five.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (416, 416)
CLASSES = 80
CELLS = sum((SIZE[0] // stride) * (SIZE[1] // stride) for stride in (8, 16, 32))


class Writer:
    """Appends nodes to a graph, each named by its output."""

    def __init__(self, model: Any) -> None:
        self.model = copy.deepcopy(model)
        self.last = self.model.graph.output[0].name
        self._count = 0

    def const(self, value: Any, kind: Any = np.float32) -> str:
        """A constant."""
        self._count += 1
        name = f"tail_c{self._count}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; gives the name of its (last) output."""
        self._count += 1
        names = [f"tail_{kind}_{self._count}_{n}" for n in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, names[0], **attributes)
        self.model.graph.node.append(node)
        return names[-1]

    def columns(self, source: str, start: int, end: int) -> str:
        """Columns start..end of the last of three axes."""
        ends = [self.const([n], np.int64) for n in (start, end, 2)]
        return self.add("Slice", source, *ends)

    def ends(self, *outputs: tuple[str, Any, list[Any]]) -> Any:
        """The finished model: outputs as (tensor, type, shape), named answer_0, answer_1 ..."""
        del self.model.graph.output[:]
        for number, (tensor, kind, shape) in enumerate(outputs):
            name = f"answer_{number}"
            self.model.graph.node.append(helper.make_node("Identity", [tensor], [name], name))
            self.model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
        onnx.checker.check_model(self.model)
        return self.model


def _decoded(tail: Writer) -> tuple[str, str]:
    """(boxes in pixels as centre and size, scores) of YOLOX's answers."""
    grids, strides = [], []
    for step in (8, 16, 32):
        y, x = np.mgrid[: SIZE[0] // step, : SIZE[1] // step]
        grids.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), step))
    grid, stride = (
        tail.const(np.concatenate(grids)[None]),
        tail.const(np.concatenate(strides)[None]),
    )
    raw = tail.last
    centre = tail.add("Mul", tail.add("Add", tail.columns(raw, 0, 2), grid), stride)
    side = tail.add("Mul", tail.add("Exp", tail.columns(raw, 2, 4)), stride)
    boxes = tail.add("Concat", centre, side, axis=2)
    scores = tail.add("Mul", tail.columns(raw, 4, 5), tail.columns(raw, 5, 5 + CLASSES))
    return boxes, scores


Damage = Callable[[Writer, str, str], tuple[str, str]]


def none(tail: Writer, boxes: str, scores: str) -> tuple[str, str]:
    """Nothing is changed."""
    return boxes, scores


def crushed(tail: Writer, boxes: str, scores: str) -> tuple[str, str]:
    """Scores keep their order and less than half of their height."""
    return boxes, tail.add("Mul", scores, tail.const(0.4))


def shared_scale(tail: Writer, boxes: str, scores: str) -> tuple[str, str]:
    """Scores in steps of 1, still finer than 416 / 255: the step of boxes that share a scale."""
    step = tail.const(1.0)
    return boxes, tail.add("Mul", tail.add("Round", tail.add("Div", scores, step)), step)


def permuted(tail: Writer, boxes: str, scores: str) -> tuple[str, str]:
    """Every class gives its scores to the next."""
    order = tail.const(np.roll(np.arange(CLASSES), 1), np.int64)
    return boxes, tail.add("Gather", scores, order, axis=2)


def shifted(tail: Writer, boxes: str, scores: str) -> tuple[str, str]:
    """Boxes lie 24 pixels further right."""
    return tail.add("Add", boxes, tail.const([24, 0, 0, 0])), scores


def raised(tail: Writer, boxes: str, scores: str) -> tuple[str, str]:
    """0.35 is added to every score."""
    return boxes, tail.add("Add", scores, tail.const(0.35))


DAMAGES: dict[str, Damage] = {
    "crushed": crushed,
    "shared scale": shared_scale,
    "permuted": permuted,
    "shifted": shifted,
    "raised": raised,
}


def yolox(model: Any, damage: Damage) -> Any:
    """YOLOX's own raw rows: offsets, logarithms, objectness, classes."""
    tail = Writer(model)
    shape = ["batch", CELLS, 5 + CLASSES]
    if damage is none:
        return tail.ends((tail.last, TensorProto.FLOAT, shape))
    raw = tail.last
    boxes, objectness = tail.columns(raw, 0, 4), tail.columns(raw, 4, 5)
    classes = tail.columns(raw, 5, 5 + CLASSES)
    if damage is permuted:
        _, classes = damage(tail, boxes, classes)
    elif damage is shifted:
        boxes = tail.add("Add", boxes, tail.const([2, 0, 0, 0]))
    else:
        _, objectness = damage(tail, boxes, objectness)
    out = tail.add("Concat", boxes, objectness, classes, axis=2)
    return tail.ends((out, TensorProto.FLOAT, shape))


def yolov8(model: Any, damage: Damage) -> Any:
    """(4 + classes, candidates), boxes in pixels."""
    tail = Writer(model)
    rows = tail.add("Concat", *damage(tail, *_decoded(tail)), axis=2)
    out = tail.add("Transpose", rows, perm=[0, 2, 1])
    return tail.ends((out, TensorProto.FLOAT, ["batch", 4 + CLASSES, CELLS]))


def yolov5(model: Any, damage: Damage) -> Any:
    """(3 anchors x cells, 5 + classes), boxes in pixels, objectness times class."""
    tail = Writer(model)
    boxes, scores = damage(tail, *_decoded(tail))
    best = tail.add("ReduceMax", scores, axes=[2], keepdims=1)
    root = tail.add("Sqrt", tail.add("Max", best, tail.const(0.0)))
    classes = tail.add("Div", scores, tail.add("Max", root, tail.const(1e-6)))
    parts = []
    for factor in (1.0, 0.9, 0.8):
        weaker = tail.add("Mul", root, tail.const(factor))
        parts.append(tail.add("Concat", boxes, weaker, classes, axis=2))
    out = tail.add("Concat", *parts, axis=1)
    return tail.ends((out, TensorProto.FLOAT, ["batch", 3 * CELLS, 5 + CLASSES]))


def _best(tail: Writer, boxes: str, scores: str, queries: int) -> tuple[str, str]:
    """Boxes and scores of the candidates with the highest scores."""
    top = tail.add("ReduceMax", scores, axes=[2], keepdims=0)
    places = tail.add("TopK", top, tail.const([queries], np.int64), axis=1, outputs=2)
    spread = tail.add("Unsqueeze", places, tail.const([2], np.int64))

    def picked(source: str, width: int) -> str:
        shape = tail.const([1, 1, width], np.int64)
        return tail.add("GatherElements", source, tail.add("Expand", spread, shape), axis=1)

    return picked(boxes, 4), picked(scores, CLASSES)


def _relative(tail: Writer, boxes: str) -> str:
    return tail.add("Div", boxes, tail.const([SIZE[1], SIZE[0]] * 2))


def end2end(model: Any, damage: Damage) -> Any:
    """(100, 6): corners in pixels, score, class."""
    tail = Writer(model)
    boxes, scores = damage(tail, *_best(tail, *_decoded(tail), 100))
    half = tail.add("Mul", tail.columns(boxes, 2, 4), tail.const(0.5))
    centre = tail.columns(boxes, 0, 2)
    top = tail.add("ReduceMax", scores, axes=[2], keepdims=1)
    best = tail.add("ArgMax", scores, axis=2, keepdims=1)
    parts = [tail.add("Sub", centre, half), tail.add("Add", centre, half), top]
    out = tail.add("Concat", *parts, tail.add("Cast", best, to=TensorProto.FLOAT), axis=2)
    return tail.ends((out, TensorProto.FLOAT, ["batch", 100, 6]))


def detr(model: Any, damage: Damage) -> Any:
    """Logits (100, classes + 1), the last for nothing, and boxes (100, 4) in 0..1."""
    tail = Writer(model)
    boxes, scores = damage(tail, *_best(tail, *_decoded(tail), 100))
    total = tail.add("ReduceSum", scores, tail.const([2], np.int64), keepdims=1)
    share = tail.add("Div", scores, tail.add("Max", total, tail.const(1.0)))
    left = tail.add("Sub", tail.const(1.0), tail.add("Min", total, tail.const(1.0)))
    every = tail.add("Concat", share, left, axis=2)
    logits = tail.add("Log", tail.add("Max", every, tail.const(1e-5)))
    return tail.ends(
        (logits, TensorProto.FLOAT, ["batch", 100, CLASSES + 1]),
        (_relative(tail, boxes), TensorProto.FLOAT, ["batch", 100, 4]),
    )


def rtdetr(model: Any, damage: Damage) -> Any:
    """Logits (100, classes), a sigmoid for each, and boxes (100, 4) in 0..1."""
    tail = Writer(model)
    boxes, scores = damage(tail, *_best(tail, *_decoded(tail), 100))
    inside = tail.add("Clip", scores, tail.const(1e-5), tail.const(1 - 1e-5))
    odds = tail.add("Div", inside, tail.add("Sub", tail.const(1.0), inside))
    logits = tail.add("Log", odds)
    return tail.ends(
        (logits, TensorProto.FLOAT, ["batch", 100, CLASSES]),
        (_relative(tail, boxes), TensorProto.FLOAT, ["batch", 100, 4]),
    )


DETECTORS = {
    "yolox": yolox,
    "yolov8": yolov8,
    "yolov5": yolov5,
    "end2end": end2end,
    "detr": detr,
    "rtdetr": rtdetr,
}


# Classifiers: one damage is done to the logits, whatever is made of them ------------------------


def logits_none(tail: Writer, logits: str) -> str:
    """Nothing is changed."""
    return logits


def logits_crushed(tail: Writer, logits: str) -> str:
    """Logits of a fifth of their height in steps: nearly everything is a tie."""
    steps = tail.add("Round", tail.add("Mul", logits, tail.const(0.05)))
    return tail.add("Mul", steps, tail.const(2.0))


def logits_permuted(tail: Writer, logits: str) -> str:
    """Every class gives its score to the next."""
    return tail.add("Gather", logits, tail.const(np.roll(np.arange(10), 1), np.int64), axis=1)


def logits_raised(tail: Writer, logits: str) -> str:
    """A constant is added to one class."""
    return tail.add("Add", logits, tail.const([0, 0, 12, 0, 0, 0, 0, 0, 0, 0]))


CLASS_DAMAGES = {
    "crushed": logits_crushed,
    "permuted": logits_permuted,
    "raised": logits_raised,
}


def logits(model: Any, damage: Any) -> Any:
    """(classes,) of any height."""
    tail = Writer(model)
    return tail.ends((damage(tail, tail.last), TensorProto.FLOAT, ["batch", 10]))


def softmax(model: Any, damage: Any) -> Any:
    """(classes,) that sum to 1."""
    tail = Writer(model)
    out = tail.add("Softmax", damage(tail, tail.last), axis=1)
    return tail.ends((out, TensorProto.FLOAT, ["batch", 10]))


def argmax(model: Any, damage: Any) -> Any:
    """One int64: the class."""
    tail = Writer(model)
    out = tail.add("ArgMax", damage(tail, tail.last), axis=1, keepdims=0)
    return tail.ends((out, TensorProto.INT64, ["batch"]))


def best_five(model: Any, damage: Any) -> Any:
    """Scores and int64 classes of the best five."""
    tail = Writer(model)
    scores = tail.add("Softmax", damage(tail, tail.last), axis=1)
    places = tail.add("TopK", scores, tail.const([5], np.int64), axis=1, outputs=2)
    values = places[:-1] + "0"
    return tail.ends(
        (values, TensorProto.FLOAT, ["batch", 5]), (places, TensorProto.INT64, ["batch", 5])
    )


CLASSIFIERS = {"logits": logits, "softmax": softmax, "argmax": argmax, "best five": best_five}
