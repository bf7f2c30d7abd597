"""Promote, roll back and look at it, against a real MLflow and the records of a real folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import numpy as np
import pytest

from artifacts.promotion import evidence, ledger, restorable
from artifacts.registry import mlflow_log, ownership, promoted, prune_mlflow, versions
from artifacts.store import prune_home
from artifacts.summary import SCHEMA, Engine, SealedRow, Summary, Variant
from engineworks.delivery.cards import Slot
from engineworks.errors import ArtifactError, DeliveryError, StoreError
from engineworks.evaluate import paired, photo_scores
from engineworks.facts.data import PinnedData
from engineworks.facts.engine import Accuracy, DeliveredPrecision, Parity
from engineworks.facts.shadow import SCHEMA as SHADOW_SCHEMA
from engineworks.facts.shadow import ShadowEngine, ShadowRecord
from engineworks.facts.timing import BenchmarkRow, Comparison, Contender
from engineworks.manifest import TensorSpec
from engineworks.promotion.gates import FIRST, Limits, Race
from engineworks.shadow import record as shadow_record
from engineworks.specs import BudgetSpec, InputSpec, Preprocess, TaskSpec
from engineworks.store import LocalStore
from flows import deliver as deliver_flow
from flows import history as history_flow
from flows import promote as promote_flow
from flows import rollback as rollback_flow
from flows.commands import history as history_command
from flows.commands import outcome
from flows.commands import promote as promote_command
from flows.commands import rollback as rollback_command
from flows.fleet.timing import ASKED, BESIDE
from flows.steps import deliver as delivery
from flows.steps import promote as steps
from flows.steps import prune, rematch
from tests import builders
from tests.deliveries import World

NAME = "openvino/int8"
LABELS = ("cat", "dog")
TASK = TaskSpec(kind="classification", labels=LABELS)
OWNER = ownership.owner(
    "/a/recipe.yaml on one", TASK, LABELS, InputSpec(size=(32, 32)), Preprocess()
)
FILES = tuple(f"{('cat', 'dog')[i % 2]}/{i}.png" for i in range(400))


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty one: making it takes MLflow seconds."""
    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_log.client(home).search_experiments()
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path, monkeypatch, database):
    for name in ("MLFLOW_TRACKING_URI", "ENGINEWORKS_STORE"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "home"
    place.mkdir()
    shutil.copy(database, place)
    monkeypatch.setenv("ENGINEWORKS_HOME", str(place))
    for flow in (promote_flow, rollback_flow, history_flow):
        monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger("test"))
    return place


def answers(wrong):
    """A classifier that has the first `wrong` photos wrong."""
    return [[f, (i % 2) ^ (i < wrong), 0.9] for i, f in enumerate(FILES)]


def row(store, folder, content, wrong, name=NAME, p50_ms=4.0, **changes):
    engine = builders.put_bytes(
        store, folder, content, kind="engine", name="tiny", task=changes.pop("task", TASK),
        target="openvino", precision="int8", preprocess=Preprocess(),
        inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3, 32, 32)),),
    )  # fmt: skip
    path = folder / "predictions.json"
    path.write_text(json.dumps(answers(wrong)))
    known = store.put(
        {"predictions.json": path}, kind="predictions", name="tiny", entry="predictions.json",
        provenance=builders.MADE_HERE,
    )  # fmt: skip
    right = 1 - wrong / len(FILES)
    values = {
        "name": name, "target": "openvino", "precision": "int8", "verdict": "shipped",
        "predictions": known, "registered": None, "host": None, "sealed": None,
        "package": (), "quantized": None,
        "engine": Engine(sha256=engine.sha256, size_bytes=engine.size_bytes, uri=engine.uri),
        "accuracy": Accuracy(metric="top1", value=right, reference=right, drop=0.0, images=400),
        "parity": dataclasses.replace(builders.example(Parity), holds=True),
        "delivered_precision": dataclasses.replace(
            builders.example(DeliveredPrecision), holds=True
        ),
        "benchmark": (
            dataclasses.replace(
                builders.example(BenchmarkRow), height=32, width=32, batch=1, p50_ms=p50_ms,
                inconclusive="",
            ),
        ),
    }  # fmt: skip
    return dataclasses.replace(builders.example(Variant), **{**values, **changes})


