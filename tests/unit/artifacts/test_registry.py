"""What was registered is asked for, made true again, and never another recipe's unsaid."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest

from artifacts.registry import confirmed, mlflow_log, ownership, versions
from artifacts.summary import Engine, Summary, Variant
from engineworks.errors import StoreError
from engineworks.specs import InputSpec, Preprocess, TaskSpec
from engineworks.store import LocalStore, verify
from tests import builders

LABELS = ("cat", "dog")
INPUT = InputSpec(size=(32, 32))
TASK = TaskSpec(kind="classification", labels=LABELS)


def owner(recipe="/a/recipe.yaml on one", labels=LABELS):
    return ownership.owner(recipe, TASK, labels, INPUT, Preprocess())


MINE = owner()


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
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "home").mkdir()
    shutil.copy(database, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def summary(store, tmp_path):
    """A run of one engine that ships and one that does not."""
    onnx = builders.put_bytes(store, tmp_path)
    rows = []
    for name, verdict in (("null/fp32", "shipped"), ("openvino/fp32", "rejected")):
        engine = builders.put_bytes(store, tmp_path, name.encode(), kind="engine", name="tiny")
        rows.append(
            dataclasses.replace(
                builders.example(Variant), name=name, verdict=verdict, predictions=None,
                sealed=None, package=(), quantized=None,
                engine=Engine(sha256=engine.sha256, size_bytes=9, uri=engine.uri),
                registered=None, host=None, accuracy=None, benchmark=(),
            )
        )  # fmt: skip
    found = builders.example(Summary)
    reference = dataclasses.replace(found.reference, artifact=onnx, predictions=None, detail={})
    exported = dataclasses.replace(found.exported, onnx=onnx)
    return dataclasses.replace(
        found, name="tiny", variants=tuple(rows), reference=reference, exported=exported,
        simplified=None, comparison=None, calibration=None,
    )  # fmt: skip


@pytest.fixture
def log(summary, store, home):
    """Log and register as the task does."""

    def log(facts=summary, mine=MINE, key="k"):
        logged = mlflow_log.log_run(facts, store, {}, key, home)
        return logged, versions.register(facts, logged, home, mine)

    return log


def ask(summary, published, home, mine=MINE):
    return versions.contradiction(summary, *published, home, mine)


def test_what_was_registered_just_now_stands(log, summary, home):
    assert ask(summary, log(), home) == ""


def test_two_sets_of_options_with_one_engine_have_a_version_and_an_alias_each(log, summary, home):
    """What their tags say of a variant is then true of each, and a later run finds both."""
    first = summary.variants[0]
    rows = tuple(dataclasses.replace(first, name=f"null/fp32{label}") for label in ("", ":graph"))
    both = dataclasses.replace(summary, variants=rows)
    logged, registered = log(both)
    aliases = versions.client(home).get_registered_model("tiny").aliases
    assert {name: str(version) for name, version in aliases.items()} == {
        "candidate-null-fp32": "1", "candidate-null-fp32--graph": "2",
    }  # fmt: skip
    assert [registered[row.name].version for row in rows] == ["1", "2"]
    assert ask(both, (logged, registered), home) == ""
    assert log(both)[1] == registered


def drop_version(mlflow, home, published):
    mlflow.delete_model_version("tiny", "1")


def drop_model(mlflow, home, published):
    mlflow.delete_registered_model("tiny")


def drop_run(mlflow, home, published):
    mlflow.delete_run(published[0].run_id)


def drop_experiment(mlflow, home, published):
    mlflow.delete_experiment(published[0].experiment_id)


def drop_files(mlflow, home, published):
    shutil.rmtree(home / "mlruns")


def _logged_file(home, name):
    (path,) = (home / "mlruns").rglob(name)
    return path


def drop_the_engines_file(mlflow, home, published):
    _logged_file(home, "engines/null-fp32/model.bin").unlink()


def cut_the_engines_file(mlflow, home, published):
    path = _logged_file(home, "engines/null-fp32/model.bin")
    path.write_bytes(path.read_bytes()[:-1])


def drop_the_summary(mlflow, home, published):
    _logged_file(home, "summary.json").unlink()


def cut_the_list_of_files(mlflow, home, published):
    path = _logged_file(home, "files.json")
    path.write_bytes(path.read_bytes()[:20])


def drop_alias(mlflow, home, published):
    mlflow.delete_registered_model_alias("tiny", "candidate-null-fp32")


def drop_database(mlflow, home, published):
    """As whoever removes the file sees it: the same process holds the old one open."""
    with sqlite3.connect(home / "mlflow.db") as database:
        for table in ("registered_model_aliases", "model_version_tags", "model_versions"):
            database.execute(f"delete from {table}")  # noqa: S608 - names of our own
        database.execute("delete from registered_model_tags")
        database.execute("delete from registered_models")
        database.execute("delete from tags")
        for table in ("metrics", "latest_metrics", "params", "runs"):
            database.execute(f"delete from {table}")  # noqa: S608


def another_took_the_alias(mlflow, home, published):
    run = mlflow.create_run(published[0].experiment_id).info.run_id
    made = mlflow.create_model_version("tiny", source=f"runs:/{run}/e", run_id=run)
    mlflow.set_registered_model_alias("tiny", "candidate-null-fp32", made.version)


def a_later_run_renewed_the_tags(mlflow, home, published):
    mlflow.set_model_version_tag("tiny", "1", "precision", "int8")


def the_rejected_one_is_a_candidate(mlflow, home, published):
    run = published[0].run_id
    made = mlflow.create_model_version(
        "tiny", source=f"runs:/{run}/{mlflow_log.engine_path('openvino/fp32')}", run_id=run,
        tags={"sha256": SHA["openvino/fp32"]},
    )  # fmt: skip
    mlflow.set_registered_model_alias("tiny", "candidate-openvino-fp32", made.version)


SHA: dict[str, str] = {}


@pytest.mark.parametrize(
    "harm",
    [drop_version, drop_model, drop_run, drop_experiment, drop_files, drop_the_engines_file,
     cut_the_engines_file, drop_the_summary, cut_the_list_of_files, drop_alias, drop_database,
     another_took_the_alias, a_later_run_renewed_the_tags, the_rejected_one_is_a_candidate],
)  # fmt: skip
def test_what_is_true_no_more_is_noticed_and_made_true_again(log, summary, home, harm, tmp_path):
    SHA.update({variant.name: variant.engine.sha256 for variant in summary.variants})
    published = log()
    mlflow = mlflow_log.client(home)
    known = confirmed.state(home, "tiny", published[0].run_id, MINE)
    assert known == confirmed.state(home, "tiny", published[0].run_id, MINE)
    harm(mlflow, home, published)
    assert confirmed.state(home, "tiny", published[0].run_id, MINE) != known
    assert ask(summary, published, home) != ""
    _, registered = again = log()
    assert ask(summary, again, home) == ""
    version = mlflow.get_model_version_by_alias("tiny", "candidate-null-fp32")
    assert str(version.version) == registered["null/fp32"].version
    assert version.tags["sha256"] == summary.variants[0].engine.sha256
    assert version.tags["recipe"] == MINE.recipe
    place = version.source.removeprefix(f"runs:/{version.run_id}/")
    got = Path(mlflow.download_artifacts(version.run_id, place, str(tmp_path)))
    assert verify(got).sha256 == version.tags["sha256"]
    assert set(mlflow.get_registered_model("tiny").aliases) == {"candidate-null-fp32"}


def test_a_state_that_was_confirmed_need_not_be_asked_of_again(log, summary, home, monkeypatch):
    published = log()
    state = confirmed.state(home, "tiny", published[0].run_id, MINE)
    assert not confirmed.is_known(home, "tiny", state)
    confirmed.keep(home, "tiny", state)
    assert ask(summary, published, home) == ""  # asking changes nothing
    now = confirmed.state(home, "tiny", published[0].run_id, MINE)
    assert confirmed.is_known(home, "tiny", now)
    others = confirmed.state(home, "tiny", published[0].run_id, owner("/b on two"))
    assert not confirmed.is_known(home, "tiny", others)
    monkeypatch.setattr(confirmed, "_ASKED", 1)  # by a version that asked for less
    before = confirmed.state(home, "tiny", published[0].run_id, MINE)
    assert not confirmed.is_known(home, "tiny", before)


def test_a_server_is_always_asked(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert not confirmed.is_known(home, "tiny", confirmed.state(home, "tiny", "run", MINE))


def test_a_run_that_lost_its_report_keeps_the_engines_that_versions_need(log, summary, home):
    """What is registered stays where it is, and can be gone back to."""
    first = log()
    drop_the_summary(None, home, first)
    again = log()
    assert again[0].run_id != first[0].run_id
    assert again[1] == first[1]
    mlflow = mlflow_log.client(home)
    assert mlflow.get_run(first[0].run_id).info.lifecycle_stage == "active"
    version = mlflow.get_model_version("tiny", again[1]["null/fp32"].version)
    assert version.run_id == first[0].run_id
    assert log() == again


def test_a_run_from_before_files_were_listed_is_held_to_its_engines_manifests(log, summary, home):
    published = log()
    _logged_file(home, "files.json").unlink()
    assert ask(summary, published, home) == ""
    assert log() == published
    drop_the_engines_file(None, home, published)
    assert "version 1 is gone" in ask(summary, published, home)


class TestOwners:
    @pytest.mark.parametrize("has_version", [True, False])
    def test_a_model_that_somebody_else_registered_is_refused_until_a_person_says_so(
        self, log, home, has_version
    ):
        mlflow = mlflow_log.client(home)
        mlflow.create_registered_model("tiny", description="the billing team's")
        if has_version:
            made = mlflow.create_model_version("tiny", source="s3://billing/model")
            mlflow.set_registered_model_alias("tiny", "candidate-null-fp32", made.version)
        with pytest.raises(StoreError, match="is not of engineworks") as caught:
            log()
        assert f"set the tag engineworks.recipe of the model tiny to {MINE.recipe}" in str(
            caught.value.hint
        )
        assert dict(mlflow.get_registered_model("tiny").tags) == {}
        mlflow.set_registered_model_tag("tiny", ownership.RECIPE_TAG, MINE.recipe)
        _, registered = log()
        taken = "version 1, of no recipe" if has_version else ""
        assert registered["null/fp32"].taken_from == taken

    def test_a_model_of_ours_from_before_it_said_so_goes_on(self, log, home):
        log()
        mlflow = mlflow_log.client(home)
        for tag in list(mlflow.get_registered_model("tiny").tags):
            mlflow.delete_registered_model_tag("tiny", tag)
        mlflow.update_registered_model("tiny", description="edited by a person")
        assert log()[1]["null/fp32"].version == "1"

    def other_facts(self, summary, store, tmp_path):
        engine = builders.put_bytes(store, tmp_path, b"other", kind="engine", name="tiny")
        mine = dataclasses.replace(
            summary.variants[0],
            engine=Engine(sha256=engine.sha256, size_bytes=5, uri=engine.uri),
        )
        return dataclasses.replace(summary, variants=(mine,))

    def test_another_recipe_of_the_same_contract_says_whose_alias_it_took(
        self, log, summary, store, tmp_path, home
    ):
        first = log()
        others = self.other_facts(summary, store, tmp_path)
        theirs = owner("/b/recipe.yaml on two")
        _, registered = log(others, theirs, "other")
        assert registered["null/fp32"].version == "2"
        assert registered["null/fp32"].taken_from == "version 1 of /a/recipe.yaml on one"
        # The first does not go on saying that its own version is the candidate.
        assert "candidate-null-fp32 is on version 2, not on 1" in ask(summary, first, home)
        _, registered = log()
        assert registered["null/fp32"].taken_from == "version 2 of /b/recipe.yaml on two"

    def test_the_same_recipe_goes_on_in_silence_whatever_it_changes(
        self, log, summary, store, tmp_path
    ):
        log()
        others = self.other_facts(summary, store, tmp_path)
        _, registered = log(others, owner(labels=("cat", "dog", "cow")), "other")
        assert registered["null/fp32"].taken_from == ""

    def test_another_recipe_with_another_contract_is_refused_until_it_takes_over_knowingly(
        self, log, summary, home
    ):
        log()
        theirs = owner("/b/recipe.yaml on two", labels=("left", "right"))
        with pytest.raises(StoreError, match=r"is of /a/recipe\.yaml on one") as caught:
            log(mine=theirs, key="other")
        assert "delete the tag engineworks.recipe" in caught.value.hint
        mlflow = mlflow_log.client(home)
        assert str(mlflow.get_registered_model("tiny").aliases["candidate-null-fp32"]) == "1"
        mlflow.delete_registered_model_tag("tiny", ownership.RECIPE_TAG)
        log(mine=theirs, key="other")
        assert mlflow.get_registered_model("tiny").tags[ownership.RECIPE_TAG] == theirs.recipe
