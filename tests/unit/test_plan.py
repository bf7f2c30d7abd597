"""The planner: which machine builds which variant, from cards alone."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks import hosts
from engineworks.codec import digest
from engineworks.facts.host import Gpu, RegisteredHost
from engineworks.facts.plan import slug
from engineworks.plan import SILENT_S, place
from engineworks.specs import TargetSpec

CARD = dataclasses.replace(hosts.probe(), packages={"onnxruntime": "1", "openvino": "2"})


def machine(name, pool="cpu", *, packages=None, age_s=1.0, code="same"):
    card = dataclasses.replace(CARD, name=name)
    if packages is not None:
        card = dataclasses.replace(card, packages=dict.fromkeys(packages, "1"))
    return RegisteredHost(card=card, pool=pool, code_sha256=code, instance=name, age_s=age_s)


def plan(specs, machines):
    return place(specs, machines, "same")


def where(planned):
    return {v.name: (v.action, v.host) for v in planned}


ORT = TargetSpec(target="onnxruntime-cpu", precisions=("fp32", "int8"))
OPENVINO = TargetSpec(target="openvino", precisions=("fp32", "fp16"))


def test_precisions_of_a_target_stay_together_and_targets_are_spread():
    found = where(plan([ORT, OPENVINO], [machine("b"), machine("a")]))
    assert found == {
        "onnxruntime-cpu/fp32": ("run", "a"),
        "onnxruntime-cpu/int8": ("run", "a"),
        "openvino/fp32": ("run", "b"),
        "openvino/fp16": ("run", "b"),
    }


def test_a_target_that_stands_there_twice_goes_to_one_machine():
    more = dataclasses.replace(ORT, precisions=("int8",))
    first = dataclasses.replace(ORT, precisions=("fp32",))
    found = plan([first, OPENVINO, more], [machine("a"), machine("b"), machine("c")])
    assert {v.host for v in found if v.target == "onnxruntime-cpu"} == {"a"}


def test_the_order_of_the_machines_does_not_matter():
    machines = [machine(name) for name in "dacb"]
    assert plan([ORT, OPENVINO], machines) == plan([ORT, OPENVINO], machines[::-1])


def test_only_a_machine_that_can_build_it_gets_it():
    machines = [machine("a", packages=["openvino"]), machine("b", packages=["onnxruntime"])]
    found = where(plan([ORT, OPENVINO], machines))
    assert found["onnxruntime-cpu/fp32"] == ("run", "b")
    assert found["openvino/fp32"] == ("run", "a")


def test_what_no_machine_can_build_is_skipped_and_says_what_they_lack():
    machines = [machine(name, packages=[]) for name in "abcd"]
    (first, _) = plan([OPENVINO], machines)
    assert first.action == "skip"
    assert "a, b, c and 1 more: needs the package openvino" in first.reason


def test_a_pool_is_obeyed():
    spec = dataclasses.replace(OPENVINO, pool="gpu")
    found = plan([spec], [machine("a"), machine("b", "gpu")])
    assert {(v.host, v.pool) for v in found} == {("b", "gpu")}
    (first, _) = plan([spec], [machine("a")])
    assert (first.action, first.reason) == ("pending", "no machine of pool gpu is registered")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"age_s": SILENT_S + 40}, "no worker: a was last heard of 2 min ago"),
        ({"age_s": 7 * 86400.0}, "7 days ago"),
        ({"code": "other"}, "another version"),
    ],
)
def test_a_machine_that_is_not_there_makes_pending_and_another_one_steps_in(changes, words):
    away = machine("a", **changes)
    (first, _) = plan([OPENVINO], [away])
    assert first.action == "pending"
    assert words in first.reason
    assert {v.host for v in plan([OPENVINO], [away, machine("b")])} == {"b"}


def test_on_all_devices_each_has_a_row_of_its_own():
    spec = dataclasses.replace(OPENVINO, devices="all", precisions=("fp16",))
    machines = [machine("a"), machine("b", age_s=500), machine("c", packages=[])]
    found = where(plan([spec], machines))
    assert found == {"openvino/fp16@a": ("run", "a"), "openvino/fp16@b": ("pending", "b")}


def test_sets_of_options_stay_on_one_machine_and_keep_their_labels():
    """Only there can their times be compared."""
    graph = dataclasses.replace(OPENVINO, label="graph", options={"a": 1})
    found = where(plan([OPENVINO, graph], [machine("a"), machine("b")]))
    assert found == {
        "openvino/fp32": ("run", "a"),
        "openvino/fp16": ("run", "a"),
        "openvino/fp32:graph": ("run", "a"),
        "openvino/fp16:graph": ("run", "a"),
    }
    everywhere = dataclasses.replace(graph, devices="all", precisions=("fp16",))
    (row,) = plan([everywhere], [machine("a")])
    assert (row.name, row.name_anywhere) == ("openvino/fp16:graph@a", "openvino/fp16:graph")


def test_no_two_names_share_a_slug_and_old_ones_keep_theirs():
    assert slug("openvino/fp16") == "openvino-fp16"
    assert slug("tensorrt/fp16@rack-3") == "tensorrt-fp16-rack-3"
    assert slug("tensorrt/fp16@a.b:1") == "tensorrt-fp16-a-b-1"
    words = ["a", "a-b", "a_b", "b"]
    names = [f"x/fp16:{w}" for w in words] + [f"x/fp16@{w}" for w in words]
    names += [f"x/fp16:{one}@{other}" for one in words for other in words]
    assert len({slug(name) for name in names}) == len(names)


def test_where_it_is_built_is_no_part_of_what_it_is():
    assert digest(ORT) == digest(dataclasses.replace(ORT, pool="gpu", devices="all"))


def test_a_thousand_machines_are_planned_at_once():
    """How long it takes is measured by `make bench-fleet`."""
    machines = [machine(f"m{n:04}", f"pool{n % 4}") for n in range(1000)]
    specs = [
        TargetSpec(target=name, precisions=("fp32",), pool=f"pool{n}", devices="all")
        for n in range(4)
        for name in ("onnxruntime-cpu", "openvino", "null")
    ]
    assert len(plan(specs, machines)) == 3000


def test_a_machine_that_can_open_the_engines_goes_before_one_that_only_builds_them():
    gpu = Gpu(name="a gpu", compute_capability="8.9", memory_mib=24000, driver="1")
    bare = machine("a", packages=["tensorrt-rtx-cu13"])
    with_gpu = machine("b", packages=["tensorrt-rtx-cu13"])
    with_gpu = dataclasses.replace(with_gpu, card=dataclasses.replace(with_gpu.card, gpus=(gpu,)))
    rtx = TargetSpec(target="tensorrt-rtx", precisions=("fp16",))
    assert where(plan([rtx], [bare, with_gpu])) == {"tensorrt-rtx/fp16": ("run", "b")}
    assert where(plan([rtx], [bare])) == {"tensorrt-rtx/fp16": ("run", "a")}
