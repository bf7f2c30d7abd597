"""What people ask for by a tag in MLflow, on a real MLflow database."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import yaml
from prefect.exceptions import ObjectNotFound

from artifacts.registry import mlflow_log, requests, trained, webhook_setup
from engineworks.errors import ModelError, RecipeError, StoreError
from engineworks.export import sources
from flows.steps import registered
from flows.steps import requests as steps
from tests import builders


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_log.client(home).search_experiments()
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path, monkeypatch, database):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = tmp_path / "home"
    place.mkdir()
    shutil.copy(database, place)
    monkeypatch.setenv("ENGINEWORKS_HOME", str(place))
    return place


def version(home, model="tiny", source="s3://bucket/x", run_id=None, **tags):
    mlflow = mlflow_log.client(home)
    with contextlib.suppress(Exception):
        mlflow.create_registered_model(model)
    made = mlflow.create_model_version(model, source, run_id)
    for name, value in tags.items():
        mlflow.set_model_version_tag(model, made.version, f"engineworks.{name}", value)
    return str(made.version)


def tags(home, number, model="tiny"):
    return mlflow_log.client(home).get_model_version(model, number).tags


def test_requests_are_read_on_all_pages_and_answered_in_their_place(home, monkeypatch):
    monkeypatch.setattr(requests, "_PAGE", 2)
    for number in range(5):
        version(home, f"m{number}", request="promote")
    version(home, "other")
    asked = requests.waiting(home)
    assert [one.model for one in asked] == [f"m{number}" for number in range(5)]
    requests.answer(home, asked[0], "refused: " + "x" * 2000)
    there = tags(home, "1", "m0")
    assert "engineworks.request" not in there
    assert (
        there["engineworks.answer"].startswith("promote: refused: xx")
        and "..." in there["engineworks.answer"]
    )
    mlflow_log.client(home).set_model_version_tag("m0", "1", "engineworks.request", "promote")
    again = requests.of(home, "m0", "1")
    assert again.key != asked[0].key  # a later request is another one
    mlflow_log.client(home).set_model_version_tag("m0", "1", "engineworks.request", "ship r.yaml")
    requests.answer(home, again, "promoted")
    assert requests.of(home, "m0", "1").recipe == "r.yaml"  # what is asked meanwhile stays
    assert requests.of(home, "m0", "9") is None and requests.of(home, "nobody", "1") is None


@pytest.mark.parametrize(
    ("text", "kind", "recipe"),
    [("promote", "promote", ""), (" Promote ", "promote", ""),
     ("ship a/b c.yaml", "ship", "a/b c.yaml"),
     ("ship", "unknown", ""), ("promote now", "unknown", ""), ("rollback", "unknown", "")],
)  # fmt: skip
def test_the_words_of_a_request(text, kind, recipe):
    asked = requests.Request(model="m", version="1", text=text)
    assert (asked.kind, asked.recipe) == (kind, recipe)


class Prefect:
    """Runs by their keys; those of `ended` have ended."""

    def __init__(self):
        self.runs, self.known, self.ended = {}, {"promote/registry", "ship/registered"}, set()

    def read_deployment_by_name(self, name):
        if name not in self.known:
            raise ObjectNotFound(Exception(name))
        return SimpleNamespace(id=name)

    def create_flow_run_from_deployment(self, deployment, *, parameters, idempotency_key):
        run = self.runs.setdefault(idempotency_key, (deployment, parameters))
        final = idempotency_key in self.ended
        state = SimpleNamespace(name="Crashed", message="killed", is_final=lambda: final)
        return SimpleNamespace(name=f"run of {run[0]}", state=state)


@pytest.fixture
def prefect(monkeypatch):
    fake = Prefect()
    monkeypatch.setattr(steps, "get_client", lambda **_: contextlib.nullcontext(fake))
    return fake


def test_each_request_gets_one_run_and_an_answer_if_none_gives_one(home, prefect):
    asked = version(home, request="promote")
    network = version(home, request="ship r.yaml")
    wrong = version(home, request="do it")
    version(home, "other", request="promote")
    found = {one.version: one for one in steps.start_all("tiny")}
    assert [found[n].outcome for n in (asked, network, wrong)] == ["started", "started", "answered"]
    assert "not understood" in tags(home, wrong)["engineworks.answer"]
    steps.start_all("tiny")
    assert sorted(prefect.runs.values(), key=str) == [
        ("promote/registry", {"model": "tiny", "version": asked, "asked": True}),
        ("ship/registered", {"recipe": "r.yaml", "registered": f"tiny/{network}"}),
    ]
    for _ in range(3):  # each is killed, and the next look makes another one
        prefect.ended |= {*prefect.runs}
        found = {one.version: one for one in steps.start_all("tiny")}
    assert found[asked].outcome == "answered" and len(prefect.runs) == 6
    assert "3 runs ended without an answer" in tags(home, asked)["engineworks.answer"]
    assert steps.start_all("tiny") == []
    prefect.known.clear()
    assert "make deploy" in steps.start_all()[0].reason


def logged(home, files, mlmodel=None):
    """A version of a run's folder."""
    mlflow, folder = mlflow_log.client(home), home / "files"
    run = mlflow.create_run(mlflow.create_experiment("x", (home / "runs").as_uri()))
    folder.mkdir()
    for name, data in files.items():
        folder.joinpath(name).write_bytes(data)
    if mlmodel is not None:
        folder.joinpath("MLmodel").write_text(yaml.safe_dump({"flavors": mlmodel}))
    mlflow.log_artifacts(run.info.run_id, str(folder), "model")
    return version(home, source=f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)


