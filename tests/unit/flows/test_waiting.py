"""What waits for machines: the record, and what `complete` does with it without any machine."""

from __future__ import annotations

import dataclasses
import json
import types

import httpx
import pytest

from artifacts import fleet
from artifacts import summary as summaries
from artifacts.registry import mlflow_log
from artifacts.store import s3
from artifacts.summary import Summary
from engineworks import hosts
from engineworks import plan as planning
from engineworks import recipe as recipes
from engineworks.errors import ArtifactError, StoreError
from engineworks.facts.host import RegisteredHost
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.plan import Plan, Verdict
from engineworks.facts.prepared import PreparedModel
from engineworks.prepared import prepared
from flows import complete, ship
from flows.commands import complete as complete_command
from flows.commands import outcome
from flows.commands import ship as ship_command
from flows.commands.outcome import Completion
from flows.fleet import elsewhere, waiting
from flows.fleet import order as orders
from tasks._cache import checkout_sha256
from tests import builders

RECIPE = """
# written by hand
name: tiny
model: {source: model:build, input: {size: [32, 32]}}
targets:
  - {target: onnxruntime-cpu, pool: gpu}
  - {target: "null"}
"""
GONE = ("onnxruntime-cpu/fp32",)


@pytest.fixture
def bucket(s3_prefix, monkeypatch, tmp_path):
    monkeypatch.setenv("ENGINEWORKS_STORE", s3_prefix)
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return s3.Bucket(s3.parse(s3_prefix), patience_s=5)


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return recipes.load(path)


@pytest.fixture
def record(loaded, bucket):
    return of(loaded, GONE)


def of(loaded, variants):
    model = dataclasses.replace(builders.example(PreparedModel), size=(32, 32))
    model = dataclasses.replace(
        model, shared=dataclasses.replace(model.shared, name="tiny", labels=())
    )
    card = builders.example(type(hosts.probe()))
    return waiting.of(prepared(loaded, card, (model, model)), variants)


def join(bucket, pool, name="m1", code=None):
    card = dataclasses.replace(hosts.probe(), name=name)
    host = RegisteredHost(card=card, pool=pool, code_sha256=code or checkout_sha256(), instance="i")
    fleet.register(bucket, host)


def test_a_record_comes_back_as_it_was_and_gives_the_same_orders(bucket, record, loaded, tmp_path):
    waiting.keep(bucket, record)
    found, etag = waiting.read(bucket, "tiny")
    assert found == record and etag
    assert found.prepared.text == RECIPE
    there = found.prepared.loaded(tmp_path / "elsewhere.yaml", tmp_path)
    assert there.recipe == loaded.recipe and there.sha256 == loaded.sha256
    first = planning.plan(loaded.recipe.targets).variants[0]
    assert orders.write(found.prepared, first).sha256 == orders.write(record.prepared, first).sha256


def test_a_newer_run_replaces_it_and_one_with_nothing_left_removes_it(bucket, record):
    waiting.keep(bucket, record)
    waiting.keep(bucket, dataclasses.replace(record, variants=("null/fp32",)))
    assert waiting.read(bucket, "tiny")[0].variants == ("null/fp32",)
    assert fleet.waiting(bucket) == ["tiny"]
    waiting.keep(bucket, dataclasses.replace(record, variants=()))
    waiting.keep(bucket, dataclasses.replace(record, variants=()))
    assert fleet.waiting(bucket) == []


@pytest.mark.parametrize("left", [(), ("null/fp32",)])
def test_who_completes_an_older_record_leaves_a_newer_one_alone(bucket, record, left):
    waiting.keep(bucket, record)
    _, etag = waiting.read(bucket, "tiny")
    newer = dataclasses.replace(record, prepared=dataclasses.replace(record.prepared, text="newer"))
    waiting.keep(bucket, newer)
    waiting.keep(bucket, dataclasses.replace(record, variants=left), etag)
    assert waiting.read(bucket, "tiny")[0] == newer


def test_a_record_of_another_version_is_left_with_the_next_step(bucket, told):
    text = {"checkout_sha256": "other", "fields": "of then"}
    bucket.write("waiting/tiny.json", json.dumps(text).encode(), only_new=True)
    with pytest.raises(ArtifactError, match="another version") as caught:
        waiting.read(bucket, "tiny")
    assert "run its recipe again" in caught.value.hint
    state, (one,), _ = told()
    assert state.is_completed() and state.message == "tiny: left"
    assert "run its recipe again" in one.reason
    assert fleet.waiting(bucket) == ["tiny"]


