"""One function per ONNX operator: its words in MIL, Core ML's language.

Every shape is static here, since an engine's batch is 1. Knows no file and no precision. Sources:
https://onnx.ai/onnx/operators/ and
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
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


def _operator(*names: str) -> Callable[[Convert], Convert]:
    def register(function: Convert) -> Convert:
        for name in names:
            OPERATORS[name] = function
        return function

    return register


def _axis(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


@_operator("Conv")
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


@_operator("ConvTranspose")
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


@_operator("Gemm")
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


@_operator("MatMul")
def _matmul(at: Node, x: Any, y: Any) -> Any:
    if isinstance(y, Packed) and y.data.ndim == 2 and not isinstance(x, Packed | np.ndarray):
        return at.mb.linear(x=x, weight=at.weight(y.transposed()))
    x, y = (side.dense() if isinstance(side, Packed) else side for side in (x, y))
    return at.mb.matmul(x=x, y=y)


@_operator("BatchNormalization")
def _batch_norm(at: Node, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    return at.mb.batch_norm(
        x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=at.get("epsilon", 1e-5)
    )


@_operator("InstanceNormalization")
def _instance_norm(at: Node, x: Any, gamma: Any, beta: Any) -> Any:
    return at.mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=at.get("epsilon", 1e-5))


@_operator("LayerNormalization")
def _layer_norm(at: Node, x: Any, gamma: Any, beta: Any = None) -> Any:
    first = _axis(at.get("axis", -1), x.rank)
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


@_operator("Mul")
def _mul(at: Node, x: Any, y: Any) -> Any:
    # SiLU is one kernel in Core ML and two operators in ONNX.
    for gate, value in ((x, y), (y, x)):
        maker = getattr(gate, "op", None)
        if maker is not None and maker.op_type == "sigmoid" and maker.inputs["x"] is value:
            return at.mb.silu(x=value)
    return at.mb.mul(x=x, y=y)


@_operator("Max", "Min")
def _extreme(at: Node, *values: Any) -> Any:
    word = at.mb.maximum if at.proto.op_type == "Max" else at.mb.minimum
    result = values[0]
    for value in values[1:]:
        result = word(x=result, y=value)
    return result


@_operator("Identity", "Dropout")
def _identity(at: Node, x: Any, *_: Any) -> Any:
    return x


@_operator("Neg")
def _neg(at: Node, x: Any) -> Any:
    return at.mb.mul(x=x, y=np.float32(-1))


@_operator("Reciprocal")
def _reciprocal(at: Node, x: Any) -> Any:
    return at.mb.real_div(x=np.float32(1), y=x)  # `inverse` adds an epsilon


@_operator("LeakyRelu")
def _leaky_relu(at: Node, x: Any) -> Any:
    return at.mb.leaky_relu(x=x, alpha=at.get("alpha", 0.01))


@_operator("Elu")
def _elu(at: Node, x: Any) -> Any:
    return at.mb.elu(x=x, alpha=at.get("alpha", 1.0))


@_operator("PRelu")
def _prelu(at: Node, x: Any, slope: Any) -> Any:
    slopes = np.broadcast_to(at.constant(slope, "a slope").reshape(-1), (x.shape[1],))
    return at.mb.prelu(x=x, alpha=slopes.copy())


@_operator("HardSigmoid")
def _hard_sigmoid(at: Node, x: Any) -> Any:
    return at.mb.sigmoid_hard(x=x, alpha=at.get("alpha", 0.2), beta=at.get("beta", 0.5))


@_operator("HardSwish")
def _hard_swish(at: Node, x: Any) -> Any:
    return at.mb.mul(x=x, y=at.mb.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5))


@_operator("Mish")
def _mish(at: Node, x: Any) -> Any:
    return at.mb.mul(x=x, y=at.mb.tanh(x=at.mb.softplus(x=x)))


@_operator("Gelu")
def _gelu(at: Node, x: Any) -> Any:
    exact = at.get("approximate", "none") == "none"
    return at.mb.gelu(x=x, mode="EXACT" if exact else "TANH_APPROXIMATION")


@_operator("Clip")
def _clip(at: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    limit = float(np.finfo(np.float32).max)
    lowest = -limit if low is None else float(at.constant(low, "a limit").reshape(()))
    highest = limit if high is None else float(at.constant(high, "a limit").reshape(()))
    if low is None:
        return at.mb.minimum(x=x, y=np.float32(highest))
    if high is None:
        return at.mb.maximum(x=x, y=np.float32(lowest))
    return at.mb.clip(x=x, alpha=np.float32(lowest), beta=np.float32(highest))


@_operator("Softmax")
def _softmax(at: Node, x: Any) -> Any:
    return at.mb.softmax(x=x, axis=at.get("axis", -1))


@_operator("LogSoftmax")
def _log_softmax(at: Node, x: Any) -> Any:
    axis = at.get("axis", -1)
    total = at.mb.reduce_log_sum_exp(x=x, axes=[axis], keep_dims=True)
    return at.mb.sub(x=x, y=total)


@_operator("MaxPool", "AveragePool")
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


@_operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(at: Node, x: Any) -> Any:
    mean = at.proto.op_type == "GlobalAveragePool"
    word = at.mb.reduce_mean if mean else at.mb.reduce_max
    return word(x=x, axes=list(range(2, x.rank)), keep_dims=True)


_REDUCTIONS = {
    "ReduceMean": "reduce_mean", "ReduceSum": "reduce_sum", "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min", "ReduceL2": "reduce_l2_norm", "ReduceProd": "reduce_prod",
    "ReduceSumSquare": "reduce_sum_square",
}  # fmt: skip


@_operator(*_REDUCTIONS)
def _reduce(at: Node, x: Any, axes: Any = None) -> Any:
    given = at.get("axes") if axes is None else at.constant(axes, "axes").tolist()
    if not given and at.get("noop_with_empty_axes", 0):
        return x
    chosen = [_axis(axis, x.rank) for axis in given or range(x.rank)]
    word = getattr(at.mb, _REDUCTIONS[at.proto.op_type])
    return word(x=x, axes=chosen, keep_dims=bool(at.get("keepdims", 1)))


@_operator("ArgMax")
def _argmax(at: Node, x: Any) -> Any:
    return at.mb.reduce_argmax(x=x, axis=at.get("axis", 0), keep_dims=bool(at.get("keepdims", 1)))


@_operator("Concat")
def _concat(at: Node, *values: Any) -> Any:
    return at.mb.concat(values=values, axis=at.get("axis"))


@_operator("Split")
def _split(at: Node, x: Any, sizes: Any = None) -> Any:
    axis, count = _axis(at.get("axis", 0), x.rank), len(at.proto.output)
    each = -(-x.shape[axis] // count)
    equal = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    split = equal if sizes is None else at.constant(sizes, "sizes").tolist()
    made = at.mb.split(x=x, split_sizes=split, axis=axis)
    return tuple(made) if isinstance(made, list | tuple) else (made,)


@_operator("Slice")
def _slice(at: Node, x: Any, *bounds: Any) -> Any:
    starts, ends, *rest = (
        None if b is None else at.constant(b, "a bound").reshape(-1).tolist() for b in bounds
    )
    assert starts is not None and ends is not None  # noqa: S101 - ONNX demands both
    axes = (rest[0] if rest else None) or list(range(len(starts)))
    steps = (rest[1] if len(rest) > 1 else None) or [1] * len(starts)
    begin, end, stride = [0] * x.rank, list(x.shape), [1] * x.rank
    open_end = [False] * x.rank
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        n = _axis(axis, x.rank)
        begin[n], end[n], stride[n] = slice(start, stop, step).indices(x.shape[n])
        open_end[n] = end[n] < 0
    end = [max(0, stop) for stop in end]
    return at.mb.slice_by_index(x=x, begin=begin, end=end, stride=stride, end_mask=open_end)


@_operator("Reshape")
def _reshape(at: Node, x: Any, shape: Any) -> Any:
    wanted = at.constant(shape, "a shape").reshape(-1).tolist()
    if not at.get("allowzero", 0):
        wanted = [x.shape[n] if size == 0 else size for n, size in enumerate(wanted)]
    return at.mb.reshape(x=x, shape=[int(size) for size in wanted])


@_operator("Flatten")
def _flatten(at: Node, x: Any) -> Any:
    before = int(np.prod(x.shape[: _axis(at.get("axis", 1), x.rank)], dtype=np.int64))
    return at.mb.reshape(x=x, shape=[before, int(np.prod(x.shape)) // before])


@_operator("Transpose")
def _transpose(at: Node, x: Any) -> Any:
    return at.mb.transpose(x=x, perm=list(at.get("perm", range(x.rank)[::-1])))


@_operator("Squeeze", "Unsqueeze")
def _squeeze(at: Node, x: Any, axes: Any = None) -> Any:
    given = at.get("axes") if axes is None else at.constant(axes, "axes").reshape(-1).tolist()
    if at.proto.op_type == "Unsqueeze":
        return at.mb.expand_dims(x=x, axes=sorted(_axis(n, x.rank + len(given)) for n in given))
    axes = given or [n for n, size in enumerate(x.shape) if size == 1]
    return at.mb.squeeze(x=x, axes=[_axis(n, x.rank) for n in axes])


@_operator("Expand")
def _expand(at: Node, x: Any, shape: Any) -> Any:
    wanted = np.broadcast_shapes(tuple(x.shape), tuple(at.constant(shape, "a shape").tolist()))
    if len(wanted) > x.rank:
        x = at.mb.expand_dims(x=x, axes=list(range(len(wanted) - x.rank)))
    reps = [size // have for size, have in zip(wanted, x.shape, strict=True)]
    return x if set(reps) == {1} else at.mb.tile(x=x, reps=reps)


@_operator("Tile")
def _tile(at: Node, x: Any, reps: Any) -> Any:
    return at.mb.tile(x=x, reps=at.constant(reps, "repeats").tolist())


@_operator("Gather")
def _gather(at: Node, x: Any, indices: Any) -> Any:
    axis = at.get("axis", 0)
    if isinstance(indices, np.ndarray) and not isinstance(x, np.ndarray):
        indices = np.where(indices < 0, indices + x.shape[axis], indices).astype(np.int32)
    return at.mb.gather(x=x, indices=indices, axis=axis)


@_operator("Pad")
def _pad(at: Node, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    given = at.constant(pads, "pads").tolist()
    chosen = list(range(x.rank)) if axes is None else at.constant(axes, "axes").tolist()
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        at.get("mode", "constant")
    )
    if mode is None or min(given) < 0:
        raise at.refuse(f"mode {at.get('mode')} or a negative pad")
    flat = [0] * 2 * x.rank
    for n, axis in enumerate(chosen):
        at_axis = _axis(axis, x.rank)
        flat[2 * at_axis : 2 * at_axis + 2] = given[n], given[n + len(chosen)]
    filler = 0.0 if value is None else float(at.constant(value, "a value").reshape(()))
    return at.mb.pad(x=x, pad=flat, mode=mode, constant_val=np.float32(filler))


@_operator("DepthToSpace")
def _depth_to_space(at: Node, x: Any) -> Any:
    block = at.get("blocksize")
    if at.get("mode", "DCR") == "CRD":
        return at.mb.pixel_shuffle(x=x, upscale_factor=block)
    n, c, h, w = x.shape
    x = at.mb.reshape(x=x, shape=[n * block, block, c // block**2, h * w])
    x = at.mb.reshape(x=at.mb.transpose(x=x, perm=[2, 0, 1, 3]), shape=[-1, block, block, h, w])
    x = at.mb.transpose(x=x, perm=[0, 3, 1, 4, 2])
    return at.mb.reshape(x=x, shape=[n, c // block**2, h * block, w * block])


@_operator("SpaceToDepth")
def _space_to_depth(at: Node, x: Any) -> Any:
    block = at.get("blocksize")
    n, c, h, w = x.shape
    x = at.mb.reshape(x=x, shape=[c, h // block, block, w // block, block])
    x = at.mb.transpose(x=x, perm=[2, 4, 0, 1, 3])
    return at.mb.reshape(x=x, shape=[n, c * block**2, h // block, w // block])


_ALIGNED = {
    "half_pixel": "UNALIGN_CORNERS",
    "pytorch_half_pixel": "UNALIGN_CORNERS",
    "align_corners": "STRICT_ALIGN_CORNERS",
}


@_operator("Resize")
def _resize(at: Node, x: Any, _roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    if x.rank != 4 or at.get("antialias", 0) or at.get("axes") is not None:
        raise at.refuse("antialias, axes, or other than four dimensions")
    if sizes is not None and at.constant(sizes, "sizes").size:
        wanted = at.constant(sizes, "sizes").tolist()
        factors = [size / have for size, have in zip(wanted, x.shape, strict=True)]
    else:
        factors = at.constant(scales, "scales").tolist()
        wanted = [int(np.floor(n * factor)) for n, factor in zip(x.shape, factors, strict=True)]
    if list(wanted[:2]) != list(x.shape[:2]):
        raise at.refuse("resizing other than height and width")
    place = at.get("coordinate_transformation_mode", "half_pixel")
    mode = at.get("mode", "nearest")
    if mode == "linear" and place in _ALIGNED:
        return at.mb.resize_bilinear(
            x=x,
            target_size_height=wanted[2],
            target_size_width=wanted[3],
            sampling_mode=_ALIGNED[place],
        )
    if mode != "nearest" or place not in ("asymmetric", "half_pixel"):
        raise at.refuse(f"mode {mode} with {place}")
    for axis in (2, 3):
        x = _nearest(at, x, axis, wanted[axis], factors[axis], place)
    return x


_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda value: np.ceil(value - 0.5),
    "round_prefer_ceil": lambda value: np.floor(value + 0.5),
}


def _nearest(at: Node, x: Any, axis: int, size: int, factor: float, place: str) -> Any:
    """One dimension by the nearest value: which one is known now."""
    positions = np.arange(size)
    exact = positions / factor if place == "asymmetric" else (positions + 0.5) / factor - 0.5
    mode = at.get("nearest_mode", "round_prefer_floor")
    picked = np.clip(_ROUNDING[mode](exact), 0, x.shape[axis] - 1).astype(np.int32)
    times = size // x.shape[axis]
    if np.array_equal(picked, np.repeat(np.arange(x.shape[axis]), times)[:size]) and times > 1:
        key = "scale_factor_height" if axis == 2 else "scale_factor_width"
        return at.mb.upsample_nearest_neighbor(x=x, **{key: times})
    if np.array_equal(picked, np.arange(x.shape[axis])):
        return x
    return at.mb.gather(x=x, indices=picked, axis=axis)


_CASTS = {1: "fp32", 10: "fp16", 11: "fp32", 6: "int32", 7: "int32", 9: "bool"}


@_operator("Cast")
def _cast(at: Node, x: Any) -> Any:
    wanted = _CASTS.get(at.get("to"))
    if wanted is None:
        raise at.refuse(f"type {at.get('to')}")
    return at.mb.cast(x=x, dtype=wanted)


@_operator("QuantizeLinear")
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


@_operator("DequantizeLinear")
def _dequantize(at: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    scales = at.constant(scale, "a scale").astype(np.float32)
    if isinstance(x, np.ndarray):
        zeros = np.zeros(scales.shape, x.dtype) if zero is None else at.constant(zero, "a zero")
        axis = _axis(at.get("axis", 1), max(1, x.ndim))
        packed = Packed(x, scales, zeros, axis if scales.size > 1 else 0)
        return packed if x.dtype in (np.int8, np.uint8) else packed.dense()
    zeros = np.zeros((), np.uint8) if zero is None else at.constant(zero, "a zero point")
    return at.mb.dequantize(
        input=x, scale=np.float32(scales.reshape(())), zero_point=zeros.reshape(())[()]
    )