@pytest.fixture
def ship(home, tmp_path):
    """Log and register a version as `ship` does; gives its number."""
    store = LocalStore(home / "store")
    onnx = builders.put_bytes(store, tmp_path)
    base = builders.example(Summary)
    data = dataclasses.replace(
        builders.example(PinnedData), files=FILES, digests={f: f"{f:0>64}" for f in FILES},
        sha256="d" * 64, objects=len(FILES), truth=None,
    )  # fmt: skip

    def ship(content=b"one", wrong=20, data_sha256="d" * 64, **changes):
        variant = row(store, tmp_path, content, wrong, **changes)
        summary = dataclasses.replace(
            base, schema=SCHEMA, name="tiny", size=(32, 32), variants=(variant,), simplified=None,
            comparison=None, budget=BudgetSpec(), calibration=None,
            reference=dataclasses.replace(
                base.reference, artifact=onnx, predictions=None, detail={}
            ),
            exported=dataclasses.replace(base.exported, onnx=onnx),
            data=dataclasses.replace(data, sha256=data_sha256),
        )  # fmt: skip
        logged = mlflow_log.log_run(summary, store, {}, content.decode() + variant.verdict, home)
        found = versions.register(summary, logged, home, OWNER)
        return found[variant.name].version if found else ""

    return ship


@pytest.fixture(autouse=True)
def both_run(monkeypatch):
    """Both versions as they would answer, and race, if their engines were engines."""

    def play(run, candidate, champion, max_drop):
        def scores(one):
            wrong = round((1 - one.variant.accuracy.value) * len(FILES))
            return photo_scores.of_classes(
                np.arange(len(FILES)) >= wrong, np.ones(len(FILES), bool)
            )

        ratio = candidate.standing.p50_ms / champion.standing.p50_ms
        race = Race(machine="here", ratio=ratio, ci95=(ratio, ratio), ms=(1.0, 1.0))
        answers = paired.compare(scores(candidate), scores(champion), max_drop)
        return rematch.Rematch(answers=answers, race=race)

    monkeypatch.setattr(rematch, "play", play)


def promote(version, accept=(), variant=NAME, **limits):
    found = steps.promote_one(
        "tiny", variant, version, limits=Limits(**limits), accept=accept, who="ann", dry_run=False
    )
    steps.shown("tiny")
    return found


def aliases(home):
    found = mlflow_log.client(home).get_registered_model("tiny").aliases
    return {k: str(v) for k, v in found.items() if not k.startswith("candidate-")}


def back(to=""):
    found = steps.back("tiny", NAME, to, who="ann", why="", dry_run=False)
    steps.shown("tiny")
    return found


def failed(found):
    return [gate.name for gate in found.gates if not gate.opens]


def test_the_first_champion_and_one_that_is_as_good(ship, home):
    one = promote(ship(b"one"))
    assert (one.outcome, one.reason) == ("promoted", FIRST)
    assert aliases(home) == {"champion-openvino-int8": "1"}
    two = promote(ship(b"two", wrong=19))
    assert (two.outcome, two.before, two.reason) == ("promoted", "1", "in place of version 1")
    assert aliases(home) == {"champion-openvino-int8": "2", "previous-openvino-int8": "1"}
    assert promote("2").outcome == "unchanged"
    accuracy = next(gate for gate in two.gates if gate.name == "accuracy")
    assert "0.9525, the champion 0.9500 on the same 400 photos" in accuracy.reason
    (log,) = steps.histories("tiny", "")
    assert [(m.new, m.who, m.what) for m in log.moves] == [
        ("1", "ann", "promote"), ("2", "ann", "promote"),
    ]  # fmt: skip
    assert log.moves[1].evidence["gates"] and not log.broken