@pytest.mark.parametrize(
    ("waits", "planned", "is_ready"),
    [
        ("null/fp32", "null/fp32", True),
        ("null/fp32", "null/fp32@m1", True),  # it had no machine at all
        ("null/fp32@m2", "null/fp32@m1", False),
        ("openvino/fp32", "null/fp32", False),
    ],
)
def test_only_what_waits_makes_it_ready(loaded, bucket, waits, planned, is_ready):
    (_, variant) = planning.plan(loaded.recipe.targets).variants
    variant = dataclasses.replace(variant, host="m1", everywhere="@" in planned)
    assert variant.name == planned
    record = of(loaded, (waits,))
    assert waiting.ready(record, Plan(host=record.prepared.host, variants=(variant,))) is is_ready
    pending = dataclasses.replace(variant, action="pending")
    assert not waiting.ready(record, Plan(host=record.prepared.host, variants=(pending,)))


@pytest.fixture
def told(monkeypatch, loaded):
    """Runs `complete` without Prefect; building is not expected unless a test says what comes."""

    def run(build=None, model=""):
        published = []

        def build_elsewhere(*words):
            assert build is not None, "nothing is to be run"
            waiting = build(*words)
            return elsewhere.FannedOut(waiting=waiting, outcomes=outcomes(waiting))

        def publish(job, summary):
            published.append((job.loaded.text, summary))
            return summary

        def assemble(job, prepared, outcomes, comparison):
            made = builders.example(Summary)
            variants = tuple(map(summaries.variant, outcomes))
            return dataclasses.replace(made, run_id=job.run.run_id, variants=variants)

        monkeypatch.setattr(complete.elsewhere, "build_elsewhere", build_elsewhere)
        monkeypatch.setattr(complete.publish, "assemble", assemble)
        monkeypatch.setattr(complete.publish, "publish", publish)
        found = []
        outcome.TOLD.set(found)
        return complete.complete.fn(model), found, published

    def outcomes(waiting):
        planned = planning.plan(loaded.recipe.targets).variants
        return [
            VariantOutcome(
                planned=dataclasses.replace(variant, required=False),
                verdict=Verdict(
                    verdict="pending" if variant.name in waiting else "shipped", reason="so"
                ),
            )
            for variant in planned
        ]

    monkeypatch.setattr(complete, "get_run_logger", lambda: complete._run.log)
    return run


@pytest.fixture
def ready(bucket, record, monkeypatch):
    """A record that a machine can go on with, and an MLflow server for both."""
    uri = "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    made = dataclasses.replace(record, tracking_uri=uri, variants=(*GONE, "null/fp32"))
    waiting.keep(bucket, made)
    join(bucket, "gpu")
    return made


def test_nothing_waits(bucket, told):
    state, found, _ = told()
    assert state.is_completed() and state.message == "nothing waits" and found == []


def test_a_model_that_nobody_knows_is_no_success(bucket, record, told, tmp_path):
    waiting.keep(bucket, record)
    state, (one,), _ = told(model="timy")
    assert state.is_failed() and one.outcome == "failed"
    assert "there is no model 'timy'" in one.reason
    assert one.reason.endswith("of these something waits: tiny")
    assert not (tmp_path / "home" / "mlflow.db").exists()  # asking makes none


