"""Detections: what every detector, tracker and metric here speaks. Column-oriented, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Objects found in one image.

    Attributes:
        xyxy: float32 (n, 4): left, top, right, bottom in pixels of the source image.
        confidence: float32 (n,) in 0..1, highest first.
        class_id: int64 (n,), index into the model's labels.
    """

    xyxy: np.ndarray[Any, Any]
    confidence: np.ndarray[Any, Any]
    class_id: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        if self.xyxy.shape != (n, 4):
            raise ValueError(f"xyxy must have shape (n, 4), got {self.xyxy.shape}")
        if self.confidence.shape != (n,) or self.class_id.shape != (n,):
            raise ValueError(
                f"{n} boxes need as many confidences and class ids, "
                f"got {self.confidence.shape} and {self.class_id.shape}"
            )

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def empty(cls) -> Detections:
        """No object."""
        return cls(
            xyxy=np.zeros((0, 4), np.float32),
            confidence=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int64),
        )
