"""From a head's raw output to boxes in the source image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engineworks import runtime
from engineworks.evaluate import cocoeval
from engineworks.evaluate.annotations.coco import read_coco
from engineworks.runtime.convert import to_coco
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads._boxes import (
    LAYOUTS,
    decode_detr,
    decode_end2end,
    decode_rtdetr,
    decode_yolov8,
    decode_yolox,
)
from engineworks.runtime.heads.detection import DetectionPostprocessor
from engineworks.runtime.nms import CHUNK, suppress, suppress_plain
from engineworks.runtime.preprocess import Placement, Preprocessor
from engineworks.specs import Preprocess, TaskSpec
from tests import builders

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


place, side = st.integers(-20, 20), st.integers(0, 20)
objects = st.lists(
    st.tuples(place, place, side, side, st.integers(0, 10), st.integers(0, 2)), max_size=30
)
limits = st.sampled_from([0.25, 0.5, 0.65, 1.0])


def columns(found):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _, _ in found], np.float32)
    scores = np.array([row[4] / 10 for row in found])
    classes = np.array([row[5] for row in found], np.int64)
    return boxes.reshape(-1, 4), scores, classes


@given(objects, limits)
def test_plain_suppression_equals_a_simple_one(found, iou):
    boxes, scores, classes = columns(found)
    kept = suppress_plain(boxes, scores, classes, iou)
    assert kept.tolist() == simple_suppress(boxes.tolist(), scores, classes, iou)


def on_the_edge(boxes, classes, iou):
    """Whether two boxes overlap by just the limit, where float32 and float64 may differ."""
    for i in range(len(boxes)):
        for j in range(i):
            shared, union = overlap(boxes[i], boxes[j])
            if classes[i] == classes[j] and union and abs(shared / union - iou) < 1e-6:
                return True
    return False


@given(objects, limits)
def test_compiled_suppression_equals_the_plain_one(found, iou):
    solid = [(x, y, w + 1, h + 1, score + 1, kind) for x, y, w, h, score, kind in found]
    boxes, scores, classes = columns(solid)
    assume(not on_the_edge(boxes, classes, iou))
    kept = suppress(boxes, scores, classes, iou)
    assert kept.dtype == np.int64
    assert kept.tolist() == suppress_plain(boxes, scores, classes, iou).tolist()


@given(
    n=st.integers(0, 4 * CHUNK),
    spread=st.sampled_from([5.0, 60.0, 600.0]),
    classes=st.integers(1, 80),
    iou=st.floats(0.2, 0.9),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_thousands_of_candidates_are_suppressed_alike(n, spread, classes, iou, seed):
    """In chunks as in one go; equal scores keep their order."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-spread, spread, (n, 2))
    boxes = np.hstack([corner, corner + rng.uniform(1, 60, (n, 2))]).astype(np.float32)
    scores = rng.integers(1, 500, n).astype(np.float32) / 500
    kinds = rng.integers(0, classes, n)
    fast = suppress(boxes, scores, kinds, iou)
    plain = suppress_plain(boxes, scores, kinds, iou)
    assert fast.tolist() == plain.tolist()


def test_an_absurd_box_does_not_disturb_the_others():
    boxes = np.array(
        [[-1e30, -1e30, 1e30, 1e30], [10, 10, 50, 50], [11, 10, 51, 50], [10, 10, 50, 50]],
        np.float32,
    )
    scores, kinds = np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([79, 5, 5, 6])
    assert suppress(boxes, scores, kinds, 0.5).tolist() == [0, 1, 3]


@pytest.mark.parametrize("suppress", [suppress, suppress_plain])
def test_the_stronger_of_two_boxes_stays(suppress):
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    kept = suppress(boxes, np.array([0.5, 0.9, 0.7]), np.array([3, 3, 3]), 0.5)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize("suppress", [suppress, suppress_plain])
def test_classes_do_not_suppress_each_other(suppress):
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    kept = suppress(boxes, np.array([0.5, 0.9, 0.7]), np.array([1, 2, 1]), 0.5)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize("suppress", [suppress, suppress_plain])
def test_an_overlap_of_just_the_limit_is_allowed(suppress):
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


