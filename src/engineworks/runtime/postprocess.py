"""From a detection head's raw output to `Detections`, as the manifest's task says.

Decode (`heads.py`), suppress (`nms.py`), back to source pixels. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engineworks.runtime.detections import Detections
from engineworks.runtime.heads import HEADS, Decoder, Head
from engineworks.runtime.nms import suppress
from engineworks.runtime.preprocess import Placement
from engineworks.specs import Size, TaskSpec

Array = np.ndarray[Any, Any]


class DetectionPostprocessor:
    """Decodes, suppresses where the head needs it, and goes back to source pixels.

    Keeps nothing between calls, so threads may share one.

    Args:
        task: Layout and thresholds.
        size: Input (height, width).
        decoder: The recipe's own, for a layout `module:function`; its candidates are suppressed.
    """

    def __init__(self, task: TaskSpec, size: Size, decoder: Decoder | None = None) -> None:
        self.task = task
        self.size = size
        self._head = Head(decode=decoder, suppress=True) if decoder else HEADS[task.layout]

    def __call__(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        """Detections of one image.

        Args:
            outputs: Output name -> array of this image, without the batch dimension.
            placement: Where the image lies in the input.

        Raises:
            ValueError: The outputs are not what the layout says.
        """
        xyxy, score, class_id = self._head.decode(outputs, self.size, self.task.confidence)
        n = len(xyxy)
        if xyxy.shape != (n, 4) or score.shape != (n,) or class_id.shape != (n,):
            raise ValueError(
                f"a decoder gives xyxy (n, 4), scores (n,) and class ids (n,), this one "
                f"{xyxy.shape}, {score.shape} and {class_id.shape}"
            )
        real = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1) & np.isfinite(xyxy).all(axis=1)
        if not real.all():  # a box without area, or out of a graph that overflowed
            xyxy, score, class_id = xyxy[real], score[real], class_id[real]
        most = self.task.max_detections
        if self._head.suppress:
            # One more than may be kept tells whether any is left out.
            keep = suppress(xyxy, score, class_id, self.task.iou, most + 1)
        else:
            keep = np.argsort(-score, kind="stable")
        cut, keep = len(keep) > most, keep[:most]
        return Detections(
            xyxy=placement.to_source(xyxy[keep]),
            confidence=score[keep].astype(np.float32),
            class_id=class_id[keep].astype(np.int64),
            cut=cut,
        )
