"""One ONNX node on its way to MIL, Core ML's language, and the list of operators that go there.

Every shape is static here, since an engine's batch is 1. Knows no operator: `operators` and
`shaping` register theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.errors import BuildError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Packed:
    """Constant integers with their scales: value = (data - zero) * scale."""

    data: Array
    scale: Array
    zero: Array
    axis: int
    """Dimension of the scales, where there are several."""

    def transposed(self) -> Packed:
        """Rows and columns exchanged."""
        return Packed(self.data.T, self.scale, self.zero, 1 - self.axis)

    def dense(self) -> Array:
        """The values, float32."""
        wide = [1] * self.data.ndim
        if self.scale.size > 1:
            wide[self.axis] = -1
        zero = self.zero.astype(np.float32).reshape(wide)
        return (self.data.astype(np.float32) - zero) * self.scale.reshape(wide)


class Node:
    """One ONNX node while its words are written."""

    def __init__(self, mb: Any, proto: Any) -> None:
        import onnx

        self.mb, self.proto = mb, proto
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; text as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def refuse(self, what: str) -> BuildError:
        """The error for a form that Core ML, or this file, does not have."""
        label = self.proto.name or (self.proto.output[0] if self.proto.output else "")
        return BuildError(
            f"{self.proto.op_type} {label!r}: {what} has no counterpart in Core ML here",
            hint="rewrite that operation in the model, or leave coreml out of targets",
        )

    def constant(self, value: Any, what: str) -> Array:
        """A value that must be known now."""
        if isinstance(value, Packed):
            return value.dense()
        if not isinstance(value, np.ndarray):
            raise self.refuse(f"{what} that is only known at run time")
        return value

    def weight(self, value: Any) -> Any:
        """A weight as MIL takes it: constants stay, packed ones unpack on the device."""
        if not isinstance(value, Packed):
            return value
        several = value.scale.size > 1
        return self.mb.constexpr_affine_dequantize(
            quantized_data=value.data,
            scale=value.scale.reshape(-1) if several else np.float32(value.scale.reshape(())),
            zero_point=value.zero.reshape(-1) if several else value.zero.reshape(())[()],
            axis=np.int32(value.axis),
        )

    def window(self, spatial: Sequence[int], kernel: Sequence[int]) -> dict[str, Any]:
        """Strides and explicit pads of a convolution or pooling, in MIL's order.

        ONNX lists all begins, then all ends; MIL begin and end of one dimension after the other.
        """
        count = len(kernel)
        strides = list(self.get("strides", [1] * count))
        dilations = list(self.get("dilations", [1] * count))
        pads = list(self.get("pads", [0] * 2 * count))
        kind = self.get("auto_pad", "NOTSET")
        if kind in ("SAME_UPPER", "SAME_LOWER"):
            for n in range(count):
                reach = (kernel[n] - 1) * dilations[n] + 1
                total = max(0, (-(-spatial[n] // strides[n]) - 1) * strides[n] + reach - spatial[n])
                small, large = total // 2, total - total // 2
                pads[n], pads[n + count] = (
                    (small, large) if kind == "SAME_UPPER" else (large, small)
                )
        mixed = [pads[n + side * count] for n in range(count) for side in (0, 1)]
        return {"strides": strides, "pad_type": "custom", "pad": mixed}


Convert = Callable[..., Any]

#: Operators whose weights may stay packed; the others get the values.
PACKING = {"Conv", "ConvTranspose", "Gemm", "MatMul"}

#: Operator -> function(node, inputs...) -> MIL value, or a tuple of them. An input is a MIL value,
#: a numpy array where it is constant, `Packed` (`PACKING`), or None where it is left out.
OPERATORS: dict[str, Convert] = {}


def operator(*names: str) -> Callable[[Convert], Convert]:
    """Register a function for ONNX operators."""

    def register(function: Convert) -> Convert:
        for name in names:
            OPERATORS[name] = function
        return function

    return register


def whole_axis(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis
