"""Opens a model source and runs it as it was trained: the reference for everything after.

Four forms: a factory with a state_dict, ONNX, torch.export (.pt2), TorchScript. Knows no
exporter. Runs in a stage's child process, since factories are user code.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import usercode, userfiles
from engineworks.errors import EngineworksError, ModelError, said
from engineworks.export import archives, checkpoint
from engineworks.export.inputs import form
from engineworks.facts.model import PinnedModel

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SourceModel:
    """A model that answers, and for torch forms the module that exporters take."""

    infer: Callable[[Array], dict[str, Array]]
    """(b, channels, height, width) float32 -> outputs by name."""
    outputs: tuple[str, ...]
    module: Any = None
    note: str = ""
    """Which weights it has, when its file holds more than a plain state_dict."""


def open_source(model: PinnedModel, sample: Array) -> SourceModel:
    """Open a source and try it on one sample.

    Args:
        model: The pinned source.
        sample: (1, channels, height, width) float32, preprocessed.

    Raises:
        ModelError: It cannot be loaded, raises, or answers with NaN or nothing.
    """
    opened = _OPENERS[model.spec.form](model, np.ascontiguousarray(sample))
    answers = opened.infer(np.ascontiguousarray(sample))
    for name, answer in answers.items():
        if not np.isfinite(answer).all():
            bad = int((~np.isfinite(answer)).sum())
            raise ModelError(
                f"model output {name!r} has {bad} of {answer.size} values that are NaN or "
                "infinite on a real input",
                hint="check the weights and the preprocess section: scale, mean, std and color "
                "must be those of training",
            )
    return opened


def _open_onnx(model: PinnedModel, sample: Array) -> SourceModel:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"model.source: {model.path} is not an ONNX file that ONNX Runtime can load "
            f"({said(error)})",
            hint="export it again, and check the copy with: "
            f"python -m onnx.checker {Path(model.path).name}",
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ModelError(
            f"model.source: {Path(model.path).name} has {len(inputs)} inputs "
            f"({', '.join(value.name for value in inputs)}); one image input is supported",
            hint="export the model with the image as its only input",
        )
    names = tuple(value.name for value in session.get_outputs())
    wanted = form(inputs[0].type, inputs[0].shape, model.spec.input.channels)
    _reject_batch(Path(model.path).name, inputs[0].shape, model.spec.input.channels)

    def infer(batch: Array) -> dict[str, Array]:
        batch = wanted.given(batch)
        # Row by row: many files have a batch fixed at 1, and rows are independent.
        rows = [session.run(names, {inputs[0].name: batch[i : i + 1]}) for i in range(len(batch))]
        answers = [np.concatenate([row[k] for row in rows]) for k in range(len(names))]
        # As the graph that is built from gives them.
        return {
            name: answer.astype(np.float32) if answer.dtype.kind == "f" else answer
            for name, answer in zip(names, answers, strict=True)
        }

    wanted.given(sample)

    return _guarded(SourceModel(infer, names), sample)


def _reject_batch(name: str, shape: list[Any], channels: int) -> None:
    """Refuse an ONNX input that one image at a time cannot be given to, by its first axis."""
    if len(shape) != 4 or not isinstance(shape[0], int) or shape[0] in (1, -1, 0):
        return
    if shape[0] == channels and shape[1] != channels:
        raise ModelError(
            f"model.source: {name} wants an image of {shape}: its first axis is the channels, "
            "not the batch",
            hint="export the model with an input of (batch, channels, height, width)",
        )
    raise ModelError(
        f"model.source: {name} wants an image of {shape}: its batch is fixed at {shape[0]}, and "
        "images are given one at a time",
        hint="export it again with an open batch, or with a batch of 1",
    )


def _open_factory(model: PinnedModel, sample: Array) -> SourceModel:
    folder = Path(model.folder)
    try:
        with userfiles.noted(folder):
            factory = usercode.load(model.spec.source, folder, "model.source")
            module = factory(**model.spec.arguments)
    except EngineworksError:
        raise  # of its import, which says what is wrong
    except Exception as error:
        raise ModelError(
            f"model.source: {model.spec.source} raised {type(error).__name__}: {said(error)}",
            hint=f"check model.arguments ({model.spec.arguments or 'none given'}) against the "
            "factory's signature",
        ) from error
    if not hasattr(module, "state_dict") or not callable(module):
        raise ModelError(
            f"model.source: {model.spec.source} returned {type(module).__name__}, "
            "not a torch module",
            hint="return a torch.nn.Module from the factory",
        )
    said_of = ""
    if model.spec.weights is not None:
        said_of = checkpoint.load(
            module, Path(model.path), trust=model.spec.trust, key=model.spec.weights_key,
            source=model.spec.source,
        )  # fmt: skip
    return dataclasses.replace(_torch_source(module.eval(), model, sample), note=said_of)


def _open_pt2(model: PinnedModel, sample: Array) -> SourceModel:
    import torch

    def load(file: io.BytesIO) -> Any:
        program = torch.export.load(file)
        return program, program.module()

    program, module = _opened(
        model, load, archives.check_pt2,
        "a torch.export file", "torch.export.save(torch.export.export(model, ...), path)",
    )  # fmt: skip
    source = _torch_source(module, model, sample)
    return SourceModel(source.infer, source.outputs, program)


def _open_torchscript(model: PinnedModel, sample: Array) -> SourceModel:
    import torch

    def load(file: io.BytesIO) -> Any:
        return torch.jit.load(file, map_location="cpu")

    module = _opened(
        model, load, archives.check_torchscript,
        "a TorchScript file", "torch.jit.trace(model, example).save(path)",
    )  # fmt: skip
    return _torch_source(module.eval(), model, sample)


def _opened(
    model: PinnedModel,
    load: Callable[[io.BytesIO], Any],
    check: Callable[[bytes], None],
    kind: str,
    saved_by: str,
) -> Any:
    """What a file of PyTorch's holds; without trust only when nothing in it can run code.

    Raises:
        ModelError: It is of another kind, or could run more than a network.
    """
    name = Path(model.path).name
    try:
        # Read once: what is looked at is what is loaded.
        data = Path(model.path).read_bytes()
        if model.spec.trust:
            return load(io.BytesIO(data))
        check(data)
        with archives.weights_only():
            return load(io.BytesIO(data))
    except (archives.Unsafe, pickle.UnpicklingError) as error:
        what = str(error) if isinstance(error, archives.Unsafe) else "pickled Python code"
        raise ModelError(
            f"model.source: {name} holds {what}: such a file can run anything on this machine",
            hint=f"save it anew with {saved_by}, or set model.trust: true if you made this file "
            "yourself",
        ) from error
    except Exception as error:
        raise ModelError(
            f"model.source: {name} is not {kind} ({type(error).__name__}: {said(error)})",
            hint=f"save it with {saved_by}",
        ) from error


def _torch_source(module: Any, model: PinnedModel, sample: Array) -> SourceModel:
    import torch

    def answers(batch: Array) -> list[tuple[str, Array]]:
        with torch.inference_mode():
            raw = module(torch.from_numpy(np.ascontiguousarray(batch)))
        return [(name, value.detach().float().numpy()) for name, value in flatten(raw)]

    try:
        outputs = answers(sample)
    except EngineworksError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model raised {type(error).__name__} on an input of shape "
            f"{list(sample.shape)}: {said(error)}",
            hint="check model.input (size, channels) against the network",
        ) from error
    if not outputs:
        raise ModelError(
            "the model answers with nothing", hint="return a tensor, or a tuple or dict of them"
        )
    names = _output_names(model, [name for name, _ in outputs])

    def infer(batch: Array) -> dict[str, Array]:
        rows = [answers(batch[i : i + 1]) for i in range(len(batch))]
        return {
            name: np.concatenate([row[position][1] for row in rows])
            for position, name in enumerate(names)
        }

    return SourceModel(infer, names, module)


def flatten(raw: Any, name: str = "") -> list[tuple[str, Any]]:
    """Named tensors of a module's answer: a tensor, or nested tuples, lists and dicts of them."""
    if hasattr(raw, "detach"):
        return [(name or "output", raw)]
    if isinstance(raw, Mapping):
        prefix = f"{name}_" if name else ""
        pairs: list[tuple[str, Any]] = [(f"{prefix}{key}", value) for key, value in raw.items()]
    elif isinstance(raw, list | tuple):
        pairs = [(f"{name or 'output'}_{position}", value) for position, value in enumerate(raw)]
    else:
        raise ModelError(
            f"the model answers with {type(raw).__name__}, which is no tensor",
            hint="return tensors, or a tuple or dict of them",
        )
    return [item for key, value in pairs for item in flatten(value, key)]


def _output_names(model: PinnedModel, output_names: list[str]) -> tuple[str, ...]:
    wanted = model.spec.outputs
    if wanted is None:
        return tuple(output_names)
    if len(wanted) != len(output_names):
        raise ModelError(
            f"model.outputs names {len(wanted)} outputs, the model has {len(output_names)}: "
            f"{', '.join(output_names)}",
            hint="name every output once, in the model's order",
        )
    return wanted


def _guarded(source: SourceModel, sample: Array) -> SourceModel:
    """A source that was tried once, with the runtime's refusal turned into a user's error."""
    try:
        source.infer(sample)
    except Exception as error:
        raise ModelError(
            f"the model refuses an input of shape {list(sample.shape)}: {said(error)}",
            hint="check model.input (size, channels) against the network",
        ) from error
    return source


_OPENERS: dict[str, Callable[[PinnedModel, Array], SourceModel]] = {
    "factory": _open_factory,
    "onnx": _open_onnx,
    "pt2": _open_pt2,
    "torchscript": _open_torchscript,
}
