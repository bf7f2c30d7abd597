"""PyTorch -> ONNX by both of torch's exporters; the first that agrees with the model is kept.

Knows ONNX files and their checker, no target. Source of the exporters' behaviour:
https://docs.pytorch.org/docs/stable/onnx.html
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import ExportError, ModelError, said
from engineworks.evaluate import parity
from engineworks.export import given
from engineworks.export.source import SourceModel
from engineworks.facts.model import ExportAttempt, PinnedModel
from engineworks.manifest import TensorSpec
from engineworks.specs import ExportSpec

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class KeptGraph:
    """The graph that passed, and all attempts."""

    path: Path
    chosen: str
    reason: str
    attempts: tuple[ExportAttempt, ...]


def export(
    source: SourceModel,
    model: PinnedModel,
    spec: ExportSpec,
    samples: Array,
    wanted: Mapping[str, Array],
    folder: Path,
) -> KeptGraph:
    """Try the exporters in turn and keep the first whose graph answers as the source does.

    Args:
        source: The opened model.
        model: For names and form.
        spec: Opset, exporters, tolerance.
        samples: (n, channels, height, width) float32 real inputs.
        wanted: The source's answers to them.
        folder: Where the files are written.

    Raises:
        ExportError: None passed; the message has every exporter's reason.
    """
    attempts: list[ExportAttempt] = []
    kept: tuple[str, Path] | None = None
    for name, write in _writers(source, model, spec, samples[:1]):
        started = time.perf_counter()
        path = folder / f"{len(attempts)}.onnx"
        try:
            write(path)
            attempt = _judge(name, path, model, spec, samples, wanted, started)
        except Exception as error:
            log.info("exporter %s failed", name, exc_info=True)
            attempt = ExportAttempt(
                exporter=name,
                passed=False,
                reason=f"{type(error).__name__}: {_cause(error)}",
                max_abs_diff=None,
                nodes=None,
                size_bytes=None,
                elapsed_s=time.perf_counter() - started,
            )
        attempts.append(attempt)
        if attempt.passed and kept is None:
            kept = name, path
            if model.spec.form == "onnx":
                break  # the others only change less
    if kept is None:
        raise _nothing_agrees(model, spec, attempts, _misplaced_batch(wanted, len(samples)))
    return KeptGraph(kept[1], kept[0], _why(kept[0], attempts), tuple(attempts))


def _writers(
    source: SourceModel, model: PinnedModel, spec: ExportSpec, sample: Array
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Name of each way to ONNX, and what writes the file."""
    if model.spec.form == "onnx":
        yield from given.writers(
            Path(model.path),
            dynamic_batch=spec.dynamic_batch,
            channels=model.spec.input.channels,
        )
        return
    for name in spec.exporters:
        write = _EXPORTERS[name]
        yield name, lambda path, write=write: write(source, model, spec, sample, path)  # type: ignore[misc]


def _misplaced_batch(wanted: Mapping[str, Array], samples: int) -> str:
    """Words on an output whose first axis is not the batch, or ""."""
    for name, answers in wanted.items():
        if len(answers) != samples:
            return (
                f"output {name!r} gives {len(answers) / samples:g} rows for one image: its first "
                "axis is not the batch"
            )
    return ""


def _nothing_agrees(
    model: PinnedModel, spec: ExportSpec, attempts: list[ExportAttempt], misplaced: str
) -> ExportError:
    """The refusal, with a next step that does something for this kind of source."""
    reasons = "; ".join(f"{a.exporter}: {said(a.reason)}" for a in attempts)
    fixed = (
        ", or set export.dynamic_batch: false, and its batch is fixed at 1"
        if spec.dynamic_batch
        else ""
    )
    if misplaced:
        # A batch fixed at 1 would give as many rows.
        return ExportError(f"{misplaced}; {reasons}", hint="put the batch first in the outputs")
    if model.spec.form == "onnx":
        hint = f"export the file again with a batch that is open throughout{fixed}"
        return ExportError(
            f"{Path(model.path).name} does not answer a batch as it answers single images "
            f"({reasons})" if spec.dynamic_batch else
            f"{Path(model.path).name} does not answer as itself with its batch at 1 ({reasons})",
            hint=hint if spec.dynamic_batch else "export the file again with a batch of 1",
        )  # fmt: skip
    return ExportError(
        f"no exporter produced a graph that agrees with the model: {reasons}",
        hint="change what the exporters name in the model's code, or try another export.opset "
        f"(now {spec.opset}){fixed}",
    )