def test_a_record_of_a_shadow_run_speaks_for_its_two_engines_where_it_is_asked(
    ship, home, tmp_path
):
    promote(ship(b"one"))
    two = ship(b"two", wrong=19)
    path = tmp_path / "shadow.json"
    engines = {
        side: ShadowEngine(
            name="tiny", target="openvino", precision="int8",
            sha256=evidence.read(home, "tiny", version, NAME).standing.sha256,
        )
        for side, version in (("champion", "1"), ("candidate", two))
    }  # fmt: skip
    record = dataclasses.replace(
        builders.example(ShadowRecord), **engines, schema=SHADOW_SCHEMA, simulated=False,
        decision="not worse", interval=(-0.004, 0.006), judged_by="labels",
        ended=datetime.now(timezone.utc).isoformat(),
    )  # fmt: skip

    def asked(**changes):
        shadow_record.write(dataclasses.replace(record, **changes), path)
        told = []
        outcome.TOLD.set(told)
        promote_flow.promote.fn("tiny", shadow=(str(path),), dry_run=not changes)
        return told[-1]

    other = dataclasses.replace(record.candidate, sha256="0" * 64)
    for changes in (
        {"decision": "worse", "interval": (-0.1, -0.02)}, {"candidate": other},
        {"ended": "2020-01-01T00:00:00+00:00"},
    ):  # fmt: skip
        refused = asked(**changes)
        assert (refused.outcome, failed(refused)) == ("refused", ["shadow"])
    waits = asked(decision="not decided")
    assert (waits.outcome, failed(waits)) == ("pending", ["shadow"])
    with pytest.raises(ArtifactError, match="which is no time with a zone"):
        asked(ended="yesterday")
    assert asked().outcome == "passes"
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="no record of a shadow run"):
        promote_flow.promote.fn("tiny", shadow=(str(path),))
    assert aliases(home) == {"champion-openvino-int8": "1"}


def test_a_worse_one_a_slower_one_and_other_photos_stay_out(ship, home):
    promote(ship(b"one", wrong=20))
    worse = promote(ship(b"worse", wrong=40))
    assert (worse.outcome, failed(worse)) == ("refused", ["accuracy"])
    assert "worse by 0.0500, allowed 0.01" in worse.reason
    slower = promote(ship(b"slower", p50_ms=4.5))
    assert (slower.outcome, failed(slower)) == ("refused", ["latency"])
    other = ship(b"other", data_sha256="e" * 64)
    assert failed(promote(other)) == ["data"]
    cats = ship(b"cats", task=dataclasses.replace(TASK, labels=("dog", "cat")))
    assert "classes" in failed(promote(cats, accept=["data", "accuracy", "latency"]))
    assert aliases(home) == {"champion-openvino-int8": "1"}
    accepted = promote(other, accept=["data"])
    assert accepted.outcome == "promoted" and "accepted by ann: data" in accepted.reason


def test_few_photos_are_a_refusal_that_names_the_number(ship):
    promote(ship(b"one", wrong=20))
    found = promote(ship(b"two", wrong=21), max_drop=0.003)
    assert failed(found) == ["accuracy"] and "labelled photos are needed" in found.reason


def test_rolling_back_goes_further_back_each_time(ship, home):
    for content in (b"one", b"two", b"three"):
        assert promote(ship(content)).outcome == "promoted"
    assert (back().version, aliases(home)) == (
        "2", {"champion-openvino-int8": "2", "previous-openvino-int8": "1"},
    )  # fmt: skip
    assert (back().version, aliases(home)) == ("1", {"champion-openvino-int8": "1"})
    with pytest.raises(StoreError, match="no earlier version that was live and good"):
        back()
    assert back("3").version == "3"
    assert aliases(home) == {"champion-openvino-int8": "3"}
    with pytest.raises(StoreError, match="never live") as caught:
        back("9")
    assert "1, 2" in caught.value.hint


