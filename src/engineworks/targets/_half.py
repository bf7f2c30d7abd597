"""A float32 graph in float16, its inputs and outputs left as they are.

For runtimes that take their precision from the graph. Knows no runtime.
"""

from __future__ import annotations

from pathlib import Path

from engineworks.errors import BuildError, MissingDependency

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

    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"float16 needs the converter of the package {error.name!r}",
            hint="pip install 'engineworks[export]'",
        ) from error
    try:
        half = convert_float_to_float16(
            onnx_package.load(str(onnx)), keep_io_types=True, op_block_list=KEPT_IN_FLOAT
        )
    except Exception as error:
        raise BuildError(
            f"the graph cannot be converted to float16 ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200] if str(error) else 'no reason given'})",
            hint="use fp32 for this target, or export with the other exporter",
        ) from error
    onnx_package.save(half, str(path))
    return path
