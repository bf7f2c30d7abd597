"""A PyTorch model as a session: the source itself, on the CPU or on any GPU.

So that what was trained can be timed beside its engines, by the same benchmark and spread over the
same devices. Weights and code are loaded as `source.py` does. On a GPU it has not run yet. Source:
https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError, ModelError, said
from engineworks.export.source import flatten, open_source
from engineworks.facts.model import PinnedModel
from engineworks.manifest import Manifest, Provenance, TensorSpec
from engineworks.runtime.session import SessionBase, Tensors
from engineworks.runtime.session_pool import Opener
from engineworks.specs import Preprocess

#: Factories are code of the user's, which need not bear being run by several threads at once.
_ONE_AT_A_TIME = threading.Lock()


def opener(model: PinnedModel, name: str, preprocess: Preprocess) -> Opener:
    """Opens the model anew on each device.

    Args:
        model: The pinned source, of any form but ONNX.
        name: The recipe's.
        preprocess: The recipe's, for whoever feeds it.

    Raises:
        ModelError: The source is an ONNX file; from the opener, as `open_source`.
        ArtifactError: From the opener: there is no such GPU.
    """
    if model.spec.form == "onnx":
        raise ModelError(
            "model.source is an ONNX file, which PyTorch does not run",
            hint="time an engine of onnxruntime-cpu or onnxruntime-cuda",
        )
    spec = model.spec.input
    height, width = spec.size
    shape = (1, spec.channels, height, width)

    def open_one(device: int, threads: int) -> TorchSession:
        where = place(device)
        with _ONE_AT_A_TIME:
            source = open_source(model, np.full(shape, 0.5, np.float32))
            # A factory may give the same module every time.
            module = _on(source.module, model.spec.form, where)
        manifest = Manifest(
            kind="source", name=name, entry="", files=(), preprocess=preprocess, target="torch",
            precision="fp32", details={"device": where}, provenance=Provenance(stage="source"),
            inputs=(TensorSpec(name=spec.name, dtype="float32", shape=("batch", *shape[1:])),),
            outputs=tuple(
                TensorSpec(name=output, dtype="float32", shape=("batch", "any"))
                for output in source.outputs
            ),
        )  # fmt: skip
        return TorchSession(module, manifest, where, threads)

    return open_one


def _on(module: Any, form: str, where: str) -> Any:
    """A module of one's own on a device."""
    if form == "pt2":
        from torch.export.passes import move_to_device_pass

        # The graph itself names devices, which `to` leaves as they are.
        return move_to_device_pass(module, where).module()
    return copy.deepcopy(module).to(where)


def place(device: int) -> str:
    """PyTorch's name of a device: a GPU where PyTorch sees one, else the CPU.

    Raises:
        ArtifactError: There is no GPU of this number.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count and device == 0:
        return "cpu"
    if not 0 <= device < count:
        raise ArtifactError(
            f"PyTorch {torch.__version__} sees {count} GPUs here, there is no device {device}",
            hint="see `engineworks host`; a PyTorch of the CPU alone sees none",
        )
    return f"cuda:{device}"


class TorchSession(SessionBase):
    """One module on one device, float32 as engines have it. Use it from the thread that opened it.

    Args:
        module: A torch.nn.Module on that device.
        manifest: Its tensors.
        where: PyTorch's name of the device.
        threads: CPU threads.
    """

    reuses_outputs = False

    def __init__(self, module: Any, manifest: Manifest, where: str, threads: int) -> None:
        import torch

        super().__init__(manifest)
        self._torch, self._module, self._place = torch, module, where
        torch.set_num_threads(threads)  # of this thread
        # By default convolutions round to 10 bits of mantissa on a GPU; engines here do not.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._staging: dict[tuple[int, ...], Any] = {}

    def __enter__(self) -> TorchSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`. With a GPU the input goes through pinned memory.

        Raises:
            ModelError: The model raised, as it does at a batch that it is not made for.
        """
        self.check(feeds)
        (spec,) = self.inputs
        given = self._torch.from_numpy(np.ascontiguousarray(feeds[spec.name]))
        with self._torch.inference_mode():
            if self._place != "cpu":
                given = self._staged(given).to(self._place, non_blocking=True)
            try:
                answers = flatten(self._module(given))
            except Exception as error:
                raise ModelError(
                    f"the model raised {type(error).__name__} on {self._place} at an input of "
                    f"shape {list(given.shape)}: {said(error)}",
                    hint="a model that was exported with one batch takes no other (--batch), and "
                    "one that names a device in its code runs there only",
                ) from error
            # Copying to the host waits for all that came before on this device.
            return {
                output.name: value.detach().float().cpu().numpy()
                for output, (_, value) in zip(self.outputs, answers, strict=True)
            }

    def _staged(self, given: Any) -> Any:
        """The same values in page-locked memory, which is kept for each shape."""
        shape = tuple(given.shape)
        if shape not in self._staging:
            self._staging = {shape: self._torch.empty(shape, pin_memory=True)}
        return self._staging[shape].copy_(given)

    def close(self) -> None:
        """Let the module go."""
        super().close()
        self._module = None
        self._staging = {}
