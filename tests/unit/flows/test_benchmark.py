"""What the nightly benchmark makes of versions, measurements and machines that are away."""

from __future__ import annotations

import dataclasses
import json
import logging
import types

import pytest

from artifacts import fleet
from artifacts.registry import promoted
from artifacts.registry.promoted import Promoted
from artifacts.store import s3
from artifacts.store.remote import RemoteStore
from engineworks import hosts
from engineworks.errors import ArtifactError, StoreError
from engineworks.facts.host import RegisteredHost
from engineworks.facts.timing import Benchmark, BenchmarkRow
from engineworks.store import LocalStore
from flows import benchmark
from flows.commands import benchmark as benchmark_command
from flows.commands import outcome
from flows.fleet import measuring, nightly
from flows.fleet.measuring import Untimed
from tasks._cache import checkout_sha256
from tests import builders

ROW = dataclasses.replace(
    builders.example(BenchmarkRow), p50_ms=10.0, ci95_ms=(9.9, 10.1), inconclusive=""
)


def version(name, **changes):
    values = {
        "model": "tiny", "version": "1", "run_id": "r", "variant": f"{name}/fp32", "target": name,
        "precision": "fp32", "sha256": "a" * 64, "machine": hosts.probe().name, "size": (32, 32),
        "threads": 1, "p50_ms": 10.0,
    }  # fmt: skip
    return Promoted(**{**values, **changes})


@pytest.fixture
def flow(monkeypatch, tmp_path):
    """Runs the flow without Prefect and MLflow on what a test says was found and measured."""
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path))
    monkeypatch.setattr(benchmark, "get_run_logger", lambda: logging.getLogger("test"))
    noted, told = [], []

    def run(answers, slower_than=1.15, note=None):
        versions = list(answers)
        monkeypatch.setattr(promoted, "promoted", lambda *_: versions)
        monkeypatch.setattr(benchmark, "time_all", lambda run, _: list(answers.values()))
        monkeypatch.setattr(promoted, "note", note or (lambda *words: noted.append(words)))
        told.clear()
        outcome.TOLD.set(told)
        return benchmark.benchmark.fn(slower_than=slower_than), told, noted

    return run


def test_nothing_promoted_is_no_trouble_and_says_what_to_do(flow, tmp_path):
    state, told, _ = flow({})
    assert state.is_completed() and told == []
    assert "nothing is promoted" in state.message and "stage: candidate" in state.message
    assert not (tmp_path / "runs").exists()


def test_only_those_that_are_slower_beyond_doubt_fail_the_run(flow):
    slow = dataclasses.replace(ROW, p50_ms=20.0, ci95_ms=(19.0, 21.0))
    state, told, noted = flow(
        {
            version("a"): ROW,
            version("b"): slow,
            version("c"): dataclasses.replace(slow, inconclusive="noisy"),
            version("d"): Untimed(outcome="pending", reason="away"),
            version("e"): Untimed(outcome="skipped", reason="elsewhere"),
        }
    )
    assert state.is_failed()
    assert state.message.startswith("tiny version 1 (b/fp32): slower, 2.00x the 10 ms")
    assert not {"a/fp32", "c/fp32", "d/fp32"} & set(state.message.replace("(", " ").split())
    words = [one.outcome for one in told]
    assert words == ["steady", "slower", "inconclusive", "pending", "skipped"]
    assert [one.variant for _, one, *_ in noted] == ["a/fp32", "b/fp32", "c/fp32"]
    assert told[1].ratio == 2 and told[3].p50_ms is None
    state, _, _ = flow({version("b"): slow}, slower_than=2.5)
    assert state.is_completed() and state.message == "1 steady"


def test_one_that_cannot_be_logged_sinks_no_other(flow):
    def note(home, one, *_):
        if one.target == "a":
            raise StoreError("its run was deleted", hint="ship again")

    state, (first, second), _ = flow({version("a"): ROW, version("b"): ROW}, note=note)
    assert state.is_failed() and "its run was deleted" in first.reason
    assert second.outcome == "steady"


@pytest.fixture
def run(tmp_path):
    return types.SimpleNamespace(store=LocalStore(tmp_path / "store"))


