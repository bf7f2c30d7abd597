"""What a dead worker left behind is taken up, and nothing else."""

from __future__ import annotations

import fcntl
import types
import uuid

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running, Scheduled

from flows.fleet import left
from flows.fleet.fanout import RESUMES
from flows.fleet.machine import running_file
from flows.fleet.queues import SILENCE_WORDS

SILENT = Crashed(message=SILENCE_WORDS)


class Prefect:
    """The calls that are made; runs are what a test says."""

    def __init__(self):
        self.runs, self.own, self.set = {}, [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read_flow_runs(self, **_):
        return self.own

    def read_flow_run(self, run_id):
        if run_id not in self.runs:
            raise ObjectNotFound(Exception("no"))
        return self.runs[run_id]

    def set_flow_run_state(self, run_id, state, force):
        self.set.append((run_id, state.name))

    def run(self, state, *, deployed=True, count=1, queue="ship", worker="m1"):
        made = types.SimpleNamespace(
            id=uuid.uuid4(), name="ship x", state=state, run_count=count,
            deployment_id=uuid.uuid4() if deployed else None, work_queue_name=queue,
            labels={"prefect.worker.name": worker},
        )  # fmt: skip
        self.runs[made.id] = made
        return made


@pytest.fixture
def prefect(monkeypatch):
    made = Prefect()
    monkeypatch.setattr(left, "get_client", lambda **_: made)
    return made


def mark(root, name):
    path = running_file(root, str(name))
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("state", [Running(), Pending(), SILENT], ids=lambda s: s.name)
def test_a_run_of_any_queue_whose_process_is_gone_goes_on(prefect, tmp_path, state):
    run = prefect.run(state)
    path = mark(tmp_path, run.id)
    left.take_up(tmp_path, "m1")
    assert prefect.set == [(run.id, "AwaitingRetry")]
    assert not path.exists()  # the run makes its own again


@pytest.mark.parametrize(
    "state",
    [Completed(), Failed(), Cancelled(), Scheduled(),
     Crashed(message="Flow run process exited with non-zero status code -9.")],
    ids=lambda s: s.name,
)  # fmt: skip
def test_one_that_has_ended_does_not(prefect, tmp_path, state):
    path = mark(tmp_path, prefect.run(state).id)
    left.take_up(tmp_path, "m1")
    assert prefect.set == [] and not path.exists()


def test_a_command_of_a_person_is_not_begun_again(prefect, tmp_path):
    for name in (prefect.run(Running(), deployed=False).id, uuid.uuid4(), "by-hand-12"):
        mark(tmp_path, name)
    left.take_up(tmp_path, "m1")
    assert prefect.set == []


def test_one_that_died_again_and_again_is_left(prefect, tmp_path):
    mark(tmp_path, prefect.run(Running(), count=RESUMES + 1).id)
    left.take_up(tmp_path, "m1")
    assert prefect.set == []


def test_one_that_lives_is_left_alone(prefect, tmp_path):
    run = prefect.run(Running())
    prefect.own = [run]
    path = mark(tmp_path, run.id)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        left.take_up(tmp_path, "m1")
    assert prefect.set == [] and path.exists()


def test_one_of_its_own_queue_goes_on_before_its_flow_has_begun(prefect, tmp_path):
    prefect.own = [
        prefect.run(Pending(), queue="m1", worker="?"),  # no file yet
        prefect.run(Pending()),
        prefect.run(Running(), worker="m2"),  # of another machine's worker
    ]
    left.take_up(tmp_path, "m1")
    assert [run_id for run_id, _ in prefect.set] == [run.id for run in prefect.own[:2]]
