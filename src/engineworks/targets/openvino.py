"""OpenVINO on the CPU: an IR file, weights in fp32 or fp16.

On a CPU without native fp16 arithmetic OpenVINO widens fp16 weights when it loads them and
computes in fp32; the delivered precision says so. Source:
https://docs.openvino.ai/2025/openvino-workflow/model-preparation/conversion-parameters.html
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError, said
from engineworks.facts.engine import DeliveredPrecision
from engineworks.facts.host import HostCard
from engineworks.manifest import Requires
from engineworks.qdq.pairs import Scheme
from engineworks.targets._base import (
    GRAPH_REFUSED,
    UNREAD,
    BuildInput,
    BuildOutput,
    Int8Rules,
    Target,
    dtype_word,
    int8_precision,
    missing_package,
    package_version,
)


def int8(host: HostCard) -> Int8Rules:
    """Q/DQ in front of the arithmetic only: it requantizes by itself and keeps fusing SiLU.

    Without zero points its kernels need no compensation, and those for depthwise convolutions
    are others and faster. Scales by channel go into their weights.

    Source: https://docs.openvino.ai/2025/documentation/openvino-extensibility/
    openvino-plugin-library/advanced-guides/low-precision-transformations.html
    """
    return Int8Rules(
        scheme=Scheme(
            activation="either",
            bias="float",
            outputs=False,
            passing=True,
            depthwise_channels=True,
        )
    )


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
    return missing_package(host, "openvino", "openvino")


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators that OpenVINO's ONNX front end leaves unconverted."""
    from openvino.frontend import FrontEndManager

    manager = FrontEndManager()  # must outlive what it makes, or the library crashes
    front_end = manager.load_by_framework("onnx")
    loaded = front_end.load(str(onnx))
    partly = front_end.convert_partially(loaded)
    return tuple(
        sorted(
            {
                str(operation.get_attributes().get("ONNX_META_type", operation.get_friendly_name()))
                for operation in partly.get_ops()
                if "FrameworkNode" in operation.get_type_name()
            }
        )
    )


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    import openvino as ov

    # The hint is stored with the engine, so that no default of a later version changes it.
    compile_options = {"INFERENCE_PRECISION_HINT": _hint(request)}
    path = request.work / "model.xml"
    try:
        model = ov.convert_model(request.onnx)
        _name_inputs(model, request)
        ov.save_model(model, path, compress_to_fp16=request.precision == "fp16")
    except Exception as error:
        raise BuildError(
            f"OpenVINO refused the graph: {said(error)}",
            hint=GRAPH_REFUSED,
        ) from error
    return BuildOutput(
        files={"model.xml": path, "model.bin": path.with_suffix(".bin")},
        entry="model.xml",
        requires=Requires(
            runtime="openvino", package=package_version("openvino"), arch=request.host.arch
        ),
        delivered_precision=UNREAD
        if request.draft
        else _delivered_precision(path, request, compile_options),
        details={"compile": compile_options},
    )


def _name_inputs(model: Any, request: BuildInput) -> None:
    """Let every input answer to its own name alone, for servers that take the first of several.

    Where a transpose and its reverse behind an input cancel each other out, OpenVINO gives the
    input the names of all their tensors.
    """
    for port in model.inputs:
        own = [spec.name for spec in request.inputs if spec.name in port.names]
        if own:
            port.get_tensor().set_names(set(own[:1]))


def _hint(request: BuildInput) -> str:
    native = {"avx512_fp16", "amx_fp16", "asimdhp"} & set(request.host.cpu_flags)
    return "f16" if request.precision == "fp16" and native else "f32"


#: Layers that do the arithmetic, by their names in an executed graph.
ARITHMETIC = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}

#: Layers that only carry values.
CARRYING = {"Input", "Output", "Const", "Reorder", "Reshape"}


def _delivered_precision(
    path: Path, request: BuildInput, compile_options: dict[str, Any]
) -> DeliveredPrecision:
    """Read the stored constants from the IR, and the executed kernels from the compiled model."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    stored: Counter[str] = Counter()
    for operation in model.get_ops():
        if operation.get_type_name() == "Constant":
            kind = operation.get_output_element_type(0)
            values = math.prod(operation.get_output_shape(0))
            stored[dtype_word(kind.get_type_name())] += values * kind.bitwidth // 8
    compiled = core.compile_model(model, "CPU", compile_options)
    kernels = []
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        # The kernel's name ends in what it computes (brgconv_avx512_1x1_f32);
        # `runtimePrecision` would repeat the type of the weights it was fed.
        word = dtype_word(str(info["primitiveType"].value).rpartition("_")[2])
        kernels.append((str(info["layerType"].value), word))
    if request.precision == "int8":
        return _int8_precision(request.onnx, kernels, dict(stored))
    computed = Counter(word for layer, word in kernels if layer not in CARRYING)
    floats = {word: size for word, size in stored.items() if word in ("fp32", "fp16")}
    # A few constants (shapes, scalars) legitimately stay wide: judge by the bulk of the bytes.
    delivered = max(floats, key=lambda word: floats[word]) if floats else "none"
    note = ""
    if request.precision == "fp16" and computed["fp16"] == 0:
        note = "stored in fp16, computed in fp32: this CPU has no fp16 arithmetic"
    return DeliveredPrecision(
        asked=request.precision,
        delivered=delivered,
        holds=delivered == request.precision,
        stored_bytes=dict(stored),
        computed_nodes=dict(computed),
        note=note,
    )


def _int8_precision(
    asked_of: Path, kernels: list[tuple[str, str]], stored: dict[str, int]
) -> DeliveredPrecision:
    """Hold the integer kernels that are executed against the layers asked for."""
    computed = Counter(word for layer, word in kernels if layer in ARITHMETIC)
    return int8_precision(asked_of, computed["int8"], computed.total(), stored)


TARGET = Target(
    title="OpenVINO, CPU",
    precisions=("fp32", "fp16", "int8"),
    packages=("openvino",),
    # The precision hint and the types that are read back depend on the CPU.
    host_bound=True,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    int8=int8,
)
