"""ONNX Runtime on the CPU: the graph, optimised once on the machine that will run it.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html
(saving an optimised model at level "all" binds it to the CPU it was optimised on).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError, said
from engineworks.facts.engine import DeliveredPrecision
from engineworks.facts.host import HostCard
from engineworks.manifest import Requires
from engineworks.qdq import accept
from engineworks.qdq.pairs import Scheme
from engineworks.targets import _onnx
from engineworks.targets._base import (
    GRAPH_REFUSED,
    UNREAD,
    BuildInput,
    BuildOutput,
    Int8Rules,
    Target,
    int8_precision,
    missing_package,
    package_version,
)

#: x86 extensions with instructions for 8-bit products; without them sums of two products
#: saturate, and weights get 7 bits.
VNNI = {"avx512_vnni", "avx_vnni", "avx512vnni", "avxvnni"}


def int8(host: HostCard) -> Int8Rules:
    """Unsigned activations, int32 biases, outputs quantized at once: what its kernels fuse.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    saturates = host.arch in ("x86_64", "AMD64") and not VNNI & set(host.cpu_flags)
    scheme = Scheme(
        activation="uint8", bias="int32", outputs=True, weight_bits=7 if saturates else 8
    )
    return Int8Rules(scheme=scheme, rewrite=_fuse_silu)


def _fuse_silu(model: Any) -> None:
    """X * sigmoid(x) as its own QuickGelu: behind a DequantizeLinear it does not find it itself."""
    import onnx

    readers: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        for tensor in node.input:
            readers[tensor].append(node)
    fused: dict[str, Any] = {}
    gone = set()
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        product = readers[node.output[0]][0] if len(readers[node.output[0]]) == 1 else None
        if (
            node.op_type == "Sigmoid"
            and node.output[0] not in outputs
            and product is not None
            and product.op_type == "Mul"
            and set(product.input) == {node.input[0], node.output[0]}
        ):
            gone.add(node.output[0])
            fused[product.output[0]] = onnx.helper.make_node(
                "QuickGelu", [node.input[0]], [product.output[0]],
                name=product.name, domain="com.microsoft", alpha=1.0,
            )  # fmt: skip
    if not fused:
        return
    kept = [
        fused.get(node.output[0], node) for node in model.graph.node if node.output[0] not in gone
    ]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if not any(entry.domain == "com.microsoft" for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
    return missing_package(host, "onnxruntime", "onnxruntime")


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators with neither a CPU kernel nor a definition as a function of others."""
    import onnx as onnx_package
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kernels = {
        (definition.domain if definition.domain != "ai.onnx" else "", definition.op_name)
        for definition in state.get_all_opkernel_def()
        if definition.provider == "CPUExecutionProvider"
    }
    model = onnx_package.load(str(onnx), load_external_data=False)
    local = {(function.domain, function.name) for function in model.functions}
    wanted = {
        (node.domain if node.domain != "ai.onnx" else "", node.op_type) for node in model.graph.node
    }
    return tuple(
        sorted(
            operator
            for domain, operator in wanted - kernels - local
            if not _is_function(domain, operator)
        )
    )


def _is_function(domain: str, operator: str) -> bool:
    import onnx

    if operator == "Constant":
        return True  # becomes a weight when the graph is read
    if not onnx.defs.has(operator, domain):
        return False
    schema = onnx.defs.get_schema(operator, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    import onnxruntime as ort

    path = request.work / "model.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    try:
        ort.InferenceSession(str(request.onnx), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BuildError(
            f"ONNX Runtime refused the graph: {said(error)}",
            hint=GRAPH_REFUSED,
        ) from error
    return BuildOutput(
        files={"model.onnx": path},
        entry="model.onnx",
        requires=Requires(
            runtime="onnxruntime",
            package=package_version("onnxruntime"),
            arch=request.host.arch,
            cpu_flags=request.host.cpu_flags,
        ),
        delivered_precision=_read_back(path, request),
        details={"optimized": True},
    )


def _read_back(path: Path, request: BuildInput) -> DeliveredPrecision:
    if request.draft:
        return UNREAD
    if request.precision == "int8":
        return _int8_precision(path, request.onnx)
    return _delivered_precision(path, request.precision)


#: Kernels that multiply integers.
INTEGER = {"QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "ConvInteger",
           "MatMulInteger", "DynamicQuantizeMatMul"}  # fmt: skip


def _int8_precision(path: Path, asked_of: Path) -> DeliveredPrecision:
    """Hold the integer kernels of the optimised graph against the layers asked for."""
    stored = _delivered_precision(path, "int8").stored_bytes
    operators = Counter(node.op_type for node in accept.load(path).graph.node)
    integers = sum(operators[name] for name in INTEGER)
    floats = sum(operators[name] for name in ("Conv", "FusedConv", "MatMul", "Gemm"))
    return int8_precision(asked_of, integers, integers + floats, stored)


def _delivered_precision(path: Path, asked: str) -> DeliveredPrecision:
    """Read the optimised graph: what it stores, and the type each node computes in."""
    stored, computed = _onnx.types(path)
    wide = [word for word in stored if word in ("fp16", "bf16", "int8")]
    return DeliveredPrecision(
        asked=asked,
        delivered="mixed" if wide else "fp32",
        holds=not wide,
        stored_bytes=stored,
        computed_nodes=computed,
    )


TARGET = Target(
    title="ONNX Runtime, CPU",
    precisions=("fp32", "int8"),
    packages=("onnxruntime",),
    host_bound=True,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    int8=int8,
)