def test_a_withdrawn_version_is_neither_champion_nor_gone_back_to(ship, home):
    for content in (b"one", b"two", b"three"):
        promote(ship(content))
    mlflow = mlflow_log.client(home)
    mlflow.set_model_version_tag("tiny", "2", "verdict", "rejected")
    assert back().version == "1"
    promote("3")
    mlflow.set_model_version_tag("tiny", "3", "verdict", "rejected")
    (words,) = steps.shown("tiny")
    assert "version 3 is champion no more" in words and "version 1 is again" in words
    assert aliases(home) == {"champion-openvino-int8": "1"}
    assert promote("3").outcome == "refused"
    mlflow.delete_model_version("tiny", "1")
    assert "there is none now" in steps.shown("tiny")[0] and aliases(home) == {}
    (log,) = steps.histories("tiny", "")
    assert (log.moves[-1].who, log.moves[-1].what, log.champion) == ("reconciler", "withdraw", "")


def test_aliases_that_a_person_bent_are_put_right_and_said(ship, home):
    promote(ship(b"one"))
    promote(ship(b"two"))
    mlflow = mlflow_log.client(home)
    mlflow.set_registered_model_alias("tiny", "champion-openvino-int8", "1")
    mlflow.delete_registered_model_alias("tiny", "previous-openvino-int8")
    right = {"champion-openvino-int8": "2", "previous-openvino-int8": "1"}
    said = steps.shown("tiny")
    assert aliases(home) == right and len(said) == 2 and "was on version 1" in said[0]
    assert steps.shown("tiny") == []


def test_a_store_that_was_set_back_contradicts_mlflow(ship, home):
    promote(ship(b"one"))
    record = home / "promotions/tiny/openvino-int8/generation.json"
    old = record.read_bytes()
    promote(ship(b"two"))
    record.write_bytes(old)
    (log,) = steps.histories("tiny", "")
    assert "not the one that MLflow has seen" in log.broken
    with pytest.raises(Exception, match="not the one that MLflow has seen"):
        steps.shown("tiny")
    assert aliases(home)["champion-openvino-int8"] == "2"


def test_what_is_simulated_is_never_promoted(ship):
    version = ship(b"null", target="null", name="null/int8")
    found = promote(version, variant="null/int8", accept=["accuracy", "data", "latency", "age"])
    assert failed(found) == ["real"] and "replays recorded answers" in found.reason


def test_an_old_verdict_needs_a_person(ship, monkeypatch):
    version, now = ship(b"one"), time.time()
    monkeypatch.setattr("artifacts.promotion.evidence.time.time", lambda: now + 31 * 86400)
    assert failed(promote(version)) == ["age"]
    assert promote(version, accept=["age"]).outcome == "promoted"


def test_of_eight_at_once_one_is_promoted(ship, home, monkeypatch):
    """All have read the same champion before any of them moves it."""
    promote(ship(b"one"))
    candidate = ship(b"two")
    then = ledger.read(steps.records(), "tiny", NAME)
    monkeypatch.setattr(ledger, "read", lambda *_: then)

    def attempt(_):
        return steps.promote_one(
            "tiny", NAME, candidate, limits=Limits(), accept=(), who="ann", dry_run=False
        )

    with ThreadPoolExecutor(4) as pool:
        found = [one.outcome for one in pool.map(attempt, range(8))]
    assert found.count("promoted") == 1 and found.count("overtaken") == 7


def test_the_flows_and_their_commands_words(ship, home, capsys):
    told = []
    outcome.TOLD.set(told)
    ship(b"one")
    state = promote_flow.promote.fn("tiny", dry_run=True)
    assert state.is_completed() and told[-1].outcome == "passes" and aliases(home) == {}
    state = promote_flow.promote.fn("tiny")
    assert state.is_completed() and told[-1].outcome == "promoted"
    ship(b"two", wrong=60)
    assert promote_flow.promote.fn("tiny").is_failed() and told[-1].outcome == "refused"
    options = promote_command._parser().parse_args(["tiny"])
    assert promote_command.say(options, told[-1:]) == 1
    shown = capsys.readouterr().out
    assert "accuracy" in shown and "worse by 0.1000" in shown and "refused" in shown
    with pytest.raises(StoreError, match="no earlier"):
        rollback_flow.rollback.fn("tiny")
    assert history_flow.history.fn("tiny").is_completed() and told[-1].moves[0].who == "not told"
    with pytest.raises(StoreError, match="no candidate other/fp32"):
        promote_flow.promote.fn("tiny", "other/fp32")
    with pytest.raises(StoreError, match="was ever promoted"):
        history_flow.history.fn("tiny", "other/fp32")


