"""One function per ONNX operator that computes: its words in MIL.

Knows no file and no precision. Sources:
https://onnx.ai/onnx/operators/ and
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.targets._coreml.node import OPERATORS, Node, Packed, operator, whole_axis


@operator("Conv")
def _conv(at: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    shape = weight.data.shape if isinstance(weight, Packed) else weight.shape
    extra = {} if bias is None else {"bias": at.constant(bias, "a bias")}
    return at.mb.conv(
        x=x,
        weight=at.weight(weight),
        dilations=list(at.get("dilations", [1] * (len(shape) - 2))),
        groups=at.get("group", 1),
        **at.window(x.shape[2:], shape[2:]),
        **extra,
    )


@operator("ConvTranspose")
def _conv_transpose(at: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    kernel = at.constant(weight, "a weight").shape[2:]
    if any(at.get("output_padding", [])) or at.get("output_shape") or "auto_pad" in at.attributes:
        raise at.refuse("output_padding, output_shape or auto_pad")
    extra = {} if bias is None else {"bias": at.constant(bias, "a bias")}
    return at.mb.conv_transpose(
        x=x,
        weight=at.weight(weight),
        dilations=list(at.get("dilations", [1] * len(kernel))),
        groups=at.get("group", 1),
        **at.window(x.shape[2:], kernel),
        **extra,
    )


@operator("Gemm")
def _gemm(at: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    if at.get("transA", 0) or at.get("alpha", 1.0) != 1.0 or at.get("beta", 1.0) != 1.0:
        raise at.refuse("transA, alpha or beta")
    if not isinstance(weight, Packed | np.ndarray):
        product = at.mb.matmul(x=x, y=weight, transpose_y=bool(at.get("transB", 0)))
        return product if bias is None else at.mb.add(x=product, y=bias)
    if not at.get("transB", 0):
        weight = weight.transposed() if isinstance(weight, Packed) else weight.T
    rows = (weight.data if isinstance(weight, Packed) else weight).shape[0]
    extra = {}
    if bias is not None:
        extra["bias"] = np.broadcast_to(at.constant(bias, "a bias").reshape(-1), (rows,)).copy()
    return at.mb.linear(x=x, weight=at.weight(weight), **extra)


@operator("MatMul")
def _matmul(at: Node, x: Any, y: Any) -> Any:
    if isinstance(y, Packed) and y.data.ndim == 2 and not isinstance(x, Packed | np.ndarray):
        return at.mb.linear(x=x, weight=at.weight(y.transposed()))
    x, y = (side.dense() if isinstance(side, Packed) else side for side in (x, y))
    return at.mb.matmul(x=x, y=y)


@operator("BatchNormalization")
def _batch_norm(at: Node, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    return at.mb.batch_norm(
        x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=at.get("epsilon", 1e-5)
    )


@operator("InstanceNormalization")
def _instance_norm(at: Node, x: Any, gamma: Any, beta: Any) -> Any:
    return at.mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=at.get("epsilon", 1e-5))


@operator("LayerNormalization")
def _layer_norm(at: Node, x: Any, gamma: Any, beta: Any = None) -> Any:
    first = whole_axis(at.get("axis", -1), x.rank)
    extra = {} if beta is None else {"beta": beta}
    axes = list(range(first, x.rank))
    return at.mb.layer_norm(x=x, axes=axes, gamma=gamma, epsilon=at.get("epsilon", 1e-5), **extra)


def _simple(name: str, word: str, *parameters: str) -> None:
    """An operator of the same meaning and order of inputs in both."""

    def convert(at: Node, *values: Any) -> Any:
        return getattr(at.mb, word)(**dict(zip(parameters, values, strict=True)))

    OPERATORS[name] = convert


for _name, _word in {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Sqrt": "sqrt",
    "Abs": "abs", "Floor": "floor", "Ceil": "ceil", "Erf": "erf", "Softplus": "softplus",
    "Log": "log", "Sign": "sign", "Sin": "sin", "Cos": "cos", "Not": "logical_not",
    "Round": "round", "Softsign": "softsign", "Atan": "atan",
}.items():  # fmt: skip
    _simple(_name, _word, "x")
for _name, _word in {
    "Add": "add", "Sub": "sub", "Div": "real_div", "Pow": "pow", "Equal": "equal",
    "Greater": "greater", "Less": "less", "GreaterOrEqual": "greater_equal",
    "LessOrEqual": "less_equal", "And": "logical_and", "Or": "logical_or",
}.items():  # fmt: skip
    _simple(_name, _word, "x", "y")
_simple("Where", "select", "cond", "a", "b")


@operator("Mul")
def _mul(at: Node, x: Any, y: Any) -> Any:
    # SiLU is one kernel in Core ML and two operators in ONNX.
    for gate, value in ((x, y), (y, x)):
        maker = getattr(gate, "op", None)
        if maker is not None and maker.op_type == "sigmoid" and maker.inputs["x"] is value:
            return at.mb.silu(x=value)
    return at.mb.mul(x=x, y=y)


@operator("Max", "Min")
def _extreme(at: Node, *values: Any) -> Any:
    word = at.mb.maximum if at.proto.op_type == "Max" else at.mb.minimum
    result = values[0]
    for value in values[1:]:
        result = word(x=result, y=value)
    return result


@operator("Identity", "Dropout")
def _identity(at: Node, x: Any, *_: Any) -> Any:
    return x


@operator("Neg")
def _neg(at: Node, x: Any) -> Any:
    return at.mb.mul(x=x, y=np.float32(-1))


@operator("Reciprocal")
def _reciprocal(at: Node, x: Any) -> Any:
    return at.mb.real_div(x=np.float32(1), y=x)  # `inverse` adds an epsilon


@operator("LeakyRelu")
def _leaky_relu(at: Node, x: Any) -> Any:
    return at.mb.leaky_relu(x=x, alpha=at.get("alpha", 0.01))


@operator("Elu")
def _elu(at: Node, x: Any) -> Any:
    return at.mb.elu(x=x, alpha=at.get("alpha", 1.0))


@operator("PRelu")
def _prelu(at: Node, x: Any, slope: Any) -> Any:
    slopes = np.broadcast_to(at.constant(slope, "a slope").reshape(-1), (x.shape[1],))
    return at.mb.prelu(x=x, alpha=slopes.copy())


@operator("HardSigmoid")
def _hard_sigmoid(at: Node, x: Any) -> Any:
    return at.mb.sigmoid_hard(x=x, alpha=at.get("alpha", 0.2), beta=at.get("beta", 0.5))


@operator("HardSwish")
def _hard_swish(at: Node, x: Any) -> Any:
    return at.mb.mul(x=x, y=at.mb.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5))


@operator("Mish")
def _mish(at: Node, x: Any) -> Any:
    return at.mb.mul(x=x, y=at.mb.tanh(x=at.mb.softplus(x=x)))


@operator("Gelu")
def _gelu(at: Node, x: Any) -> Any:
    exact = at.get("approximate", "none") == "none"
    return at.mb.gelu(x=x, mode="EXACT" if exact else "TANH_APPROXIMATION")


@operator("Clip")
def _clip(at: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    limit = float(np.finfo(np.float32).max)
    lowest = -limit if low is None else float(at.constant(low, "a limit").reshape(()))
    highest = limit if high is None else float(at.constant(high, "a limit").reshape(()))
    if low is None:
        return at.mb.minimum(x=x, y=np.float32(highest))
    if high is None:
        return at.mb.maximum(x=x, y=np.float32(lowest))
    return at.mb.clip(x=x, alpha=np.float32(lowest), beta=np.float32(highest))


@operator("Softmax")
def _softmax(at: Node, x: Any) -> Any:
    return at.mb.softmax(x=x, axis=at.get("axis", -1))


@operator("LogSoftmax")
def _log_softmax(at: Node, x: Any) -> Any:
    axis = at.get("axis", -1)
    total = at.mb.reduce_log_sum_exp(x=x, axes=[axis], keep_dims=True)
    return at.mb.sub(x=x, y=total)


@operator("MaxPool", "AveragePool")
def _pool(at: Node, x: Any) -> Any:
    kernel = list(at.get("kernel_shape"))
    if set(at.get("dilations", [1])) != {1} or len(at.proto.output) > 1:
        raise at.refuse("dilations or a second output")
    given = at.window(x.shape[2:], kernel)
    given |= {"x": x, "kernel_sizes": kernel, "ceil_mode": bool(at.get("ceil_mode", 0))}
    if at.proto.op_type == "MaxPool":
        return at.mb.max_pool(**given)
    outside = bool(at.get("count_include_pad", 0))
    return at.mb.avg_pool(exclude_padding_from_average=not outside, **given)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(at: Node, x: Any) -> Any:
    mean = at.proto.op_type == "GlobalAveragePool"
    word = at.mb.reduce_mean if mean else at.mb.reduce_max
    return word(x=x, axes=list(range(2, x.rank)), keep_dims=True)


_REDUCTIONS = {
    "ReduceMean": "reduce_mean", "ReduceSum": "reduce_sum", "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min", "ReduceL2": "reduce_l2_norm", "ReduceProd": "reduce_prod",
    "ReduceSumSquare": "reduce_sum_square",
}  # fmt: skip


@operator(*_REDUCTIONS)
def _reduce(at: Node, x: Any, axes: Any = None) -> Any:
    given = at.get("axes") if axes is None else at.constant(axes, "axes").tolist()
    if not given and at.get("noop_with_empty_axes", 0):
        return x
    chosen = [whole_axis(axis, x.rank) for axis in given or range(x.rank)]
    word = getattr(at.mb, _REDUCTIONS[at.proto.op_type])
    return word(x=x, axes=chosen, keep_dims=bool(at.get("keepdims", 1)))


@operator("ArgMax")
def _argmax(at: Node, x: Any) -> Any:
    return at.mb.reduce_argmax(x=x, axis=at.get("axis", 0), keep_dims=bool(at.get("keepdims", 1)))


_CASTS = {1: "fp32", 10: "fp16", 11: "fp32", 6: "int32", 7: "int32", 9: "bool"}


@operator("Cast")
def _cast(at: Node, x: Any) -> Any:
    wanted = _CASTS.get(at.get("to"))
    if wanted is None:
        raise at.refuse(f"type {at.get('to')}")
    return at.mb.cast(x=x, dtype=wanted)


@operator("QuantizeLinear")
def _quantize(at: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    scales = at.constant(scale, "a scale").astype(np.float32)
    zeros = np.zeros(scales.shape, np.uint8) if zero is None else at.constant(zero, "a zero point")
    if scales.size != 1 or zeros.dtype not in (np.int8, np.uint8):
        raise at.refuse("an activation with scales by channel, or other than 8 bits")
    return at.mb.quantize(
        input=x,
        scale=np.float32(scales.reshape(())),
        zero_point=zeros.reshape(())[()],
        output_dtype=zeros.dtype.name,
    )


@operator("DequantizeLinear")
def _dequantize(at: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    scales = at.constant(scale, "a scale").astype(np.float32)
    if isinstance(x, np.ndarray):
        zeros = np.zeros(scales.shape, x.dtype) if zero is None else at.constant(zero, "a zero")
        axis = whole_axis(at.get("axis", 1), max(1, x.ndim))
        packed = Packed(x, scales, zeros, axis if scales.size > 1 else 0)
        return packed if x.dtype in (np.int8, np.uint8) else packed.dense()
    zeros = np.zeros((), np.uint8) if zero is None else at.constant(zero, "a zero point")
    return at.mb.dequantize(
        input=x, scale=np.float32(scales.reshape(())), zero_point=zeros.reshape(())[()]
    )
