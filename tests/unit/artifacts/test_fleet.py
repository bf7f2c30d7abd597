"""Cards, orders and rows in a real bucket."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
import uuid

import pytest

from artifacts import fleet
from artifacts.fleet import Row
from artifacts.store import s3
from engineworks import hosts
from engineworks.errors import ArtifactError, StoreError
from engineworks.facts.host import RegisteredHost
from engineworks.facts.outcome import VariantOutcome
from tests import builders


@pytest.fixture
def told(caplog, monkeypatch):
    """What `fleet` warns of, whatever else has been done to the loggers of this process."""
    fresh = logging.getLogger(f"test.{uuid.uuid4().hex}")
    fresh.setLevel(logging.WARNING)
    monkeypatch.setattr(fleet, "log", fresh)
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.fixture
def bucket(s3_prefix):
    return s3.Bucket(s3.parse(s3_prefix), patience_s=5)


def machine(name, instance="one"):
    card = dataclasses.replace(hosts.probe(), name=name)
    return RegisteredHost(card=card, pool="cpu", code_sha256="c", instance=instance)


def test_machines_are_listed_by_name_with_their_ages(bucket):
    assert fleet.registered(bucket) == []
    for name in ("rack-2", "rack-1"):
        fleet.register(bucket, machine(name))
    found = fleet.registered(bucket)
    assert [host.card.name for host in found] == ["rack-1", "rack-2"]
    assert all(0 <= host.age_s < 60 for host in found)
    assert dataclasses.replace(found[0], age_s=0.0) == machine("rack-1")


def test_only_a_machine_that_is_silent_can_be_forgotten(bucket, monkeypatch):
    fleet.register(bucket, machine("rack-1"))
    with pytest.raises(StoreError, match="'rack-9'"):
        fleet.forget(bucket, "rack-9")
    with pytest.raises(StoreError, match=r"rack-1 was heard of \d s ago") as caught:
        fleet.forget(bucket, "rack-1")
    assert "stop its worker" in caught.value.hint
    monkeypatch.setattr(fleet, "SILENT_S", -1.0)
    fleet.forget(bucket, "rack-1")
    assert fleet.registered(bucket) == []


@pytest.mark.parametrize("data", [b"no JSON", b"[]", b'{"instance": "one", "older": true}'])
def test_a_card_of_another_version_is_left_out_and_replaced_by_its_machine(bucket, data, told):
    fleet.register(bucket, machine("rack-1"))
    bucket.write("hosts/rack-2.json", data, only_new=True)
    assert [host.card.name for host in fleet.registered(bucket)] == ["rack-1"]
    assert "hosts/rack-2.json is left out" in told.text
    fleet.register(bucket, machine("rack-2"))
    assert len(fleet.registered(bucket)) == 2


def test_a_card_of_another_version_still_guards_its_name(bucket):
    bucket.write("hosts/rack-2.json", b'{"instance": "two", "older": true}', only_new=True)
    with pytest.raises(StoreError, match="another machine is registered as rack-2"):
        fleet.register(bucket, machine("rack-2"))


def test_a_machine_may_register_again_and_another_one_of_its_name_may_not(bucket):
    fleet.register(bucket, machine("rack-1"))
    fleet.register(bucket, machine("rack-1"))
    with pytest.raises(StoreError, match="another machine is registered as rack-1") as caught:
        fleet.register(bucket, machine("rack-1", "two"))
    assert "--name" in caught.value.hint


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-a", "a" * 64])
def test_a_name_that_is_no_name_is_refused(bucket, name):
    with pytest.raises(StoreError, match="no name"):
        fleet.register(bucket, machine(name))


def test_rows_come_back_as_they_were_and_those_of_other_versions_are_left_out(bucket):
    row = builders.example(Row)
    row = dataclasses.replace(row, host=dataclasses.replace(row.host, name="rack-1"))
    assert isinstance(row.found, VariantOutcome)
    fleet.put_row(bucket, "d" * 64, row)
    bucket.write(f"rows/{'d' * 64}/rack-2.json", b'{"old": 1}', only_new=False)
    assert fleet.rows(bucket, "d" * 64) == [row]
    assert fleet.rows(bucket, "e" * 64) == []


def test_an_unknown_order_is_refused_with_the_next_step(bucket):
    with pytest.raises(ArtifactError, match="does not exist") as caught:
        fleet.order(bucket, "f" * 64, Row)
    assert "--fleet" in caught.value.hint


def test_only_one_at_a_time_and_a_killed_holder_blocks_nobody_for_long(bucket, monkeypatch):
    order = []

    def work(name, seconds):
        with fleet.alone(bucket, "register"):
            order.append(f"{name} in")
            time.sleep(seconds)
            order.append(f"{name} out")

    others = [threading.Thread(target=work, args=(name, 0.3)) for name in "ab"]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert order[0][0] == order[1][0] and order[2][0] == order[3][0]
    assert bucket.list("locks/") == []

    bucket.write("locks/register", b"", only_new=True)  # its holder was killed
    monkeypatch.setattr(fleet, "ABANDONED_S", 2.0)
    work("c", 0)
    assert order[-1] == "c out"


def test_of_two_that_find_an_abandoned_lock_at_once_one_takes_it_over(bucket, monkeypatch):
    names = [f"register-{number}" for number in range(4)]
    for name in names:
        bucket.write(f"locks/{name}", b"of a killed one", only_new=True)
    monkeypatch.setattr(fleet, "ABANDONED_S", 2.0)
    monkeypatch.setattr(fleet, "TRY_S", 0.1)
    time.sleep(3.1)
    inside, entered = [], []

    def work(name, barrier, late_s):
        own = s3.Bucket(bucket.address, patience_s=5)
        read = own.read

        def read_together(key):
            found, own.read = read(key), read  # only the first time
            barrier.wait(120)
            time.sleep(late_s)
            return found

        own.read = read_together
        with fleet.alone(own, name):
            inside.append(name)
            entered.append((name, len(inside)))
            time.sleep(0.3)
            inside.pop()

    for number, name in enumerate(names):
        barrier = threading.Barrier(2)
        late = (0, 0.2 * (number % 2))  # also one that is slow to act on what it has found
        waiters = [threading.Thread(target=work, args=(name, barrier, late_s)) for late_s in late]
        for waiter in waiters:
            waiter.start()
        for waiter in waiters:
            waiter.join()
    assert entered == [(name, 1) for name in names for _ in range(2)]
    assert bucket.list("locks/") == []


def test_one_that_is_at_it_for_long_is_not_taken_for_dead(bucket, monkeypatch):
    monkeypatch.setattr(fleet, "ABANDONED_S", 6.0)
    monkeypatch.setattr(fleet, "TRY_S", 0.1)
    order, begun = [], threading.Event()

    def work(name, seconds):
        with fleet.alone(s3.Bucket(bucket.address, patience_s=5), "log"):
            order.append(f"{name} in")
            begun.set()
            time.sleep(seconds)
            order.append(f"{name} out")

    first, second = (threading.Thread(target=work, args=(n, s)) for n, s in (("a", 8), ("b", 0)))
    first.start()
    assert begun.wait(120)
    second.start()
    first.join()
    second.join()
    assert order == ["a in", "a out", "b in", "b out"]
    assert bucket.list("locks/") == []


def test_one_that_waits_says_so_and_after_too_long_what_to_do(bucket, monkeypatch, told):
    monkeypatch.setattr(fleet, "TRY_S", 0.1)
    monkeypatch.setattr(fleet, "WAIT_S", 0.5)
    bucket.write("locks/log", b"another's", only_new=True)
    with (
        pytest.raises(StoreError, match="locks/log is held by another run") as caught,
        fleet.alone(bucket, "log"),
    ):
        raise AssertionError("it is not free")
    assert "delete that object" in caught.value.hint
    assert told.text.count("held by another run: waiting for it") == 1
    assert bucket.read("locks/log").data == b"another's"


@pytest.mark.parametrize("abandoned", [False, True])
def test_a_lock_whose_answer_was_lost_is_recognized_at_once(bucket, monkeypatch, abandoned):
    if abandoned:
        monkeypatch.setattr(fleet, "ABANDONED_S", -1.0)
        bucket.write("locks/register", b"of a killed one", only_new=True)
    put, lost = bucket.client.put_object, []

    def carried_out_but_unanswered(**request):
        answer = put(**request)
        if not lost:
            lost.append(request)
            raise ConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(bucket.client, "put_object", carried_out_but_unanswered)
    monkeypatch.setattr(fleet, "WAIT_S", 60.0)  # nobody waits for itself until it is abandoned
    with fleet.alone(bucket, "register"):
        assert lost[0].keys() & {"IfMatch", "IfNoneMatch"}
    assert bucket.list("locks/") == []


def test_a_lock_that_was_taken_over_is_left_to_its_new_holder(bucket, monkeypatch, told):
    with fleet.alone(bucket, "register"):
        monkeypatch.setattr(fleet, "ABANDONED_S", -1.0)
        second = fleet.alone(bucket, "register")
        second.__enter__()
    assert len(bucket.list("locks/")) == 1
    assert "was taken over" in told.text
    second.__exit__(None, None, None)
    assert bucket.list("locks/") == []


def test_a_server_that_is_away_at_the_release_fails_nothing(bucket, monkeypatch, told):
    bucket.patience_s = 0.5

    def away(**_):
        raise ConnectionError("away")

    with fleet.alone(bucket, "register"):
        monkeypatch.setattr(bucket.client, "get_object", away)
    assert "locks/register stays for 120 s" in told.text