def test_the_nightly_benchmark_times_champions_and_what_was_promoted_before(ship, home):
    one = ship(b"one")
    mlflow = mlflow_log.client(home)
    mlflow.set_registered_model_alias("tiny", "production-openvino-int8", one)
    assert [p.version for p in promoted.promoted(home, "champion")] == ["1"]
    two = ship(b"two")
    promote(two)
    for stage in ("champion", "production"):
        assert [p.version for p in promoted.promoted(home, stage)] == ["2"]


def test_a_race_is_read_the_right_way_round():
    def contender(name, ratio, ci95, p50_ms):
        return Contender(variant=name, ratio=ratio, ci95=ci95, p50_ms=p50_ms)

    first, second = contender("x", 1.0, (1.0, 1.0), 4.0), contender("y", 1.25, (1.2, 1.3), 5.0)

    def raced(faster, slower):
        return dataclasses.replace(
            builders.example(Comparison),
            contenders=(
                dataclasses.replace(first, variant=faster),
                dataclasses.replace(second, variant=slower),
            ),
        )

    won = rematch._race("here", raced(ASKED, BESIDE))
    assert (won.ratio, won.ms) == (0.8, (4.0, 5.0))
    assert won.ci95 == (pytest.approx(1 / 1.3), pytest.approx(1 / 1.2))
    lost = rematch._race("here", raced(BESIDE, ASKED))
    assert (lost.ratio, lost.ci95, lost.ms) == (1.25, (1.2, 1.3), (5.0, 4.0))


def test_every_move_is_signed_for_devices_where_a_repository_is(ship, home, tmp_path, monkeypatch):
    world = World(tmp_path / "delivery", models=("tiny",))
    for flow in (promote_flow, rollback_flow, deliver_flow):
        monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger("test"))
    ship(b"one")
    promote_flow.promote.fn("tiny")
    assert world.repository.targets() == []
    monkeypatch.setenv("ENGINEWORKS_DELIVERY", str(world.folder / "repository"))
    monkeypatch.setenv("ENGINEWORKS_DELIVERY_KEYS", str(world.folder / "keys"))
    test = builders.put_bytes(LocalStore(home / "store"), tmp_path, b"test", kind="sealed").sha256
    ship(b"two", wrong=19, sealed=SealedRow(state="sealed", sha256=test))
    promote_flow.promote.fn("tiny")

    [two] = world.repository.targets()
    record = ledger.read(steps.records(), "tiny", NAME).generation
    assert (two.version, two.generation, two.head) == ("2", 2, record.head)
    assert (two.p50_ms, two.variant) == (4.0, NAME)
    assert two.sealed is not None and two.sealed.sha256 == test
    [one] = two.allowed
    rollback_flow.rollback.fn("tiny")
    [back] = world.repository.targets()
    assert (back.version, back.generation, back.sha256, back.allowed) == ("1", 3, one, ())
    shutil.rmtree(home / "store")  # MLflow has it, too
    home_of_device = world.device(slots={"main": Slot(model="tiny", variant=NAME)})
    assert world.agent(home_of_device).once().slots[0].running == one
    told = []
    outcome.TOLD.set(told)
    assert deliver_flow.deliver.fn("tiny").is_completed() and told[-1].outcome == "unchanged"
    promote("2")
    monkeypatch.setenv("ENGINEWORKS_DELIVERY_KEYS", "")
    assert deliver_flow.deliver.fn("tiny", dry_run=True).is_completed()
    assert deliver_flow.deliver.fn("tiny").is_failed()
    assert "here are 0" in told[-1].reason and told[-2].outcome == "passes"
    monkeypatch.setenv("ENGINEWORKS_DELIVERY_KEYS", str(world.folder / "keys"))
    assert deliver_flow.deliver.fn("tiny").is_completed() and told[-1].outcome == "published"
    assert world.repository.targets()[0].version == "2"


