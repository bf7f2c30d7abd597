"""The store on a real S3 server, with everything that goes wrong there."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from artifacts.store import s3, transfers
from artifacts.store.cache import Cache
from artifacts.store.home import HomeStore
from artifacts.store.remote import RemoteStore, open_store
from engineworks.errors import ArtifactError, StoreError
from engineworks.manifest import FileEntry, Manifest, dump
from engineworks.store import LocalStore
from infra.s3 import S3Server
from tests.builders import MADE_HERE, put_bytes

LARGE = 3 * transfers.PART_BYTES + 7


@pytest.fixture
def bucket(s3_prefix):
    return s3.Bucket(s3.parse(s3_prefix), patience_s=5)


@pytest.fixture
def remote(bucket, tmp_path):
    return RemoteStore(tmp_path / "cache", bucket)


@pytest.fixture
def elsewhere(bucket, tmp_path):
    """Another machine's store on the same bucket."""
    return RemoteStore(tmp_path / "elsewhere", bucket)


def blob_of(artifact):
    (entry,) = artifact.manifest.files
    return f"blobs/{entry.sha256[:2]}/{entry.sha256}"


def manifest_of(artifact):
    return f"artifacts/{artifact.sha256}.json"


class TestDamage:
    @pytest.mark.parametrize("content", [b"byteS", b"byt", b""])
    def test_damaged_bytes_are_refused_set_aside_and_sent_anew_by_who_holds_them(
        self, remote, elsewhere, tmp_path, content
    ):
        artifact = put_bytes(remote, tmp_path)
        remote.bucket.write(blob_of(artifact), content, only_new=False)
        with pytest.raises(ArtifactError, match="damaged") as caught:
            elsewhere.fetch(artifact.sha256)
        assert "run again" in caught.value.hint
        assert not elsewhere.has(artifact.sha256)
        assert list(elsewhere.root.rglob("model.bin")) == []
        again = RemoteStore(remote.root, remote.bucket)
        again.push(artifact)
        assert elsewhere.entry(artifact).read_bytes() == b"bytes"

    def test_a_manifest_that_was_changed_is_not_believed(self, remote, elsewhere, tmp_path):
        artifact = put_bytes(remote, tmp_path)
        text = dump(artifact.manifest).replace('"name": "tiny"', '"name": "other"')
        remote.bucket.write(manifest_of(artifact), text.encode(), only_new=False)
        with pytest.raises(ArtifactError, match="damaged"):
            elsewhere.get(artifact.sha256)

    def test_a_manifest_that_points_outside_writes_nothing(self, remote, elsewhere, tmp_path):
        (tmp_path / "model.bin").write_bytes(b"evil")
        sha256 = hashlib.sha256(b"evil").hexdigest()
        transfers.upload(remote.bucket, tmp_path / "model.bin", f"blobs/{sha256[:2]}/{sha256}")
        bad = Manifest(
            kind="onnx", name="x", entry="../../evil", provenance=MADE_HERE,
            files=(FileEntry(path="../../evil", sha256=sha256, size_bytes=4),),
        )  # fmt: skip
        remote.bucket.write(f"artifacts/{bad.sha256}.json", dump(bad).encode(), only_new=True)
        with pytest.raises(ArtifactError, match="outside"):
            elsewhere.get(bad.sha256)
        assert list(tmp_path.rglob("evil")) == []

    def test_damage_here_is_mended_from_the_bucket(self, remote, tmp_path):
        artifact = put_bytes(remote, tmp_path)
        (Path(artifact.uri) / "model.bin").write_bytes(b"byteS")
        assert remote.entry(artifact).read_bytes() == b"bytes"

    def test_one_broken_transfer_is_repeated(self, remote, elsewhere, tmp_path):
        artifact = put_bytes(remote, tmp_path)
        (entry,) = artifact.manifest.files
        partial = elsewhere.root / ".tmp" / "partial" / entry.sha256
        partial.parent.mkdir(parents=True)
        partial.write_bytes(b"byteS")  # looks whole, and is not
        partial.with_name(partial.name + ".parts").write_text("0\n")
        assert elsewhere.entry(artifact).read_bytes() == b"bytes"


