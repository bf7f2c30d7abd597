"""Layouts are told by what was answered; what is none of them is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.evaluate.recognize import recognize
from engineworks.runtime.heads.detection import LAYOUTS as HEADS

SIZE = (64, 96)
STRIDES = (8, 16, 32)
CLASSES = 5
#: The objects that every layout below shows in each of its images: box, class, score.
OBJECTS = [((10, 12, 34, 40), 3, 0.9), ((50, 20, 90, 60), 0, 0.7)]


def cells():
    """Centre and stride (n, 3) of every cell."""
    rows = []
    for stride in STRIDES:
        for y in range(SIZE[0] // stride):
            for x in range(SIZE[1] // stride):
                rows.append(((x + 0.5) * stride, (y + 0.5) * stride, stride))
    return np.array(rows)


def candidates(seed=0):
    """(boxes as centre and size in pixels, scores) with the objects in the cells they lie in."""
    rng = np.random.default_rng(seed)
    grid = cells()
    boxes = np.hstack([grid[:, :2], np.repeat(grid[:, 2:], 2, axis=1) * 3])
    boxes += rng.normal(0, 1, boxes.shape)
    scores = rng.uniform(0, 0.02, (len(grid), CLASSES))
    for (left, top, right, bottom), name, score in OBJECTS:
        centre = np.array([(left + right) / 2, (top + bottom) / 2])
        cell = np.abs(grid[:, :2] - centre).sum(axis=1).argmin()
        boxes[cell] = [*centre, right - left, bottom - top]
        scores[cell, name] = score
    return boxes, scores


BATCH = [candidates(seed) for seed in range(3)]
BOXES, SCORES = (np.stack(part).astype(np.float32) for part in zip(*BATCH, strict=True))
CELLS = BOXES.shape[1]
HEIGHT, WIDTH = SIZE
SHARE = np.array([WIDTH, HEIGHT] * 2, np.float32)
#: Objectness and classes whose product is the score; classes are free where nothing is.
OBJECTNESS = np.sqrt(SCORES.max(axis=2, keepdims=True))
GIVEN = SCORES / OBJECTNESS


def corners(boxes):
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def raw():
    grid = cells()
    centre = BOXES[..., :2] / grid[:, 2:] - (grid[:, :2] / grid[:, 2:] - 0.5)
    return np.concatenate([centre, np.log(BOXES[..., 2:] / grid[:, 2:])], axis=2)


def rows(count=20):
    order = np.argsort(-SCORES.max(axis=2), axis=1)[:, :count]
    boxes = np.take_along_axis(corners(BOXES), order[..., None], axis=1)
    best = np.take_along_axis(SCORES, order[..., None], axis=1)
    return boxes, best.max(axis=2), best.argmax(axis=2)


def queries():
    order = np.argsort(-SCORES.max(axis=2), axis=1)[:, :30, None]
    boxes = np.take_along_axis(BOXES, order, axis=1) / SHARE
    return boxes, np.take_along_axis(SCORES, order, axis=1)


def with_nothing():
    boxes, scores = queries()
    nothing = np.clip(1 - scores.sum(axis=2, keepdims=True), 1e-3, None)
    return boxes, np.concatenate([scores, nothing], axis=2)


def logit(values):
    return np.log(values / (1 - values))


FOUND = rows()
LAYOUTS = {
    "yolox": (
        "yolox", "certain", {"y": np.concatenate([raw(), OBJECTNESS, GIVEN], axis=2)},
    ),
    "yolov8": ("yolov8", "certain", {"y": np.concatenate([BOXES, SCORES], 2).swapaxes(1, 2)}),
    "yolov8 in rows": ("yolov8", "certain", {"y": np.concatenate([BOXES, SCORES], axis=2)}),
    "yolov8 in 0..1": (
        "yolov8", "certain", {"y": np.concatenate([BOXES / SHARE, SCORES], 2).swapaxes(1, 2)},
    ),
    "yolov8 with corners": (
        "yolov8", "certain", {"y": np.concatenate([corners(BOXES), SCORES], 2).swapaxes(1, 2)},
    ),
    "yolov8 with masks": (
        "yolov8", "likely",
        {
            "y": np.concatenate(
                [BOXES, SCORES, np.random.default_rng(1).normal(0, 3, (3, CELLS, 8))], 2
            ).swapaxes(1, 2),
            "masks": np.random.default_rng(2).normal(0, 1, (3, 8, 16, 24)),
        },
    ),
    "yolov5": (
        "yolov8", "certain",
        {"y": np.tile(np.concatenate([BOXES, OBJECTNESS, GIVEN], axis=2), (1, 3, 1))},
    ),
    "decoded yolox": (
        "yolov8", "certain", {"y": np.concatenate([BOXES, OBJECTNESS, GIVEN], axis=2)},
    ),
    "end2end": (
        "end2end", "certain",
        {"y": np.concatenate([FOUND[0], FOUND[1][..., None], FOUND[2][..., None]], axis=2)},
    ),
    "lists": (
        "end2end", "certain",
        {"num": np.full((3, 1), 20), "boxes": FOUND[0], "scores": FOUND[1], "classes": FOUND[2]},
    ),
    "lists in 0..1": (
        "end2end", "certain",
        {"boxes": FOUND[0] / SHARE, "scores": FOUND[1], "classes": FOUND[2].astype(np.float32)},
    ),
    "boxes with scores, and labels": (
        "end2end", "certain",
        {"dets": np.concatenate([FOUND[0], FOUND[1][..., None]], 2), "labels": FOUND[2]},
    ),
    "ssd": (
        "end2end", "certain",
        {
            "y": np.concatenate(
                [
                    np.zeros((3, 20, 1)), FOUND[2][..., None], FOUND[1][..., None],
                    FOUND[0] / SHARE,
                ],
                axis=2,
            )[:, None]
        },
    ),
    "rtdetr": ("rtdetr", "certain", {"logits": logit(queries()[1]), "boxes": queries()[0]}),
    "detr": ("detr", "certain", {"logits": np.log(with_nothing()[1]), "boxes": queries()[0]}),
    "boxes and probabilities": (
        "yolov8", "certain", {"scores": with_nothing()[1], "boxes": queries()[0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_told_and_its_objects_are_found(name):
    word, sure, outputs = LAYOUTS[name]
    outputs = {
        key: np.asarray(value, value.dtype if value.dtype.kind in "iu" else np.float32)
        for key, value in outputs.items()
    }
    found = recognize(outputs, SIZE)
    assert found is not None
    assert (found.name, found.sure) == (word, sure), found.why
    assert set(found.outputs) <= set(outputs)
    for number in range(3):
        one = {key: value[number] for key, value in outputs.items()}
        xyxy, score, class_id = HEADS[found.name].decode(found.arrange(one), SIZE, 0.3)
        order = np.unique(np.round(score, 2), return_index=True)[1][::-1]
        assert [class_id[n] for n in order] == [name for _, name, _ in OBJECTS]
        np.testing.assert_allclose(score[order], [0.9, 0.7], atol=0.01)
        np.testing.assert_allclose(xyxy[order], [box for box, _, _ in OBJECTS], atol=0.5)


RNG = np.random.default_rng(7)
OTHERS = {
    "class scores": {"y": RNG.normal(0, 3, (3, 1000))},
    "a feature map": {"y": RNG.normal(0, 3, (3, 32, 16, 24))},
    "words of a transformer": {"y": RNG.normal(0, 1, (3, 197, 192))},
    "a depth map": {"y": RNG.uniform(1, 90, (3, 64, 96))},
    "letters along a line": {"y": np.abs(RNG.dirichlet(np.ones(37), (3, 120)))},
    "two vectors": {"a": RNG.normal(0, 1, (3, 4)), "b": RNG.normal(0, 1, (3, 128))},
    "offsets to anchors": {"boxes": RNG.normal(0, 2, (3, 300, 4)), "s": RNG.random((3, 300, 2))},
    "numbers that are none": {"y": np.full((3, CELLS, 9), np.nan)},
    "nothing": {"y": np.zeros((3, 0, 6))},
    "a score map": {"y": RNG.random((3, 1, 64, 64))},
    "a score map in rows": {"y": RNG.random((3, 64, 64))},
    "a keypoint heatmap": {"y": RNG.random((3, 17, 16, 12)) ** 8},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_detection_is_not_taken_for_one(name):
    assert recognize(OTHERS[name], SIZE) is None
