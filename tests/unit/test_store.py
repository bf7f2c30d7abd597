"""Artifacts are whole or not there, whoever writes at the same time and whatever breaks."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from engineworks.errors import ArtifactError, StoreError
from engineworks.manifest import dump
from engineworks.specs import TaskSpec
from engineworks.store import STALE_S, LocalStore, file_sha256, verify
from tests.builders import MADE_HERE, put_bytes

FIELDS = {"kind": "onnx", "name": "tiny", "entry": "model.bin", "provenance": MADE_HERE}


def visible(store):
    """Every file of the store, relative."""
    return sorted(
        path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()
    )


def test_what_is_put_comes_back(store, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"first")
    (tmp_path / "b.bin").write_bytes(b"second")
    put = store.put({"model.bin": tmp_path / "a.bin", "deep/b": tmp_path / "b.bin"}, **FIELDS)
    again = LocalStore(store.root)
    assert again.has(put.sha256)
    assert again.get(put.sha256) == put
    folder = again.open(put)
    assert (folder / "model.bin").read_bytes() == b"first"
    assert (folder / "deep" / "b").read_bytes() == b"second"
    assert again.entry(put) == folder / "model.bin"
    assert put.size_bytes == 11
    assert put.manifest.sha256 == put.sha256


def test_the_same_content_twice_is_one_artifact(store, tmp_path):
    first = put_bytes(store, tmp_path)
    files = visible(store)
    later = put_bytes(store, tmp_path, provenance=type(MADE_HERE)(stage="another"))
    assert later.sha256 == first.sha256
    assert visible(store) == files


@pytest.mark.parametrize(
    "change",
    [
        {"content": b"other"},
        {"task": TaskSpec(confidence=0.5)},
        {"precision": "fp16"},
        {"details": {"a": 1}},
    ],
)
def test_other_content_or_another_meaning_is_another_artifact(store, tmp_path, change):
    assert put_bytes(store, tmp_path, **change).sha256 != put_bytes(store, tmp_path).sha256


def test_an_unknown_artifact_is_refused(store):
    assert not store.has("a" * 64)
    with pytest.raises(ArtifactError, match="not an artifact"):
        store.get("a" * 64)


def alter(folder):
    (folder / "model.bin").write_bytes(b"byteS")


def remove(folder):
    (folder / "model.bin").unlink()


def truncate(folder):
    os.truncate(folder / "model.bin", 2)


def forget_manifest(folder):
    (folder / "manifest.json").unlink()


def cut_manifest(folder):
    os.truncate(folder / "manifest.json", 20)


def rewrite_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "precision": "int8"}))


DAMAGES = [alter, remove, truncate, forget_manifest, cut_manifest, rewrite_manifest]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
class TestDamage:
    def test_a_damaged_artifact_is_not_opened(self, store, tmp_path, damage):
        artifact = put_bytes(store, tmp_path)
        damage(Path(artifact.uri))
        with pytest.raises(ArtifactError) as caught:
            store.open(artifact)
        assert artifact.uri in caught.value.message
        assert caught.value.hint

    def test_putting_it_again_repairs_it(self, store, tmp_path, damage):
        artifact = put_bytes(store, tmp_path)
        damage(Path(artifact.uri))
        assert put_bytes(store, tmp_path).manifest == artifact.manifest
        assert (store.open(artifact) / "model.bin").read_bytes() == b"bytes"


def test_an_artifact_under_another_ones_name_is_not_opened(store, tmp_path):
    one, other = put_bytes(store, tmp_path), put_bytes(store, tmp_path, b"other")
    shutil.rmtree(one.uri)
    shutil.copytree(other.uri, one.uri)
    with pytest.raises(ArtifactError, match=other.sha256[:16]):
        store.open(one)


def test_a_manifest_of_another_schema_is_refused(store, tmp_path):
    artifact = put_bytes(store, tmp_path)
    path = Path(artifact.uri, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(ArtifactError, match="schema 99"):
        verify(Path(artifact.uri))


def test_the_manifest_file_is_the_same_for_the_same_manifest(store, tmp_path):
    artifact = put_bytes(store, tmp_path)
    assert Path(artifact.uri, "manifest.json").read_text() == dump(artifact.manifest)


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_a_digest_covers_every_block(tmp_path, size):
    path = tmp_path / "f"
    path.write_bytes(os.urandom(size))
    found = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert file_sha256(path) == found.stdout.split()[0]


def test_a_missing_source_leaves_nothing_behind(store, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"first")
    with pytest.raises(StoreError, match="gone"):
        store.put({"a": tmp_path / "a.bin", "model.bin": tmp_path / "gone"}, **FIELDS)
    assert visible(store) == []


def _put_with_file_limit(root, source, queue):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    try:
        LocalStore(Path(root)).put({"model.bin": Path(source)}, **FIELDS)
    except StoreError as error:
        queue.put(error.message)
    else:
        queue.put("no error")


def test_a_write_that_breaks_off_leaves_nothing_behind(store, tmp_path):
    (tmp_path / "big").write_bytes(bytes(2**17))
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.SimpleQueue()
    arguments = (str(store.root), str(tmp_path / "big"), queue)
    child = spawn.Process(target=_put_with_file_limit, args=arguments)
    child.start()
    message = queue.get()
    child.join()
    assert str(store.root) in message
    assert visible(store) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_nothing_is_left_behind(small_disk, tmp_path):
    store = LocalStore(small_disk / "store")
    kept = put_bytes(store, tmp_path)
    with pytest.raises(StoreError, match="full") as caught:
        put_bytes(store, tmp_path, bytes(2**21))
    assert str(small_disk) in caught.value.message
    assert "ENGINEWORKS_HOME" in caught.value.hint
    assert all(path.startswith(kept.sha256[:2]) for path in visible(store))
    assert store.open(kept)


def test_a_root_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        put_bytes(LocalStore(tmp_path / "file"), tmp_path)


ROUNDS = 60


def _put_many(root, folder, barrier, queue):
    store = LocalStore(Path(root))
    try:
        for number in range(ROUNDS):
            barrier.wait()
            artifact = put_bytes(store, Path(folder), b"%d" % number)
            store.open(artifact)
        queue.put("done")
    except Exception as error:
        barrier.abort()
        queue.put(f"{type(error).__name__}: {error}")


def _race(store, tmp_path, prepare):
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(2), spawn.SimpleQueue()
    children = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        arguments = (str(store.root), str(tmp_path / name), barrier, queue)
        children.append(spawn.Process(target=_put_many, args=arguments))
    for number in range(ROUNDS):
        prepare(number)
    for child in children:
        child.start()
    answers = [queue.get() for _ in children]
    for child in children:
        child.join()
    return answers


def test_two_processes_can_put_the_same_artifact_at_once(store, tmp_path):
    assert _race(store, tmp_path, lambda number: None) == ["done", "done"]
    assert len(visible(store)) == 2 * ROUNDS


def test_two_processes_can_repair_the_same_artifact_at_once(store, tmp_path):
    def leave_damaged(number):
        alter(Path(put_bytes(store, tmp_path, b"%d" % number).uri))

    assert _race(store, tmp_path, leave_damaged) == ["done", "done"]
    (store.root / ".tmp" / "repair.lock").unlink()
    assert len(visible(store)) == 2 * ROUNDS


def test_what_a_dead_process_left_is_swept_and_what_a_live_one_writes_is_kept(store, tmp_path):
    stale, fresh = store.root / ".tmp" / "stale", store.root / ".tmp" / "fresh"
    for folder in (stale, fresh):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"half")
    long_ago = time.time() - STALE_S - 60
    os.utime(stale, (long_ago, long_ago))
    put_bytes(store, tmp_path)
    assert not stale.exists()
    assert (fresh / "model.bin").read_bytes() == b"half"
