"""One function per MIL operation: the ONNX nodes that compute the same.

The meaning of each is Apple's documentation, held against packages of Apple's own converter:
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engineworks.errors import BuildError
from engineworks.targets._coreml.onnx_writer import Writer, computed_in, constant, dtype


def _get(operation: Any, name: str, default: Any = None) -> Any:
    """A parameter's value; arrays as lists."""
    variable = operation.inputs.get(name)
    if variable is None or variable.val is None:
        return default
    value = variable.val
    return value.tolist() if isinstance(value, np.ndarray) else value


Write = Callable[[Writer, Any], None]
#: MIL operation -> function(writer, operation) that writes its nodes.
OPERATIONS: dict[str, Write] = {}


def _operation(*names: str) -> Callable[[Write], Write]:
    def register(function: Write) -> Write:
        for name in names:
            OPERATIONS[name] = function
        return function

    return register


def _out(writer: Writer, operation: Any) -> str:
    return writer.target(operation.outputs[0])


def _in(writer: Writer, operation: Any, *names: str) -> list[str]:
    return [writer.name(operation.inputs[name]) for name in names]


def _simple(word: str, kind: str, *parameters: str) -> None:
    def write_it(writer: Writer, operation: Any) -> None:
        writer.node(kind, _in(writer, operation, *parameters), _out(writer, operation))

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


@_operation("silu")
def _silu(writer: Writer, operation: Any) -> None:
    (x,) = _in(writer, operation, "x")
    writer.node("Mul", [x, writer.fresh("Sigmoid", [x])], _out(writer, operation))


@_operation("relu6")
def _relu6(writer: Writer, operation: Any) -> None:
    (x,) = _in(writer, operation, "x")
    word = dtype(operation.inputs["x"])
    limits = [writer.constant(np.array(value, word)) for value in (0, 6)]
    writer.node("Clip", [x, *limits], _out(writer, operation))


@_operation("thresholded_relu")
def _thresholded_relu(writer: Writer, operation: Any) -> None:
    x, least = _in(writer, operation, "x", "alpha")
    nothing = writer.constant(np.array(0, dtype(operation.inputs["x"])))
    kept = writer.fresh("GreaterOrEqual", [x, least])
    writer.node("Where", [kept, x, nothing], _out(writer, operation))


@_operation("clip")
def _clip(writer: Writer, operation: Any) -> None:
    writer.node("Clip", _in(writer, operation, "x", "alpha", "beta"), _out(writer, operation))


@_operation("leaky_relu", "elu")
def _leaky(writer: Writer, operation: Any) -> None:
    kind = "LeakyRelu" if operation.op_type == "leaky_relu" else "Elu"
    x = _in(writer, operation, "x")
    writer.node(kind, x, _out(writer, operation), alpha=float(_get(operation, "alpha")))


@_operation("prelu")
def _prelu(writer: Writer, operation: Any) -> None:
    (x,) = _in(writer, operation, "x")
    slope = np.asarray(operation.inputs["alpha"].val)
    wide = slope.reshape(-1, *[1] * (len(operation.inputs["x"].shape) - 2))
    writer.node("PRelu", [x, writer.constant(wide)], _out(writer, operation))


@_operation("sigmoid_hard")
def _sigmoid_hard(writer: Writer, operation: Any) -> None:
    writer.node(
        "HardSigmoid",
        _in(writer, operation, "x"),
        _out(writer, operation),
        alpha=float(_get(operation, "alpha", 0.2)),
        beta=float(_get(operation, "beta", 0.5)),
    )


@_operation("gelu")
def _gelu(writer: Writer, operation: Any) -> None:
    mode = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}.get(_get(operation, "mode", "EXACT"))
    if mode is None:
        raise BuildError("the package holds gelu by sigmoid", hint="check this variant on a Mac")
    x = _in(writer, operation, "x")
    writer.node("Gelu", x, _out(writer, operation), approximate=mode)


@_operation("log", "rsqrt", "inverse")
def _with_epsilon(writer: Writer, operation: Any) -> None:
    (x,) = _in(writer, operation, "x")
    word = dtype(operation.inputs["x"])
    epsilon = np.array(_get(operation, "epsilon", 0.0), word)
    if epsilon:
        x = writer.fresh("Add", [x, writer.constant(epsilon)])
    if operation.op_type == "rsqrt":
        x = writer.fresh("Sqrt", [x])
    writer.node("Log" if operation.op_type == "log" else "Reciprocal", [x], _out(writer, operation))


