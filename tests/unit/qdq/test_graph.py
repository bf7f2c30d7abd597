"""What a graph says about itself: which tensors are activations, and whose range they have."""

from __future__ import annotations

import numpy as np
import pytest

from engineworks.qdq.graph import Graph
from tests.builders import conv_net


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(conv_net(tmp_path_factory.mktemp("graph") / "net.onnx"))


def test_arithmetic_with_constant_weights_is_found_in_order(graph):
    assert graph.computing == ("stem", "left", "deep", "mixed", "scores")


def test_what_lies_between_is_found_too(graph):
    assert graph.between == ("gate", "act", "relu", "sum", "pool", "leaky", "mean", "flat")


def test_moved_tensors_and_gates_need_no_statistics(graph):
    assert "images" in graph.observed
    assert {"gate", "pool", "flat"} & set(graph.observed) == set()
    assert graph.source("pool") == "sum"
    assert graph.source("flat") == "mean"
    assert graph.source("stem") == "stem"
    for name in (*graph.computing, *graph.between):
        for tensor in (*graph.activations(name), name):
            assert graph.source(tensor) in (*graph.observed, "gate")


def test_constants_are_no_activations(graph):
    assert graph.activations("stem") == ["images"]
    assert graph.activations("sum") == ["act", "relu"]
    assert not graph.is_float("stem_w")
    np.testing.assert_array_equal(graph.constant("scores_b").shape, (5,))
    assert graph.constant("stem") is None


def test_weights_are_named(graph):
    assert graph.weight("mixed") == "mixed_w"
    assert graph.weight("sum") is None


def test_x_times_its_sigmoid_is_seen(graph):
    assert graph.silu("stem") == "act"
    assert graph.silu("left") is None
    assert graph.silu("act") is None
