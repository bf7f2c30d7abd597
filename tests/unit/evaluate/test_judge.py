"""A model is scored on pictures by the preprocessing and the decoder that travel with it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engineworks.errors import ModelError
from engineworks.evaluate import datasets, judge, tasks
from engineworks.recipe import read_labels
from engineworks.specs import DataSpec, Preprocess, TaskSpec
from tests.builders import ROOT, coco, write

SIZE = (32, 64)
LABELS = ("dark", "bright")


def plain(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((16, 32, 3), value, np.uint8))


@pytest.fixture
def classes(tmp_path):
    for name, value in (("dark/1", 10), ("dark/2", 200), ("bright/1", 250), ("bright/2", 180)):
        plain(tmp_path / f"{name}.png", value)
    task = TaskSpec(kind="classification")
    return datasets.validate(DataSpec(images=str(tmp_path)), task, LABELS), task


def by_brightness(batch):
    mean = batch.mean((1, 2, 3))
    return {"scores": np.stack([1 - mean, mean], axis=1)}


def test_a_classifier_is_scored_on_its_pictures(classes):
    data, task = classes
    metrics, predictions = judge.judge(by_brightness, data, task, LABELS, Preprocess(), SIZE, None)
    assert metrics["top1"] == 0.75  # the bright one among the dark is missed
    assert [row[:2] for row in predictions] == [
        ["bright/1.png", 1], ["bright/2.png", 1], ["dark/1.png", 0], ["dark/2.png", 1],
    ]  # fmt: skip


def test_another_preprocessing_gives_another_score(classes):
    data, task = classes
    overexposed = Preprocess(scale=30 / 255)
    metrics, _ = judge.judge(by_brightness, data, task, LABELS, overexposed, SIZE, None)
    assert metrics["top1"] == 0.5


@pytest.fixture
def boxed(tmp_path):
    """Two pictures with a white box each, and their annotations."""
    files, boxes = {}, []
    for number, (x, y, w, h) in enumerate([(8, 16, 32, 16), (40, 4, 20, 30)]):
        image = np.zeros((64, 96, 3), np.uint8)
        image[y : y + h, x : x + w] = 255
        name = f"{number}.png"
        (tmp_path / "pics").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "pics" / name), image)
        files[name] = image.shape[:2]
        boxes.append((name, "bright", [x, y, w, h]))
    path = coco(tmp_path / "l.json", files, boxes, {"bright": 5})
    task = TaskSpec(kind="detection", layout="yolov8")
    spec = DataSpec(images=str(tmp_path / "pics"), annotations=str(path))
    return datasets.validate(spec, task, LABELS), task


def find_white(batch):
    """A detector in three lines: the box around bright pixels, as a YOLOv8 head gives it."""
    rows, columns = np.nonzero(batch[0, 0] > 0.5)
    left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0, 0.9]
    return {"out": np.array(box, np.float32).reshape(1, 6, 1)}


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(64, 96), (128, 192), (160, 160)])
def test_a_detector_is_scored_in_source_pixels(boxed, resize, size):
    data, task = boxed
    prepare = Preprocess(resize=resize, pad=0)
    metrics, predictions = judge.judge(find_white, data, task, LABELS, prepare, size, None)
    assert metrics["AP50"] == 1
    assert metrics["AP"] > 0.85
    held = tasks.load("detection").photo_scores(predictions, data, task, LABELS)
    assert held.on(range(held.photos)) == pytest.approx(metrics["AP"], abs=1e-6)
    assert {entry["category_id"] for entry in predictions} == {5}


def test_outputs_of_another_layout_are_named(boxed):
    data, task = boxed
    task = TaskSpec(kind="detection", layout="yolox")
    with pytest.raises(ModelError, match=r"'yolox' cannot decode .*\(6, 1\)") as caught:
        judge.judge(find_white, data, task, LABELS, Preprocess(), (64, 96), None)
    assert "yolov8" in caught.value.hint


def test_a_class_without_label_is_named(boxed):
    data, task = boxed

    def infer(batch):
        out = np.zeros((1, 4 + 3, 1), np.float32)
        out[0, :, 0] = [5, 5, 4, 4, 0, 0, 0.9]
        return {"out": out}

    with pytest.raises(ModelError, match="class 2, but only 2"):
        judge.judge(infer, data, task, LABELS, Preprocess(), (64, 96), None)


CASE = ROOT / "tests" / "cases" / "blank_label_line"


def extents(batch):
    """Left, top, right, bottom, score, class of pure red, green, blue: classes 0, 2, 3."""
    rows = []
    for image in batch:
        row = []
        for channel, number in enumerate((0, 2, 3)):
            mask = (image[channel] > 0.7) & (np.delete(image, channel, 0) < 0.3).all(0)
            ys, xs = np.nonzero(mask)
            row.append(
                [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, 0.9, number]
                if len(xs)
                else [0] * 6
            )
        rows.append(row)
    return {"boxes": np.array(rows, np.float32)}


def test_an_empty_line_of_labels_shifts_no_class():
    """Every box is found exactly: AP is 1; with the line dropped, green would be called blue."""
    labels = read_labels(TaskSpec(labels="labels.txt"), CASE)
    assert labels == ("red", "1", "green", "blue")
    task = TaskSpec(kind="detection", layout="end2end")
    spec = DataSpec(images=str(CASE / "photos"), annotations=str(CASE / "ann.json"))
    for names, expected in ((labels, 1.0), ((*labels[:1], *labels[2:], "x"), 0.5)):
        data = datasets.validate(spec, task, names)
        metrics, _ = judge.judge(extents, data, task, names, Preprocess(), (96, 96), None)
        assert metrics["AP"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("layout", "outputs"),
    [
        ("yolox", {"y": np.zeros((1, 84, 5 + 4))}),
        ("yolov8", {"y": np.zeros((1, 4 + 4, 84))}),
        ("detr", {"logits": np.zeros((1, 9, 5)), "boxes": np.zeros((1, 9, 4))}),
        ("rtdetr", {"logits": np.zeros((1, 9, 4)), "boxes": np.zeros((1, 9, 4))}),
    ],
)
def test_labels_must_be_as_many_as_the_head_shows(layout, outputs):
    task = TaskSpec(kind="detection", layout=layout)
    judge.check_labels(task, tuple("abcd"), outputs)
    judge.check_labels(task, (), outputs)
    for names in ("abc", "abcde"):
        with pytest.raises(ModelError, match=f"scores 4 classes .*names {len(names)}") as caught:
            judge.check_labels(task, tuple(names), outputs)
        assert "an empty line keeps" in caught.value.hint


def test_the_recipes_own_decoder_is_loaded(tmp_path):
    write(tmp_path / "ewtest_decoder.py", "def decode(outputs, size, confidence): return 1, 2, 3\n")
    task = TaskSpec(kind="detection", layout="ewtest_decoder:decode")
    assert judge.decoder(task, tmp_path)({}, (1, 1), 0.5) == (1, 2, 3)
    assert judge.decoder(TaskSpec(kind="detection"), tmp_path) is None
