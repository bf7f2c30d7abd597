"""One contract for every store: local, and on a real S3 server behind a local cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from artifacts.store import s3
from artifacts.store.remote import RemoteStore
from engineworks.errors import ArtifactError, StoreError
from engineworks.manifest import dump
from engineworks.store import LocalStore
from tests.builders import MADE_HERE, put_bytes

FIELDS = {"kind": "onnx", "name": "tiny", "entry": "model.bin", "provenance": MADE_HERE}


@pytest.fixture(params=["local", "s3"])
def make(request, tmp_path):
    """Makes stores that share their artifacts: on one folder, or on one bucket."""
    if request.param == "local":
        return lambda name="": LocalStore(tmp_path / "store")
    address = s3.parse(request.getfixturevalue("s3_prefix"))
    return lambda name="": RemoteStore(tmp_path / f"cache{name}", s3.Bucket(address, patience_s=5))


def test_what_is_put_comes_back_for_another_process(make, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"first")
    (tmp_path / "b.bin").write_bytes(b"second")
    put = make().put({"model.bin": tmp_path / "a.bin", "deep/b": tmp_path / "b.bin"}, **FIELDS)
    again = make("-elsewhere")
    assert again.has(put.sha256)
    assert again.get(put.sha256).manifest == put.manifest
    folder = again.open(put)
    assert (folder / "model.bin").read_bytes() == b"first"
    assert (folder / "deep" / "b").read_bytes() == b"second"
    assert (folder / "manifest.json").read_text() == dump(put.manifest)
    assert again.entry(put) == folder / "model.bin"


def test_the_same_content_twice_is_one_artifact(make, tmp_path):
    assert put_bytes(make(), tmp_path) == put_bytes(make(), tmp_path)


def test_an_unknown_artifact_is_refused(make):
    assert not make().has("a" * 64)
    with pytest.raises(ArtifactError):
        make().get("a" * 64)
    with pytest.raises(ArtifactError):
        make().fetch("a" * 64) or make().get("a" * 64)


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(2**20 + 1)], ids=["0", "1", "1MiB"])
def test_any_size_comes_back(make, tmp_path, content):
    put = put_bytes(make(), tmp_path, content)
    assert (make("-elsewhere").entry(put)).read_bytes() == content


def test_putting_again_repairs_what_is_damaged_here(make, tmp_path):
    store = make()
    artifact = put_bytes(store, tmp_path)
    (Path(artifact.uri) / "model.bin").write_bytes(b"byteS")
    put_bytes(store, tmp_path)
    assert store.entry(artifact).read_bytes() == b"bytes"


def test_pushing_what_is_damaged_here_is_refused_or_unneeded(make, tmp_path):
    artifact = put_bytes(LocalStore(make().root), tmp_path)
    (Path(artifact.uri) / "model.bin").write_bytes(b"byteS")
    store = make()
    if isinstance(store, RemoteStore):
        with pytest.raises(ArtifactError, match="altered"):
            store.push(artifact)
        assert store.bucket.list("") == []
    else:
        store.push(artifact)
    with pytest.raises(ArtifactError, match="altered"):
        make().open(artifact)


def test_a_missing_source_leaves_nothing_behind(make, tmp_path):
    store = make()
    (tmp_path / "a.bin").write_bytes(b"first")
    with pytest.raises(StoreError, match="gone"):
        store.put({"a": tmp_path / "a.bin", "model.bin": tmp_path / "gone"}, **FIELDS)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_an_artifact_under_another_ones_name_is_not_opened(make, tmp_path):
    store = make()
    one, other = put_bytes(store, tmp_path), put_bytes(store, tmp_path, b"other")
    shutil.rmtree(one.uri)
    shutil.copytree(other.uri, one.uri)
    if isinstance(store, RemoteStore):  # the right one is still in the bucket
        assert store.entry(one).read_bytes() == b"bytes"
    else:
        with pytest.raises(ArtifactError, match=other.sha256[:16]):
            store.open(one)
