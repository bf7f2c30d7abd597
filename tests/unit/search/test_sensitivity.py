"""Parts cover the layers once and in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.qdq.graph import Graph
from engineworks.search.sensitivity import LARGEST, parts
from tests.builders import conv_net, deep_net


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(conv_net(tmp_path_factory.mktemp("parts") / "net.onnx"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return Graph(deep_net(tmp_path_factory.mktemp("deep") / "deep.onnx"))


def test_neighbours_of_one_resolution_are_a_part(graph):
    assert parts(graph, graph.computing) == [("stem", "left"), ("deep",), ("mixed", "scores")]


def test_a_long_run_is_cut_into_equal_pieces(deep):
    found = parts(deep, deep.computing)
    assert [len(part) for part in found] == [10, 10, 10, 10]


@given(chosen=st.sets(st.integers(0, 39)))
def test_parts_are_the_layers_in_order_and_none_is_too_large(deep, chosen):
    nodes = tuple(f"c{number}" for number in sorted(chosen))
    found = parts(deep, nodes)
    assert tuple(node for part in found for node in part) == nodes
    assert all(0 < len(part) <= LARGEST for part in found)
    for part in found:
        assert len({deep.shape(node) for node in part}) == 1


def test_multiplications_are_counted_by_hand(graph):
    assert graph.macs == {
        "stem": 8 * 3 * 9 * 256, "left": 8 * 8 * 9 * 256, "deep": 16 * 8 * 9 * 64,
        "mixed": 16 * 16, "scores": 5 * 16,
    }  # fmt: skip
