"""One function per ONNX operator that moves or joins values: its words in MIL.

Knows no file and no precision. Sources:
https://onnx.ai/onnx/operators/ and
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engineworks.targets._coreml.node import Array, Node, operator, whole_axis


@operator("Concat")
def _concat(at: Node, *values: Any) -> Any:
    return at.mb.concat(values=values, axis=at.get("axis"))


@operator("Split")
def _split(at: Node, x: Any, sizes: Any = None) -> Any:
    axis, count = whole_axis(at.get("axis", 0), x.rank), len(at.proto.output)
    each = -(-x.shape[axis] // count)
    equal = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    split = equal if sizes is None else at.constant(sizes, "sizes").tolist()
    parts = at.mb.split(x=x, split_sizes=split, axis=axis)
    return tuple(parts) if isinstance(parts, list | tuple) else (parts,)


@operator("Slice")
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
        n = whole_axis(axis, x.rank)
        begin[n], end[n], stride[n] = slice(start, stop, step).indices(x.shape[n])
        open_end[n] = end[n] < 0
    end = [max(0, stop) for stop in end]
    return at.mb.slice_by_index(x=x, begin=begin, end=end, stride=stride, end_mask=open_end)


@operator("Reshape")
def _reshape(at: Node, x: Any, shape: Any) -> Any:
    wanted = at.constant(shape, "a shape").reshape(-1).tolist()
    if not at.get("allowzero", 0):
        wanted = [x.shape[n] if size == 0 else size for n, size in enumerate(wanted)]
    return at.mb.reshape(x=x, shape=[int(size) for size in wanted])


@operator("Flatten")
def _flatten(at: Node, x: Any) -> Any:
    before = int(np.prod(x.shape[: whole_axis(at.get("axis", 1), x.rank)], dtype=np.int64))
    return at.mb.reshape(x=x, shape=[before, int(np.prod(x.shape)) // before])


@operator("Transpose")
def _transpose(at: Node, x: Any) -> Any:
    return at.mb.transpose(x=x, perm=list(at.get("perm", range(x.rank)[::-1])))


@operator("Squeeze", "Unsqueeze")
def _squeeze(at: Node, x: Any, axes: Any = None) -> Any:
    given = at.get("axes") if axes is None else at.constant(axes, "axes").reshape(-1).tolist()
    if at.proto.op_type == "Unsqueeze":
        return at.mb.expand_dims(
            x=x, axes=sorted(whole_axis(n, x.rank + len(given)) for n in given)
        )
    axes = given or [n for n, size in enumerate(x.shape) if size == 1]
    return at.mb.squeeze(x=x, axes=[whole_axis(n, x.rank) for n in axes])


@operator("Expand")
def _expand(at: Node, x: Any, shape: Any) -> Any:
    wanted = np.broadcast_shapes(tuple(x.shape), tuple(at.constant(shape, "a shape").tolist()))
    if len(wanted) > x.rank:
        x = at.mb.expand_dims(x=x, axes=list(range(len(wanted) - x.rank)))
    reps = [size // have for size, have in zip(wanted, x.shape, strict=True)]
    return x if set(reps) == {1} else at.mb.tile(x=x, reps=reps)


@operator("Tile")
def _tile(at: Node, x: Any, reps: Any) -> Any:
    return at.mb.tile(x=x, reps=at.constant(reps, "repeats").tolist())


@operator("Gather")
def _gather(at: Node, x: Any, indices: Any) -> Any:
    axis = at.get("axis", 0)
    if isinstance(indices, np.ndarray) and not isinstance(x, np.ndarray):
        indices = np.where(indices < 0, indices + x.shape[axis], indices).astype(np.int32)
    return at.mb.gather(x=x, indices=indices, axis=axis)


@operator("Pad")
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
        at_axis = whole_axis(axis, x.rank)
        flat[2 * at_axis : 2 * at_axis + 2] = given[n], given[n + len(chosen)]
    filler = 0.0 if value is None else float(at.constant(value, "a value").reshape(()))
    return at.mb.pad(x=x, pad=flat, mode=mode, constant_val=np.float32(filler))


@operator("DepthToSpace")
def _depth_to_space(at: Node, x: Any) -> Any:
    block = at.get("blocksize")
    if at.get("mode", "DCR") == "CRD":
        return at.mb.pixel_shuffle(x=x, upscale_factor=block)
    n, c, h, w = x.shape
    x = at.mb.reshape(x=x, shape=[n * block, block, c // block**2, h * w])
    x = at.mb.reshape(x=at.mb.transpose(x=x, perm=[2, 0, 1, 3]), shape=[-1, block, block, h, w])
    x = at.mb.transpose(x=x, perm=[0, 3, 1, 4, 2])
    return at.mb.reshape(x=x, shape=[n, c // block**2, h * block, w * block])


@operator("SpaceToDepth")
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


@operator("Resize")
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