def test_a_model_of_which_nothing_waits_any_more_is(bucket, told, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    mlflow_log.client(home).create_experiment("tiny")
    state, (one,), _ = told(model="tiny")
    assert state.is_completed() and one.outcome == "completed"
    assert told(model="timy")[0].is_failed()


@pytest.mark.parametrize("case", ["nobody", "other pool", "other version"])
def test_while_no_machine_can_take_it_nothing_is_run(bucket, record, told, case, tmp_path):
    waiting.keep(bucket, record)
    before = bucket.read("waiting/tiny.json").etag
    if case == "other pool":
        join(bucket, "cpu")
    if case == "other version":
        join(bucket, "gpu", code="other")
    state, (one,), _ = told()
    assert state.is_completed()
    assert (one.outcome, one.pending) == ("waits", GONE)
    assert GONE[0] in one.reason
    assert bucket.read("waiting/tiny.json").etag == before
    assert not (tmp_path / "home" / "runs").exists()


def test_a_machine_whose_mlflow_is_its_own_logs_nothing(bucket, record, told, monkeypatch):
    waiting.keep(bucket, record)
    join(bucket, "gpu")
    state, (one,), _ = told()
    assert state.is_completed() and one.outcome == "left"
    assert "MLFLOW_TRACKING_URI" in one.reason and record.tracking_uri in one.reason
    here = dataclasses.replace(
        record, prepared=dataclasses.replace(record.prepared, host=hosts.probe())
    )
    assert waiting.foreign_mlflow(here) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert waiting.foreign_mlflow(here) != ""
    there = dataclasses.replace(here, tracking_uri="http://127.0.0.1:5000")
    assert waiting.foreign_mlflow(there) == ""


@pytest.mark.parametrize("still", [(), GONE])
def test_what_is_completed_does_not_wait_any_more(bucket, ready, told, still):
    state, (one,), ((text, summary),) = told(lambda *_: still)
    assert state.is_completed() and text == RECIPE
    assert one == Completion(
        model="tiny", outcome="waits" if still else "completed",
        reason=f"{2 - len(still)} of 2 shipped", pending=still, run_id=summary.run_id,
    )  # fmt: skip
    assert fleet.waiting(bucket) == (["tiny"] if still else [])
    if still:
        assert waiting.read(bucket, "tiny")[0].variants == still


def test_where_nothing_came_of_it_nothing_is_logged(bucket, ready, told):
    state, (one,), published = told(lambda *_: ready.variants)
    assert state.is_completed() and published == []
    assert one.outcome == "waits" and one.reason == f"{GONE[0]}: so; null/fp32: so"
    assert waiting.read(bucket, "tiny")[0] == ready


def test_an_older_record_registers_nothing_when_a_newer_run_has_ended(bucket, ready, told):
    newer = dataclasses.replace(ready, prepared=dataclasses.replace(ready.prepared, text="newer"))

    def build(*_):  # takes its time
        waiting.keep(bucket, newer)
        return ()

    state, (one,), published = told(build)
    assert state.is_completed() and one.outcome == "left" and "newer run" in one.reason
    assert published == []
    assert waiting.read(bucket, "tiny")[0] == newer


def test_one_that_fails_keeps_its_record_and_sinks_no_other(bucket, ready, told):
    model = ready.prepared.model
    small = dataclasses.replace(model, shared=dataclasses.replace(model.shared, name="small"))
    other = dataclasses.replace(ready, prepared=dataclasses.replace(ready.prepared, model=small))
    waiting.keep(bucket, other)

    def build(job, prepared):
        if prepared.name == "small":
            raise StoreError("MLflow is away", hint="start it")
        return ()

    state, found, _ = told(build)
    assert state.is_failed() and "small: failed" in state.message
    assert [one.outcome for one in found] == ["failed", "completed"]
    assert "MLflow is away; next: start it" in found[0].reason
    assert fleet.waiting(bucket) == ["small"]


@pytest.mark.parametrize("case", ["back", "away", "prefect is away"])
def test_a_machine_that_came_back_during_the_run_is_asked_at_its_end(
    bucket, record, loaded, monkeypatch, case
):
    asked = []

    def ask():
        asked.append(1)
        if case == "prefect is away":
            raise httpx.ConnectError("nothing listens")
        return True

    monkeypatch.setattr(ship.trigger, "ask", ask)
    monkeypatch.setattr(ship, "get_run_logger", lambda: complete._run.log)
    if case != "away":
        join(bucket, "gpu")
    run = types.SimpleNamespace(store=complete._run.open_home_store())
    ship._ask_if_back(types.SimpleNamespace(loaded=loaded, run=run), record)
    assert asked == ([] if case == "away" else [1])


@pytest.mark.parametrize(
    ("waits", "mlflow", "obstacle", "words"),
    [
        (False, True, "", ""),  # built, and opened by no machine
        (True, False, "", "on this machine: its MLflow is here"),
        (True, True, "there is no deployment", "by itself, but there is no deployment"),
        (True, True, "", "is completed by itself when"),
    ],
)
def test_what_a_run_promises_is_true(bucket, record, monkeypatch, waits, mlflow, obstacle, words):
    if waits:
        waiting.keep(bucket, record)
    if mlflow:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setattr(ship.trigger, "obstacle", lambda: obstacle)
    said = ship_command._later("tiny")
    assert words in said and bool(said) is waits


@pytest.mark.parametrize(
    ("outcomes", "code", "words"),
    [
        ([], 0, "nothing waits for a machine"),
        (["completed"], 0, "tiny: completed, because"),
        (["completed", "waits"], 4, "tiny: waits, because"),
        (["left"], 4, "tiny: left"),
        (["missed", "waits"], 1, "tiny: completed"),
        (["failed", "missed"], 3, "tiny: failed"),
    ],
)
def test_exit_codes(outcomes, code, words, bucket, monkeypatch, capsys, tmp_path):
    told = [Completion(model="tiny", outcome=word, reason="because") for word in outcomes]
    told = [
        dataclasses.replace(one, outcome="completed", missed=("null/fp32",))
        if one.outcome == "missed"
        else one
        for one in told
    ]

    def run(model, return_state):
        assert model == "tiny"
        outcome.tell(told)
        return types.SimpleNamespace(is_failed=lambda: code in (1, 3))

    monkeypatch.setattr(complete, "complete", run)
    options = ["--home", str(tmp_path), "--quiet", "--model", "tiny"]
    assert complete_command.main(options) == code
    assert words in capsys.readouterr().out
    assert complete_command.main([*options, "--json"]) == code
    assert len(json.loads(capsys.readouterr().out)) == len(outcomes)


def test_without_a_store_it_says_so_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("ENGINEWORKS_STORE", raising=False)
    assert complete_command.main(["--home", str(tmp_path), "--quiet"]) == 3
    assert "ENGINEWORKS_STORE is not set" in capsys.readouterr().err
