"""Layers that integers pay for most come first; what carries values follows the layers."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.qdq.graph import Graph
from engineworks.search import placement
from engineworks.search.placement import by_intensity
from tests.builders import conv_net, deep_net


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(conv_net(tmp_path_factory.mktemp("places") / "net.onnx"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return Graph(deep_net(tmp_path_factory.mktemp("deep") / "deep.onnx"))


def test_layers_that_compute_most_per_value_come_first(graph):
    order = by_intensity(graph)
    assert sorted(order) == sorted(graph.computing)
    touched = {
        "stem": (3 + 8) * 256, "left": (8 + 8) * 256, "deep": (8 + 16) * 64,
        "mixed": 16 + 16, "scores": 16 + 5,
    }  # fmt: skip
    ratios = [graph.macs[node] / touched[node] for node in order]
    assert ratios == sorted(ratios, reverse=True)
    assert order[0] == "deep"


def test_equals_stay_in_the_order_of_the_graph(deep):
    order = by_intensity(deep)
    same = [node for node in order if node != "c30"]
    assert same == [node for node in deep.computing if node != "c30"]


def test_shares_of_the_layers_grow_up_to_all(deep, graph):
    found = placement.first_layers(deep)
    assert [len(layers) for layers in found] == [8, 16, 24, 32, 40]
    assert all(few == many[: len(few)] for few, many in pairwise(found))
    assert set(placement.first_layers(graph)[-1]) == set(graph.computing)


def test_carriers_are_what_joins_and_moves_on_the_way_into_layers(graph):
    assert placement.carriers(graph, {"deep"}) == ("sum", "pool")
    assert placement.carriers(graph, {"mixed"}) == ("flat",)
    assert placement.carriers(graph, {"left"}) == ()
    assert placement.carriers(graph, {"deep"}, {"MaxPool"}) == ("pool",)
    assert placement.carriers(graph, {"deep"}, {"Add"}) == ()  # the pool between is in float


def test_changes_toggle_parts_and_kinds_of_carriers(graph):
    nodes = placement.with_carriers(graph, ("stem", "deep"), {"MaxPool"})
    assert nodes == {"stem", "deep", "pool"}
    found = {change.label: change for change in placement.changes(graph, nodes)}
    assert set(found) == {
        "stem and 1 more in integers",  # half of it is: the other half joins
        "deep in float",
        "mixed and 1 more in integers",
        "Add in integers",
        "MaxPool in float",
    }
    assert found["stem and 1 more in integers"].layers == {"stem", "left"}
    assert found["Add in integers"].kinds == {"Add"}
    assert placement.changed(graph, nodes, [found["Add in integers"]]) == nodes | {"sum"}


@pytest.mark.parametrize("kinds", [placement.JOINING, frozenset(), frozenset({"MaxPool"})])
def test_a_change_and_back_is_the_placement_before(graph, kinds):
    computing = set(graph.computing)
    nodes = placement.with_carriers(graph, graph.computing, kinds)
    for change in placement.changes(graph, nodes):
        there = placement.changed(graph, nodes, [change])
        assert (there & computing) ^ computing == change.layers
        back = dataclasses.replace(change, integers=not change.integers)
        assert placement.changed(graph, there, [back]) & computing == computing


@given(data=st.data())
def test_changes_together_are_what_each_of_them_says(graph, data):
    nodes = placement.with_carriers(graph, graph.computing, placement.JOINING)
    steps = data.draw(st.lists(st.sampled_from(placement.changes(graph, nodes)), unique=True))
    got = placement.changed(graph, nodes, steps)
    computing = set(graph.computing)
    assert got & computing == computing - {node for step in steps for node in step.layers}
    # A carrier never stays behind without a layer that reads what it carries.
    assert got - computing <= set(placement.carriers(graph, got & computing))
    assert not placement.kinds_of(graph, got) & {kind for step in steps for kind in step.kinds}


def test_a_part_is_named_by_its_first_node_in_the_graph(graph):
    assert placement.name_of(graph, {"left", "stem"}) == "stem and 1 more"
    assert placement.name_of(graph, {"deep"}) == "deep"
