"""What answers mean is read from them; what cannot be read is said."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.evaluate import meaning, parity
from engineworks.evaluate.meaning import NOT_JUDGED, Judge
from engineworks.specs import TaskSpec

SIZE = (64, 64)
RNG = np.random.default_rng(5)
ROWS = RNG.random((40, 3, 64, 64), np.float32)
NONE = TaskSpec()
WEIGHTS = RNG.normal(0, 40, (3 * 16, 12))


def logits(batch):
    """Twelve class scores that depend on the picture."""
    parts = batch.reshape(len(batch), 3, 4, 16, 4, 16).mean(axis=(3, 5)).reshape(len(batch), -1)
    return ((parts - 0.5) @ WEIGHTS).astype(np.float32)


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def labels(batch):
    """A label for every pixel, as scores of three."""
    smooth = batch.repeat(1, axis=0)
    return (np.cumsum(smooth, axis=3) - 32 * np.arange(1, 65) / 64).astype(np.float32) * 8


MODELS = {
    "logits": lambda batch: {"y": logits(batch)},
    "probabilities": lambda batch: {"y": softmax(logits(batch))},
    "a class": lambda batch: {"y": logits(batch).argmax(axis=1)},
    "the best five": lambda batch: {"y": np.argsort(-logits(batch), axis=1)[:, :5]},
    "labels over an area": lambda batch: {"y": labels(batch).argmax(axis=1)},
    "label scores over an area": lambda batch: {"y": labels(batch)},
    "a score map": lambda batch: {
        "y": (1 / (1 + np.exp(60 * (0.75 - batch[:, :1])))).astype(np.float32)
    },
    "tags": lambda batch: {"y": (1 / (1 + np.exp(-4 * logits(batch)))).astype(np.float32)},
}
KINDS = {
    "logits": "classes", "probabilities": "classes", "a class": "numbers",
    "the best five": "numbers", "labels over an area": "masks",
    "label scores over an area": "masks", "a score map": "scores", "tags": "scores",
}  # fmt: skip


def noisy(name):
    """The same model on slightly other pictures: sound, and not equal."""

    def infer(batch):
        return MODELS[name](batch + np.float32(0.0005) * np.sin(np.arange(64, dtype=np.float32)))

    return infer


def judge(name, task=NONE):
    return Judge(MODELS[name], lambda: iter(ROWS), task, SIZE)


@pytest.mark.parametrize("name", MODELS)
def test_a_sound_engine_means_the_same(name):
    against = judge(name)
    assert [reader.kind for reader in against.readers] == [KINDS[name]]
    found = against.compare(against.answers(noisy(name)))
    assert (found.judged, found.whole, found.holds, found.reason) == (True, True, True, "")
    assert "means what the source means on 40 images" in found.words
    assert 0.8 < found.agreement <= 1


def permuted(name, outputs):
    y = outputs["y"]
    if name == "label scores over an area" or (y.ndim == 2 and name != "the best five"):
        return {"y": np.roll(y, 1, axis=1)}
    if name == "a score map":
        return {"y": np.roll(y, 5, axis=3)}
    return {"y": (y + 1) % 3 if y.ndim == 3 else (y + 1) % 12}


@pytest.mark.parametrize("name", MODELS)
def test_permuted_answers_are_found(name):
    against = judge(name)
    found = against.compare(against.answers(lambda batch: permuted(name, MODELS[name](batch))))
    assert not found.holds
    assert found.reason.startswith(KINDS[name])
    assert found.agreement < 0.7


CRUSHED = {
    "logits": lambda y: y * 0.02,
    "probabilities": lambda y: np.full_like(y, 1 / 12),
    "a class": lambda y: np.zeros_like(y),
    "label scores over an area": lambda y: np.round(y / 500),
    "a score map": lambda y: y * 0.3,
    "tags": lambda y: y * 0.3,
}


@pytest.mark.parametrize("name", CRUSHED)
def test_crushed_answers_are_found(name):
    against = judge(name)
    found = against.compare(
        against.answers(lambda batch: {"y": CRUSHED[name](MODELS[name](batch)["y"])})
    )
    assert not found.holds, found.words


def test_a_constant_on_one_class_is_found_and_one_on_all_is_none():
    against = judge("logits")
    one = against.answers(lambda batch: {"y": logits(batch) + 30 * np.eye(12)[3]})
    assert not against.compare(one).holds
    every = against.answers(lambda batch: {"y": logits(batch) + 7})
    assert against.compare(every).holds, "a softmax does not see it"


def test_class_numbers_are_not_magnitudes():
    """Class 2 for class 11 is one mistake, as class 10 for 11 is."""
    against = judge("a class")

    def one_other(batch):
        y = MODELS["a class"](batch)["y"]
        return {"y": np.where(np.all(batch[:, 0, 0, 0] == ROWS[0, 0, 0, 0]), 11 - y, y)}

    found = against.compare(against.answers(one_other))
    assert found.holds, found.reason
    assert found.readings[0].figures["agreement"] >= 39 / 40
    for precision in ("int8", "fp16"):
        _, others = meaning.limits(precision, found)
        assert (others["y"].min_snr_db, others["y"].min_group_db) == (None, None)


def test_a_class_that_never_changes_proves_nothing():
    def infer(batch):
        return {"y": np.zeros(len(batch), np.int64)}

    against = Judge(infer, lambda: iter(ROWS), NONE, SIZE)
    found = against.compare(against.answers(infer))
    assert (found.judged, found.words) == (False, NOT_JUDGED)


UNREAD = {
    "a depth map": lambda batch: {"y": 5 + 80 * batch[:, :1]},
    "a picture": lambda batch: {"y": 255 * batch},
    "directions": lambda batch: {
        "y": logits(batch) / np.linalg.norm(logits(batch), axis=1, keepdims=True)
    },
    "a feature map": lambda batch: {"y": batch.repeat(4, axis=1) - np.float32(0.5)},
    "one number": lambda batch: {"y": batch.mean(axis=(1, 2, 3), keepdims=False)[:, None]},
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_cannot_be_read_is_left_to_its_numbers(name):
    infer = UNREAD[name]
    against = Judge(infer, lambda: iter(ROWS), NONE, SIZE)
    found = against.compare(against.answers(infer))
    assert (found.judged, found.holds, found.words) == (False, True, NOT_JUDGED)
    assert found.agreement is None
    limit, others = meaning.limits("int8", found)
    assert limit == parity.limit("int8", judged=False)
    assert others == {}


def test_an_output_that_is_read_does_not_vouch_for_one_that_is_not():
    def infer(batch):
        return {"y": logits(batch), "features": batch.mean(axis=(2, 3)) - np.float32(0.5)}

    def source(batch):
        found = infer(batch)
        norm = np.linalg.norm(found["features"], axis=1, keepdims=True)
        return {**found, "features": found["features"] / norm}

    against = Judge(source, lambda: iter(ROWS), NONE, SIZE)
    found = against.compare(against.answers(source))
    assert (found.judged, found.whole, found.unread) == (True, False, ("features",))
    assert "what features means was not judged" in found.words
    limit, others = meaning.limits("int8", found)
    assert limit.min_group_db == 20
    assert others["y"].min_group_db is None


def test_few_images_judge_nothing():
    against = Judge(MODELS["a class"], lambda: iter(ROWS[:4]), NONE, SIZE)
    found = against.compare(against.answers(MODELS["a class"]))
    assert (found.judged, found.words) == (False, NOT_JUDGED)


def test_the_recipe_needs_no_guess():
    task = TaskSpec(kind="detection", layout="end2end")
    rows = np.zeros((1, 3, 6), np.float32)
    boxes = [[8, 8, 30, 30, 0.9, 1], [40, 8, 60, 30, 0.8, 0], [8, 40, 30, 60, 0.7, 2]]
    rows[0] = boxes

    def infer(batch):
        return {"y": rows}

    against = Judge(infer, lambda: iter(ROWS), task, SIZE)
    assert [(r.kind, r.sure) for r in against.readers] == [("detections", "given")]
    moved = rows + np.array([15, 0, 15, 0, 0, 0], np.float32)
    found = against.compare(against.answers(lambda batch: {"y": moved}))
    assert "120 lost" in found.reason


def test_a_given_classifier_is_read_as_its_manifest_says():
    task = TaskSpec(kind="classification", scores="probabilities")
    against = judge("probabilities", task)
    (reader,) = against.readers
    assert (reader.kind, reader.sure) == ("classes", "given")
    assert reader.read({"y": np.float32([0.25, 0.75])}).tolist() == [0.25, 0.75]
