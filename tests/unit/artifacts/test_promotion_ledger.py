"""One of many wins, nothing is lost, and a log that was touched says so."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from artifacts.promotion import conditional, ledger
from artifacts.promotion.conditional import BucketPlace, FolderPlace
from artifacts.promotion.ledger import Overtaken
from artifacts.store import s3
from engineworks.errors import ArtifactError, StoreError

NAMES = {"model": "tiny", "variant": "openvino/int8:a@rack-1"}


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A place of records: a folder, and a real server's bucket."""
    if request.param == "folder":
        return FolderPlace(tmp_path)
    prefix = request.getfixturevalue("s3_prefix")
    return BucketPlace(s3.Bucket(s3.parse(prefix), patience_s=20))


def move(place, new, then="now", what="promote", stack=None):
    then = ledger.read(place, **NAMES) if then == "now" else then
    now = then.generation if then else None
    stack = ledger.promoted(now, new, good=True) if stack is None else stack
    return ledger.advance(
        place, then, **NAMES, what=what, who="ann", new=new, stack=stack, why="better",
        evidence={"gates": [{"name": "age", "number": 1.5}]},
    )  # fmt: skip


def live(place):
    return ledger.read(place, **NAMES).generation


def test_moves_are_kept_in_order_with_who_and_why(place):
    assert ledger.read(place, **NAMES) is None and ledger.all_of(place, "tiny") == []
    for version in ("1", "2", "3"):
        move(place, version)
    now = live(place)
    assert (now.number, now.champion, now.stack, now.previous) == (3, "3", ("1", "2"), "2")
    log = ledger.moves(place, now)
    assert [(m.number, m.old, m.new) for m in log] == [(1, "", "1"), (2, "1", "2"), (3, "2", "3")]
    assert (log[0].who, log[0].why, log[0].evidence["gates"][0]["number"]) == ("ann", "better", 1.5)
    assert ledger.all_of(place, "tiny") == [now] and ledger.all_of(place, "tin") == []


def test_of_sixteen_at_once_one_wins_and_the_log_is_whole(place):
    move(place, "1")
    for _ in range(3):
        then = ledger.read(place, **NAMES)

        def attempt(number, then=then):
            try:
                return move(place, str(number), then).champion
            except Overtaken:
                return None

        with ThreadPoolExecutor(16) as pool:
            won = [one for one in pool.map(attempt, range(100, 116)) if one]
        assert len(won) == 1 and live(place).champion == won[0]
        assert live(place).number == then.generation.number + 1
        assert len(ledger.moves(place, live(place))) == live(place).number


def test_of_sixteen_first_champions_one_wins(place):
    def attempt(number):
        try:
            return move(place, str(number), None).champion
        except Overtaken:
            return None

    with ThreadPoolExecutor(16) as pool:
        won = [one for one in pool.map(attempt, range(16)) if one]
    assert won == [live(place).champion] and live(place).number == 1


def _process(folder, then, number):
    try:
        move(FolderPlace(folder), str(number), then)
    except Overtaken:
        return False
    return True


def test_processes_share_a_folder_as_threads_do(tmp_path):
    place = FolderPlace(tmp_path)
    move(place, "1")
    then = ledger.read(place, **NAMES)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        won = pool.starmap(_process, [(tmp_path, then, number) for number in range(100, 116)])
    assert won.count(True) == 1 and live(place).champion == str(100 + won.index(True))
    ledger.moves(place, live(place))


def test_those_that_try_again_all_come_through(place):
    """No update is lost: sixteen that read again each time make sixteen generations."""

    def insist(number):
        while True:
            try:
                return move(place, str(number))
            except Overtaken:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(insist, range(16)))
    log = ledger.moves(place, live(place))
    assert sorted(int(m.new) for m in log) == list(range(16)) and live(place).number == 16


def files(root):
    return sorted((root / "promotions/tiny/openvino-int8--a--rack-1/log").glob("*.json"))


def test_a_cut_a_rewritten_and_an_exchanged_entry_are_found(tmp_path):
    place = FolderPlace(tmp_path)
    for version in ("1", "2", "3"):
        move(place, version)
    now, entries = live(place), files(tmp_path)
    texts = [path.read_bytes() for path in entries]
    for number, path in enumerate(entries):
        path.unlink()
        with pytest.raises(ArtifactError, match=f"entry {number + 1} is gone"):
            ledger.moves(place, now)
        path.write_bytes(texts[number].replace(b"ann", b"bob"))
        with pytest.raises(ArtifactError, match=f"entry {number + 1} was altered"):
            ledger.moves(place, now)
        path.write_bytes(texts[number])
    assert len(ledger.moves(place, now)) == 3
    record = entries[0].parents[1] / "generation.json"
    other = json.loads(record.read_text()) | {"champion": "1"}
    record.write_text(json.dumps(other))
    with pytest.raises(ArtifactError, match="names another champion"):
        ledger.moves(place, live(place))


def test_what_was_cut_off_with_the_record_set_back_is_seen_by_an_older_witness(tmp_path):
    """The record may be set back with its log: only somebody who knows the newer head sees it."""
    place = FolderPlace(tmp_path)
    move(place, "1")
    record = files(tmp_path)[0].parents[1] / "generation.json"
    old = record.read_bytes()
    move(place, "2")
    head = live(place).head
    record.write_bytes(old)
    assert head not in ledger.heads(place, live(place))
    assert live(place).head in ledger.heads(place, live(place))


def test_a_version_that_comes_back_stands_once_in_the_stack():
    now = ledger.Generation(
        model="m", variant="v", number=3, head="h", champion="3", stack=("1", "2")
    )  # fmt: skip
    assert ledger.promoted(now, "1", good=True) == ("2", "3")
    assert ledger.promoted(now, "4", good=False) == ("1", "2")
    assert ledger.promoted(dataclasses.replace(now, champion=""), "4", good=True) == ("1", "2")


def test_a_server_that_ignores_conditions_is_refused(s3_prefix, monkeypatch):
    bucket = s3.Bucket(s3.parse(s3_prefix), patience_s=20)
    put = bucket.client.put_object

    def careless(**asked):
        return put(**{k: v for k, v in asked.items() if k not in ("IfMatch", "IfNoneMatch")})

    monkeypatch.setattr(bucket.client, "put_object", careless)
    place = BucketPlace(bucket)
    with pytest.raises(StoreError, match="ignores the conditions"):
        move(place, "1")
    assert bucket.list("promotions/") == []


def test_a_write_whose_answer_was_lost_counts(s3_prefix, monkeypatch):
    """It was carried out, and the next try finds its own bytes there."""
    bucket = s3.Bucket(s3.parse(s3_prefix), patience_s=20)
    place = BucketPlace(bucket)
    move(place, "1")
    put, lost = bucket.client.put_object, []

    def deaf(**asked):
        answer = put(**asked)
        if asked["Key"].endswith("generation.json") and not lost:
            lost.append(1)
            raise ConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(bucket.client, "put_object", deaf)
    assert move(place, "2").number == 2 and lost and live(place).champion == "2"


def test_names_that_lead_elsewhere_are_refused(tmp_path):
    with pytest.raises(StoreError, match="no name under which"):
        ledger.read(FolderPlace(tmp_path), "../other", "a/fp32")
    assert conditional.FolderPlace(tmp_path).names("promotions/") == []
