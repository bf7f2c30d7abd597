"""From a head's raw output to boxes in the source image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.runtime.detections import Detections
from engineworks.runtime.postprocess import (
    DetectionPostprocessor,
    decode_yolov8,
    decode_yolox,
    suppress,
)
from engineworks.runtime.preprocess import Placement, Preprocessor
from engineworks.specs import Preprocess, TaskSpec

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3
IDENTITY = Placement(
    scale_x=1.0, scale_y=1.0, offset_x=0.0, offset_y=0.0, width=SIZE[1], height=SIZE[0]
)


def overlap(a, b):
    """(intersection, union) of two boxes."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height, sum(areas) - width * height


def simple_suppress(boxes, scores, classes, iou):
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for stronger in kept:
            shared, union = overlap(boxes[index], boxes[stronger])
            if classes[index] == classes[stronger] and union > 0 and shared > iou * union:
                break
        else:
            kept.append(index)
    return kept


side = st.integers(0, 20)
objects = st.lists(
    st.tuples(side, side, side, side, st.integers(0, 10), st.integers(0, 2)), max_size=30
)


@given(objects, st.sampled_from([0.25, 0.5, 0.65, 1.0]))
def test_suppression_equals_a_simple_one(found, iou):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _, _ in found], np.float32)
    scores = np.array([row[4] / 10 for row in found])
    classes = np.array([row[5] for row in found], np.int64)
    kept = suppress(boxes.reshape(-1, 4), scores, classes, iou)
    assert kept.tolist() == simple_suppress(boxes.tolist(), scores, classes, iou)


def test_the_stronger_of_two_boxes_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    kept = suppress(boxes, np.array([0.5, 0.9, 0.7]), np.array([3, 3, 3]), 0.5)
    assert kept.tolist() == [1, 2]


def test_classes_do_not_suppress_each_other():
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    kept = suppress(boxes, np.array([0.5, 0.9, 0.7]), np.array([1, 2, 1]), 0.5)
    assert kept.tolist() == [1, 2]


def test_an_overlap_of_just_the_limit_is_allowed():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    both = (np.array([0.9, 0.8]), np.array([0, 0]))
    assert suppress(boxes, *both, 0.5).tolist() == [0, 1]
    assert suppress(boxes, *both, 0.49).tolist() == [0]


def yolox_with(cell, grid, stride, box, objectness, class_id, score, classes=4):
    """Raw YOLOX output that holds one box (centre x, y, width, height in pixels)."""
    raw = np.zeros((CELLS, 5 + classes), np.float32)
    raw[cell, :2] = np.array(box[:2]) / stride - grid
    raw[cell, 2:4] = np.log(np.array(box[2:]) / stride)
    raw[cell, 4], raw[cell, 5 + class_id] = objectness, score
    return raw


@pytest.mark.parametrize(
    ("cell", "grid", "stride"),
    [
        (0, (0, 0), 8),
        (12 * 3 + 5, (5, 3), 8),
        (96 + 6 * 2 + 1, (1, 2), 16),
        (CELLS - 1, (2, 1), 32),
    ],
)
def test_yolox_places_a_box_by_its_cell(cell, grid, stride):
    raw = yolox_with(cell, grid, stride, (40, 30, 20, 10), 0.8, 2, 0.5)
    xyxy, score, class_id = decode_yolox({"out": raw}, SIZE, 0.1)
    np.testing.assert_allclose(xyxy, [[30, 25, 50, 35]], rtol=1e-5)
    np.testing.assert_allclose(score, [0.4], rtol=1e-6)
    assert class_id.tolist() == [2]


@pytest.mark.parametrize("cells", [CELLS - 1, CELLS + 1, 1])
def test_a_yolox_head_of_another_size_is_refused(cells):
    with pytest.raises(ValueError, match=rf"{CELLS} cells, this output {cells}"):
        decode_yolox({"out": np.zeros((cells, 9), np.float32)}, SIZE, 0.1)


