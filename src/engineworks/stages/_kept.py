"""Images that judge engines where there are no labels: kept at calibration, read by later stages.

They are placed as the model sees them, so they travel through the store with the run and no stage
depends on a folder of photos. Knows no model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.evaluate import datasets
from engineworks.evaluate.datasets import sample_evenly
from engineworks.facts.data import PinnedData
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.runtime.pictures import read_image
from engineworks.runtime.preprocess import Preprocessor
from engineworks.specs import Preprocess, Size
from engineworks.stages._records import provenance
from engineworks.store import LocalStore

Array = np.ndarray[Any, Any]
Rows = Callable[[], Iterable[Array]]

#: Images that are kept to judge engines where there are no labels.
IMAGES = 64

#: JPEG quality: what they show matters, not each pixel; both models see the same.
QUALITY = 95


def keep(
    shared: Shared, data: PinnedData, size: Size, count: int, store: LocalStore
) -> Artifact | None:
    """Put some of the calibration images into the store, spread evenly; None if none are asked."""
    import cv2

    if not count:
        return None
    place = Preprocessor(shared.preprocess, size, uint8=True)
    with tempfile.TemporaryDirectory() as work:
        files: dict[str, Path] = {}
        for number, image in enumerate(datasets.images(sample_evenly(data, count))):
            name = f"{number:05}.jpg"
            files[name] = Path(work, name)
            placed = place(image)[0]
            cv2.imwrite(str(files[name]), placed, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return store.put(
            files,
            kind="samples",
            name=shared.name,
            entry=next(iter(files)),
            preprocess=shared.preprocess,
            provenance=provenance("calibrate", shared, (), "numpy"),
        )


def rows(
    samples: Artifact | None, store: LocalStore, preprocess: Preprocess, size: Size, others: Array
) -> Rows:
    """What goes through the kept images as the model's input, one at a time, as often as called.

    Args:
        samples: Of `keep`.
        store: Where they are.
        preprocess: The model's.
        size: Input (height, width).
        others: (n, channels, height, width) for models that have no calibration images.
    """
    if samples is None:
        return lambda: others
    prepare = Preprocessor(preprocess, size)
    files = sorted(store.open(samples).glob("*.jpg"))
    return lambda: (prepare(read_image(path))[0] for path in files)
