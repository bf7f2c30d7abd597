"""A built Core ML package as ONNX again, so that a machine without Core ML can run what it holds.

Reads the saved file, not what was asked for: stored weights are unpacked by coremltools' own code,
and where the package computes in fp16 every result is rounded to it. What it proves is the package;
Apple's runtime and its kernels are proven on a Mac only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import BuildError
from engineworks.targets._coreml import reading_shapes, readings  # noqa: F401 - they register
from engineworks.targets._coreml.onnx_writer import Writer, computed_in
from engineworks.targets._coreml.reading import OPERATIONS


def load(package: Path) -> Any:
    """The MIL program of a saved `.mlpackage`."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto import load as milproto

    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    return milproto.load(
        spec,
        specification_version=spec.specificationVersion,
        file_weights_dir=model.weights_dir,
    )


def write(package: Path, path: Path) -> Path:
    """Write the ONNX form of a package.

    Raises:
        BuildError: The package holds an operator that is not known here.
    """
    import onnx

    main = load(package).functions["main"]
    writer = Writer()
    for name, variable in main.inputs.items():
        writer.names[variable] = name
    for operation in main.operations:
        _write(writer, operation)
    graph = onnx.helper.make_graph(
        writer.nodes,
        "replay",
        [_value(writer, variable) for variable in main.inputs.values()],
        [_value(writer, variable) for variable in main.outputs],
        writer.constants,
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
    )
    onnx.save(model, str(path))
    return path


def _write(writer: Writer, operation: Any) -> None:
    kind = operation.op_type
    if kind == "const" or kind.startswith("constexpr_"):
        return  # written where they are used
    if kind not in OPERATIONS:
        raise BuildError(
            f"the package holds {kind}, which cannot be run without Core ML yet",
            hint="check this variant on a Mac",
        )
    OPERATIONS[kind](writer, operation)
    for variable in operation.outputs:
        if writer.target(variable) != writer.name(variable):
            writer.round(variable)


def _value(writer: Writer, variable: Any) -> Any:
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(computed_in(variable)))
    return onnx.helper.make_tensor_value_info(writer.name(variable), kind, list(variable.shape))
