"""What a model's outputs mean. Knows no metric and no decoder."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

from engineworks.codec import later
from engineworks.specs.ground import STRICT, must

#: The kind of a task where nobody says what outputs mean.
NO_TASK = "none"

#: What a classifier's scores are; `auto` is settled on the source model, once.
ScoreKind = Literal["auto", "logits", "probabilities", "independent", "independent_logits"]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What the outputs mean, and so which metric scores them."""

    __pydantic_config__ = STRICT

    kind: str = NO_TASK
    """`detection`, `classification`, `segmentation`, `keypoints`, or one of an installed package.
    `none`: outputs are compared with the source model's, and no metric is computed."""
    layout: str = "yolox"
    """How the outputs hold the answers, a word of the kind's own. Detection: `yolox`, `yolov8`,
    `end2end`, `detr`, `rtdetr`. Segmentation: `scores` (a map for each class) or `classes` (one map
    of class numbers). Keypoints: `yolov8_pose` or `end2end_pose`. Or `module:function` of your own
    decoder."""
    labels: tuple[str, ...] | str = ()
    """Class names in index order: a list, or a text file with one name per line."""
    confidence: float = 0.01
    """Detections below this score are dropped (0.01 for AP, higher for display)."""
    iou: float = 0.65
    """Overlap above which the weaker of two boxes of one class is suppressed."""
    max_detections: int = 100
    """Boxes kept per image."""
    scores: ScoreKind = later(default="auto")
    """What a classifier's output is. `auto`: settled once, on the source model. `logits`: a softmax
    makes confidences of them. `probabilities`: they are confidences, and sum to 1. `independent`:
    confidences of labels that do not exclude each other. `independent_logits`: a sigmoid makes
    confidences of them."""
    options: dict[str, Any] = later(default_factory=dict)
    """What this kind of task wants to know beside; docs/recipe.md lists it by kind."""

    @property
    def judged(self) -> bool:
        """Whether a metric scores the outputs."""
        return self.kind != NO_TASK

    def __post_init__(self) -> None:
        must(
            0 <= self.confidence < 1 and 0 < self.iou <= 1,
            f"task: confidence {self.confidence} and iou {self.iou} must lie between 0 and 1",
            "COCO evaluation uses confidence: 0.01 and iou: 0.65",
        )
        must(
            self.max_detections > 0,
            f"task.max_detections: {self.max_detections} boxes cannot be judged",
            "COCO evaluation uses 100",
        )
        # An empty one holds the place of a class without a name.
        given = () if isinstance(self.labels, str) else tuple(filter(None, self.labels))
        names = [unicodedata.normalize("NFC", name) for name in given]
        must(
            len(set(names)) == len(names),
            f"task.labels: {next((n for n in names if names.count(n) > 1), '')!r} stands there "
            "twice",
            "name every class once",
        )