@_operation("cast")
def _cast(writer: Writer, operation: Any) -> None:
    import onnx

    wanted = np.dtype(computed_in(operation.outputs[0]))
    kind = onnx.helper.np_dtype_to_tensor_dtype(wanted)
    writer.node("Cast", _in(writer, operation, "x"), _out(writer, operation), to=kind)


def _window(operation: Any, spatial: list[int], kernel: list[int]) -> dict[str, Any]:
    """Strides, dilations and pads as ONNX writes them: all begins, then all ends."""
    count = len(kernel)
    strides = _get(operation, "strides") or [1] * count
    dilations = _get(operation, "dilations") or [1] * count
    kind = _get(operation, "pad_type", "valid")
    pads = [0] * 2 * count
    if kind == "custom":
        mixed = _get(operation, "pad") or pads
        pads = [mixed[2 * n + side] for side in (0, 1) for n in range(count)]
    elif kind in ("same", "same_lower"):
        for n in range(count):
            reach = (kernel[n] - 1) * dilations[n] + 1
            total = max(0, (math.ceil(spatial[n] / strides[n]) - 1) * strides[n] + reach)
            total = max(0, total - spatial[n])
            first = total // 2 if kind == "same" else total - total // 2
            pads[n], pads[n + count] = first, total - first
    return {"strides": strides, "pads": pads}


@_operation("conv", "conv_transpose")
def _conv(writer: Writer, operation: Any) -> None:
    x, weight = operation.inputs["x"], operation.inputs["weight"]
    kernel = list(weight.shape[2:])
    names = _in(writer, operation, "x", "weight")
    if operation.inputs.get("bias") is not None:
        names += _in(writer, operation, "bias")
    given = _window(operation, list(x.shape[2:]), kernel)
    given["dilations"] = _get(operation, "dilations") or [1] * len(kernel)
    given["group"] = int(_get(operation, "groups", 1))
    kind = "Conv"
    if operation.op_type == "conv_transpose":
        kind = "ConvTranspose"
        wanted = list(operation.outputs[0].shape[2:])
        for n, size in enumerate(wanted):
            reach = (kernel[n] - 1) * given["dilations"][n] + 1
            full = (x.shape[2 + n] - 1) * given["strides"][n] + reach
            pads = given["pads"][n] + given["pads"][n + len(kernel)]
            given.setdefault("output_padding", []).append(size - full + pads)
    writer.node(kind, names, _out(writer, operation), **given)


@_operation("linear")
def _linear(writer: Writer, operation: Any) -> None:
    weight = constant(operation.inputs["weight"])
    if weight is None:
        raise BuildError("linear with a computed weight", hint="check this variant on a Mac")
    (x,) = _in(writer, operation, "x")
    product = [x, writer.constant(weight.T)]
    if operation.inputs.get("bias") is None:
        writer.node("MatMul", product, _out(writer, operation))
        return
    bias = _in(writer, operation, "bias")
    writer.node("Add", [writer.fresh("MatMul", product), *bias], _out(writer, operation))


@_operation("matmul")
def _matmul(writer: Writer, operation: Any) -> None:
    sides = []
    for side in ("x", "y"):
        name, variable = writer.name(operation.inputs[side]), operation.inputs[side]
        if _get(operation, f"transpose_{side}", False):
            order = [*range(variable.rank - 2), variable.rank - 1, variable.rank - 2]
            name = writer.fresh("Transpose", [name], perm=order)
        sides.append(name)
    writer.node("MatMul", sides, _out(writer, operation))


@_operation("batch_norm")
def _batch_norm(writer: Writer, operation: Any) -> None:
    channels, word = operation.inputs["x"].shape[1], dtype(operation.inputs["x"])
    names = _in(writer, operation, "x")
    for name, default in (("gamma", 1), ("beta", 0)):
        given = operation.inputs.get(name)
        filler = np.full(channels, default, word)
        names.append(writer.constant(filler) if given is None else writer.name(given))
    names += _in(writer, operation, "mean", "variance")
    epsilon = float(_get(operation, "epsilon", 1e-5))
    writer.node("BatchNormalization", names, _out(writer, operation), epsilon=epsilon)


@_operation("layer_norm")
def _layer_norm(writer: Writer, operation: Any) -> None:
    x = operation.inputs["x"]
    axes = sorted(axis % x.rank for axis in _get(operation, "axes"))
    shape = [x.shape[axis] for axis in axes]
    gamma = operation.inputs.get("gamma")
    scale = writer.constant(np.ones(shape, dtype(x))) if gamma is None else writer.name(gamma)
    names = [writer.name(x), scale]
    if operation.inputs.get("beta") is not None:
        names += _in(writer, operation, "beta")
    epsilon = float(_get(operation, "epsilon", 1e-5))
    out = _out(writer, operation)
    writer.node("LayerNormalization", names, out, axis=axes[0], epsilon=epsilon)


