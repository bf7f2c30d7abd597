"""What is made of a child run's state and of its machine's silence, without waiting for real."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import types
import uuid

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
)

from artifacts import fleet
from artifacts.fleet import Row
from artifacts.store import s3
from engineworks import hosts
from engineworks.facts.host import RegisteredHost
from engineworks.plan import SILENT_S
from flows.fleet import fanout
from flows.fleet.fanout import RESUMES, Child, FanOut
from tests import builders

ORDER = "a" * 64


class Prefect:
    """The three calls of Prefect's client that are made; the runs are what a test says."""

    def __init__(self):
        self.state = Scheduled()
        self.asked = []
        self.busy = []

    def read_flow_run(self, run_id):
        return types.SimpleNamespace(state=self.state)

    def set_flow_run_state(self, run_id, state, force):
        self.asked.append(state.name)

    def read_flow_runs(self, **filters):
        return self.busy


@pytest.fixture
def world(s3_prefix, monkeypatch):
    monkeypatch.setenv("ENGINEWORKS_START_S", "100")
    monkeypatch.setenv("ENGINEWORKS_RETURN_S", "200")
    bucket = s3.Bucket(s3.parse(s3_prefix), patience_s=5)
    child = Child("null/fp32", "m1", "cpu", ORDER, run_id=uuid.uuid4())
    fan = FanOut(bucket, [child], "tiny", lambda child: None)
    card = dataclasses.replace(hosts.probe(), name="m1")
    host = RegisteredHost(card=card, pool="cpu", code_sha256="c", instance="i", age_s=1.0)
    fan._hosts = {"m1": host}

    def look(state=None, *, age_s=1.0, later_s=0.0):
        prefect.state = state or prefect.state
        fan._hosts = {"m1": dataclasses.replace(host, age_s=age_s)}
        real = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: real + later_s)
            fan._look(prefect, child)

    prefect = Prefect()
    return types.SimpleNamespace(
        bucket=bucket, child=child, look=look, prefect=prefect, card=card, fan=fan
    )


def test_a_run_that_completed_gives_its_machines_row(world):
    for name in ("m0", "m1"):
        row = dataclasses.replace(
            builders.example(Row), host=dataclasses.replace(world.card, name=name)
        )
        fleet.put_row(world.bucket, ORDER, row)
    world.look(Completed())
    assert world.child.row is not None
    assert world.child.row.host.name == "m1"


@pytest.fixture
def deployment(monkeypatch):
    """Runs by their idempotency key; one that a test has not made yet is new."""
    made = {}

    def run_deployment(name, *, idempotency_key, **_):
        fresh = types.SimpleNamespace(id=uuid.uuid4(), state=Scheduled())
        return made.setdefault(idempotency_key, fresh)

    monkeypatch.setattr(fanout, "run_deployment", run_deployment)
    return made


def test_an_answer_that_the_bucket_has_lost_is_asked_for_again(world, deployment):
    key = f"{ORDER}:m1"
    deployment[f"{key}:0"] = types.SimpleNamespace(id=uuid.uuid4(), state=Completed())
    world.fan._submit(world.child)
    assert world.child.open
    assert world.child.run_id == deployment[f"{key}:1"].id


def test_one_that_completed_without_a_row_is_not_believed(world, deployment):
    for _ in range(RESUMES):
        world.look(Completed())
        assert world.child.open
        deployment[f"{ORDER}:m1:{len(deployment) - 1}"].state = Completed()
    assert len(deployment) == RESUMES  # each time another run
    world.look(Completed())
    assert "without a row" in world.child.pending


def test_a_failure_is_said_with_its_machine_and_reason(world):
    world.look(Failed(message="Flow run encountered an exception: StoreError: the disk is full"))
    assert world.child.pending == "m1: StoreError: the disk is full"


def test_a_crash_is_gone_on_with_and_not_for_ever(world):
    for _ in range(RESUMES):
        world.look(Crashed())
        assert world.child.open
    assert world.prefect.asked == ["AwaitingRetry"] * RESUMES
    world.look(Crashed())
    assert "Crashed" in world.child.pending


@pytest.mark.parametrize("state", [Scheduled(), Pending()])
def test_a_machine_that_does_not_begin_in_time_makes_pending(world, state):
    world.look(state, later_s=90)
    assert world.child.open
    world.look(state, later_s=110)
    assert "did not begin within" in world.child.pending


def test_a_busy_machine_is_waited_for(world):
    world.prefect.busy = [object()]
    world.look(Scheduled(), later_s=110)
    assert world.child.open
    world.prefect.busy = []
    world.look(Scheduled(), later_s=200)
    assert world.child.open
    world.look(Scheduled(), later_s=220)
    assert not world.child.open


def test_a_silent_machine_gets_no_time_to_begin(world):
    world.look(Scheduled(), age_s=SILENT_S + 1)
    assert "last heard of" in world.child.pending


def test_one_that_falls_silent_while_it_builds_has_time_to_come_back(world):
    world.look(Running())
    world.look(age_s=SILENT_S + 10)
    world.look(age_s=SILENT_S + 150, later_s=150)
    assert world.child.open
    world.look(AwaitingRetry(), later_s=160)  # its worker is back and goes on
    world.look(Running(), later_s=170)
    world.look(age_s=SILENT_S + 10, later_s=180)
    world.look(age_s=SILENT_S + 10, later_s=370)
    assert world.child.open
    world.look(age_s=SILENT_S + 10, later_s=390)
    assert "last heard of" in world.child.pending


def test_one_that_another_run_cancelled_is_asked_for_again(world, monkeypatch):
    asked = []
    monkeypatch.setattr(world.fan, "_submit", asked.append)
    world.look(Cancelled())
    assert asked == [world.child]
    assert world.child.open


@pytest.fixture
def submit(world, monkeypatch):
    """Carry the whole fan-out out; what Prefect's server answers to the submissions, in order."""

    def carry_out(*answers):
        asked, left = [], list(answers)

        def run_deployment(name, **request):
            asked.append(request["idempotency_key"])
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return types.SimpleNamespace(id=uuid.uuid4(), state=answer)

        monkeypatch.setattr(fanout, "POLL_S", 0.01)
        monkeypatch.setattr(fanout, "run_deployment", run_deployment)
        monkeypatch.setattr(fanout, "get_client", lambda **_: contextlib.nullcontext(world.prefect))
        world.child.run_id = None
        row = dataclasses.replace(
            builders.example(Row), host=dataclasses.replace(world.card, name="m1")
        )
        fleet.put_row(world.bucket, ORDER, row)
        world.prefect.state = Completed()
        world.fan.carry_out()
        return asked

    return carry_out


def answer(status):
    request = httpx.Request("POST", "http://127.0.0.1/api")
    response = httpx.Response(status, request=request)
    return PrefectHTTPStatusError(str(status), request=request, response=response)


def test_a_server_that_is_away_when_a_run_is_submitted_is_asked_again(world, submit):
    asked = submit(httpx.ConnectError("refused"), answer(503), Scheduled())
    assert asked == [f"{ORDER}:m1:0"] * 3
    assert world.child.row is not None


def test_what_the_server_refuses_is_not_asked_again(submit):
    with pytest.raises(PrefectHTTPStatusError, match="422"):
        submit(answer(422), Scheduled())