def test_the_network_of_a_version_is_its_onnx_file_with_what_lies_beside(home, tmp_path):
    graph = builders.conv_net(tmp_path / "net.onnx")
    proto = onnx.load(str(graph))
    onnx.save(
        proto,
        str(tmp_path / "model.onnx"),
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    files = {name: (tmp_path / name).read_bytes() for name in ("model.onnx", "w.bin")}
    number = logged(home, files, {"onnx": {"data": "model.onnx"}, "python_function": {}})
    with trained.onnx_file(home, "tiny", number) as path:
        assert sources.file_digest(path, "onnx") == sources.file_digest(
            tmp_path / "model.onnx", "onnx"
        )
    assert not path.exists() and not list(home.glob("trained-*"))


PICKLE = b"cos\nsystem\n(S'touch /tmp/opened'\ntR."


@pytest.mark.parametrize(
    ("files", "mlmodel", "words"),
    [({"model.pth": PICKLE}, {"pytorch": {}, "python_function": {}}, "flavour pytorch .a pickle"),
     ({"model.pkl": PICKLE, "model.onnx": b"x"}, {"sklearn": {}}, "flavour sklearn"),
     ({"model.onnx": b"x"}, {"onnx": {"data": "../../model.onnx"}}, "1 ONNX files"),
     ({"a.onnx": b"x", "b.onnx": b"y"}, None, "2 ONNX files"),
     ({"a.txt": b"x"}, None, "0 ONNX files")],
)  # fmt: skip
def test_other_flavours_are_refused_by_name(home, files, mlmodel, words):
    number = logged(home, files, mlmodel)
    with pytest.raises(ModelError, match=words) as refused, trained.onnx_file(home, "tiny", number):
        pass
    assert "by hand" in refused.value.hint


@pytest.mark.parametrize("source", ["http://127.0.0.1:1/x", "/etc", "ftp://a/b"])
def test_sources_that_lead_elsewhere_are_not_read(home, source):
    number = version(home, source=source)
    with pytest.raises(ModelError, match="lies at"), trained.onnx_file(home, "tiny", number):
        pass


def test_the_recipe_is_the_workers_own(home, tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    monkeypatch.chdir(checkout)
    text = yaml.safe_dump({
        "name": "tiny", "targets": [{"target": "null"}],
        "model": {"source": "model:build", "weights": "w.pt", "input": {"size": [16, 16]}},
    })  # fmt: skip
    for place in (checkout / "r.yaml", tmp_path / "outside.yaml"):
        place.write_text(text)
    (checkout / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    graph = builders.conv_net(tmp_path / "net.onnx").read_bytes()
    number = logged(home, {"model.onnx": graph}, {"onnx": {"data": "model.onnx"}})
    digests = set()
    for _ in range(2):
        with registered.loaded("r.yaml", f"tiny/{number}") as loaded:
            spec = loaded.recipe.model
            assert spec.form == "onnx" and spec.weights is None
            assert Path(spec.source).read_bytes() == graph
            digests.add(loaded.sha256)
    assert len(digests) == 1
    for wrong in (str(checkout / "r.yaml"), "../outside.yaml", "link.yaml"):
        with (
            pytest.raises(RecipeError, match="outside the worker's checkout"),
            registered.loaded(wrong, f"tiny/{number}"),
        ):
            pass
    with pytest.raises(RecipeError, match="is not NAME/VERSION"):
        registered.parts("tiny")


def test_mlflow_is_told_once_where_to_send(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    with pytest.raises(StoreError, match="does not take the webhook") as refused:
        webhook_setup.register(home, "http://127.0.0.1:4400/mlflow", "x" * 32)
    assert "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS" in refused.value.hint
    assert "x" * 32 not in str(refused.value)
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    for port in (4400, 4401):
        webhook_setup.register(home, f"http://127.0.0.1:{port}/mlflow", f"{port}" * 8)
    [hook] = mlflow_log.client(home).list_webhooks()
    assert (hook.url, hook.name, len(hook.events)) == (
        "http://127.0.0.1:4401/mlflow", "engineworks", 4,
    )  # fmt: skip