def test_prune_lets_go_of_what_was_live_long_ago_and_the_history_says_so(
    ship, home, monkeypatch, capsys
):
    monkeypatch.setattr(restorable, "MOST_BACK", 1)
    for content in (b"one", b"two", b"three", b"four", b"five"):
        assert promote(ship(content)).outcome == "promoted"
    assert back().version == "4"  # 5 was rolled back from
    never = ship(b"never live")
    mlflow = mlflow_log.client(home)
    mlflow.set_registered_model_alias("tiny", "of-a-person", "1")
    digests = {
        version: mlflow.get_model_version("tiny", version).tags["sha256"] for version in "12345"
    }
    monkeypatch.setattr(prune_home, "YOUNG_S", 0.0)
    monkeypatch.setattr(prune_mlflow, "YOUNG_S", 0.0)
    done = subprocess.CompletedProcess([], 0)  # frees space; runs are deleted before it
    monkeypatch.setattr(prune_mlflow.subprocess, "run", lambda *_, **__: done)
    keep = prune.Keep(last=1, versions=2)
    removal = prune.plan(keep, ("home", "mlflow"))
    # 1 has an alias; 3 is what devices may go back to; 4 is live, 5 was before it.
    assert [item.versions for item in removal.items["mlflow"]] == [("tiny openvino/int8 2",)]
    assert "Nobody can go back to these versions without them: tiny openvino/int8 2" in (
        prune.words(removal.all)
    )
    assert [log.lost for log in steps.histories("tiny", "")] == [{}]
    mlflow.set_registered_model_alias("tiny", "of-a-person", "2")  # between plan and removal
    assert not [item for item in prune.take(keep, removal) if item.versions]
    mlflow.set_registered_model_alias("tiny", "of-a-person", "1")
    removal = prune.plan(keep, ("home", "mlflow"))
    assert [item.kind for item in prune.take(keep, removal) if item.versions] == ["MLflow run"]
    store = LocalStore(home / "store")
    assert [version for version in "12345" if not store.has(digests[version])] == ["2"]
    history_command._show(steps.histories("tiny", ""))
    shown = capsys.readouterr().out
    assert "version 2 is no longer restorable: its engine is not in MLflow any more" in shown
    with pytest.raises(StoreError, match="cannot go back to version 2: its engine is not in"):
        back("2")
    assert back("1").version == "1" and back("5").version == "5"
    assert promote(never).outcome == "promoted"


def test_a_history_that_is_not_whole_lets_nothing_go(ship, home, caplog, monkeypatch):
    monkeypatch.setattr(restorable, "MOST_BACK", 1)
    for content in (b"one", b"two", b"three"):
        promote(ship(content))
    place, registered = steps.records(), prune_mlflow.versions(home)
    (past,) = restorable.pasts(home, place, ["tiny"])
    assert past.lived == tuple("123")
    assert restorable.let_go(registered, [past], (), 1) == {("tiny", "1")}
    (entry,) = (home / "promotions").rglob("000002-*.json")
    entry.write_text(entry.read_text().replace("ann", "bob"))
    assert restorable.pasts(home, place, ["tiny"]) == []
    assert "entry 2 was altered; every version of it is kept" in caplog.text


def test_a_rollback_now_reaches_devices_first_and_is_refused_where_there_are_none(
    ship, home, tmp_path, monkeypatch, capsys
):
    def command(*words):
        options = rollback_command._parser().parse_args(["tiny", "--now", "--json", *words])
        return rollback_command._at_once(options)

    world = World(tmp_path / "delivery", models=("tiny",))
    promote(ship(b"one"))
    promote(ship(b"two"))
    with pytest.raises(DeliveryError, match="this machine publishes nothing"):
        command()
    assert aliases(home)["champion-openvino-int8"] == "2"
    monkeypatch.setenv("ENGINEWORKS_DELIVERY", str(world.folder / "repository"))
    monkeypatch.setenv("ENGINEWORKS_DELIVERY_KEYS", str(world.folder / "keys"))
    told = lambda: world.repository.targets()[0]  # noqa: E731
    assert command() == 0  # never published before: in full
    assert (told().version, told().generation, told().now, told().allowed) == ("1", 3, True, ())
    for version in ("2", ship(b"three")):
        promote(version)
        assert delivery.after_a_move("tiny") and not told().now
    two = told().allowed[0]

    monkeypatch.setattr(delivery, "publish", lambda *a, **k: [])  # MLflow takes too long
    monkeypatch.setattr(steps, "shown", lambda model: [])
    assert command("--dry-run") == 0 and told().version == "3"
    assert command() == 0
    record = ledger.read(steps.records(), "tiny", NAME).generation
    assert (told().version, told().sha256, told().now) == ("2", two, True)
    assert (told().generation, told().head) == (6, record.head) == (record.number, record.head)
    assert capsys.readouterr().err.endswith("devices are told: version 2 now\n")


