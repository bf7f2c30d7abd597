"""Values survive JSON, strangers are refused by name, and a digest says what a value means."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks import facts, manifest, specs
from engineworks.codec import digest, from_json, to_json
from engineworks.errors import ArtifactError
from engineworks.facts.plan import Plan
from engineworks.stages import STAGES
from tests.builders import example

FACTS = [
    importlib.import_module(f"{facts.__name__}.{module.name}")
    for module in pkgutil.iter_modules(facts.__path__)
]
KINDS = [
    kind
    for module in (specs, manifest, *FACTS)
    for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    if kind.__module__.startswith(module.__name__)
]
KINDS += [stage.request for stage in STAGES.values()]


def identify(kind):
    return kind.__name__


@pytest.mark.parametrize("kind", KINDS, ids=identify)
def test_every_value_survives_json(kind):
    value = example(kind)
    assert from_json(kind, json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.parametrize("kind", KINDS, ids=identify)
def test_an_unknown_field_is_refused_by_name(kind):
    data = {**to_json(example(kind)), "colour": 1}
    with pytest.raises(ArtifactError, match="colour"):
        from_json(kind, data)


@pytest.mark.parametrize("kind", KINDS, ids=identify)
def test_a_missing_field_is_refused_by_name(kind):
    needed = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    for name in needed:
        data = to_json(example(kind))
        del data[name]
        with pytest.raises(ArtifactError, match=f"'{name}'"):
            from_json(kind, data)


@pytest.mark.parametrize("kind", KINDS, ids=identify)
def test_a_field_of_the_wrong_type_is_refused_by_name(kind):
    for field in dataclasses.fields(kind):
        if field.type == "Any":
            continue
        data = {**to_json(example(kind)), field.name: {3: object}}
        if str(field.type).startswith("dict[str, Any]"):
            data[field.name] = "no mapping"
        with pytest.raises(ArtifactError, match=rf"{kind.__name__}\.{field.name}\b"):
            from_json(kind, data)


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        (specs.InputSpec, "size", [1, 2, 3]),
        (specs.InputSpec, "channels", True),
        (specs.Preprocess, "mean", [0.0, "0", 0.0]),
        (specs.DataSpec, "on_bad_image", "ignore"),
        (specs.BudgetSpec, "max_drop", "0.1"),
        (manifest.TensorSpec, "shape", [None, 3]),
    ],
)
def test_a_near_miss_is_refused_too(kind, at, value):
    with pytest.raises(ArtifactError, match=at):
        from_json(kind, {**to_json(example(kind)), at: value})


def test_whole_numbers_are_accepted_for_floats():
    budget = from_json(specs.BudgetSpec, {"max_drop": 1})
    assert budget.max_drop == 1.0
    assert isinstance(budget.max_drop, float)


def test_the_place_in_a_nested_value_is_named():
    data = to_json(example(manifest.Manifest))
    data["files"][1]["size_bytes"] = "many"
    with pytest.raises(ArtifactError, match=r"Manifest\.files\[1\]\.size_bytes"):
        from_json(manifest.Manifest, data)


@pytest.mark.parametrize("kind", KINDS, ids=identify)
def test_the_digest_ignores_places_and_nothing_else(kind):
    value = example(kind)
    for field in dataclasses.fields(kind):
        other = object.__new__(kind)  # past __post_init__: only the digest is of interest
        for each in dataclasses.fields(kind):
            object.__setattr__(other, each.name, getattr(value, each.name))
        object.__setattr__(other, field.name, "something else")
        is_place = field.metadata.get("key", True) is False
        assert (digest(other) == digest(value)) is is_place, field.name


def test_a_nested_place_is_no_part_of_the_digest():
    planned = example(Plan)
    elsewhere = dataclasses.replace(planned.host, name="other", memory_mib=1, packages={})
    assert digest(dataclasses.replace(planned, host=elsewhere)) == digest(planned)
    faster = dataclasses.replace(planned.host, cores=planned.host.cores + 1)
    assert digest(dataclasses.replace(planned, host=faster)) != digest(planned)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values))
def test_the_digest_does_not_depend_on_key_order(data):
    def reverse(value):
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(list(value))}
        return [reverse(item) for item in value] if isinstance(value, list) else value

    assert digest(reverse(data)) == digest(data)


@given(json_values, json_values)
def test_different_json_has_different_digests(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) is same


@given(json_values)
def test_plain_json_passes_through_unchanged(value):
    assert to_json(value) == value


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1, 2)])
def test_a_key_that_would_become_another_is_refused(key):
    """As text, 1 and "1" were one key: two values had one digest, and of both one was lost."""
    for asked in (to_json, digest):
        with pytest.raises(TypeError, match="is not text"):
            asked({"a": {key: 1}})


def test_a_value_without_json_form_is_refused():
    with pytest.raises(TypeError, match="complex"):
        to_json({"a": [1j]})
