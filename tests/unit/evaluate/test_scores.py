"""What a classifier's scores are is settled on its source, by many inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from engineworks.errors import ModelError
from engineworks.evaluate.scores import probe, settle
from engineworks.specs import DataSpec, InputSpec, Preprocess, TaskSpec
from engineworks.stages.reference import ReferenceRequest, reference
from engineworks.stages.validate import ValidateRequest, validate
from tests.builders import pinned, shared

CASE = Path(__file__).parents[2] / "cases" / "classifier_scores"
LABELS = ("red", "green", "blue")


def softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


#: Last layer -> (function, what it is).
LAYERS = {
    "logits": (lambda x: x, "logits"),
    "relu": (lambda x: np.maximum(x, 0), "logits"),
    "softmax": (softmax, "probabilities"),
    "softmax in 8 bits": (lambda x: np.round(softmax(x) * 255) / 255, "probabilities"),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-np.clip(x, -500, 500))), "independent"),
    "log softmax": (lambda x: np.log(softmax(x) + 1e-30), "logits"),
}


def model(last):
    weights = np.random.default_rng(0).normal(0, 0.02, (48, 5))
    return lambda batch: {"scores": LAYERS[last][0](batch.reshape(len(batch), -1) @ weights)}


@pytest.mark.parametrize("last", LAYERS)
def test_every_last_layer_is_recognised(last):
    """With so weak weights no picture's logits leave -1..1; inputs far outside tell."""
    inputs = np.random.default_rng(1).random((4, 3, 4, 4), np.float32)
    assert settle("auto", probe(model(last), inputs)) == LAYERS[last][1]


@pytest.mark.parametrize("last", LAYERS)
@pytest.mark.parametrize("said", ["logits", "probabilities", "independent", "independent_logits"])
def test_a_recipe_that_is_mistaken_is_refused(last, said):
    scores = probe(model(last), np.random.default_rng(1).random((4, 3, 4, 4), np.float32))
    is_so = LAYERS[last][1]
    fits = {
        "logits": ("logits", "independent_logits"),
        "probabilities": ("probabilities", "independent"),
        "independent": ("independent", "logits", "independent_logits"),
    }[is_so]
    if said in fits:
        assert settle(said, scores) == said
        return
    with pytest.raises(ModelError, match=f"task.scores says {said}") as caught:
        settle(said, scores)
    assert "task.scores" in caught.value.hint


def test_rows_that_overflow_say_nothing():
    rows = np.array([[0.2, 0.8], [np.nan, np.inf], [0.5, 0.5]])
    assert settle("auto", rows) == "probabilities"
    assert settle("auto", rows[1:2]) == "logits"


@pytest.mark.parametrize(
    ("last", "word"),
    [
        ("logits", "logits"), ("relu", "logits"), ("softmax", "probabilities"),
        ("sigmoid", "independent"),
    ],
)  # fmt: skip
def test_the_reference_stage_settles_it_and_artifacts_carry_it(store, last, word):
    common = shared(
        store,
        preprocess=Preprocess(resize="stretch"),
        task=TaskSpec(kind="classification"),
        labels=LABELS,
    )
    source = pinned(
        CASE, "ewtest_colour:build", input=InputSpec(size=(32, 32)), arguments={"last": last}
    )
    spec = DataSpec(images=str(CASE / "photos"))
    try:
        data = validate(ValidateRequest(shared=common, data=spec, bytes_sha256=""))
        request = ReferenceRequest(
            shared=common, model=source, data=data, size=(32, 32), score=True
        )
        found = reference(request)
    finally:
        sys.path[:] = [entry for entry in sys.path if entry != str(CASE)]
    assert found.scores == word
    assert found.artifact.manifest.task.scores == word
    assert found.value == 1.0