def test_yolov8_reads_one_box_per_column():
    raw = np.zeros((4 + 3, 50), np.float32)
    raw[:, 7] = [40, 30, 20, 10, 0.1, 0.2, 0.7]
    raw[:, 9] = [1, 1, 1, 1, 0.05, 0.0, 0.0]
    xyxy, score, class_id = decode_yolov8({"out": raw}, SIZE, 0.1)
    np.testing.assert_allclose(xyxy, [[30, 25, 50, 35]])
    np.testing.assert_allclose(score, [0.7])
    assert class_id.tolist() == [2]


@pytest.mark.parametrize("decode", [decode_yolox, decode_yolov8])
def test_two_outputs_are_refused_by_name(decode):
    with pytest.raises(ValueError, match="left.*right"):
        decode({"left": np.zeros((1, 6)), "right": np.zeros((1, 6))}, SIZE, 0.1)


@pytest.mark.parametrize("layout", ["yolox", "yolov8"])
@pytest.mark.parametrize("anchor", ["center", "top_left"])
def test_an_object_comes_back_in_source_pixels(layout, anchor):
    spec = Preprocess(resize="letterbox", anchor=anchor)
    _, placed = Preprocessor(spec, SIZE)(np.zeros((200, 100, 3), np.uint8))
    truth = np.array([20.0, 50.0, 60.0, 150.0])
    left, top, right, bottom = truth * placed.scale_x + [placed.offset_x, placed.offset_y] * 2
    box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    if layout == "yolox":
        raw = yolox_with(96 + 6 + 2, (2, 1), 16, box, 0.9, 1, 0.8)
    else:
        raw = np.zeros((4 + 4, 10), np.float32)
        raw[:4, 3], raw[5, 3] = box, 0.72
    finish = DetectionPostprocessor(TaskSpec(kind="detection", layout=layout), SIZE)
    found = finish({"out": raw}, placed)
    np.testing.assert_allclose(found.xyxy, [truth], atol=1e-2)
    np.testing.assert_allclose(found.confidence, [0.72], rtol=1e-5)
    assert found.class_id.tolist() == [1]
    assert (found.xyxy.dtype, found.confidence.dtype) == (np.float32, np.float32)


def test_no_object_gives_empty_detections():
    finish = DetectionPostprocessor(TaskSpec(kind="detection"), SIZE)
    assert len(finish({"out": np.zeros((CELLS, 9), np.float32)}, IDENTITY)) == 0


def test_at_most_max_detections_are_kept_strongest_first():
    raw = np.zeros((CELLS, 6), np.float32)
    raw[:, 4], raw[:, 5] = 1.0, np.linspace(0.2, 0.9, CELLS)
    raw[:, 2:4] = -5  # tiny, so that none overlap
    finish = DetectionPostprocessor(TaskSpec(kind="detection", max_detections=7), SIZE)
    found = finish({"out": raw}, IDENTITY)
    np.testing.assert_allclose(found.confidence, sorted(raw[:, 5])[:-8:-1])


def test_the_recipes_own_decoder_is_used():
    def decode(outputs, size, confidence):
        return np.array([[1, 2, 3, 4]], np.float32), np.array([0.5]), np.array([0])

    task = TaskSpec(kind="detection", layout="mine:decode")
    found = DetectionPostprocessor(task, SIZE, decode)({}, IDENTITY)
    assert found.xyxy.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("xyxy", "confidence", "class_id"),
    [((2, 5), 2, 2), ((4,), 4, 4), ((2, 4), 1, 2), ((2, 4), 2, 3), ((2, 4), (2, 1), 2)],
)
def test_detections_of_uneven_shape_are_refused(xyxy, confidence, class_id):
    with pytest.raises(ValueError, match="must have shape|need as many"):
        Detections(
            xyxy=np.zeros(xyxy), confidence=np.zeros(confidence), class_id=np.zeros(class_id, int)
        )


def test_empty_detections_are_valid():
    assert len(Detections.empty()) == 0
