"""Detections: what every detector, tracker and metric here speaks. Column-oriented, checked.

Knows no other library's classes; `convert.py` turns them into those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Objects found in one image.

    Attributes:
        xyxy: float32 (n, 4): left, top, right, bottom in pixels of the source image.
        confidence: float32 (n,) in 0..1, highest first where a detector made them.
        class_id: int64 (n,), index into the model's labels.
        track_id: int64 (n,), the same for one object in all frames of a stream; None before a
            tracker has seen them.
        cut: Whether weaker ones, still above the confidence, were left out because there may be
            no more than the task's `max_detections`.
    """

    xyxy: Array
    confidence: Array
    class_id: Array
    track_id: Array | None = None
    cut: bool = False

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        if self.xyxy.shape != (n, 4):
            raise ValueError(f"xyxy must have shape (n, 4), got {self.xyxy.shape}")
        if self.confidence.shape != (n,) or self.class_id.shape != (n,):
            raise ValueError(
                f"{n} boxes need as many confidences and class ids, "
                f"got {self.confidence.shape} and {self.class_id.shape}"
            )
        if self.track_id is not None and self.track_id.shape != (n,):
            raise ValueError(f"{n} boxes need as many track ids, got {self.track_id.shape}")

    def __len__(self) -> int:
        return len(self.xyxy)

    def select(self, which: Array | slice) -> Detections:
        """Some of them, in the order that `which` gives.

        Args:
            which: bool (n,), indices (k,) or a slice.
        """
        return Detections(
            xyxy=self.xyxy[which],
            confidence=self.confidence[which],
            class_id=self.class_id[which],
            track_id=None if self.track_id is None else self.track_id[which],
            cut=self.cut,
        )

    def __getitem__(self, which: slice) -> Detections:
        """The same as `select` for a slice: `detections[:10]`."""
        return self.select(which)

    @classmethod
    def empty(cls) -> Detections:
        """No object."""
        return cls(
            xyxy=np.zeros((0, 4), np.float32),
            confidence=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int64),
        )
