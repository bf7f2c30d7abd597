"""Sessions of the `null` target: they replay recorded answers, so a flow can be tried anywhere.

A row that was recorded gets the recorded answer; any other row gets zeros. No model runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.manifest import Manifest
from engineworks.runtime.session import SessionBase, Tensors

#: Its engines are doubles of real ones.
SIMULATED = "it replays recorded answers and computes nothing"


def row_key(row: np.ndarray[Any, Any]) -> str:
    """Digest of one input row's bytes."""
    return hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest()


class NullSession(SessionBase):
    """Answers by looking rows up in `answers.npz` (arrays `keys` and one per output)."""

    reuses_outputs = False

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        super().__init__(manifest)
        with np.load(folder / manifest.entry, allow_pickle=False) as recorded:
            self._index = {str(key): row for row, key in enumerate(recorded["keys"])}
            self._answers = {spec.name: recorded[f"output:{spec.name}"] for spec in self.outputs}

    def __enter__(self) -> NullSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`."""
        self.check(feeds)
        batch = feeds[self.inputs[0].name]
        rows = [self._index.get(row_key(row)) for row in batch]
        answers = {}
        for name, recorded in self._answers.items():
            answer = np.zeros((len(batch), *recorded.shape[1:]), recorded.dtype)
            for position, row in enumerate(rows):
                if row is not None:
                    answer[position] = recorded[row]
            answers[name] = answer
        return answers


def open_session(folder: Path, manifest: Manifest, threads: int) -> NullSession:
    """Open an engine of the target `null`."""
    return NullSession(folder, manifest)