class TestTransfers:
    def test_an_upload_that_broke_off_is_gone_on_with(self, bucket, tmp_path):
        path = tmp_path / "large"
        path.write_bytes(os.urandom(LARGE))
        place = {"Bucket": bucket.address.bucket, "Key": bucket.full_key("large")}
        begun = bucket.client.create_multipart_upload(**place)
        place["UploadId"] = begun["UploadId"]
        data = path.read_bytes()
        whole, wrong = data[: transfers.PART_BYTES], bytes(transfers.PART_BYTES)
        bucket.client.upload_part(**place, PartNumber=1, Body=whole)
        bucket.client.upload_part(**place, PartNumber=2, Body=wrong)
        sent = []
        assert transfers.upload(bucket, path, "large", lambda done, total: sent.append(done))
        assert len(sent) == 3  # the wrong one, and the two that were missing
        assert transfers.download(bucket, "large", LARGE, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        left = bucket.client.list_multipart_uploads(Bucket=bucket.address.bucket)
        assert bucket.full_key("large") not in [u["Key"] for u in left.get("Uploads", ())]

    def test_a_download_that_broke_off_is_gone_on_with(self, bucket, tmp_path):
        path, target = tmp_path / "large", tmp_path / "back"
        path.write_bytes(os.urandom(LARGE))
        transfers.upload(bucket, path, "large")

        def stop(done, total):
            if done >= 2 * transfers.PART_BYTES:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            transfers.download(bucket, "large", LARGE, target, stop)
        again = []
        assert transfers.download(
            bucket, "large", LARGE, target, lambda done, total: again.append(done)
        )
        assert len(again) <= 2
        assert target.read_bytes() == path.read_bytes()

    def test_a_killed_upload_shows_nothing_and_the_next_one_ends_it(self, bucket, tmp_path):
        path = tmp_path / "model.bin"
        path.write_bytes(os.urandom(LARGE))
        script = (
            "import os, sys\nfrom pathlib import Path\nfrom artifacts.store import s3, transfers\n"
            "b = s3.Bucket(s3.parse(sys.argv[1]))\n"
            "transfers.upload(b, Path(sys.argv[2]), 'large', "
            "lambda done, total: os.kill(os.getpid(), 9))\n"
        )
        command = [sys.executable, "-c", script, str(bucket.address), str(path)]
        done = subprocess.run(command, timeout=300)
        assert done.returncode == -9
        assert bucket.size("large") is None
        assert transfers.upload(bucket, path, "large")
        assert bucket.size("large") == LARGE

    def test_a_large_artifact_goes_there_and_back(self, remote, elsewhere, tmp_path):
        content = os.urandom(LARGE)
        artifact = put_bytes(remote, tmp_path, content)
        assert elsewhere.entry(artifact).read_bytes() == content
        assert not list((elsewhere.root / ".tmp" / "partial").glob("*.parts"))

    def test_bytes_that_two_artifacts_share_are_stored_once(self, remote, tmp_path):
        put_bytes(remote, tmp_path)
        put_bytes(remote, tmp_path, precision="fp16")
        assert len(remote.bucket.list("blobs/")) == 1
        assert len(remote.bucket.list("artifacts/")) == 2

    def test_nothing_is_sent_twice(self, remote, tmp_path):
        artifact = put_bytes(remote, tmp_path)
        remote.bucket.delete(blob_of(artifact))
        RemoteStore(remote.root, remote.bucket).push(artifact)  # the manifest is there
        assert remote.bucket.list("blobs/") == []


def _write(address, root, folder, barrier, queue):
    try:
        store = RemoteStore(Path(root), s3.Bucket(s3.parse(address), patience_s=20))
        for number in range(5):
            barrier.wait()
            content = b"%d" % number if number else bytes(LARGE)
            store.open(put_bytes(store, Path(folder), content))
        queue.put("done")
    except Exception as error:
        barrier.abort()
        queue.put(f"{type(error).__name__}: {error}")


def test_two_machines_can_put_the_same_artifacts_at_once(remote, elsewhere, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(2), spawn.SimpleQueue()
    children = []
    for store in (remote, elsewhere):
        folder = tmp_path / f"from-{store.root.name}"
        folder.mkdir()
        words = (str(store.bucket.address), str(store.root), str(folder), barrier, queue)
        children.append(spawn.Process(target=_write, args=words))
    for child in children:
        child.start()
    assert [queue.get() for _ in children] == ["done", "done"]
    for child in children:
        child.join()
    assert len(remote.bucket.list("artifacts/")) == 5
    third = RemoteStore(tmp_path / "third", remote.bucket)
    for item in remote.bucket.list("artifacts/"):
        third.open(third.get(Path(item.key).stem))


class TestServer:
    def test_a_server_that_is_gone_for_a_while_is_waited_for(self, tmp_path, monkeypatch):
        server = S3Server(tmp_path / "s3", key="k", secret="a-secret", bucket="models").start()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        try:
            bucket = s3.Bucket(s3.parse("s3://models/x"), patience_s=60)
            store = RemoteStore(tmp_path / "cache", bucket)
            server.stop(0)
            later = threading.Timer(0.5, server.start)

            def asked(**_):
                if later.ident is None:  # in vain, this time
                    later.start()

            bucket.client.meta.events.register("before-send.s3", asked)
            artifact = put_bytes(store, tmp_path)
            later.join()
            assert RemoteStore(tmp_path / "other", bucket).entry(artifact).read_bytes() == b"bytes"
        finally:
            server.stop(0)

    def test_one_that_stays_away_is_named_within_the_limit(self, s3_prefix, monkeypatch, tmp_path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            nobody = probe.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{nobody}")
        store = RemoteStore(tmp_path / "c", s3.Bucket(s3.parse(s3_prefix), patience_s=2))
        with pytest.raises(StoreError, match="did not answer within 2 s") as caught:
            put_bytes(store, tmp_path)
        assert "AWS_ENDPOINT_URL_S3" in caught.value.hint
        local = LocalStore(store.root)  # what was made is not lost
        assert local.has(put_bytes(local, tmp_path).sha256)

    def test_a_wrong_secret_is_said_at_once_and_not_shown(self, s3_prefix, monkeypatch, tmp_path):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-word")
        store = RemoteStore(tmp_path / "c", s3.Bucket(s3.parse(s3_prefix)))
        with pytest.raises(StoreError, match="refused") as caught:
            store.push(put_bytes(LocalStore(store.root), tmp_path))
        assert "wrong-secret-word" not in str(caught.value)

    def test_a_missing_bucket_is_named(self, s3_prefix):
        with pytest.raises(StoreError, match="no bucket 'nowhere'"):
            s3.Bucket(s3.parse("s3://nowhere/x")).list("")

    def test_ages_are_the_servers_whatever_this_clock_says(self, bucket, monkeypatch):
        bucket.write("hosts/a.json", b"{}", only_new=False)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 7 * 24 * 3600)
        assert bucket.list("hosts/")[0].age_s < 60
        assert bucket.read("hosts/a.json").age_s < 60


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("s3://key:hidden@bucket/x", "password"),
            ("http://server/bucket", "s3://bucket/prefix"),
            ("s3://", "s3://bucket/prefix"),
            ("models", "s3://bucket/prefix"),
        ],
    )
    def test_what_is_no_address_is_refused(self, text, word, monkeypatch, tmp_path):
        monkeypatch.setenv("ENGINEWORKS_STORE", text)
        with pytest.raises(StoreError, match=word) as caught:
            open_store(tmp_path)
        assert "hidden" not in str(caught.value)

    def test_without_an_address_the_store_is_local(self, monkeypatch, tmp_path):
        monkeypatch.delenv("ENGINEWORKS_STORE", raising=False)
        assert type(open_store(tmp_path)) is HomeStore

    def test_a_limit_must_be_a_number(self, s3_prefix, monkeypatch, tmp_path):
        monkeypatch.setenv("ENGINEWORKS_STORE", s3_prefix)
        monkeypatch.setenv("ENGINEWORKS_CACHE_MIB", "much")
        with pytest.raises(StoreError, match="much"):
            open_store(tmp_path)


