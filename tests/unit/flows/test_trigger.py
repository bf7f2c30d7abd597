"""Who asks for a run of `complete`, and that many who ask at once get one."""

from __future__ import annotations

import contextlib
import logging
import threading
import types
import uuid
from datetime import datetime, timedelta

import httpx
import pytest
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from artifacts import fleet
from artifacts.store import s3
from engineworks.errors import StoreError
from engineworks.plan import SILENT_S
from flows import worker
from flows.fleet import left, trigger


class Prefect:
    """The runs of its tag, in no order that tells anything, and idempotency keys."""

    def __init__(self):
        self.runs, self.keys, self.lock = [], {}, threading.Lock()

    def read_flow_runs(self, *, flow_run_filter, sort, limit):
        assert flow_run_filter.tags.all_ == [trigger.TAG] and limit == trigger.RECENT
        return sorted(self.runs, key=lambda run: run.id)

    def run_deployment(self, name, *, idempotency_key, tags, timeout, **_):
        assert (name, tags, timeout) == ("complete/fleet", [trigger.TAG], 0)
        with self.lock:
            if idempotency_key not in self.keys:
                created = datetime(2026, 1, 1) + timedelta(seconds=len(self.runs))
                run = types.SimpleNamespace(
                    id=uuid.uuid4(), created=created, state_type=StateType.SCHEDULED
                )
                self.keys[idempotency_key] = run
                self.runs.append(run)
            return self.keys[idempotency_key]


@pytest.fixture
def prefect(monkeypatch):
    made = Prefect()
    monkeypatch.setattr(trigger, "get_client", lambda **_: contextlib.nullcontext(made))
    monkeypatch.setattr(trigger, "run_deployment", made.run_deployment)
    return made


def test_a_run_that_has_not_begun_is_enough(prefect):
    assert trigger.ask() and trigger.ask()
    assert len(prefect.runs) == 1


def test_one_that_has_begun_or_ended_is_not(prefect):
    states = [StateType.RUNNING, StateType.COMPLETED, StateType.CRASHED] * 5
    for count, state in enumerate(states, 2):
        assert trigger.ask()
        prefect.runs[-1].state_type = state
        assert trigger.ask()
        assert len(prefect.runs) == count


def test_those_that_look_at_the_same_moment_share_one(prefect, monkeypatch):
    barrier, read = threading.Barrier(4), prefect.read_flow_runs

    def together(**words):
        found = read(**words)
        barrier.wait(120)
        return found

    monkeypatch.setattr(prefect, "read_flow_runs", together)
    asking = [threading.Thread(target=trigger.ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(prefect.runs) == 1


def test_without_the_deployment_it_says_so(prefect, monkeypatch):
    def missing(*_, **__):
        raise ObjectNotFound(Exception("no"))

    monkeypatch.setattr(trigger, "run_deployment", missing)
    assert not trigger.ask()


@pytest.fixture
def machine(s3_prefix, tmp_path, monkeypatch, caplog):
    """A worker that serves nothing, and what it logs."""
    monkeypatch.setenv("ENGINEWORKS_STORE", s3_prefix)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    fresh = logging.getLogger(f"test.{uuid.uuid4().hex}")
    fresh.setLevel(logging.INFO)
    monkeypatch.setattr(worker, "log", fresh)
    caplog.set_level(logging.INFO)
    return worker._Worker(tmp_path, "cpu", "m1")


def test_a_machine_asks_only_when_something_waits(machine, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(trigger, "ask", lambda: not asked.append(1))
    assert machine._asked()
    assert asked == [] and caplog.text == ""
    fleet.put_waiting(machine._bucket, "tiny", {"any": "record"})
    assert machine._asked()
    assert asked == [1] and "goes on with tiny" in caplog.text


@pytest.mark.parametrize("how", ["no deployment", "no server", "no store"])
def test_whatever_goes_wrong_with_it_hurts_nobody(machine, monkeypatch, caplog, how):
    fleet.put_waiting(machine._bucket, "tiny", {})
    if how == "no deployment":
        monkeypatch.setattr(trigger, "ask", lambda: False)
    if how == "no store":

        def away(_):
            raise StoreError("it did not answer", hint="")

        monkeypatch.setattr(fleet, "waiting", away)
    if how == "no server":

        def refused(**_):
            raise httpx.ConnectError("nothing listens")

        monkeypatch.setattr(trigger, "get_client", refused)
    assert machine._asked() is (how == "no deployment")  # else it is tried again
    words = {
        "no deployment": "make deploy",
        "no server": "ConnectError",
        "no store": "did not answer",
    }
    assert words[how] in caplog.text


def test_it_is_asked_until_it_is_heard_and_nobody_waits_for_that(machine, monkeypatch):
    answers, stopping, heard = [False, False, True], threading.Event(), threading.Event()

    def asked():
        answer = answers.pop(0)
        if answer:
            heard.set()
        return answer

    monkeypatch.setattr(worker, "AGAIN_S", 0.01)
    monkeypatch.setattr(machine, "_asked", asked)
    machine._speak_up(stopping)
    assert heard.wait(120) and answers == []


def test_a_machine_that_was_given_up_asks_again_when_it_is_back(machine, monkeypatch):
    spoken, ages, ends = [], [10.0, SILENT_S + 1, 30.0], []
    process = types.SimpleNamespace(poll=lambda: None if len(ages) else 0)
    monkeypatch.setattr(worker, "CARD_S", -1.0)
    monkeypatch.setattr(worker, "_end", ends.append)
    monkeypatch.setattr(machine, "_register", lambda: ages.pop(0) if spoken else 0.0)
    monkeypatch.setattr(machine, "_prepare_queues", lambda: None)
    monkeypatch.setattr(left, "take_up", lambda *_: None)
    monkeypatch.setattr(machine, "_start", lambda lock: process)
    monkeypatch.setattr(machine, "_speak_up", lambda _: spoken.append(len(ages)))
    machine.serve(threading.Event(), None)
    assert spoken == [3, 1] and ends == [process]


@pytest.mark.parametrize("reaches", [True, False])
def test_only_a_machine_that_reaches_mlflow_serves_what_logs(machine, monkeypatch, reaches):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if reaches:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    logs = ["registry", "nightly", "ship-registered"] if reaches else []
    assert machine._queues() == ["m1", "default", "ship", "ship-fleet", *logs]
    if reaches:
        monkeypatch.setattr(worker, "find_spec", lambda _: None)
        assert machine._queues() == ["m1", "default", "ship", "ship-fleet"]


def test_registering_tells_for_how_long_a_machine_was_not_heard_of(machine):
    assert machine._register() == float("inf")
    assert machine._register() < 60
    assert s3.Bucket(machine._bucket.address).read("hosts/m1.json") is not None
