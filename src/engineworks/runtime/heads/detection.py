"""Detection: objects with a box, a class and a score.

Decodes (`_boxes.py`), suppresses where the layout needs it, goes back to source pixels; says and
draws what was found. Knows no engine's runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from engineworks.runtime.detections import Detections
from engineworks.runtime.drawing import draw as draw_boxes
from engineworks.runtime.heads._base import Decoder, Head, Picture, label, labels
from engineworks.runtime.heads._boxes import LAYOUTS as LAYOUTS
from engineworks.runtime.heads._boxes import BoxLayout
from engineworks.runtime.postprocess import choose
from engineworks.runtime.predictor import Predictor
from engineworks.runtime.preprocess import Placement
from engineworks.runtime.session import Session
from engineworks.specs import Size, TaskSpec

Array = np.ndarray[Any, Any]


class DetectionPostprocessor:
    """Decodes, suppresses where the layout needs it, and goes back to source pixels.

    Keeps nothing between calls, so threads may share one.

    Args:
        task: Layout and thresholds.
        size: Input (height, width).
        decoder: The recipe's own, for a layout `module:function`; its candidates are suppressed.

    Raises:
        ValueError: There is no such layout.
    """

    def __init__(self, task: TaskSpec, size: Size, decoder: Decoder | None = None) -> None:
        self.task = task
        self.size = size
        if decoder is None and task.layout not in LAYOUTS:
            raise ValueError(f"task.layout {task.layout!r} is none of {', '.join(LAYOUTS)}")
        self._layout = BoxLayout(decode=decoder, suppress=True) if decoder else LAYOUTS[task.layout]

    def __call__(self, outputs: Mapping[str, Array], placement: Placement) -> Detections:
        """Detections of one image.

        Args:
            outputs: Output name -> array of this image, without the batch dimension.
            placement: Where the image lies in the input.

        Raises:
            ValueError: The outputs are not what the layout says.
        """
        xyxy, score, class_id = self._layout.decode(outputs, self.size, self.task.confidence)
        keep, cut = choose(xyxy, score, class_id, self.task, doubles=self._layout.suppress)
        return Detections(
            xyxy=placement.to_source(xyxy[keep]),
            confidence=score[keep].astype(np.float32),
            class_id=class_id[keep].astype(np.int64),
            cut=cut,
        )


class Detector(Predictor[Detections]):
    """Finds objects.

    Args:
        session: An open engine of a detection model.
        confidence: Drop detections below this score; None: as the manifest says, which is often
            as low as average precision wants it.
        iou: Drop a box that overlaps a stronger one of its class by more than this; None: as the
            manifest says. What average precision wants (0.65) leaves doubles on a picture, for
            which 0.45 is usual. Heads that end with finished boxes take no notice.
        max_detections: Keep at most this many, the strongest; None: as the manifest says. When it
            cuts, `Detections.cut` says so, and a warning the first time.
        decoder: The decoder of a layout `module:function`, whose code is in no engine.
        max_batch: Images per inference where the engine's batch is open.

    Raises:
        ArtifactError: The engine is no detector, or its manifest does not say all that is needed.
    """

    kind = "detection"

    def __init__(
        self,
        session: Session,
        *,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        decoder: Decoder | None = None,
        max_batch: int = 8,
    ) -> None:
        super().__init__(
            session, decoder=decoder, max_batch=max_batch,
            confidence=confidence, iou=iou, max_detections=max_detections,
        )  # fmt: skip


def objects(detections: Detections, task: TaskSpec) -> list[dict[str, Any]]:
    """The objects as plain JSON types, boxes in pixels of the image."""
    rows = []
    tracks = detections.track_id
    for index, (box, score, kind) in enumerate(
        zip(
            detections.xyxy.tolist(),
            detections.confidence.tolist(),
            detections.class_id.tolist(),
            strict=True,
        )
    ):
        row = {
            "xyxy": [round(value, 2) for value in box],
            "confidence": round(score, 4),
            "class_id": kind,
            "label": label(task, kind),
        }
        if tracks is not None:
            row["track_id"] = int(tracks[index])
        rows.append(row)
    return rows


def to_json(detections: Detections, task: TaskSpec) -> dict[str, Any]:
    """See `Head`."""
    return {"detections": objects(detections, task)}


def lines(detections: Detections, task: TaskSpec) -> list[str]:
    """See `Head`: name, score and corners of each object."""
    said = []
    for row in objects(detections, task):
        corners = " ".join(f"{value:.0f}" for value in row["xyxy"])
        said.append(f"{row['label']:<16} {row['confidence']:.2f}  [{corners}]")
    return said


def count(detections: Detections, task: TaskSpec) -> dict[str, int]:
    """See `Head`."""
    return dict(Counter(label(task, kind) for kind in detections.class_id.tolist()))


def draw(picture: Picture, detections: Detections, task: TaskSpec, overlay: str | None) -> None:
    """See `Head`."""
    draw_boxes(picture, detections, labels(task), overlay=overlay)


#: What a caller may set, and what shows well: recipes have what AP wants.
SHOWN: dict[str, Any] = {"confidence": 0.3, "iou": 0.45, "max_detections": None}

HEAD = Head(
    title="find objects",
    command="detect",
    open=DetectionPostprocessor,
    to_json=to_json,
    lines=lines,
    count=count,
    draw=draw,
    objects=True,
    columns={"boxes": 2},
    layouts=tuple(LAYOUTS),
    own_decoder="xyxy (n, 4) in input pixels, scores (n,), class ids (n,)",
    settings=SHOWN,
)
