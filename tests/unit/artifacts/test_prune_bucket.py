"""What may go of the bucket: by age and by need, on a real S3 server whose clock is moved by us."""

from __future__ import annotations

import dataclasses
import json

import pytest

from artifacts import fleet
from artifacts.store import prune_bucket, s3
from artifacts.store.remote import RemoteStore
from engineworks.errors import StoreError
from tests.builders import put_bytes

DAY = 24 * 3600.0


@pytest.fixture
def bucket(s3_prefix):
    return s3.Bucket(s3.parse(s3_prefix), patience_s=5)


@pytest.fixture
def aged(bucket, monkeypatch):
    """Ages by key: what a test says, else the true one."""
    ages = {}
    real_list, real_head, real_touch = s3.Bucket.list, s3.Bucket.head, s3.Bucket.touch

    def older(item):
        return item and dataclasses.replace(item, age_s=ages.get(item.key, item.age_s))

    def touch(self, key):
        real_touch(self, key)
        ages.pop(key, None)

    monkeypatch.setattr(
        s3.Bucket, "list", lambda self, prefix: [older(i) for i in real_list(self, prefix)]
    )
    monkeypatch.setattr(s3.Bucket, "head", lambda self, key: older(real_head(self, key)))
    monkeypatch.setattr(s3.Bucket, "touch", touch)

    def all_old():
        ages.update({item.key: 40 * DAY for item in real_list(bucket, "")})

    ages["all"] = all_old
    return ages


def keys(bucket):
    return {item.key for item in bucket.list("")}


def of(artifact):
    (entry,) = artifact.manifest.files
    return {f"artifacts/{artifact.sha256}.json", f"blobs/{entry.sha256[:2]}/{entry.sha256}"}


def prune(bucket, needed=frozenset()):
    return prune_bucket.take(bucket, 30, prune_bucket.plan(bucket, 30, set(needed)))


def test_only_what_is_old_and_not_needed_goes(bucket, aged, tmp_path):
    store = RemoteStore(tmp_path / "a", bucket)
    gone, needed, asked, waits, answered = (
        put_bytes(store, tmp_path, content) for content in (b"1", b"2", b"3", b"4", b"5")
    )
    parent = put_bytes(store, tmp_path, b"6")
    child = put_bytes(
        store, tmp_path, b"7",
        provenance=dataclasses.replace(parent.manifest.provenance, parents=(parent.sha256,)),
    )  # fmt: skip
    fleet.put_order(bucket, "a" * 64, {"onnx": asked.sha256})
    fleet.put_order(bucket, "b" * 64, {"onnx": gone.sha256})
    bucket.write(f"rows/{'a' * 64}/m1.json", json.dumps([answered.sha256]).encode(), only_new=False)
    bucket.write(f"rows/{'b' * 64}/m1.json", b"{}", only_new=False)
    bucket.write("waiting/tiny.json", json.dumps([waits.sha256]).encode(), only_new=False)
    bucket.write("hosts/m1.json", b"{}", only_new=False)
    bucket.write("damaged/x", b"{}", only_new=False)
    aged["all"]()
    fleet.put_order(bucket, "a" * 64, {"onnx": asked.sha256})  # asked again: young
    aged.pop(f"orders/{'a' * 64}.json")
    before = keys(bucket)
    taken = {item.name for item in prune(bucket, {needed.sha256, child.sha256})}
    assert taken == {*of(gone), f"orders/{'b' * 64}.json", f"rows/{'b' * 64}/m1.json", "damaged/x"}
    assert keys(bucket) == before - taken
    for one in (needed, asked, waits, answered, parent, child):
        assert RemoteStore(tmp_path / one.sha256, bucket).open(one)


def test_a_run_that_uses_something_makes_it_young(bucket, aged, tmp_path):
    put = put_bytes(RemoteStore(tmp_path / "a", bucket), tmp_path, b"1")
    aged["all"]()
    items = prune_bucket.plan(bucket, 30, set())
    assert {item.name for item in items} == of(put)
    RemoteStore(tmp_path / "a", bucket).push(put)  # between plan and removal
    assert prune_bucket.take(bucket, 30, items) == []
    assert RemoteStore(tmp_path / "b", bucket).open(put)


def test_a_file_that_a_new_artifact_shares_stays(bucket, aged, tmp_path):
    put_bytes(RemoteStore(tmp_path / "a", bucket), tmp_path, b"shared")
    aged["all"]()
    items = prune_bucket.plan(bucket, 30, set())
    other = put_bytes(RemoteStore(tmp_path / "b", bucket), tmp_path, b"shared", name="other")
    prune_bucket.take(bucket, 30, items)
    assert RemoteStore(tmp_path / "c", bucket).open(other)


def test_young_things_stay(bucket, aged, tmp_path):
    put_bytes(RemoteStore(tmp_path / "a", bucket), tmp_path, b"1")
    assert prune_bucket.plan(bucket, 30, set()) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": 3}'])
def test_a_manifest_that_cannot_be_read_stops_it(bucket, content):
    bucket.write(f"artifacts/{'a' * 64}.json", content, only_new=False)
    with pytest.raises(StoreError, match="is no manifest"):
        prune_bucket.plan(bucket, 30, set())
