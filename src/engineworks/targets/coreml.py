"""Core ML: an ML program for iPhones, iPads and Macs, written on any machine.

Built from the same ONNX graph as every other target, with the batch fixed at 1: Core ML takes
batches as lists of inputs, and its Neural Engine wants fixed shapes. Where there is no macOS the
package is run operator by operator with ONNX Runtime instead (`replayed`): that proves what it
holds and says nothing about Apple's kernels or their speed. Sources:
https://apple.github.io/coremltools/docs-guides/source/convert-to-ml-program.html and
https://apple.github.io/coremltools/docs-guides/source/opt-overview.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError, said
from engineworks.facts.engine import DeliveredPrecision
from engineworks.facts.host import HostCard
from engineworks.manifest import Requires
from engineworks.qdq import accept
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
from engineworks.targets._coreml import mil, replay
from engineworks.targets._coreml.onnx_writer import dtype

UNITS = ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")

#: The oldest system that opens these packages: macOS 14, which is Darwin 23, and iOS 17.
OLDEST_DARWIN = 23


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
    return missing_package(host, "coremltools", "coreml")


def cannot_run(host: HostCard) -> str:
    """See `Target`."""
    kernel = re.match(r"Darwin (\d+)", host.os)
    return "" if kernel and int(kernel[1]) >= OLDEST_DARWIN else "macOS 14 or newer"


def int8(host: HostCard) -> Int8Rules:
    """Symmetric integers in front of the arithmetic, float biases.

    Source: https://apple.github.io/coremltools/docs-guides/source/opt-quantization-overview.html
    """
    return Int8Rules(scheme=Scheme(activation="int8", bias="float", outputs=False))


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators that `build` has no words for."""
    return mil.unsupported_operators(onnx)


def check_options(options: Mapping[str, Any]) -> None:
    """See `Target`."""
    _units(options)


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    import coremltools as ct

    units = _units(request.options)
    features = {
        spec.name: mil.feature_name(spec.name) for spec in (*request.inputs, *request.outputs)
    }
    if len(set(features.values())) < len(features):
        raise BuildError(
            f"two of {', '.join(features)} would have one name in Core ML, which knows letters, "
            "digits and _ only",
            hint="give the tensors other names (model.input.name, model.outputs; an .onnx source: "
            "where it was made)",
        )
    float32 = request.precision == "fp32"
    try:
        model = ct.convert(
            mil.program(request.onnx),
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32 if float32 else ct.precision.FLOAT16,
            skip_model_load=True,
        )
        path = _saved(model, list(features.values()), request.work / "model.mlpackage")
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(
            f"coremltools refused the graph: {said(error)}",
            hint=GRAPH_REFUSED,
        ) from error
    return BuildOutput(
        files={
            file.relative_to(request.work).as_posix(): file
            for file in sorted(path.rglob("*"))
            if file.is_file()
        },
        entry="model.mlpackage/Manifest.json",
        requires=Requires(runtime="coreml", package=package_version("coremltools")),
        delivered_precision=UNREAD if request.draft else _delivered_precision(path, request),
        details={"features": features, "compute_units": units},
    )


def replayed(entry: Path, path: Path) -> Path:
    """See `Target.replayed`."""
    return replay.write(entry.parent, path)


def _units(options: Mapping[str, Any]) -> str:
    units = options.get("compute_units", "all")
    if units not in UNITS:
        raise BuildError(
            f"options.compute_units: {units!r} is unknown", hint=f"use one of {', '.join(UNITS)}"
        )
    return str(units)


def _saved(model: Any, names: list[str], path: Path) -> Path:
    """Write the package with its inputs and outputs by the model's own names."""
    import coremltools as ct

    spec = model.get_spec()
    features = [*spec.description.input, *spec.description.output]
    for feature, name in zip([feature.name for feature in features], names, strict=True):
        if feature != name:
            ct.utils.rename_feature(spec, feature, name)
    ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(str(path))
    return path


#: Operations that multiply.
ARITHMETIC = {"conv", "conv_transpose", "linear", "matmul"}


def _delivered_precision(path: Path, request: BuildInput) -> DeliveredPrecision:
    """Read the saved package: how its weights are stored and what its operations compute in."""
    operations = replay.load(path).functions["main"].operations
    stored: Counter[str] = Counter()
    for operation in operations:
        size = getattr(operation.outputs[0].val, "nbytes", 0)
        if operation.op_type == "const" and size:
            stored[dtype_word(dtype(operation.outputs[0]))] += size
    layers = [operation for operation in operations if operation.op_type in ARITHMETIC]
    computed = Counter(dtype_word(dtype(layer.outputs[0])) for layer in layers)
    packed = [layer for layer in layers if _made_by(layer, "weight") == PACKED]
    if request.precision == "int8":
        integers = sum(_made_by(layer, "x") == "dequantize" for layer in packed)
        return int8_precision(request.onnx, integers, len(layers), dict(stored), others="fp16")
    delivered, note = "/".join(sorted(computed)) or "none", ""
    if request.precision == "w8a16":
        wanted = accept.packed_weights(accept.load(request.onnx))
        whole = 0 < wanted <= len(packed) and delivered == "fp16"
        note = f"{len(packed)} of {len(layers)} layers have their weights in 8 bits"
        delivered = "w8a16" if whole else f"w8a16 in {len(packed)} of {wanted} layers"
    else:
        weights = {_stored_as(layer) for layer in layers}
        delivered = "/".join(sorted({*computed, *weights})) or "none"
    return DeliveredPrecision(
        asked=request.precision,
        delivered=delivered,
        holds=delivered == request.precision,
        stored_bytes=dict(stored),
        computed_nodes=dict(computed),
        note=note,
    )


#: What unpacks a weight that is stored in integers.
PACKED = "constexpr_affine_dequantize"


def _stored_as(layer: Any) -> str:
    """The precision that a layer's weight has in the file."""
    if _made_by(layer, "weight") == PACKED:
        return "int8"
    return dtype_word(dtype(layer.inputs.get("weight") or layer.inputs["y"]))


def _made_by(layer: Any, operand: str) -> str:
    """Which operation an operand of a layer comes from."""
    variable = layer.inputs.get(operand) or layer.inputs.get("y")
    return str(variable.op.op_type) if variable is not None and variable.op is not None else ""


TARGET = Target(
    title="Core ML, Apple devices",
    # w8a16 packs weights into 8 bits, the device unpacks them and computes in fp16. int8 computes
    # in integers where the chip can (A17 Pro, M4 and later), and is unpacked elsewhere.
    precisions=("fp32", "fp16", "w8a16", "int8"),
    packages=("coremltools",),
    host_bound=False,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    options={
        "compute_units": "all (default), cpu_only, cpu_and_gpu or cpu_and_ne: what may run the "
        "engine",
    },
    check_options=check_options,
    int8=int8,
    cannot_run=cannot_run,
    replayed=replayed,
)
