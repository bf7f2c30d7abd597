"""Keypoints: objects with a box and named points, such as people and their joints.

Layouts are those of YOLO-pose: candidates that need suppression, or finished rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.runtime.detections import Detections
from engineworks.runtime.drawing import draw as draw_boxes
from engineworks.runtime.drawing import limbs
from engineworks.runtime.heads._base import Decoder, Finish, Head, Outputs, Picture, labels, only
from engineworks.runtime.heads._boxes import corners
from engineworks.runtime.heads.detection import SHOWN, count, objects
from engineworks.runtime.heads.detection import lines as box_lines
from engineworks.runtime.postprocess import choose
from engineworks.runtime.preprocess import Placement
from engineworks.specs import Size, TaskSpec

Array = np.ndarray[Any, Any]

#: COCO's points of a person (https://cocodataset.org/#keypoints-2020), taken unless a recipe names
#: others.
COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

#: What is connected in a picture, points counted from 0.
COCO_SKELETON = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip

#: Points below this confidence are not drawn.
DRAWN = 0.3

#: xyxy (n, 4), scores (n,), class ids (n,), points (n, k, 3), all in input pixels.
Candidates = tuple[Array, Array, Array, Array]


@dataclass(frozen=True, kw_only=True)
class Poses(Detections):
    """Objects with their points.

    Attributes:
        points: float32 (n, k, 3): x and y in pixels of the source image, not clipped to it, and
            confidence in 0..1.
    """

    points: Array

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points.ndim != 3 or self.points.shape[::2] != (len(self.xyxy), 3):
            raise ValueError(
                f"points must have shape ({len(self.xyxy)}, k, 3), got {self.points.shape}"
            )

    def select(self, which: Array | slice) -> Poses:
        """Some of them, in the order that `which` gives."""
        return Poses(
            xyxy=self.xyxy[which],
            confidence=self.confidence[which],
            class_id=self.class_id[which],
            track_id=None if self.track_id is None else self.track_id[which],
            cut=self.cut,
            points=self.points[which],
        )


def names_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the points, in the model's order."""
    return tuple(options.get("names") or COCO_NAMES)


