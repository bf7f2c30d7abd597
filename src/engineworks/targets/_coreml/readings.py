"""One function per MIL operation that computes: the ONNX nodes that compute the same.

The meaning of each is Apple's documentation, held against packages of Apple's own converter:
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.errors import BuildError
from engineworks.targets._coreml.onnx_writer import Writer, computed_in, constant, dtype
from engineworks.targets._coreml.reading import (
    OPERATIONS,
    inputs,
    output,
    parameter,
    reads,
    window,
)


def _simple(word: str, kind: str, *parameters: str) -> None:
    def write_it(writer: Writer, operation: Any) -> None:
        writer.node(kind, inputs(writer, operation, *parameters), output(writer, operation))

    OPERATIONS[word] = write_it


for _word, _kind in {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "sqrt": "Sqrt",
    "abs": "Abs", "floor": "Floor", "ceil": "Ceil", "erf": "Erf", "softplus": "Softplus",
    "sign": "Sign", "sin": "Sin", "cos": "Cos", "logical_not": "Not", "identity": "Identity",
    "round": "Round", "softsign": "Softsign", "atan": "Atan",
}.items():  # fmt: skip
    _simple(_word, _kind, "x")
for _word, _kind in {
    "add": "Add", "sub": "Sub", "mul": "Mul", "real_div": "Div", "pow": "Pow",
    "maximum": "Max", "minimum": "Min", "equal": "Equal", "greater": "Greater", "less": "Less",
    "greater_equal": "GreaterOrEqual", "less_equal": "LessOrEqual", "logical_and": "And",
    "logical_or": "Or",
}.items():  # fmt: skip
    _simple(_word, _kind, "x", "y")
_simple("select", "Where", "cond", "a", "b")


@reads("silu")
def _silu(writer: Writer, operation: Any) -> None:
    (x,) = inputs(writer, operation, "x")
    writer.node("Mul", [x, writer.fresh("Sigmoid", [x])], output(writer, operation))


@reads("relu6")
def _relu6(writer: Writer, operation: Any) -> None:
    (x,) = inputs(writer, operation, "x")
    word = dtype(operation.inputs["x"])
    limits = [writer.constant(np.array(value, word)) for value in (0, 6)]
    writer.node("Clip", [x, *limits], output(writer, operation))


@reads("thresholded_relu")
def _thresholded_relu(writer: Writer, operation: Any) -> None:
    x, least = inputs(writer, operation, "x", "alpha")
    nothing = writer.constant(np.array(0, dtype(operation.inputs["x"])))
    kept = writer.fresh("GreaterOrEqual", [x, least])
    writer.node("Where", [kept, x, nothing], output(writer, operation))


@reads("clip")
def _clip(writer: Writer, operation: Any) -> None:
    writer.node("Clip", inputs(writer, operation, "x", "alpha", "beta"), output(writer, operation))


@reads("leaky_relu", "elu")
def _leaky(writer: Writer, operation: Any) -> None:
    kind = "LeakyRelu" if operation.op_type == "leaky_relu" else "Elu"
    x = inputs(writer, operation, "x")
    writer.node(kind, x, output(writer, operation), alpha=float(parameter(operation, "alpha")))


@reads("prelu")
def _prelu(writer: Writer, operation: Any) -> None:
    (x,) = inputs(writer, operation, "x")
    slope = np.asarray(operation.inputs["alpha"].val)
    wide = slope.reshape(-1, *[1] * (len(operation.inputs["x"].shape) - 2))
    writer.node("PRelu", [x, writer.constant(wide)], output(writer, operation))


@reads("sigmoid_hard")
def _sigmoid_hard(writer: Writer, operation: Any) -> None:
    writer.node(
        "HardSigmoid",
        inputs(writer, operation, "x"),
        output(writer, operation),
        alpha=float(parameter(operation, "alpha", 0.2)),
        beta=float(parameter(operation, "beta", 0.5)),
    )


@reads("gelu")
def _gelu(writer: Writer, operation: Any) -> None:
    mode = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}.get(
        parameter(operation, "mode", "EXACT")
    )
    if mode is None:
        raise BuildError("the package holds gelu by sigmoid", hint="check this variant on a Mac")
    x = inputs(writer, operation, "x")
    writer.node("Gelu", x, output(writer, operation), approximate=mode)


@reads("log", "rsqrt", "inverse")
def _with_epsilon(writer: Writer, operation: Any) -> None:
    (x,) = inputs(writer, operation, "x")
    word = dtype(operation.inputs["x"])
    epsilon = np.array(parameter(operation, "epsilon", 0.0), word)
    if epsilon:
        x = writer.fresh("Add", [x, writer.constant(epsilon)])
    if operation.op_type == "rsqrt":
        x = writer.fresh("Sqrt", [x])
    writer.node(
        "Log" if operation.op_type == "log" else "Reciprocal", [x], output(writer, operation)
    )


@reads("cast")
def _cast(writer: Writer, operation: Any) -> None:
    import onnx

    wanted = np.dtype(computed_in(operation.outputs[0]))
    kind = onnx.helper.np_dtype_to_tensor_dtype(wanted)
    writer.node("Cast", inputs(writer, operation, "x"), output(writer, operation), to=kind)


@reads("conv", "conv_transpose")
def _conv(writer: Writer, operation: Any) -> None:
    x, weight = operation.inputs["x"], operation.inputs["weight"]
    kernel = list(weight.shape[2:])
    names = inputs(writer, operation, "x", "weight")
    if operation.inputs.get("bias") is not None:
        names += inputs(writer, operation, "bias")
    given = window(operation, list(x.shape[2:]), kernel)
    given["dilations"] = parameter(operation, "dilations") or [1] * len(kernel)
    given["group"] = int(parameter(operation, "groups", 1))
    kind = "Conv"
    if operation.op_type == "conv_transpose":
        kind = "ConvTranspose"
        wanted = list(operation.outputs[0].shape[2:])
        for n, size in enumerate(wanted):
            reach = (kernel[n] - 1) * given["dilations"][n] + 1
            full = (x.shape[2 + n] - 1) * given["strides"][n] + reach
            pads = given["pads"][n] + given["pads"][n + len(kernel)]
            given.setdefault("output_padding", []).append(size - full + pads)
    writer.node(kind, names, output(writer, operation), **given)


@reads("linear")
def _linear(writer: Writer, operation: Any) -> None:
    weight = constant(operation.inputs["weight"])
    if weight is None:
        raise BuildError("linear with a computed weight", hint="check this variant on a Mac")
    (x,) = inputs(writer, operation, "x")
    product = [x, writer.constant(weight.T)]
    if operation.inputs.get("bias") is None:
        writer.node("MatMul", product, output(writer, operation))
        return
    bias = inputs(writer, operation, "bias")
    writer.node("Add", [writer.fresh("MatMul", product), *bias], output(writer, operation))


@reads("matmul")
def _matmul(writer: Writer, operation: Any) -> None:
    sides = []
    for side in ("x", "y"):
        name, variable = writer.name(operation.inputs[side]), operation.inputs[side]
        if parameter(operation, f"transpose_{side}", False):
            order = [*range(variable.rank - 2), variable.rank - 1, variable.rank - 2]
            name = writer.fresh("Transpose", [name], perm=order)
        sides.append(name)
    writer.node("MatMul", sides, output(writer, operation))


@reads("batch_norm")
def _batch_norm(writer: Writer, operation: Any) -> None:
    channels, word = operation.inputs["x"].shape[1], dtype(operation.inputs["x"])
    names = inputs(writer, operation, "x")
    for name, default in (("gamma", 1), ("beta", 0)):
        given = operation.inputs.get(name)
        filler = np.full(channels, default, word)
        names.append(writer.constant(filler) if given is None else writer.name(given))
    names += inputs(writer, operation, "mean", "variance")
    epsilon = float(parameter(operation, "epsilon", 1e-5))
    writer.node("BatchNormalization", names, output(writer, operation), epsilon=epsilon)


@reads("layer_norm")
def _layer_norm(writer: Writer, operation: Any) -> None:
    x = operation.inputs["x"]
    axes = sorted(axis % x.rank for axis in parameter(operation, "axes"))
    shape = [x.shape[axis] for axis in axes]
    gamma = operation.inputs.get("gamma")
    scale = writer.constant(np.ones(shape, dtype(x))) if gamma is None else writer.name(gamma)
    names = [writer.name(x), scale]
    if operation.inputs.get("beta") is not None:
        names += inputs(writer, operation, "beta")
    epsilon = float(parameter(operation, "epsilon", 1e-5))
    out = output(writer, operation)
    writer.node("LayerNormalization", names, out, axis=axes[0], epsilon=epsilon)


@reads("instance_norm")
def _instance_norm(writer: Writer, operation: Any) -> None:
    epsilon = float(parameter(operation, "epsilon", 1e-5))
    names = inputs(writer, operation, "x", "gamma", "beta")
    writer.node("InstanceNormalization", names, output(writer, operation), epsilon=epsilon)


@reads("softmax")
def _softmax(writer: Writer, operation: Any) -> None:
    x = inputs(writer, operation, "x")
    writer.node("Softmax", x, output(writer, operation), axis=int(parameter(operation, "axis", -1)))


_REDUCTIONS = {
    "reduce_mean": "ReduceMean", "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin", "reduce_l2_norm": "ReduceL2", "reduce_prod": "ReduceProd",
    "reduce_sum_square": "ReduceSumSquare", "reduce_log_sum_exp": "ReduceLogSumExp",
}  # fmt: skip


@reads(*_REDUCTIONS)
def _reduce(writer: Writer, operation: Any) -> None:
    axes = parameter(operation, "axes") or list(range(operation.inputs["x"].rank))
    names = [*inputs(writer, operation, "x"), writer.constant(np.array(axes, np.int64))]
    kept = int(bool(parameter(operation, "keep_dims", False)))
    writer.node(_REDUCTIONS[operation.op_type], names, output(writer, operation), keepdims=kept)


@reads("reduce_argmax")
def _argmax(writer: Writer, operation: Any) -> None:
    import onnx

    index = writer.fresh(
        "ArgMax",
        inputs(writer, operation, "x"),
        axis=int(parameter(operation, "axis", -1)),
        keepdims=int(bool(parameter(operation, "keep_dims", False))),
    )
    writer.node("Cast", [index], output(writer, operation), to=onnx.TensorProto.INT32)


@reads("quantize", "dequantize")
def _quantize(writer: Writer, operation: Any) -> None:
    integers = (
        operation.outputs[0] if operation.op_type == "quantize" else operation.inputs["input"]
    )
    word = dtype(integers)
    scale, zero = operation.inputs["scale"], operation.inputs.get("zero_point")
    zeros = np.zeros(scale.shape, word) if zero is None else np.asarray(zero.val, word)
    names = [*inputs(writer, operation, "input", "scale"), writer.constant(zeros)]
    kind = "QuantizeLinear" if operation.op_type == "quantize" else "DequantizeLinear"
    axis = int(parameter(operation, "axis", 0) or 0)
    writer.node(kind, names, output(writer, operation), axis=axis)
