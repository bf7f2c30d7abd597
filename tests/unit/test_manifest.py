"""What a manifest says about its artifact."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from engineworks import manifest
from engineworks.codec import to_json
from engineworks.errors import ArtifactError
from tests.builders import example, tensor

FULL = example(manifest.Manifest)


def test_a_dumped_manifest_loads_unchanged(tmp_path):
    known = dataclasses.replace(FULL, schema=manifest.SCHEMA)
    (tmp_path / "manifest.json").write_text(manifest.dump(known))
    assert manifest.load(tmp_path / "manifest.json") == known


def test_provenance_is_no_part_of_the_identity():
    elsewhere = dataclasses.replace(FULL, provenance=manifest.Provenance(stage="by hand"))
    assert elsewhere.sha256 == FULL.sha256
    assert dataclasses.replace(FULL, entry="other").sha256 != FULL.sha256


def canonical(data):
    """sha256 of JSON as the format's description says it: sorted keys, no spaces."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_one_of_an_older_version_keeps_the_identity_that_it_was_given(tmp_path):
    graph = dataclasses.replace(FULL, schema=manifest.NAMED, target="")
    (tmp_path / "manifest.json").write_text(manifest.dump(graph))
    data = to_json(graph)
    del data["provenance"]
    assert data["name"] == graph.name
    assert manifest.load(tmp_path / "manifest.json").sha256 == canonical(data)


def test_two_recipes_for_one_model_share_its_graph_and_not_its_engines():
    graph = dataclasses.replace(FULL, schema=manifest.SCHEMA, target="")
    data = to_json(graph)
    del data["provenance"], data["name"]
    assert dataclasses.replace(graph, name="other").sha256 == graph.sha256 == canonical(data)
    engine = dataclasses.replace(graph, target="openvino-cpu")
    assert dataclasses.replace(engine, name="other").sha256 != engine.sha256


def test_the_size_is_that_of_all_files():
    assert FULL.size_bytes == sum(file.size_bytes for file in FULL.files) > 0


@pytest.mark.parametrize(
    ("shape", "is_open"), [(("batch", 3, 8, 8), True), (("?", 3), True), ((1, 3, "h", "w"), False)]
)
def test_the_batch_is_open_when_the_first_dimension_has_a_name(shape, is_open):
    value = dataclasses.replace(FULL, inputs=(tensor(shape=shape),))
    assert value.dynamic_batch is is_open


def test_an_artifact_without_inputs_has_no_open_batch():
    assert not dataclasses.replace(FULL, inputs=()).dynamic_batch


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not readable JSON"),
        ("\ufeff{}", "not readable JSON"),
        ("[]", "schema None"),
        ("{}", "schema None"),
        (json.dumps({"schema": manifest.SCHEMA}), "kind"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text, says):
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=says):
        manifest.load(tmp_path / "manifest.json")


def test_a_folder_without_manifest_is_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="not an artifact"):
        manifest.load(tmp_path / "manifest.json")


def test_any_flipped_bit_of_the_file_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    whole = manifest.dump(dataclasses.replace(FULL, schema=manifest.SCHEMA)).encode()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        with pytest.raises(ArtifactError):
            manifest.load(path)


def test_one_of_a_version_that_wrote_no_sum_is_read(tmp_path):
    known = dataclasses.replace(FULL, schema=manifest.SCHEMA)
    (tmp_path / "manifest.json").write_text(json.dumps(to_json(known)))
    assert manifest.load(tmp_path / "manifest.json") == known