def _why(chosen: str, attempts: list[ExportAttempt]) -> str:
    others = [a for a in attempts if a.exporter != chosen]
    if not others:
        return "agrees with the model"
    other = others[0]
    if other.passed:
        return f"both agree with the model; {chosen} stands first in the recipe"
    return f"{other.exporter} did not pass ({other.reason})"


def _cause(error: BaseException) -> str:
    """The innermost message of a chained error: exporters wrap the real one many times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return said(error)


def _judge(
    name: str,
    path: Path,
    model: PinnedModel,
    spec: ExportSpec,
    samples: Array,
    wanted: Mapping[str, Array],
    started: float,
) -> ExportAttempt:
    import onnx

    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path)).graph
    open_batch = not isinstance(signature(path)[0][0].shape[0], int)
    if spec.dynamic_batch and not open_batch and model.spec.form != "onnx":
        reason = "the batch dimension became fixed"
        largest = None
    else:
        # A sum of sizes 1 and 3 finds a batch that was baked into a reshape.
        agreed = parity.compare(
            runner(path),
            samples,
            wanted,
            [1, 3] if open_batch else [1],
            parity.Limit(spec.tolerance),
        )
        reason, largest = agreed.reason, agreed.max_abs_diff
    return ExportAttempt(
        exporter=name,
        passed=not reason,
        reason=reason or "agrees with the model",
        max_abs_diff=largest,
        nodes=len(graph.node),
        size_bytes=path.stat().st_size,
        elapsed_s=time.perf_counter() - started,
    )


def runner(path: Path) -> parity.Infer:
    """Run an ONNX file with ONNX Runtime, its optimisations off: the graph as written."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    names = [value.name for value in session.get_outputs()]

    def infer(batch: Array) -> dict[str, Array]:
        outputs = session.run(names, {name: np.ascontiguousarray(batch)})
        return dict(zip(names, outputs, strict=True))

    return infer


def _dynamo(
    source: SourceModel, model: PinnedModel, spec: ExportSpec, sample: Array, path: Path
) -> None:
    import torch

    # A batch-1 example whose strides are channels-last makes the exporter fix the batch.
    example = torch.from_numpy(np.ascontiguousarray(sample))
    shapes = ({0: torch.export.Dim("batch")},) if spec.dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            source.module,
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=None if model.spec.form == "pt2" else shapes,
            input_names=[model.spec.input.name],
            output_names=list(source.outputs),
            opset_version=spec.opset,
            external_data=False,
            verbose=False,
        )


def _legacy(
    source: SourceModel, model: PinnedModel, spec: ExportSpec, sample: Array, path: Path
) -> None:
    import torch

    module = _as_module(source.module.module()) if model.spec.form == "pt2" else source.module
    names = [model.spec.input.name, *source.outputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.from_numpy(np.ascontiguousarray(sample)),),
            str(path),
            dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in names} if spec.dynamic_batch else None,
            input_names=[model.spec.input.name],
            output_names=list(source.outputs),
            opset_version=min(spec.opset, 20),
        )


def _as_module(program: Any) -> Any:
    """An exported program as a module whose train() the exporter may call."""
    import torch

    class Wrapped(torch.nn.Module):  # type: ignore[misc]
        def forward(self, *inputs: Any) -> Any:
            return program(*inputs)

    return Wrapped().eval()


_EXPORTERS: dict[str, Callable[[SourceModel, PinnedModel, ExportSpec, Array, Path], None]] = {
    "dynamo": _dynamo,
    "legacy": _legacy,
}


def signature(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], int]:
    """(inputs, outputs, opset) of an ONNX file, its initialisers left out.

    Raises:
        ModelError: The file is not ONNX.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelError(
            f"{path.name} is not ONNX ({type(error).__name__})", hint="export it again"
        ) from error
    constants = {tensor.name for tensor in model.graph.initializer}
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    inputs = tuple(_tensor(v) for v in model.graph.input if v.name not in constants)
    return inputs, tuple(_tensor(v) for v in model.graph.output), opset


def _tensor(value: Any) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    return TensorSpec(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        shape=tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in kind.shape.dim
        ),
    )
