"""Every file that a model is read from is kept and counted, wherever its weights stand."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engineworks.errors import ModelError
from engineworks.export import outside, sources
from engineworks.store import LocalStore
from tests import builders


def external(name, location, value=1.0):
    tensor = numpy_helper.from_array(np.full(3, value, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(output, location):
    return helper.make_node("Constant", [], [output], value=external(output, location))


def graph(nodes, initializers=(), outputs=("y",)):
    wanted = [helper.make_tensor_value_info(name, 1, [3]) for name in outputs]
    return helper.make_graph(nodes, "g", [], wanted, list(initializers))


def sparse(location):
    indices = numpy_helper.from_array(np.array([0, 1, 2]), "i")
    found = helper.make_sparse_tensor(external("s", "x"), indices, [9])
    found.values.external_data[0].value = location
    return found


def branch(location):
    one = graph([constant("y", location)])
    return helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=one)


def function(location):
    return helper.make_function(
        "own", "F", [], ["y"], [constant("y", location)], [helper.make_opsetid("", 17)]
    )


PLACES = {
    "initializer": lambda: helper.make_model(graph([], [external("y", "w.bin")])),
    "attribute": lambda: helper.make_model(graph([constant("y", "w.bin")])),
    "subgraph": lambda: helper.make_model(graph([branch("w.bin")])),
    "subgraph of a subgraph": lambda: helper.make_model(
        graph([helper.make_node("If", ["c"], ["y"], then_branch=graph([branch("w.bin")]))])
    ),
    "function": lambda: helper.make_model(graph([]), functions=[function("w.bin")]),
    "sparse attribute": lambda: helper.make_model(
        graph([helper.make_node("Constant", [], ["y"], sparse_value=sparse("w.bin"))])
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_file_with_weights_is_found_wherever_they_stand(place, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(PLACES[place]().SerializeToString())
    with pytest.raises(ModelError, match=r"keeps its weights in w\.bin, which is not in"):
        outside.files(path)
    (tmp_path / "w.bin").write_bytes(b"\0" * 12)
    assert outside.files(path) == {"w.bin": tmp_path / "w.bin"}
    before = sources.file_digest(path, "onnx")
    (tmp_path / "w.bin").write_bytes(b"\0" * 11 + b"\1")
    assert sources.file_digest(path, "onnx") != before


@pytest.mark.parametrize(
    "location", ["/etc/hostname", "../w.bin", "a/../../w.bin", "..\\w.bin", "w.bin\0"]
)
def test_weights_outside_the_models_folder_are_refused(location, tmp_path):
    path = tmp_path / "in" / "m.onnx"
    path.parent.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 12)
    model = helper.make_model(graph([constant("y", location)]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="lies outside"):
        outside.files(path)


def test_a_weight_in_two_files_at_once_is_refused(tmp_path):
    """onnx and ONNX Runtime take the last place, whoever takes the first hashes another file."""
    path = tmp_path / "m.onnx"
    node = constant("y", "w.bin")
    node.attribute[0].t.external_data.add(key="location", value="/etc/hostname")
    path.write_bytes(helper.make_model(graph([node])).SerializeToString())
    (tmp_path / "w.bin").write_bytes(b"\0" * 12)
    with pytest.raises(ModelError, match="in two files at once"):
        outside.files(path)


@pytest.mark.parametrize("linked", ["file", "folder", "pipe"])
def test_links_and_pipes_lead_nowhere_else(linked, tmp_path):
    secret = tmp_path / "secrets" / "w.bin"
    secret.parent.mkdir()
    secret.write_bytes(b"\0" * 12)
    path = tmp_path / "in" / "m.onnx"
    path.parent.mkdir()
    location = "sub/w.bin" if linked == "folder" else "w.bin"
    if linked == "pipe":
        os.mkfifo(path.parent / location)
    elif linked == "folder":
        (path.parent / "sub").symlink_to(secret.parent)
    else:
        (path.parent / location).symlink_to(secret)
    model = helper.make_model(graph([constant("y", location)]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="keeps its weights in"):
        outside.files(path)


def test_the_copy_answers_as_the_files_did_when_they_were_pinned(tmp_path):
    import onnxruntime as ort

    store = LocalStore(tmp_path / "store")
    path = builders.conv_net(tmp_path / "m.onnx")
    onnx.save(
        onnx.load(str(path)), str(path), save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    given = builders.samples(1)
    want = ort.InferenceSession(str(path)).run(None, {"images": given})[0]
    stored = sources.hold(path, "onnx", store, "tiny")
    assert sources.bytes_sha256(stored) == sources.file_digest(path, "onnx")
    (tmp_path / "w.bin").write_bytes(b"\0" * (tmp_path / "w.bin").stat().st_size)
    path.write_bytes(b"another")

    model = dataclasses.replace(builders.pinned(tmp_path, "m.onnx"), stored=stored)
    with sources.settled(model, store) as found:
        got = ort.InferenceSession(found.path).run(None, {"images": given})[0]
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ModelError, match=str(path)), sources.settled(model, store) as found:
        raise ModelError(f"{found.path} is odd", hint="")


def test_bytes_that_are_there_are_not_copied_again(tmp_path, monkeypatch):
    store = LocalStore(tmp_path / "store")
    path = builders.conv_net(tmp_path / "m.onnx")
    first = sources.hold(path, "onnx", store, "tiny")
    monkeypatch.setattr(store, "put", None)
    assert sources.hold(path, "onnx", store, "tiny") == first


def test_a_damaged_copy_is_made_again(tmp_path):
    store = LocalStore(tmp_path / "store")
    path = builders.conv_net(tmp_path / "m.onnx")
    first = sources.hold(path, "onnx", store, "tiny")
    copy = store.entry(first)
    copy.write_bytes(b"x" + copy.read_bytes()[1:])
    assert sources.hold(path, "onnx", store, "tiny") == first
    assert store.entry(first).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["manifest.json", "weights.pt"])
def test_the_own_name_of_a_file_says_nothing(name, tmp_path):
    store = LocalStore(tmp_path / "store")
    (tmp_path / name).write_bytes(b"weights")
    stored = sources.hold(tmp_path / name, "factory", store, "tiny")
    assert store.entry(stored).read_bytes() == b"weights"
    assert sources.bytes_sha256(stored) == stored.manifest.files[0].sha256
