"""A model's image input as everything after it feeds it: float32 (batch, channels, height, width).

Models come with other inputs: (batch, height, width, channels), float16, float64, uint8. The front
is written into the graph, so that every target takes them alike; the same is done to numbers for
the file as it came, by which the graph is judged. Knows no target and no preprocessing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.errors import ModelError

Array = np.ndarray[Any, Any]

#: What ONNX Runtime calls the types that pictures can be given in -> numpy's name.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a model wants its image: `nhwc` has the channels last."""

    dtype: str
    nhwc: bool

    @property
    def usual(self) -> bool:
        """Whether it is what is fed."""
        return self.dtype == "float32" and not self.nhwc

    @property
    def words(self) -> str:
        """What differs."""
        order = "(batch, height, width, channels)" if self.nhwc else ""
        return " ".join(filter(None, (self.dtype if self.dtype != "float32" else "", order)))

    def given(self, batch: Array) -> Array:
        """A float32 (b, channels, height, width) batch as the model wants it.

        Raises:
            ModelError: It wants bytes, and the values are none.
        """
        ordered = batch.transpose(0, 2, 3, 1) if self.nhwc else batch
        if self.dtype == "uint8":
            ordered = np.clip(ordered, 0, 255)
            if (ordered != np.rint(ordered)).any():
                raise ModelError(
                    "the model's input is uint8: it takes pixels as they are, 0 to 255, and "
                    "preprocess makes fractions of them",
                    hint="write preprocess: scale: 1, mean: [0, 0, 0], std: [1, 1, 1]",
                )
        return np.ascontiguousarray(ordered.astype(self.dtype))


def form(dtype: str, shape: Sequence[Any], channels: int) -> Form:
    """How a model wants its image, by its input's type and shape (numbers, or names).

    Raises:
        ModelError: No picture is given in that type.
    """
    if dtype not in DTYPES:
        raise ModelError(
            f"the model's input is {dtype}{list(shape)}; pictures are given as float32, float16, "
            "float64 or uint8",
            hint="export the model with an image of one of these types as its input",
        )
    nhwc = len(shape) == 4 and shape[3] == channels and shape[1] != channels
    return Form(dtype=DTYPES[dtype], nhwc=nhwc)


def adapted(model: Any, channels: int) -> tuple[Any, str]:
    """The ONNX model with the usual input and float32 outputs, in place; and what was changed."""
    from onnx import TensorProto, helper

    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    (image,) = [value for value in graph.input if value.name not in constants]
    kind = image.type.tensor_type
    shape = [dim.dim_value or dim.dim_param for dim in kind.shape.dim]
    names = {TensorProto.FLOAT: "float", TensorProto.FLOAT16: "float16",
             TensorProto.DOUBLE: "double", TensorProto.UINT8: "uint8"}  # fmt: skip
    wanted = form(f"tensor({names.get(kind.elem_type, kind.elem_type)})", shape, channels)
    notes = [f"input {wanted.words} made float32 (batch, channels, height, width)"]
    front = []
    if not wanted.usual:
        inner, now = f"{image.name}_as_given", image.name
        _rename(graph, image.name, inner)
        # On bytes that are made floats at once nothing is gained by making them bytes before.
        asked = [node for node in graph.node if inner in node.input]
        needless = wanted.dtype == "uint8" and all(node.op_type == "Cast" for node in asked)
        if wanted.dtype != "float32" and not needless:
            cast = f"{image.name}_{wanted.dtype}" if wanted.nhwc else inner
            front.append(helper.make_node("Cast", [now], [cast], to=kind.elem_type))
            now = cast
        if wanted.nhwc:
            front.append(helper.make_node("Transpose", [now], [inner], perm=[0, 2, 3, 1]))
            dims = [kind.shape.dim[axis].SerializeToString() for axis in (0, 3, 1, 2)]
            for dim, text in zip(kind.shape.dim, dims, strict=True):
                dim.ParseFromString(text)
        elif needless:
            front.append(helper.make_node("Identity", [now], [inner]))
        kind.elem_type = TensorProto.FLOAT
    back = []
    for value in graph.output:
        half = value.type.tensor_type
        if half.elem_type in (TensorProto.FLOAT16, TensorProto.DOUBLE):
            _rename(graph, value.name, f"{value.name}_as_given", outputs=True)
            half.elem_type = TensorProto.FLOAT
            back.append(
                helper.make_node(
                    "Cast", [f"{value.name}_as_given"], [value.name], to=TensorProto.FLOAT
                )
            )
    if not front and not back:
        return model, ""
    nodes = [*front, *graph.node, *back]
    del graph.node[:]
    graph.node.extend(nodes)
    if back:
        notes = [*(notes if front else []), "outputs made float32"]
    return model, " and ".join(notes)


def _rename(graph: Any, old: str, new: str, *, outputs: bool = False) -> None:
    """Let every node, those of subgraphs too, use another name for a tensor."""
    for node in _nodes(graph):
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new
        if outputs:
            for position, name in enumerate(node.output):
                if name == old:
                    node.output[position] = new


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for part in (attribute.g, *attribute.graphs):
                yield from _nodes(part)
