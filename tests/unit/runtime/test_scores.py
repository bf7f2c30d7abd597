"""A classifier's confidences follow the manifest's word, never the values of one picture."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engineworks import runtime
from engineworks.codec import digest, to_json
from engineworks.errors import RecipeError
from engineworks.manifest import load
from engineworks.runtime import Classifier, heads
from engineworks.runtime.scores import confidences
from engineworks.specs import Preprocess, TaskSpec
from tests import builders

LABELS = ("red", "green", "blue")


def colour_engine(store, folder, last, task):
    """Scores of red, green and blue: four times each channel's mean, then the last layer."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Mul", ["flat", "four"], ["logits"]),
        helper.make_node(last, ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("four", TensorProto.FLOAT, [], [4.0])],
    )
    path = folder / f"{last}.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return builders.put_engine(store, path, task=task, preprocess=Preprocess())


def plain(red, green, blue):
    image = np.empty((8, 8, 3), np.uint8)
    image[:] = (blue, green, red)
    return image


@pytest.mark.parametrize(
    ("last", "scores", "colour", "wanted"),
    [
        # Logits that happen to sum to 1: e^1.004 / (e^1.004 + 2).
        ("Identity", "logits", (64, 0, 0), [0.577, 0.2115, 0.2115]),
        ("Relu", "logits", (64, 0, 0), [0.577, 0.2115, 0.2115]),
        ("Softmax", "probabilities", (64, 0, 0), [0.577, 0.2115, 0.2115]),
        # Two labels that are both there: 1 / (1 + e^-x) of 3.137 and 2.980.
        ("Sigmoid", "independent", (200, 190, 0), [0.9584, 0.9517, 0.5]),
        ("Identity", "independent_logits", (200, 190, 0), [0.9584, 0.9517, 0.5]),
    ],
)
def test_confidences_are_what_the_last_layer_makes_them(
    store, tmp_path, last, scores, colour, wanted
):
    task = TaskSpec(kind="classification", labels=LABELS, scores=scores)
    engine = colour_engine(store, tmp_path, last, task)
    with runtime.open(engine.uri) as session:
        found = Classifier(session)(plain(*colour))
    assert found.class_id.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.confidence, wanted, atol=2e-4)


def test_probabilities_that_were_rounded_are_not_softmaxed_again():
    """As an INT8 engine gives them: steps of 1/16, which sum to 15/16."""
    rounded = np.array([12, 2, 1, 0], np.float32) / 16
    np.testing.assert_array_equal(confidences(rounded, "probabilities"), rounded)


@given(
    scores=arrays(np.float32, (3, 7), elements=st.floats(-500, 500, width=32)),
    shift=st.floats(-50, 50),
)
def test_logits_of_any_size_become_probabilities(scores, shift):
    found = confidences(scores, "logits")
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    # Row for row: what stands beside a picture in a batch changes nothing.
    np.testing.assert_array_equal(found[1], confidences(scores[1], "logits"))
    each = confidences(scores + np.float32(shift), "independent_logits")
    assert ((each >= 0) & (each <= 1)).all()


def test_an_engine_that_does_not_say_opens_and_says_what_is_assumed(store, tmp_path, caplog):
    task = TaskSpec(kind="classification", labels=LABELS)
    engine = colour_engine(store, tmp_path, "Softmax", task)
    with runtime.open(engine.uri) as session:
        with caplog.at_level(logging.WARNING):
            assumed = Classifier(session)(plain(255, 0, 0))
        assert "logits are assumed" in caplog.text
        caplog.clear()
        told = Classifier(session, scores="probabilities")(plain(255, 0, 0))
    assert not caplog.text
    np.testing.assert_allclose(told.confidence[0], np.exp(4) / (np.exp(4) + 2), rtol=1e-4)
    assert assumed.confidence[0] < told.confidence[0]


def test_manifests_of_before_keep_their_identity(store, tmp_path):
    """The key is left out where nothing is said: what was stored is found by the same digest."""
    task = TaskSpec(kind="classification", labels=LABELS)
    assert "scores" not in to_json(task)
    engine = colour_engine(store, tmp_path, "Relu", task)
    path = store.open(engine) / "manifest.json"
    assert '"scores": "' not in path.read_text()
    assert load(path).sha256 == engine.sha256
    said = TaskSpec(kind="classification", labels=LABELS, scores="logits")
    assert to_json(said)["scores"] == "logits"
    assert digest(said) != digest(task)


def test_a_detector_has_no_such_word():
    with pytest.raises(RecipeError, match=r"task\.scores: logits says nothing of the task detect"):
        heads.check(heads.load("detection"), TaskSpec(kind="detection", scores="logits"))
