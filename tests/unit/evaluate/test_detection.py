"""COCO AP on data small enough to know the answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engineworks.evaluate.annotations.coco import read_coco
from engineworks.evaluate.cocoeval import score
from engineworks.runtime.convert import to_coco
from engineworks.runtime.detections import Detections
from tests.builders import coco

#: As in COCO itself, ids have gaps and are in no order of the model's classes.
NAMES = {"zebra": 24, "person": 1, "toothbrush": 90}
LABELS = ("person", "zebra", "unused", "toothbrush")
FILES = {"a.jpg": (100, 100), "b.jpg": (100, 200), "empty.jpg": (50, 50)}
BOXES = [
    ("a.jpg", "person", [10, 10, 40, 50]),
    ("a.jpg", "zebra", [60, 20, 30, 30]),
    ("b.jpg", "toothbrush", [100, 5, 60, 40]),
]


@pytest.fixture
def labels(tmp_path):
    return read_coco(coco(tmp_path / "truth.json", FILES, BOXES, NAMES), LABELS)


def found(boxes, classes, confidence=0.9):
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.full(len(boxes), confidence, np.float32),
        class_id=np.array(classes, np.int64),
    )


def perfect(labels, shift=0.0, classes=None):
    results = []
    for name in FILES:
        mine = [box for box in BOXES if box[0] == name]
        boxes = [[x + shift, y, x + w + shift, y + h] for _, _, (x, y, w, h) in mine]
        ids = [LABELS.index(label) for _, label, _ in mine]
        results += to_coco(found(boxes, classes or ids), labels.image_id[name], labels.category_id)
    return results


def ids(labels):
    return list(labels.image_id.values())


def test_perfect_boxes_score_1(labels):
    scored = score(perfect(labels), labels, ids(labels))
    assert (scored["AP"], scored["AP50"], scored["AP75"]) == pytest.approx((1, 1, 1))


def test_no_box_scores_0(labels):
    assert score([], labels, ids(labels))["AP"] == 0


def test_shifted_boxes_lose_the_strict_thresholds_only(labels):
    scored = score(perfect(labels, shift=8), labels, ids(labels))
    assert 0 < scored["AP"] < 1
    assert scored["AP50"] == pytest.approx(1)


def test_a_right_box_of_another_class_scores_0(labels):
    results = perfect(labels)
    for entry in results:
        entry["category_id"] = {1: 24, 24: 90, 90: 1}[entry["category_id"]]
    assert score(results, labels, ids(labels))["AP"] == 0


def test_classes_are_matched_with_categories_by_name(labels):
    assert labels.category_id == (1, 24, -1, 90)
    assert [entry["category_id"] for entry in perfect(labels)] == [1, 24, 90]


def test_a_box_of_a_class_that_the_data_does_not_know_is_harmless(labels):
    extra = to_coco(found([[0, 0, 9, 9]], [2]), labels.image_id["a.jpg"], labels.category_id)
    assert score([*perfect(labels), *extra], labels, ids(labels))["AP"] == pytest.approx(1)


def test_a_coco_entry_holds_left_top_width_height(labels):
    (entry,) = to_coco(found([[10, 20, 40, 80]], [3], 0.5), 100, labels.category_id)
    assert entry == {"image_id": 100, "category_id": 90, "bbox": [10, 20, 30, 60], "score": 0.5}


def test_only_the_images_that_were_run_count(labels):
    only_a = [entry for entry in perfect(labels) if entry["image_id"] == labels.image_id["a.jpg"]]
    assert score(only_a, labels, [labels.image_id["a.jpg"]])["AP"] == pytest.approx(1)
    assert score(only_a, labels, ids(labels))["AP"] == pytest.approx(2 / 3)


def test_without_labels_classes_are_in_order_of_category_id(tmp_path):
    path = coco(tmp_path / "truth.json", FILES, BOXES, NAMES)
    assert read_coco(path, ()).category_id == (1, 24, 90)


def test_a_crowd_is_no_missed_object(tmp_path):
    path = coco(tmp_path / "truth.json", FILES, BOXES, NAMES)
    raw = json.loads(path.read_text())
    crowd = {"image_id": 100, "category_id": 1, "bbox": [0, 0, 99, 99], "iscrowd": 1}
    raw["annotations"].append(crowd)
    path.write_text(json.dumps(raw))
    labels = read_coco(path, LABELS)
    assert score(perfect(labels), labels, ids(labels))["AP"] == pytest.approx(1)


def test_scoring_does_not_change_the_labels(labels):
    before = json.dumps(labels.raw)
    first = score(perfect(labels), labels, ids(labels))
    assert score(perfect(labels), labels, ids(labels)) == first
    assert json.dumps(labels.raw) == before


@pytest.mark.parametrize("ids", [[0, 1], [1, 1], [7, None]])
def test_annotation_ids_do_not_matter(ids, tmp_path):
    boxes = [[0, 0, 10, 10], [30, 30, 10, 10]]
    annotations = [
        {"image_id": 1, "category_id": 0, "bbox": box, **({} if known is None else {"id": known})}
        for box, known in zip(boxes, ids, strict=True)
    ]
    raw = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 50, "height": 50}],
        "categories": [{"id": 0, "name": "cat"}],
        "annotations": annotations,
    }
    (tmp_path / "l.json").write_text(json.dumps(raw))
    labels = read_coco(tmp_path / "l.json", ())
    results = [{"image_id": 1, "category_id": 0, "bbox": box, "score": 0.9} for box in boxes]
    assert score(results, labels, [1])["AP"] == pytest.approx(1.0)
