"""A float32 graph in float16 or bfloat16, its inputs and outputs left as they are.

For runtimes that take their precision from the graph. Knows no runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engineworks.errors import BuildError, MissingDependency, said

#: Operators whose definition has no float16, or whose result would be wrong in it.
KEPT_IN_FLOAT = ["NonMaxSuppression", "Range", "TopK", "CumSum"]


def convert(onnx: Path, path: Path) -> Path:
    """Write the graph at `onnx` with float16 weights and arithmetic to `path`.

    Values beyond +-65504 become that, and weights below 6e-8 become 6e-8 with their sign, as
    the converter of ONNX Runtime does. Source:
    https://onnxruntime.ai/docs/performance/model-optimizations/float16.html

    Raises:
        BuildError: The converter cannot follow the graph.
        MissingDependency: ONNX Runtime, which brings the converter, is not installed.
    """
    import onnx as onnx_package

    onnx_package.save(_converted(onnx), str(path))
    return path


def convert_wide(onnx: Path, path: Path) -> Path:
    """Write the graph at `onnx` with bfloat16 weights and arithmetic to `path`.

    Casts lie where `convert` puts them. Weights are rounded from their float32 values, so the
    range of float16 does not limit them.

    Raises:
        BuildError: The converter cannot follow the graph.
        MissingDependency: ONNX Runtime, which brings the converter, is not installed.
    """
    import ml_dtypes
    import onnx as onnx_package

    half, wide = onnx_package.TensorProto.FLOAT16, onnx_package.TensorProto.BFLOAT16
    values = _constants(onnx_package.load(str(onnx)))

    def widen(tensor: Any, name: str) -> None:
        if tensor.data_type == half:
            value = values.get(name, onnx_package.numpy_helper.to_array(tensor))
            rounded = value.astype("float32").astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(onnx_package.numpy_helper.from_array(rounded, tensor.name))

    model = _converted(onnx)
    for tensor in model.graph.initializer:
        widen(tensor, tensor.name)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == half:
                attribute.i = wide
            widen(attribute.t, node.output[0])
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = wide
    onnx_package.save(model, str(path))
    return path


def _constants(model: Any) -> dict[str, Any]:
    """Initializers, and values of Constant nodes by their output."""
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return arrays


def _converted(onnx: Path) -> Any:
    """The model (onnx.ModelProto) in float16."""
    import onnx as onnx_package

    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"16 bits need the converter of the package {error.name!r}",
            hint="pip install 'engineworks[export]'",
        ) from error
    try:
        return convert_float_to_float16(
            onnx_package.load(str(onnx)), keep_io_types=True, op_block_list=KEPT_IN_FLOAT
        )
    except Exception as error:
        raise BuildError(
            f"the graph cannot be converted to 16 bits ({type(error).__name__}: {said(error)})",
            hint="use fp32 for this target, or export the model another way (export.exporters; an "
            ".onnx source: where it was made)",
        ) from error
