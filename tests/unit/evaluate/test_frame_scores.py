"""A frame's score is COCO's AP where that is defined, and counts what it leaves out."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from engineworks.errors import ArtifactError
from engineworks.evaluate import agreement, frame_scores
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads.classification import Classification

BOXES = frame_scores.of("detection")
CLASSES = frame_scores.of("classification")


def row(left, score=1.0, category=0, width=40.0):
    return {"image_id": 0, "category_id": category, "bbox": [left, 10.0, width, 40.0],
            "score": score}  # fmt: skip


def drawn(rng, count):
    """Frames with objects, and answers that are off, missing or too many."""
    frames = []
    for _ in range(count):
        truth = [row(60.0 * place, category=int(rng.integers(3))) for place in range(1, 4)]
        found = [
            row(one["bbox"][0] + rng.normal(0, 4), float(rng.uniform(0.1, 1)), one["category_id"])
            for one in truth
            if rng.random() < 0.8
        ]
        found += [row(300.0, float(rng.uniform(0.1, 1)), 1)] * int(rng.random() < 0.5)
        frames.append((found, truth))
    return frames


def by_pycocotools(frames):
    """AP of all classes on one curve: every class is 1, and pairs of other classes lie apart."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def flat(rows, image, first=1):
        return [
            {"id": first + place, "image_id": image, "category_id": 1, "iscrowd": 0,
             "bbox": [one["bbox"][0], one["bbox"][1] + 1000 * one["category_id"], *one["bbox"][2:]],
             "area": one["bbox"][2] * one["bbox"][3], "score": one["score"]}
            for place, one in enumerate(rows)
        ]  # fmt: skip

    truth, found = [], []
    for image, (answers, truths) in enumerate(frames, start=1):
        truth += flat(truths, image, len(truth) + 1)
        found += flat(answers, image)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": n + 1} for n in range(len(frames))], "annotations": truth,
            "categories": [{"id": 1}],
        }  # fmt: skip
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0])


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_ap_of_pycocotools_with_all_classes_on_one_curve(seed):
    frames = drawn(np.random.default_rng(seed), 1 + seed)
    answers, truths = zip(*frames, strict=True)
    assert BOXES.score(answers, truths) == pytest.approx(by_pycocotools(frames), abs=1e-9)


def test_an_answer_of_a_class_that_the_frame_does_not_show_counts():
    truth = [row(60.0)]
    right = [row(60.0, 0.6)]
    assert BOXES.score([right], [truth]) == 1.0
    assert BOXES.score([[row(300.0, 0.9, category=2), *right]], [truth]) == pytest.approx(0.5)


def test_a_frame_without_an_object_is_as_good_as_nothing_is_found():
    assert BOXES.score([[]], [[]]) == 1.0
    assert BOXES.score([[row(0.0, 0.7), row(90.0, 0.2)]], [[]]) == pytest.approx(0.3)
    assert BOXES.score([[row(0.0, 0.2)]], [[]]) == 1.0  # nobody would see it


def test_a_references_unsure_objects_are_not_true():
    rows = [row(0.0, 0.9), row(90.0, 0.1)]
    assert BOXES.as_truth(rows) == [row(0.0, 1.0)]


def test_what_changed_is_counted_as_the_report_counts_it():
    rng = np.random.default_rng(3)
    for found, truth in drawn(rng, 20):
        change = agreement.change(truth, found)
        known = agreement.difference(truth, found)
        assert (change.matched, change.lost, change.gained, change.moved) == (
            known.matched, known.lost, known.gained, known.moved,
        )  # fmt: skip
        assert len(change.shifts) == change.matched
    shifted = agreement.change([row(0.0, 0.9)], [row(0.0, 0.7)])
    assert shifted.shifts == pytest.approx((-0.2,)) and not shifted.visible


def test_answers_of_heads_become_rows():
    found = Detections(
        xyxy=np.array([[1, 2, 4, 6]], np.float32), confidence=np.array([0.5], np.float32),
        class_id=np.array([3]),
    )  # fmt: skip
    assert BOXES.rows(found) == [
        {"image_id": 0, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}
    ]
    answer = Classification(class_id=np.array([2, 0]), confidence=np.array([0.75, 0.25]))
    assert CLASSES.rows(answer) == [{"category_id": 2, "score": 0.75}]


def test_classes_are_right_or_wrong():
    cat, dog = [{"category_id": 0, "score": 0.9}], [{"category_id": 1, "score": 0.4}]
    assert CLASSES.score([cat, dog, cat, []], [cat, cat, cat, cat]) == 0.5
    assert CLASSES.change(cat, dog).visible
    surer = CLASSES.change(cat, [{"category_id": 0, "score": 0.5}])
    assert not surer.visible and surer.shifts == pytest.approx((-0.4,))


def test_a_task_without_a_score_of_single_frames_is_named():
    with pytest.raises(ArtifactError, match="segmentation are not scored frame by frame"):
        frame_scores.of("segmentation")