def test_a_withdrawn_version_that_is_rolled_back_to_now_makes_way_at_once(
    ship, home, tmp_path, monkeypatch
):
    world = World(tmp_path / "delivery", models=("tiny",))
    monkeypatch.setenv("ENGINEWORKS_DELIVERY", str(world.folder / "repository"))
    monkeypatch.setenv("ENGINEWORKS_DELIVERY_KEYS", str(world.folder / "keys"))
    for content in (b"one", b"two", b"three"):
        promote(ship(content))
        delivery.after_a_move("tiny")
    mlflow_log.client(home).set_model_version_tag("tiny", "2", "verdict", "rejected")
    seen, repeat = [], delivery.repeat
    monkeypatch.setattr(delivery, "repeat", lambda *a: seen.append(repeat(*a)) or seen[-1])
    options = rollback_command._parser().parse_args(["tiny", "--now"])
    assert rollback_command._at_once(options) == 0
    assert seen == ["devices are told: version 2 now"]
    [told] = world.repository.targets()
    assert (told.version, told.generation, told.now) == ("1", 5, True)
    assert aliases(home) == {"champion-openvino-int8": "1"}


def test_a_rollback_now_does_not_wait_for_prefect():
    words = "import sys, flows.commands.rollback, flows.steps.promote, flows.steps.deliver"
    code = f"{words}; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_asked_for_in_mlflow_is_done_once_and_answered_there(ship, home, monkeypatch):
    mlflow = mlflow_log.client(home)

    def ask(version, text="promote"):
        mlflow.set_model_version_tag("tiny", version, "engineworks.request", text)

    def answer(version):
        tags = mlflow.get_model_version("tiny", version).tags
        assert "engineworks.request" not in tags
        return tags["engineworks.answer"]

    def run(version):
        return promote_flow.promote.fn("tiny", version=version, asked=True)

    ask(ship(b"one"))
    assert run("1").is_completed() and answer("1").startswith(f"promote: promoted: {FIRST} (20")
    assert steps.histories("tiny", "")[0].moves[0].who == "not told by MLflow"
    again = run("1")  # the webhook and the poll have both started one
    assert again.is_completed() and again.message == "nothing is asked for any more"
    assert len(steps.histories("tiny", "")[0].moves) == 1
    ask(ship(b"worse", wrong=60))
    assert run("2").is_failed() and "refused: accuracy: " in answer("2")
    ask("2", "ship r.yaml")
    assert run("2").message == "nothing is asked for any more"  # that is for another flow
    mlflow.create_model_version("tiny", "s3://bucket/network")
    ask("3")
    with pytest.raises(StoreError, match="is no engine"):
        run("3")
    assert "failed: version 3 of tiny is no engine" in answer("3")
    mlflow.set_registered_model_alias("tiny", "champion-openvino-int8", "2")
    assert history_flow.history.fn("", repair=True).is_completed()  # an alias is no wish
    assert aliases(home) == {"champion-openvino-int8": "1"}
    record = home / "promotions/tiny/openvino-int8/generation.json"
    (home / "promotions/zebra").mkdir()
    shutil.copytree(record.parent, home / "promotions/zebra/openvino-int8")
    state = history_flow.history.fn("", repair=True)
    assert state.is_failed() and "zebra" in state.message  # and stops no other
    assert "tiny" not in state.message