class TestCache:
    def test_the_least_recently_used_goes_and_comes_back_when_asked_for(
        self, remote, bucket, tmp_path
    ):
        artifacts = [put_bytes(remote, tmp_path, bytes([n]) * 100_000) for n in range(4)]
        for number, artifact in enumerate(artifacts):
            os.utime(Path(artifact.uri) / "manifest.json", (number, number))
        small = RemoteStore(tmp_path / "small", bucket, limit_bytes=250_000)
        for artifact in artifacts:
            _in_another_process(small.root, bucket, artifact.sha256)
        held = [a for a in artifacts if LocalStore(small.root).has(a.sha256)]
        assert held == artifacts[2:]
        assert small.entry(artifacts[0]).read_bytes() == bytes(100_000)

    def test_what_a_living_process_uses_stays(self, remote, bucket, tmp_path):
        first = put_bytes(remote, tmp_path, b"1" * 100_000)
        second = put_bytes(remote, tmp_path, b"2" * 100_000)
        small = RemoteStore(tmp_path / "small", bucket, limit_bytes=150_000)
        small.fetch(first.sha256)
        _in_another_process(small.root, bucket, second.sha256)
        assert LocalStore(small.root).has(first.sha256)

    def test_what_is_nowhere_else_stays(self, bucket, tmp_path):
        only_here = put_bytes(LocalStore(tmp_path / "small"), tmp_path, b"1" * 100_000)
        cache = Cache(tmp_path / "small", 1000)
        cache.make_room(0, lambda sha256: False)
        assert LocalStore(tmp_path / "small").has(only_here.sha256)
        cache.make_room(0, lambda sha256: True)
        assert not LocalStore(tmp_path / "small").has(only_here.sha256)


def _in_another_process(root, bucket, sha256):
    script = (
        "import sys\nfrom pathlib import Path\nfrom artifacts.store import s3\n"
        "from artifacts.store.remote import RemoteStore\n"
        "RemoteStore(Path(sys.argv[1]), s3.Bucket(s3.parse(sys.argv[2])), "
        "limit_bytes=int(sys.argv[3])).fetch(sys.argv[4])\n"
    )
    command = [sys.executable, "-c", script, str(root), str(bucket.address), "250000", sha256]
    subprocess.run(command, check=True, timeout=300)
