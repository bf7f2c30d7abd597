"""Core ML packages, on macOS.

Written by Apple's documentation and not yet run on a Mac. A batch is a list of inputs, which Core
ML spreads over its units by itself. Source:
https://apple.github.io/coremltools/source/coremltools.models.html#coremltools.models.model.MLModel.predict
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError
from engineworks.manifest import Manifest
from engineworks.runtime.session import SessionBase, Tensors

EXTRA = "coreml"


class CoreMLSession(SessionBase):
    """One open package."""

    reuses_outputs = False

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        if platform.system() != "Darwin":
            raise ArtifactError(
                f"{manifest.name} is a Core ML package, which opens on macOS; "
                f"this is {platform.system()}",
                hint="open it on a Mac, or take another target's engine",
            )
        import coremltools as ct

        super().__init__(manifest)
        units = getattr(ct.ComputeUnit, str(manifest.details.get("compute_units", "all")).upper())
        package = (folder / manifest.entry).parent
        self._features: dict[str, str] = manifest.details["features"]
        self._model: Any = ct.models.MLModel(str(package), compute_units=units)

    def __enter__(self) -> CoreMLSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`."""
        self.check(feeds)
        (spec,) = self.inputs
        name = self._features[spec.name]
        try:
            answers = self._model.predict([{name: row[None]} for row in feeds[spec.name]])
        except Exception as error:
            raise self.failure(error, feeds) from error
        return {
            output.name: np.concatenate(
                [np.asarray(answer[self._features[output.name]], np.float32) for answer in answers]
            )
            for output in self.outputs
        }

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        super().close()
        self._model = None


def open_session(folder: Path, manifest: Manifest, threads: int) -> CoreMLSession:
    """Open an engine of the target `coreml`. Core ML chooses its threads by itself."""
    return CoreMLSession(folder, manifest, threads)
