"""ONNX in the making from a MIL program: names, constants, and rounding to fp16."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Operations whose values are those that came in: there is nothing to round.
_MOVING = {
    "concat", "crop", "expand_dims", "gather", "identity", "max_pool", "maximum", "minimum", "pad",
    "pixel_shuffle", "relu", "reshape", "select", "slice_by_index", "split", "squeeze", "tile",
    "transpose", "upsample_nearest_neighbor", "reduce_max", "reduce_min",
}  # fmt: skip


def dtype(variable: Any) -> str:
    """Numpy's name of a MIL value's type."""
    from coremltools.converters.mil.mil import types

    word = str(types.builtin_to_string(variable.dtype))
    return {"fp16": "float16", "fp32": "float32"}.get(word, word)


def computed_in(variable: Any) -> str:
    """The type that stands for a value's own: rounded fp32 for fp16."""
    word = dtype(variable)
    return "float32" if word == "float16" else word


class Writer:
    """Collects nodes and constants; every MIL value becomes a tensor of its own name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.names: dict[Any, str] = {}
        self.made = 0

    def name(self, variable: Any) -> str:
        """The tensor of a MIL value; constants are written at their first use."""
        if variable in self.names:
            return self.names[variable]
        constant_value = constant(variable)
        if constant_value is None:
            self.names[variable] = variable.name
        else:
            self.names[variable] = self.constant(constant_value)
        return self.names[variable]

    def constant(self, value: Array) -> str:
        """A new constant."""
        import onnx

        self.made += 1
        label = f"constant_{self.made}"
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        self.constants.append(onnx.numpy_helper.from_array(array, label))
        return label

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """One ONNX node."""
        import onnx

        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], **attributes))

    def fresh(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """One ONNX node with a name of its own for the output."""
        self.made += 1
        label = f"{kind}_{self.made}"
        self.node(kind, inputs, label, **attributes)
        return label

    def target(self, variable: Any) -> str:
        """The tensor that an operation writes: `name`, or what is rounded to it."""
        rounded = dtype(variable) == "float16" and variable.op.op_type not in _MOVING
        return self.name(variable) + "__exact" * rounded

    def round(self, variable: Any) -> None:
        """To fp16 and back: ONNX Runtime computes in fp32 and would drop casts of its own."""
        import onnx

        half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        narrow = self.fresh("Cast", [self.target(variable)], to=half)
        self.node("Cast", [narrow], self.name(variable), to=single)


def constant(variable: Any) -> Array | None:
    """The value of a constant, unpacked; None when it is computed."""
    maker = variable.op
    if maker is None:
        return None
    if maker.op_type.startswith("constexpr_"):
        return np.asarray(maker.materialized_val_inference(), dtype(variable))
    return None if variable.val is None else np.asarray(variable.val)