@pytest.mark.parametrize("decode", [decode_yolox, decode_yolov8, decode_end2end])
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


def slow_yolox(raw, size, confidence):
    """Cell by cell, as the paper writes it."""
    found, index = [], 0
    for stride in (8, 16, 32):
        for row in range(size[0] // stride):
            for column in range(size[1] // stride):
                x, y, w, h, objectness, *scores = raw[index].tolist()
                index += 1
                best = max(range(len(scores)), key=scores.__getitem__)
                if objectness * scores[best] > confidence:
                    x, y = (x + column) * stride, (y + row) * stride
                    w, h = np.exp(w) * stride / 2, np.exp(h) * stride / 2
                    found.append((x - w, y - h, x + w, y + h, objectness * scores[best], best))
    return np.array(found).reshape(-1, 6)


@given(seed=st.integers(0, 999), confidence=st.sampled_from([0.0, 0.01, 0.3, 0.6]))
@settings(max_examples=20)
def test_yolox_equals_a_slow_decoder(seed, confidence):
    rng = np.random.default_rng(seed)
    raw = rng.random((CELLS, 5 + 3), np.float32)
    raw[:, :4] = rng.normal(0, 1, (CELLS, 4))
    xyxy, score, class_id = decode_yolox({"out": raw}, SIZE, confidence)
    wanted = slow_yolox(raw.astype(np.float64), SIZE, confidence)
    np.testing.assert_allclose(xyxy, wanted[:, :4], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(score, wanted[:, 4], rtol=1e-5)
    assert class_id.tolist() == wanted[:, 5].astype(int).tolist()


def test_end2end_reads_finished_boxes_and_does_not_suppress():
    raw = np.zeros((8, 6), np.float32)
    raw[2] = [30, 25, 50, 35, 0.6, 3]
    raw[5] = [31, 25, 51, 35, 0.9, 3]
    finish = DetectionPostprocessor(TaskSpec(kind="detection", layout="end2end", iou=0.1), SIZE)
    found = finish({"out": raw}, IDENTITY)
    np.testing.assert_allclose(found.xyxy, raw[[5, 2], :4])
    np.testing.assert_allclose(found.confidence, [0.9, 0.6])
    assert found.class_id.tolist() == [3, 3]
    with pytest.raises(ValueError, match=r"gives \(n, 6\)"):
        finish({"out": raw[:, :5]}, IDENTITY)


def queries(kind, classes=5):
    """Two objects among five queries: class 1 in the middle, class 2 top left."""
    boxes = np.full((5, 4), 0.5, np.float32)
    boxes[4] = [0.25, 0.25, 0.5, 0.5]
    if kind == "detr":
        logits = np.zeros((5, classes + 1), np.float32)
        logits[:, -1] = 8.0
        logits[1, [1, -1]], logits[4, [2, -1]] = [9, 0], [5, 4]
    else:
        logits = np.full((5, classes), -8.0, np.float32)
        logits[1, 1], logits[4, 2] = 9.0, 1.0
    return logits, boxes


@pytest.mark.parametrize("kind", ["detr", "rtdetr"])
@pytest.mark.parametrize("names", [("logits", "boxes"), ("a", "b")])
def test_queries_become_boxes_in_pixels(kind, names):
    logits, boxes = queries(kind)
    finish = DetectionPostprocessor(TaskSpec(kind="detection", layout=kind, confidence=0.3), SIZE)
    found = finish({names[1]: boxes, names[0]: logits}, IDENTITY)
    height, width = SIZE
    middle = [width / 4, height / 4, width * 3 / 4, height * 3 / 4]
    np.testing.assert_allclose(found.xyxy, [middle, [0, 0, width / 2, height / 2]])
    assert found.class_id.tolist() == [1, 2]
    if kind == "detr":
        powers = np.exp(logits[[1, 4]].astype(np.float64))
        wanted = [powers[0, 1] / powers[0].sum(), powers[1, 2] / powers[1].sum()]
    else:
        wanted = [1 / (1 + np.exp(-9)), 1 / (1 + np.exp(-1))]
    np.testing.assert_allclose(found.confidence, wanted, rtol=1e-5)


def test_one_query_of_a_sigmoid_head_may_name_two_classes():
    logits, boxes = queries("rtdetr")
    logits[1, :2] = [2.0, 3.0]
    _, score, class_id = decode_rtdetr({"logits": logits, "boxes": boxes}, SIZE, 0.5)
    assert class_id.tolist() == [1, 0, 2]
    assert (np.diff(score) <= 0).all()


@pytest.mark.parametrize("decode", [decode_detr, decode_rtdetr])
def test_queries_with_four_classes_are_told_apart_by_name(decode):
    logits, boxes = np.full((5, 4), -9, np.float32), np.full((5, 4), 0.5, np.float32)
    logits[0, 0] = 9
    xyxy, _, _ = decode({"pred_boxes": boxes, "pred_logits": logits}, SIZE, 0.5)
    np.testing.assert_allclose(xyxy, [[24, 16, 72, 48]])
    with pytest.raises(ValueError, match="two outputs"):
        decode({"a": boxes, "b": logits}, SIZE, 0.5)
    with pytest.raises(ValueError, match="two outputs"):
        decode({"boxes": boxes}, SIZE, 0.5)


def test_every_layout_of_a_recipe_has_its_head():
    assert set(LAYOUTS) == set(LAYOUTS)


def test_boxes_that_are_none_are_left_out():
    rows = [[5, 5, 5, 9], [9, 9, 5, 5], [0, 0, np.inf, 5], [np.nan, 0, 5, 5], [1, 2, 3, 4]]

    def decode(outputs, size, confidence):
        return np.array(rows, np.float32), np.full(5, 0.5, np.float32), np.zeros(5, np.int64)

    task = TaskSpec(kind="detection", layout="mine:decode")
    assert DetectionPostprocessor(task, SIZE, decode)({}, IDENTITY).xyxy.tolist() == [[1, 2, 3, 4]]


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


@pytest.fixture(scope="module")
def photo_outputs(yolox_engine):
    """(file name, source image's placement, raw outputs) of every photo of the example."""
    with runtime.open(yolox_engine) as session:
        detector = runtime.Detector(session)
        found = []
        for path in builders.photos():
            row, placement = detector.prepare(runtime.read_image(path))
            found.append((path.name, placement, detector.infer([row])[0]))
        return found


def test_on_photos_compiled_suppression_is_the_plain_one(photo_outputs):
    for _, _, outputs in photo_outputs:
        candidates = decode_yolox(outputs, (416, 416), 0.01)
        kept, plain = suppress(*candidates, 0.65), suppress_plain(*candidates, 0.65)
        assert kept.tolist() == plain.tolist()


def test_average_precision_on_the_photos_is_what_it_was(photo_outputs):
    """0.3402 is what ONNX Runtime, plain loops and pycocotools give, without this library."""
    task = builders.yolox_task(confidence=0.01)
    labels = read_coco(
        builders.EXAMPLES / "yolox_nano" / "data" / "val2017.json", tuple(task.labels)
    )
    finish = DetectionPostprocessor(task, (416, 416))
    results = []
    for name, placement, outputs in photo_outputs:
        found = finish(outputs, placement)
        results += to_coco(found, labels.image_id[name], labels.category_id)
    ids = [labels.image_id[name] for name, _, _ in photo_outputs]
    assert cocoeval.score(results, labels, ids)["AP"] == pytest.approx(0.3402, abs=2e-4)