@pytest.fixture
def here(monkeypatch):
    """What is timed on this machine."""
    asked = []

    def carry_out(run, order, card):
        asked.append((order, card.name))
        if order.name == "broken/fp32":
            raise ArtifactError("it is nowhere", hint="ship it again")
        return dataclasses.replace(builders.example(Benchmark), rows=(ROW,))

    monkeypatch.setattr(measuring, "carry_out", carry_out)
    return asked


def test_without_a_fleet_only_what_was_built_here_is_timed(run, here):
    answers = nightly.time_all(
        run,
        [
            version("mine"),
            version("theirs", machine="rack-9"),
            version("broken"),
            version("old", machine=""),
            version("batches", p50_ms=0.0),
            version("shapeless", size=None),
        ],
    )
    assert answers[0] == ROW
    words = [(answer.outcome, answer.reason) for answer in answers[1:]]
    assert [word for word, _ in words] == ["skipped", "failed", "skipped", "skipped", "skipped"]
    assert "built on rack-9" in words[0][1] and "ENGINEWORKS_STORE" in words[0][1]
    assert words[1][1] == "it is nowhere; next: ship it again"
    assert "ship its recipe again" in words[2][1]
    assert "without a latency" in words[3][1]
    order, name = here[0]
    assert (order.size, order.threads, order.engine_sha256) == ((32, 32), 1, "a" * 64)
    assert name == hosts.probe().name


def test_in_a_fleet_its_own_machine_is_asked_and_one_that_is_away_holds_up_no_other(
    s3_prefix, tmp_path, here, monkeypatch
):
    bucket = s3.Bucket(s3.parse(s3_prefix), patience_s=5)
    card = hosts.probe()
    for name, code in (("rack-1", checkout_sha256()), ("rack-2", "other")):
        host = RegisteredHost(
            card=dataclasses.replace(card, name=name), pool="gpu", code_sha256=code, instance="i"
        )
        fleet.register(bucket, host)
    asked = []

    class FanOut:
        def __init__(self, bucket, children, tag, on_row, flow):
            self.children, self.flow = children, flow

        def carry_out(self):
            for child in self.children:
                assert bucket.read(f"orders/{child.order}.json") is not None
                asked.append((self.flow, child.host, child.pool))
                timed = dataclasses.replace(builders.example(Benchmark), rows=(ROW,))
                row = dataclasses.replace(builders.example(fleet.Row), host=card, found=timed)
                fleet.put_row(bucket, child.order, row)
                child.row = row

    monkeypatch.setattr(measuring, "FanOut", FanOut)
    run = types.SimpleNamespace(store=RemoteStore(tmp_path / "store", bucket))
    first, second, third, fourth = nightly.time_all(
        run,
        [
            version("a", machine="rack-1"),
            version("b", machine="rack-2"),
            version("c", machine="rack-3"),
            version("d"),  # built here, and no worker of the fleet
        ],
    )
    assert first == ROW and asked == [("time-engine", "rack-1", "gpu")]
    assert second.outcome == "pending" and "another version" in second.reason
    assert third.outcome == "pending" and "rack-3" in third.reason
    assert fourth == ROW and len(here) == 1
    assert bucket.list("orders/") == [] and bucket.list("rows/") == []


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [([], 0), (["steady", "skipped", "inconclusive"], 0), (["slower", "failed"], 1),
     (["failed", "pending"], 3), (["steady", "pending"], 4)],
)  # fmt: skip
def test_exit_codes(outcomes, code, monkeypatch, capsys, tmp_path):
    told = [
        dataclasses.replace(builders.example(benchmark.TimedVersion), outcome=outcome)
        for outcome in outcomes
    ]

    def run(model, stage, slower_than, return_state):
        outcome.tell(told)
        return types.SimpleNamespace(is_failed=lambda: code in (1, 3), message="nothing")

    monkeypatch.setattr(benchmark, "benchmark", run)
    assert benchmark_command.main(["--home", str(tmp_path), "--quiet", "--json"]) == code
    assert [one["outcome"] for one in json.loads(capsys.readouterr().out)] == outcomes


def test_a_ratio_that_is_none_is_refused_at_once(capsys):
    with pytest.raises(SystemExit) as caught:
        benchmark_command.main(["--slower-than", "0"])
    assert caught.value.code == 2 and "must be above 0" in capsys.readouterr().err
