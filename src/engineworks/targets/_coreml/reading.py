"""What every reading of a MIL operation needs, and the list of those that can be read.

Knows no operation: `readings` and `reading_shapes` register theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engineworks.targets._coreml.onnx_writer import Writer


def parameter(operation: Any, name: str, default: Any = None) -> Any:
    """A parameter's value; arrays as lists."""
    variable = operation.inputs.get(name)
    if variable is None or variable.val is None:
        return default
    value = variable.val
    return value.tolist() if isinstance(value, np.ndarray) else value


Write = Callable[[Writer, Any], None]
#: MIL operation -> function(writer, operation) that writes its nodes.
OPERATIONS: dict[str, Write] = {}


def reads(*names: str) -> Callable[[Write], Write]:
    """Register a function for MIL operations."""

    def register(function: Write) -> Write:
        for name in names:
            OPERATIONS[name] = function
        return function

    return register


def output(writer: Writer, operation: Any) -> str:
    """Name of an operation's only output in the ONNX graph."""
    return writer.target(operation.outputs[0])


def inputs(writer: Writer, operation: Any, *names: str) -> list[str]:
    """Names of an operation's operands in the ONNX graph."""
    return [writer.name(operation.inputs[name]) for name in names]


def window(operation: Any, spatial: list[int], kernel: list[int]) -> dict[str, Any]:
    """Strides, dilations and pads as ONNX writes them: all begins, then all ends."""
    count = len(kernel)
    strides = parameter(operation, "strides") or [1] * count
    dilations = parameter(operation, "dilations") or [1] * count
    kind = parameter(operation, "pad_type", "valid")
    pads = [0] * 2 * count
    if kind == "custom":
        mixed = parameter(operation, "pad") or pads
        pads = [mixed[2 * n + side] for side in (0, 1) for n in range(count)]
    elif kind in ("same", "same_lower"):
        for n in range(count):
            reach = (kernel[n] - 1) * dilations[n] + 1
            total = max(0, (math.ceil(spatial[n] / strides[n]) - 1) * strides[n] + reach)
            total = max(0, total - spatial[n])
            first = total // 2 if kind == "same" else total - total // 2
            pads[n], pads[n + count] = first, total - first
    return {"strides": strides, "pads": pads}