@_operation("instance_norm")
def _instance_norm(writer: Writer, operation: Any) -> None:
    epsilon = float(_get(operation, "epsilon", 1e-5))
    names = _in(writer, operation, "x", "gamma", "beta")
    writer.node("InstanceNormalization", names, _out(writer, operation), epsilon=epsilon)


@_operation("softmax")
def _softmax(writer: Writer, operation: Any) -> None:
    x = _in(writer, operation, "x")
    writer.node("Softmax", x, _out(writer, operation), axis=int(_get(operation, "axis", -1)))


_REDUCTIONS = {
    "reduce_mean": "ReduceMean", "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin", "reduce_l2_norm": "ReduceL2", "reduce_prod": "ReduceProd",
    "reduce_sum_square": "ReduceSumSquare", "reduce_log_sum_exp": "ReduceLogSumExp",
}  # fmt: skip


@_operation(*_REDUCTIONS)
def _reduce(writer: Writer, operation: Any) -> None:
    axes = _get(operation, "axes") or list(range(operation.inputs["x"].rank))
    names = [*_in(writer, operation, "x"), writer.constant(np.array(axes, np.int64))]
    kept = int(bool(_get(operation, "keep_dims", False)))
    writer.node(_REDUCTIONS[operation.op_type], names, _out(writer, operation), keepdims=kept)


@_operation("reduce_argmax")
def _argmax(writer: Writer, operation: Any) -> None:
    import onnx

    found = writer.fresh(
        "ArgMax",
        _in(writer, operation, "x"),
        axis=int(_get(operation, "axis", -1)),
        keepdims=int(bool(_get(operation, "keep_dims", False))),
    )
    writer.node("Cast", [found], _out(writer, operation), to=onnx.TensorProto.INT32)


@_operation("concat")
def _concat(writer: Writer, operation: Any) -> None:
    names = [writer.name(value) for value in operation.inputs["values"]]
    writer.node("Concat", names, _out(writer, operation), axis=int(_get(operation, "axis")))


@_operation("split")
def _split(writer: Writer, operation: Any) -> None:
    import onnx

    axis = int(_get(operation, "axis"))
    sizes = np.array([value.shape[axis] for value in operation.outputs], np.int64)
    names = [*_in(writer, operation, "x"), writer.constant(sizes)]
    outputs = [writer.target(value) for value in operation.outputs]
    writer.nodes.append(onnx.helper.make_node("Split", names, outputs, axis=axis))


@_operation("slice_by_index")
def _slice(writer: Writer, operation: Any) -> None:
    x = operation.inputs["x"]
    begin, end = _get(operation, "begin"), _get(operation, "end")
    stride = _get(operation, "stride") or [1] * x.rank
    first, last, single = (
        _get(operation, f"{name}_mask") or [False] * x.rank for name in ("begin", "end", "squeeze")
    )
    edge = np.iinfo(np.int64).max
    for n in range(x.rank):
        back = stride[n] < 0
        if single[n]:
            end[n] = begin[n] + 1 if begin[n] != -1 else edge
            continue
        begin[n] = (edge if back else 0) if first[n] else begin[n]
        end[n] = (-edge if back else edge) if last[n] else end[n]
    bounds = [np.array(value, np.int64) for value in (begin, end, range(x.rank), stride)]
    names = [writer.name(x), *(writer.constant(value) for value in bounds)]
    gone = [n for n in range(x.rank) if single[n]]
    if not gone:
        writer.node("Slice", names, _out(writer, operation))
        return
    axes = writer.constant(np.array(gone, np.int64))
    writer.node("Squeeze", [writer.fresh("Slice", names), axes], _out(writer, operation))


@_operation("crop")
def _crop(writer: Writer, operation: Any) -> None:
    x = operation.inputs["x"]
    rows, columns = _get(operation, "crop_height"), _get(operation, "crop_width")
    first, last = [rows[0], columns[0]], [x.shape[2] - rows[1], x.shape[3] - columns[1]]
    bounds = [writer.constant(np.array(value, np.int64)) for value in (first, last, (2, 3))]
    writer.node("Slice", [writer.name(x), *bounds], _out(writer, operation))


@_operation("reshape", "squeeze", "expand_dims")
def _reshape(writer: Writer, operation: Any) -> None:
    # All three only change the shape, which is known.
    shape = writer.constant(np.array(operation.outputs[0].shape, np.int64))
    writer.node("Reshape", [*_in(writer, operation, "x"), shape], _out(writer, operation))


