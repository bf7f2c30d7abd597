"""Inputs with the source model's own answers: what every later graph and engine is held against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FILE = "reference.npz"

#: Distinct inputs that are kept. Larger batches repeat them.
ROWS = 4


def save(path: Path, inputs: Array, outputs: Mapping[str, Array]) -> None:
    """Write inputs (n, channels, height, width) and answers (n, ...) by output name."""
    arrays = {f"output:{name}": answer for name, answer in outputs.items()}
    np.savez(path, inputs=inputs, allow_pickle=False, **arrays)


def load(path: Path) -> tuple[Array, dict[str, Array]]:
    """Read what `save` wrote: (inputs, answers by output name, in the model's order)."""
    with np.load(path, allow_pickle=False) as arrays:
        outputs = {
            key.removeprefix("output:"): arrays[key]
            for key in arrays.files
            if key.startswith("output:")
        }
        return arrays["inputs"], outputs
