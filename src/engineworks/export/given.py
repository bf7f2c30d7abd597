"""An ONNX file as everything after it wants one: read once, on entry.

One file without external data; one image input, float32 (batch, channels, height, width); open
dimensions that say so (some exporters write -1); functions written out, since builders and
quantizers look at plain operators; opset 13 or newer, which INT8 weights with a scale for each
channel need; the batch fixed at 1 where the recipe asks for that. Whoever calls holds the result
against the file as it came. Knows no target.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engineworks.errors import said
from engineworks.manifest import Artifact

log = logging.getLogger(__name__)

#: The first opset whose DequantizeLinear has a scale for each channel.
LEAST_OPSET = 13

AS_GIVEN = "as given"


def opset(model: Any) -> int:
    """Of the standard operators; 0 where a model says none."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def too_old(onnx: Artifact) -> bool:
    """Whether INT8 cannot be written into a graph that `writers` could not raise."""
    return 0 < int(onnx.manifest.details.get("opset") or 0) < LEAST_OPSET


def writers(
    source: Path, *, dynamic_batch: bool, channels: int = 3
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Ways to write the file, best first: what was changed in words, and a function that does it.

    Args:
        source: The file as it came.
        dynamic_batch: Whether an open batch stays open.
        channels: Of the image.
    """
    import onnx

    from engineworks.export import inputs

    try:
        model = onnx.load(str(source))
    except Exception:
        log.info("%s is copied as it is", source.name, exc_info=True)
        yield AS_GIVEN, lambda path: _copy(source, path)
        return
    steps: list[Callable[[Any], tuple[Any, str]]] = [_inlined, _raised]
    needed: list[Callable[[Any], tuple[Any, str]]] = [
        lambda model: inputs.adapted(model, channels), *([] if dynamic_batch else [_fixed])
    ]  # fmt: skip
    seen = set()
    for chosen in (steps, steps[:1], steps[1:], []):
        adapted, notes = _apply(model, [*chosen, *needed])
        if notes not in seen:
            seen.add(notes)
            yield ", ".join((AS_GIVEN, *notes)), _saver(adapted)


def _saver(model: Any) -> Callable[[Path], None]:
    import onnx

    return lambda path: onnx.save(model, str(path))


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)


def _apply(
    given: Any, steps: list[Callable[[Any], tuple[Any, str]]]
) -> tuple[Any, tuple[str, ...]]:
    """The model after the steps, and those that changed it; a step that fails changes nothing."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(given)
    open_dimensions(model)
    notes = []
    for step in steps:
        try:
            model, what = step(model)
        except Exception as error:
            log.info("a step was left out: %s", said(error))
            continue
        notes += [what] if what else []
    return model, tuple(notes)


def open_dimensions(model: Any) -> None:
    """Dimensions that are not above 0 become open, in place; shapes inside are inferred anew."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        if value.name in constants:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.dim_param = "batch" if axis == 0 else f"{value.name}_{axis}"
    kept = [v for v in graph.value_info if all(
        not d.HasField("dim_value") or d.dim_value >= 0 for d in v.type.tensor_type.shape.dim
    )]  # fmt: skip
    if len(kept) != len(graph.value_info):
        del graph.value_info[:]


def _inlined(model: Any) -> tuple[Any, str]:
    from onnx import inliner

    if not model.functions:
        return model, ""
    count = f"{len(model.functions)} function{'s' if len(model.functions) > 1 else ''}"
    return inliner.inline_local_functions(model), f"{count} written out"


def _raised(model: Any) -> tuple[Any, str]:
    from onnx import version_converter

    before = opset(model)
    quantized = any(node.op_type.endswith("QuantizeLinear") for node in model.graph.node)
    if before >= LEAST_OPSET or before == 0 or quantized:
        return model, ""
    return (
        version_converter.convert_version(model, LEAST_OPSET),
        f"opset {before} raised to {LEAST_OPSET}",
    )


def _fixed(model: Any) -> tuple[Any, str]:
    import onnx

    constants = {tensor.name for tensor in model.graph.initializer}
    (image, *_) = [value for value in model.graph.input if value.name not in constants]
    batch = image.type.tensor_type.shape.dim[0]
    if batch.dim_value > 0:
        return model, ""
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        # Only where it is the same open dimension: an output may have another one first.
        if dims and not dims[0].dim_value and dims[0].dim_param in ("", batch.dim_param):
            dims[0].Clear()
    batch.dim_value = 1
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model), "batch fixed at 1"
