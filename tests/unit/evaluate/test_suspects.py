"""A wrong recipe is recognised by trying: a detector of pure colours, and one thing set wrong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engineworks.evaluate import datasets, judge, suspects
from engineworks.specs import DataSpec, Preprocess, TaskSpec
from engineworks.verdict import likely
from tests.builders import coco

SIZE = (96, 96)
COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}  # BGR
LABELS = tuple(COLOURS)
RIGHT = Preprocess(resize="letterbox", pad=0)
TASK = TaskSpec(kind="detection", layout="end2end", confidence=0.1)


def oracle(batch):
    """(1, 3, h, w) RGB in 0..1 -> the extent of each pure colour, as end2end heads give it."""
    rows = []
    for index in range(3):
        others = [batch[0, other] for other in range(3) if other != index]
        mask = (batch[0, index] > 0.7) & (batch[0, index] < 1.1)
        mask &= (np.abs(others[0]) < 0.3) & (np.abs(others[1]) < 0.3)
        if mask.sum() > 8:
            y, x = np.nonzero(mask)
            rows.append([x.min(), y.min(), x.max() + 1, y.max() + 1, 0.9, index])
    return {"boxes": np.array(rows, np.float32).reshape(1, -1, 6)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    (folder / "pics").mkdir()
    rng = np.random.default_rng(0)
    files, boxes = {}, []
    for number in range(8):
        image = np.zeros((96, 192, 3), np.uint8)
        for place, (name, colour) in enumerate(COLOURS.items()):
            left, top = 64 * place + int(rng.integers(2, 20)), int(rng.integers(2, 40))
            width, height = rng.integers(20, 40, 2).tolist()
            image[top : top + height, left : left + width] = colour
            boxes.append((f"{number}.png", name, [left, top, width, height]))
        cv2.imwrite(str(folder / "pics" / f"{number}.png"), image)
        files[f"{number}.png"] = (96, 192)
    path = coco(folder / "l.json", files, boxes, {"red": 4, "green": 7, "blue": 9})
    return datasets.validate(
        DataSpec(images=str(folder / "pics"), annotations=str(path)), TASK, LABELS
    )


def found(data, preprocess=RIGHT, labels=LABELS, infer=oracle, task=TASK):
    def score(task, preprocess, data):
        return judge.judge(infer, data, task, labels, preprocess, SIZE, None)[1]

    answers = score(task, preprocess, data)
    evidence = suspects.evidence(answers, data, task, labels)
    if evidence.word != "near zero":
        return evidence
    return suspects.explain(evidence, answers, data, task, labels, preprocess, score)


def test_a_right_recipe_is_better(data):
    evidence = found(data)
    assert (evidence.word, evidence.suspects) == ("better", ())
    assert evidence.value > 0.5


@pytest.mark.parametrize(
    ("preprocess", "words"),
    [
        (Preprocess(resize="letterbox", pad=0, scale=1.0), "scale: 1/255"),
        (Preprocess(resize="letterbox", pad=0, mean=(0.5,) * 3, std=(0.2,) * 3), "scale: 1/255"),
    ],
)
def test_a_wrong_scale(data, preprocess, words):
    evidence = found(data, preprocess)
    assert evidence.word == "near zero"
    assert words in evidence.suspects[0].words
    assert evidence.suspects[0].better
    assert words in likely(evidence)


@pytest.mark.parametrize("labels", [("green", "blue", "red"), ("blue", "red", "green")])
def test_labels_in_another_order(data, labels):
    evidence = found(data, labels=labels)
    assert evidence.word == "near zero"
    names = evidence.suspects[0].words
    assert names.startswith("task.labels in another order")
    # In the model's order `labels[0]` stands where red is.
    assert f"'{labels[0]}' is answered where 'red' is labelled (4 of 4)" in names
    assert evidence.suspects[0].value > 0.5


def test_a_colour_order(data):
    """Only red and blue count for this model: what it sees is exchanged."""
    only = (0, 2)

    def infer(batch):
        rows = oracle(batch)["boxes"]
        return {"boxes": rows[:, np.isin(rows[0, :, 5], only)]}

    evidence = found(data, Preprocess(resize="letterbox", pad=0, color="bgr"), infer=infer)
    assert evidence.word == "near zero"
    assert any(s.words == "preprocess.color: rgb" and s.better for s in evidence.suspects)


def test_a_layout(data):
    """The same boxes as the rows of a YOLOv8 head."""

    def infer(batch):
        out = np.zeros((1, 7, 6), np.float32)
        for place, (left, top, right, bottom, score, index) in enumerate(oracle(batch)["boxes"][0]):
            centre = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            out[0, :4, place] = centre
            out[0, 4 + int(index), place] = score
        return {"out": np.ascontiguousarray(out)}

    wrong = TaskSpec(kind="detection", layout="rtdetr", confidence=0.1)

    def both(batch):
        if wrong_layout:
            return {"logits": np.full((1, 4, 3), -9.0, np.float32),
                    "boxes": np.zeros((1, 4, 4), np.float32)}  # fmt: skip
        return infer(batch)

    wrong_layout = False
    right = TaskSpec(kind="detection", layout="yolov8", confidence=0.1)
    assert found(data, infer=both, task=right).word == "better"
    wrong_layout = True
    evidence = found(data, infer=both, task=wrong)
    assert evidence.word == "near zero"
    assert "weights" in likely(evidence)
    assert not any(suspect.better for suspect in evidence.suspects)


def test_classes_of_a_classifier_in_another_order(tmp_path):
    names = ("dark", "middle", "bright")
    for name, level in zip(names, (20, 128, 240), strict=True):
        for number in range(6):
            path = tmp_path / "pics" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((8, 8, 3), level + number, np.uint8))

    def infer(batch):
        place = np.abs(batch.mean((1, 2, 3))[:, None] - [[0.08, 0.5, 0.95]])
        return {"scores": (1 - place).astype(np.float32)}

    task = TaskSpec(kind="classification", scores="probabilities")
    spec = DataSpec(images=str(tmp_path / "pics"))
    assert found(
        datasets.validate(spec, task, names), infer=infer, labels=names, task=task
    ).word == ("better")
    order = ("bright", "dark", "middle")
    evidence = found(datasets.validate(spec, task, order), infer=infer, labels=order, task=task)
    assert evidence.word == "near zero"
    assert evidence.suspects[0].words.startswith("task.labels in another order")
    assert "'bright' is answered where 'dark' is labelled" in evidence.suspects[0].words
