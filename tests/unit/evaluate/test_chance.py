"""Near zero is decided by chance: right values by pycocotools, by counting, and by repetition."""

from __future__ import annotations

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from engineworks import verdict
from engineworks.errors import DataError
from engineworks.evaluate import chance
from engineworks.evaluate.annotations.coco import CocoLabels
from engineworks.evaluate.precision import average_precision, sides
from engineworks.facts.data import Chance, Suspect
from engineworks.facts.model import Reference
from tests.builders import example


def scene(photos=12, objects=4, classes=3, seed=0):
    """Labels of photos with boxes anywhere in 320x240 pixels."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "id": 0,
            "image_id": photo,
            "category_id": int(rng.integers(classes)),
            "bbox": [float(v) for v in (*rng.uniform(0, 200, 2), *rng.uniform(20, 60, 2))],
            "iscrowd": 0,
        }
        for photo in range(photos)
        for _ in range(objects)
    ]
    for i, row in enumerate(rows, start=1):
        row["id"] = i
        row["area"] = row["bbox"][2] * row["bbox"][3]
    return labels_of(rows, photos, classes)


def labels_of(rows, photos, classes=3):
    names = {f"{i}.png": i for i in range(photos)}
    return CocoLabels(
        raw={
            "images": [{"id": i, "file_name": n, "height": 240, "width": 320}
                       for n, i in names.items()],
            "categories": [{"id": i, "name": f"class {i}"} for i in range(classes)],
            "annotations": rows,
        },
        image_id=names,
        size=dict.fromkeys(names, (240, 320)),
        category_id=tuple(range(classes)),
    )  # fmt: skip


def answers(labels, shift=0.0, score=0.9, seed=1, miss=0.0, junk=0):
    """What a detector finds: every box, moved, some missed, with some junk."""
    rng = np.random.default_rng(seed)
    found = []
    for row in labels.raw["annotations"]:
        if rng.random() >= miss:
            box = (np.array(row["bbox"]) + rng.normal(0, shift, 4)).tolist()
            found.append({**_key(row), "bbox": box, "score": float(score * rng.uniform(0.5, 1))})
    for photo in labels.image_id.values():
        for _ in range(junk):
            box = [float(v) for v in (*rng.uniform(0, 200, 2), *rng.uniform(20, 60, 2))]
            found.append({"image_id": photo, "category_id": int(rng.integers(3)), "bbox": box,
                          "score": float(rng.uniform(0, 0.6))})  # fmt: skip
    return found


def _key(row):
    return {"image_id": row["image_id"], "category_id": row["category_id"]}


def ids(labels):
    return list(labels.image_id.values())


def coco_ap(labels, results):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        rows = [dict(row) for row in labels.raw["annotations"]]
        truth.dataset = {"info": {}, **labels.raw, "annotations": rows}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("shift", "miss", "junk"), [(0, 0, 0), (2, 0.3, 3), (6, 0.1, 20)])
def test_the_quick_score_is_cocos(seed, shift, miss, junk):
    labels = scene(seed=seed)
    results = answers(labels, shift, miss=miss, junk=junk, seed=seed + 100)
    quick = average_precision(*sides(results, labels, ids(labels)))
    assert quick == pytest.approx(coco_ap(labels, results), abs=1e-9)


class TestDetection:
    def test_right_answers_are_better(self):
        labels = scene()
        found = chance.of_detection(answers(labels, 2, junk=5), labels, ids(labels))
        assert (found.word, found.photos, found.objects) == ("better", 12, 48)
        assert found.value > 0.5 > 0.1 > found.others

    def test_a_weak_model_that_sees_something_is_better(self):
        labels = scene(photos=60)
        weak = answers(labels, 8, miss=0.8, junk=10)
        found = chance.of_detection(weak, labels, ids(labels))
        assert found.word == "better"
        assert found.value < 0.1

    def test_no_answer_and_answers_of_other_classes_are_near_zero(self):
        labels = scene()
        wrong = [{**row, "category_id": (row["category_id"] + 1) % 3} for row in answers(labels)]
        for results in ([], wrong):
            found = chance.of_detection(results, labels, ids(labels))
            assert found.word == "near zero"

    @pytest.mark.parametrize("photos", [4, 12, 40])
    def test_junk_is_rarely_taken_for_better(self, photos):
        words = []
        for seed in range(20):
            labels = scene(photos, objects=6, seed=seed)
            junk = answers(labels, miss=1.0, junk=30, seed=seed + 50)
            words.append(chance.of_detection(junk, labels, ids(labels)).word)
        # One in twenty is what 95 % means.
        assert words.count("near zero") >= 17

    def test_a_constant_answer_is_near_zero_however_high_it_scores(self):
        """Objects at nearly one place: answering that place always has a high AP."""
        rng = np.random.default_rng(0)
        rows = [
            {"id": i + 1, "image_id": i, "category_id": 0, "iscrowd": 0, "area": 900.0,
             "bbox": [float(v) for v in (*(100 + rng.uniform(-5, 5, 2)), 30, 30)]}
            for i in range(20)
        ]  # fmt: skip
        labels = labels_of(rows, 20, 1)
        always = [{"image_id": i, "category_id": 0, "bbox": [100, 100, 30, 30], "score": 0.9}
                  for i in range(20)]  # fmt: skip
        found = chance.of_detection(always, labels, ids(labels))
        assert found.word == "near zero"
        assert found.value > 0.1
        assert chance.of_detection(answers(labels, 1), labels, ids(labels)).word == "better"

    def test_labels_that_are_all_alike_judge_nothing(self):
        rows = [{"id": i + 1, "image_id": i, "category_id": 0, "iscrowd": 0, "area": 900.0,
                 "bbox": [100.0, 100.0, 30.0, 30.0]} for i in range(20)]  # fmt: skip
        labels = labels_of(rows, 20, 1)
        found = chance.of_detection(answers(labels), labels, ids(labels))
        assert found.word == "not judged"
        assert "alike" in found.reason

    def test_few_objects_are_told_and_not_judged(self):
        labels = scene(photos=3, objects=3)
        found = chance.of_detection([], labels, ids(labels))
        assert (found.word, found.objects) == ("not judged", 9)

    def test_few_photos_with_enough_objects(self):
        labels = scene(photos=2, objects=8)
        assert chance.of_detection([], labels, ids(labels)).word == "near zero"
        assert chance.of_detection(answers(labels), labels, ids(labels)).word == "not judged"

    @pytest.mark.parametrize("photos", [4, 5, 6, 7, 9])
    def test_right_answers_on_few_photos_of_one_scene_are_better(self, photos):
        """Three objects that move a little from photo to photo: what others say is nearly right."""
        rows = [
            {"id": 3 * i + c + 1, "image_id": i, "category_id": c, "iscrowd": 0, "area": 2000.0,
             "bbox": [20.0 + 60 * c + 2 * i, 30.0 + 6 * i, 40.0, 50.0]}
            for i in range(photos) for c in range(3)
        ]  # fmt: skip
        labels = labels_of(rows, photos)
        found = chance.of_detection(answers(labels), labels, ids(labels))
        assert found.word == "better", found.reason

    def test_crowds_are_no_objects(self):
        labels = scene(photos=4, objects=3)
        for row in labels.raw["annotations"][:4]:
            row["iscrowd"] = 1
        assert chance.of_detection([], labels, ids(labels)).word == "not judged"


def named(answers):
    return [["", int(answer), 0.9] for answer in answers]


class TestClassification:
    TRUTH = np.repeat(np.arange(4), 10)

    def test_right_answers_are_better(self):
        answers = self.TRUTH.copy()
        answers[::3] = 0
        assert chance.of_classification(named(answers), self.TRUTH).word == "better"

    @pytest.mark.parametrize("shift", [1, 2, 3])
    def test_classes_in_another_order_are_near_zero(self, shift):
        found = chance.of_classification(named((self.TRUTH + shift) % 4), self.TRUTH)
        assert (found.word, found.value) == ("near zero", 0.0)

    def test_one_answer_for_all_is_near_zero(self):
        truth = np.array([0] * 90 + [1] * 10)
        found = chance.of_classification(named(np.zeros(100)), truth)
        assert (found.word, found.value) == ("near zero", 0.9)

    def test_guesses_are_rarely_taken_for_better(self):
        words = [
            chance.of_classification(
                named(np.random.default_rng(seed).integers(0, 4, 40)), self.TRUTH
            ).word
            for seed in range(40)
        ]
        assert words.count("better") <= 4

    def test_photos_of_one_class_judge_nothing(self):
        truth = np.zeros(30, np.int64)
        assert chance.of_classification(named(truth), truth).word == "not judged"
        assert chance.of_classification(named(truth + 1), truth).word == "near zero"

    def test_a_sign_test_by_counting(self):
        """5 photos that only the model has right: 1/32 by chance; 4: 1/16."""
        truth = np.array([0] * 20 + [1] * 5)
        five = chance.Classes(truth, truth)
        assert five.beats(np.zeros(25, np.int64))
        assert not chance.Classes(truth[:-1], truth[:-1]).beats(np.zeros(24, np.int64))

    @pytest.mark.parametrize(("won", "better"), [(530, True), (520, False)])
    def test_many_photos_are_tested_in_no_time(self, won, better):
        """1,000 photos that one of two has right: 526 are beyond 95 %, by the exact binomial."""
        truth = np.zeros(1000, np.int64)
        mine = np.where(np.arange(1000) < won, 0, 1)
        assert chance.Classes(mine, truth).beats(1 - mine) is better


class TestDecision:
    def found(self, *suspects, word="near zero"):
        return dataclasses.replace(
            example(Reference),
            chance=Chance(word=word, reason="AP 0.0000 on 4 photos", objects=12, photos=4,
                          suspects=suspects),
        )  # fmt: skip

    def test_near_zero_ends_a_run_with_what_is_likely(self):
        suspect = Suspect(words="preprocess.color: bgr", value=0.41, photos=24, better=True)
        other = Suspect(words="task.layout: detr", value=0.0, photos=24, better=False)
        with pytest.raises(DataError, match=r"near zero .*color: bgr.*0\.4100 on 24") as caught:
            verdict.refuse_chance(self.found(suspect, other), ())
        assert "detr" not in caught.value.message
        assert "data.accept: [near_zero]" in caught.value.hint

    def test_what_was_tried_in_vain_is_said(self):
        other = Suspect(words="task.layout: detr", value=0.0, photos=24, better=False)
        with pytest.raises(DataError, match=r"None of these .*detr.*weights"):
            verdict.refuse_chance(self.found(other), ())

    def test_the_recipe_may_allow_it(self):
        verdict.refuse_chance(self.found(), ("near_zero",))
        with pytest.raises(DataError):
            verdict.refuse_chance(self.found(), ("impossible_boxes",))

    @pytest.mark.parametrize("word", ["better", "not judged"])
    def test_nothing_else_ends_it(self, word):
        verdict.refuse_chance(self.found(word=word), ())
        verdict.refuse_chance(dataclasses.replace(self.found(), chance=None), ())