def skeleton_of(options: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Pairs of points that are connected in a picture."""
    given: Sequence[Sequence[int]] | None = options.get("skeleton")
    if given is None:
        return COCO_SKELETON if names_of(options) == COCO_NAMES else ()
    return tuple((int(start), int(end)) for start, end in given)


def decode_pose(outputs: Outputs, points: int, confidence: float) -> Candidates:
    """YOLOv8-pose: one output (4 + classes + 3 * points, anchors).

    Rows are centre x, centre y, width, height in input pixels, class scores, and x, y in input
    pixels and confidence of each point (https://docs.ultralytics.com/tasks/pose/).

    Raises:
        ValueError: So many rows leave no class.
    """
    raw = only(outputs)
    classes = raw.shape[0] - 4 - 3 * points
    if raw.ndim != 2 or classes < 1:
        raise ValueError(
            f"with {points} points a YOLO-pose head gives at least {5 + 3 * points} rows, this "
            f"output {raw.shape}"
        )
    score = raw[4 : 4 + classes].max(axis=0)
    keep = np.flatnonzero(score > confidence)
    rows = raw[:, keep]
    return (
        corners(rows[:4].T),
        score[keep],
        rows[4 : 4 + classes].argmax(axis=0),
        rows[4 + classes :].T.reshape(len(keep), points, 3),
    )


def decode_end2end(outputs: Outputs, points: int, confidence: float) -> Candidates:
    """Finished rows, as YOLO26-pose ends with: one output (n, 6 + 3 * points).

    A row is left, top, right, bottom in input pixels, score, class, and x, y, confidence of each
    point; rows with a score of 0 are padding.

    Raises:
        ValueError: The rows are of another length.
    """
    raw = only(outputs)
    if raw.ndim != 2 or raw.shape[1] != 6 + 3 * points:
        raise ValueError(
            f"with {points} points an end2end_pose head gives (n, {6 + 3 * points}), this output "
            f"{raw.shape}"
        )
    rows = raw[raw[:, 4] > confidence]
    return (
        rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64),
        rows[:, 6:].reshape(len(rows), points, 3),
    )  # fmt: skip


#: Word of `task.layout` -> (how it is decoded, whether candidates need suppression).
LAYOUTS = {"yolov8_pose": (decode_pose, True), "end2end_pose": (decode_end2end, False)}


def candidates(
    task: TaskSpec, size: Size, decode: Decoder | None, outputs: Outputs, confidence: float
) -> Candidates:
    """What the outputs of one image hold, before anything is suppressed.

    Raises:
        ValueError: They are not what the layout says.
    """
    points = len(names_of(task.options))
    if decode is None:
        return LAYOUTS[task.layout][0](outputs, points, confidence)
    xyxy, score, class_id, places = decode(outputs, size, confidence)
    if places.shape != (len(xyxy), points, 3):
        raise ValueError(
            f"a decoder of keypoints gives points ({len(xyxy)}, {points}, 3), this one "
            f"{places.shape}"
        )
    return xyxy, score, class_id, places


def open_head(task: TaskSpec, size: Size, decode: Decoder | None) -> Finish:
    """See `Head`.

    Raises:
        ValueError: There is no such layout.
    """
    if decode is None and task.layout not in LAYOUTS:
        raise ValueError(f"task.layout {task.layout!r} is none of {', '.join(LAYOUTS)}")
    doubles = decode is not None or LAYOUTS[task.layout][1]

    def finish(outputs: Outputs, placement: Placement) -> Poses:
        xyxy, score, class_id, points = candidates(task, size, decode, outputs, task.confidence)
        keep, cut = choose(xyxy, score, class_id, task, doubles=doubles)
        placed = points[keep].astype(np.float32)
        placed[..., 0] = (placed[..., 0] - placement.offset_x) / placement.scale_x
        placed[..., 1] = (placed[..., 1] - placement.offset_y) / placement.scale_y
        return Poses(
            xyxy=placement.to_source(xyxy[keep]),
            confidence=score[keep].astype(np.float32),
            class_id=class_id[keep].astype(np.int64),
            cut=cut,
            points=placed,
        )

    return finish


def to_json(poses: Poses, task: TaskSpec) -> dict[str, Any]:
    """See `Head`: as objects of a detection, each with its named points."""
    names = names_of(task.options)
    rows = objects(poses, task)
    for row, points in zip(rows, poses.points.tolist(), strict=True):
        row["keypoints"] = [
            {"name": name, "x": round(x, 2), "y": round(y, 2), "confidence": round(sure, 4)}
            for name, (x, y, sure) in zip(names, points, strict=True)
        ]
    return {"detections": rows}


def lines(poses: Poses, task: TaskSpec) -> list[str]:
    """See `Head`: each object, and how many of its points are sure."""
    sure = (poses.points[..., 2] >= DRAWN).sum(axis=1).tolist()
    total = len(names_of(task.options))
    return [
        f"{said}  {number} of {total} points"
        for said, number in zip(box_lines(poses, task), sure, strict=True)
    ]


def draw(picture: Picture, poses: Poses, task: TaskSpec, overlay: str | None) -> None:
    """See `Head`: boxes with names, limbs and points."""
    keys = poses.class_id if poses.track_id is None else poses.track_id
    limbs(picture, poses.points, skeleton_of(task.options), DRAWN, keys.tolist())
    draw_boxes(picture, poses, labels(task), overlay=overlay)


def check_options(options: Mapping[str, Any]) -> None:
    """See `Head`."""
    names = options.get("names", COCO_NAMES)
    if not isinstance(names, list | tuple) or not names or len(set(names)) != len(names):
        raise ValueError(f"names: {names!r} is no list of different names")
    count = len(names)
    sigmas = options.get("sigmas")
    if sigmas is not None:
        good = isinstance(sigmas, list | tuple) and len(sigmas) == count
        if not good or not all(isinstance(s, int | float) and s > 0 for s in sigmas):
            raise ValueError(f"sigmas: {sigmas!r} is not one number above 0 for each of {count}")
    for pair in options.get("skeleton") or ():
        good = isinstance(pair, list | tuple) and len(pair) == 2
        if not good or not all(isinstance(n, int) and 0 <= n < count for n in pair):
            raise ValueError(f"skeleton: {pair!r} is no pair of points 0 to {count - 1}")


HEAD = Head(
    title="find objects and their keypoints",
    command="keypoints",
    open=open_head,
    to_json=to_json,
    lines=lines,
    count=count,
    draw=draw,
    objects=True,
    columns={"boxes": 2, "keypoints": 3},
    layouts=tuple(LAYOUTS),
    own_decoder="xyxy (n, 4), scores (n,), class ids (n,), points (n, k, 3), in input pixels",
    settings=SHOWN,
    options={
        "names": "names of the points, in the model's order (default: COCO's 17 of a person)",
        "sigmas": "spread of each point in OKS (default: COCO's; to be given for other points)",
        "skeleton": "pairs of points, counted from 0, that pictures connect",
    },
    check_options=check_options,
)
