"""What a model's outputs mean. Knows no metric and no decoder."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

from engineworks.codec import later
from engineworks.specs.ground import STRICT, must

#: Detection heads that the runtime decodes; anything else is a `module:function` of the recipe.
LAYOUTS = ("yolox", "yolov8", "end2end", "detr", "rtdetr")

#: What a classifier's scores are; `auto` is settled on the source model, once.
ScoreKind = Literal["auto", "logits", "probabilities", "independent", "independent_logits"]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What the outputs mean, and so which metric scores them."""

    __pydantic_config__ = STRICT

    kind: Literal["none", "detection", "classification"] = "none"
    """none: outputs are compared with the source model's, and no metric is computed."""
    layout: str = "yolox"
    """Detection head: `yolox`, `yolov8`, `end2end`, `detr`, `rtdetr`, or `module:function` of your
    own decoder."""
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
        must(
            self.scores == "auto" or self.kind == "classification",
            f"task.scores: {self.scores} is for classification, this task is {self.kind}",
            "remove task.scores; the layout of a detector says what its scores are",
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
        custom = ":" in self.layout
        must(
            custom or self.layout in LAYOUTS,
            f"task.layout: {self.layout!r} is unknown",
            f"use {', '.join(LAYOUTS)} or module:function (see docs/recipe.md, 'Your own decoder')",
        )