@_operation("transpose")
def _transpose(writer: Writer, operation: Any) -> None:
    rank = operation.inputs["x"].rank
    order = [axis % rank for axis in _get(operation, "perm")]
    writer.node("Transpose", _in(writer, operation, "x"), _out(writer, operation), perm=order)


@_operation("tile")
def _tile(writer: Writer, operation: Any) -> None:
    reps = writer.constant(np.array(_get(operation, "reps"), np.int64))
    writer.node("Tile", [*_in(writer, operation, "x"), reps], _out(writer, operation))


@_operation("gather")
def _gather(writer: Writer, operation: Any) -> None:
    import onnx

    x, indices = _in(writer, operation, "x", "indices")
    wide = writer.fresh("Cast", [indices], to=onnx.TensorProto.INT64)  # may be 16 bits
    axis = int(_get(operation, "axis", 0))
    writer.node("Gather", [x, wide], _out(writer, operation), axis=axis)


@_operation("pad")
def _pad(writer: Writer, operation: Any) -> None:
    x, flat = operation.inputs["x"], _get(operation, "pad")
    flat = [0] * (2 * x.rank - len(flat)) + flat  # of the last dimensions
    pads = [flat[2 * n + side] for side in (0, 1) for n in range(x.rank)]
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    names = [writer.name(x), writer.constant(np.array(pads, np.int64))]
    names.append(writer.constant(np.array(_get(operation, "constant_val", 0.0), dtype(x))))
    kind = mode[_get(operation, "mode", "constant")]
    writer.node("Pad", names, _out(writer, operation), mode=kind)


@_operation("max_pool", "avg_pool")
def _pool(writer: Writer, operation: Any) -> None:
    kernel = _get(operation, "kernel_sizes")
    given = _window(operation, list(operation.inputs["x"].shape[2:]), kernel)
    given |= {"kernel_shape": kernel, "ceil_mode": int(bool(_get(operation, "ceil_mode", False)))}
    kind = "MaxPool"
    if operation.op_type == "avg_pool":
        kind = "AveragePool"
        inside = _get(operation, "exclude_padding_from_average", False)
        given["count_include_pad"] = int(not inside)
    writer.node(kind, _in(writer, operation, "x"), _out(writer, operation), **given)


@_operation("upsample_nearest_neighbor", "upsample_bilinear", "resize_bilinear")
def _resize(writer: Writer, operation: Any) -> None:
    x, kind = operation.inputs["x"], operation.op_type
    sizes = writer.constant(np.array(operation.outputs[0].shape, np.int64))
    if kind == "upsample_nearest_neighbor":
        place, given = "asymmetric", {"mode": "nearest", "nearest_mode": "floor"}
    elif kind == "upsample_bilinear":
        corners = bool(_get(operation, "align_corners", True))
        half = bool(_get(operation, "half_pixel_centers", not corners))
        place = "align_corners" if corners else "half_pixel" if half else "asymmetric"
        given = {"mode": "linear"}
    else:
        place = {
            "UNALIGN_CORNERS": "half_pixel",
            "STRICT_ALIGN_CORNERS": "align_corners",
            "ALIGN_CORNERS": "align_corners",
        }[_get(operation, "sampling_mode")]
        given = {"mode": "linear"}
    names = [writer.name(x), "", "", sizes]
    writer.node(
        "Resize", names, _out(writer, operation), coordinate_transformation_mode=place, **given
    )


@_operation("pixel_shuffle")
def _pixel_shuffle(writer: Writer, operation: Any) -> None:
    block = int(_get(operation, "upscale_factor"))
    names = _in(writer, operation, "x")
    writer.node("DepthToSpace", names, _out(writer, operation), blocksize=block, mode="CRD")


@_operation("quantize", "dequantize")
def _quantize(writer: Writer, operation: Any) -> None:
    integers = (
        operation.outputs[0] if operation.op_type == "quantize" else operation.inputs["input"]
    )
    word = dtype(integers)
    scale, zero = operation.inputs["scale"], operation.inputs.get("zero_point")
    zeros = np.zeros(scale.shape, word) if zero is None else np.asarray(zero.val, word)
    names = [*_in(writer, operation, "input", "scale"), writer.constant(zeros)]
    kind = "QuantizeLinear" if operation.op_type == "quantize" else "DequantizeLinear"
    axis = int(_get(operation, "axis", 0) or 0)
    writer.node(kind, names, _out(writer, operation), axis=axis)
