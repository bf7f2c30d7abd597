"""One function per MIL operation that moves or joins values: ONNX nodes that do the same.

The meaning of each is Apple's documentation, held against packages of Apple's own converter:
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engineworks.targets._coreml.onnx_writer import Writer, dtype
from engineworks.targets._coreml.reading import (
    inputs,
    output,
    parameter,
    reads,
    window,
)


@reads("concat")
def _concat(writer: Writer, operation: Any) -> None:
    names = [writer.name(value) for value in operation.inputs["values"]]
    writer.node("Concat", names, output(writer, operation), axis=int(parameter(operation, "axis")))


@reads("split")
def _split(writer: Writer, operation: Any) -> None:
    import onnx

    axis = int(parameter(operation, "axis"))
    sizes = np.array([value.shape[axis] for value in operation.outputs], np.int64)
    names = [*inputs(writer, operation, "x"), writer.constant(sizes)]
    outputs = [writer.target(value) for value in operation.outputs]
    writer.nodes.append(onnx.helper.make_node("Split", names, outputs, axis=axis))


@reads("slice_by_index")
def _slice(writer: Writer, operation: Any) -> None:
    x = operation.inputs["x"]
    begin, end = parameter(operation, "begin"), parameter(operation, "end")
    stride = parameter(operation, "stride") or [1] * x.rank
    first, last, single = (
        parameter(operation, f"{name}_mask") or [False] * x.rank
        for name in ("begin", "end", "squeeze")
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
        writer.node("Slice", names, output(writer, operation))
        return
    axes = writer.constant(np.array(gone, np.int64))
    writer.node("Squeeze", [writer.fresh("Slice", names), axes], output(writer, operation))


@reads("crop")
def _crop(writer: Writer, operation: Any) -> None:
    x = operation.inputs["x"]
    rows, columns = parameter(operation, "crop_height"), parameter(operation, "crop_width")
    first, last = [rows[0], columns[0]], [x.shape[2] - rows[1], x.shape[3] - columns[1]]
    bounds = [writer.constant(np.array(value, np.int64)) for value in (first, last, (2, 3))]
    writer.node("Slice", [writer.name(x), *bounds], output(writer, operation))


@reads("reshape", "squeeze", "expand_dims")
def _reshape(writer: Writer, operation: Any) -> None:
    # All three only change the shape, which is known.
    shape = writer.constant(np.array(operation.outputs[0].shape, np.int64))
    writer.node("Reshape", [*inputs(writer, operation, "x"), shape], output(writer, operation))


@reads("transpose")
def _transpose(writer: Writer, operation: Any) -> None:
    rank = operation.inputs["x"].rank
    order = [axis % rank for axis in parameter(operation, "perm")]
    writer.node("Transpose", inputs(writer, operation, "x"), output(writer, operation), perm=order)


@reads("tile")
def _tile(writer: Writer, operation: Any) -> None:
    reps = writer.constant(np.array(parameter(operation, "reps"), np.int64))
    writer.node("Tile", [*inputs(writer, operation, "x"), reps], output(writer, operation))


@reads("gather")
def _gather(writer: Writer, operation: Any) -> None:
    import onnx

    x, indices = inputs(writer, operation, "x", "indices")
    wide = writer.fresh("Cast", [indices], to=onnx.TensorProto.INT64)  # may be 16 bits
    axis = int(parameter(operation, "axis", 0))
    writer.node("Gather", [x, wide], output(writer, operation), axis=axis)


@reads("pad")
def _pad(writer: Writer, operation: Any) -> None:
    x, flat = operation.inputs["x"], parameter(operation, "pad")
    flat = [0] * (2 * x.rank - len(flat)) + flat  # of the last dimensions
    pads = [flat[2 * n + side] for side in (0, 1) for n in range(x.rank)]
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    names = [writer.name(x), writer.constant(np.array(pads, np.int64))]
    names.append(writer.constant(np.array(parameter(operation, "constant_val", 0.0), dtype(x))))
    kind = mode[parameter(operation, "mode", "constant")]
    writer.node("Pad", names, output(writer, operation), mode=kind)


@reads("max_pool", "avg_pool")
def _pool(writer: Writer, operation: Any) -> None:
    kernel = parameter(operation, "kernel_sizes")
    given = window(operation, list(operation.inputs["x"].shape[2:]), kernel)
    given |= {
        "kernel_shape": kernel,
        "ceil_mode": int(bool(parameter(operation, "ceil_mode", False))),
    }
    kind = "MaxPool"
    if operation.op_type == "avg_pool":
        kind = "AveragePool"
        inside = parameter(operation, "exclude_padding_from_average", False)
        given["count_include_pad"] = int(not inside)
    writer.node(kind, inputs(writer, operation, "x"), output(writer, operation), **given)


@reads("upsample_nearest_neighbor", "upsample_bilinear", "resize_bilinear")
def _resize(writer: Writer, operation: Any) -> None:
    x, kind = operation.inputs["x"], operation.op_type
    sizes = writer.constant(np.array(operation.outputs[0].shape, np.int64))
    if kind == "upsample_nearest_neighbor":
        place, given = "asymmetric", {"mode": "nearest", "nearest_mode": "floor"}
    elif kind == "upsample_bilinear":
        corners = bool(parameter(operation, "align_corners", True))
        half = bool(parameter(operation, "half_pixel_centers", not corners))
        place = "align_corners" if corners else "half_pixel" if half else "asymmetric"
        given = {"mode": "linear"}
    else:
        place = {
            "UNALIGN_CORNERS": "half_pixel",
            "STRICT_ALIGN_CORNERS": "align_corners",
            "ALIGN_CORNERS": "align_corners",
        }[parameter(operation, "sampling_mode")]
        given = {"mode": "linear"}
    names = [writer.name(x), "", "", sizes]
    writer.node(
        "Resize", names, output(writer, operation), coordinate_transformation_mode=place, **given
    )


@reads("pixel_shuffle")
def _pixel_shuffle(writer: Writer, operation: Any) -> None:
    block = int(parameter(operation, "upscale_factor"))
    names = inputs(writer, operation, "x")
    writer.node("DepthToSpace", names, output(writer, operation), blocksize=block, mode="CRD")
