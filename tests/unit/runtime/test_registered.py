"""Registered engines are opened by name, from a real MLflow server and a real S3 server."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest

from artifacts.registry import flavour
from engineworks import runtime
from engineworks.cli import main
from engineworks.errors import ArtifactError, StoreError
from engineworks.runtime import fetching, registered
from engineworks.store import LocalStore
from infra.ports import free_port
from tests import builders


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    onnx = builders.conv_net(folder / "net.onnx")
    return builders.put_engine(LocalStore(folder / "store"), onnx, name="tiny")


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """A real server on a database and a folder of its own; its address."""
    home, port = tmp_path_factory.mktemp("mlflow"), free_port()
    address = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--workers", "1"]
    words += ["--artifacts-destination", str(home / "artifacts")]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urlopen(f"{address}/health").read()
                break
            except (URLError, OSError):
                assert process.poll() is None, (home / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.fixture(scope="module")
def versions(mlflow_server, engine):
    """Version 1 as `ship` registers it; 2 is withdrawn, 3 has no tag, 4 that of other bytes."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server, mlflow_server)
    run = client.create_run("0").info.run_id
    client.log_artifacts(run, engine.uri, "engines/a")
    client.create_registered_model("tiny")
    right = {"sha256": engine.sha256, "verdict": "shipped"}
    for tags in (right, {**right, "verdict": "rejected"}, {}, {**right, "sha256": "0" * 64}):
        client.create_model_version("tiny", f"runs:/{run}/engines/a", run, tags=tags)
    client.set_registered_model_alias("tiny", "champion-onnxruntime-cpu-fp32", "1")
    flavour.add(client, run, "engines/a")
    return mlflow_server


@pytest.fixture
def home(versions, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", versions)
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    "address", ["models:/tiny@champion-onnxruntime-cpu-fp32", "models:/tiny/1"]
)
def test_a_registered_engine_is_opened_by_name(home, engine, address):
    image = np.zeros((1, 3, 16, 16), np.float32)
    with runtime.open(engine.uri) as known, runtime.open(address, sha256=engine.sha256) as session:
        wanted = known.infer({"images": image})["scores"].copy()
        assert np.array_equal(session.infer({"images": image})["scores"], wanted)
        assert session.manifest.sha256 == engine.sha256


def test_mlflow_itself_loads_it_from_the_server_and_says_what_was_withdrawn(home, engine, caplog):
    """Here the engine has no head that fits its outputs: its raw tensors are asked for."""
    import mlflow

    image = np.random.default_rng(0).random((1, 3, 16, 16)).astype(np.float32)
    with runtime.open(engine.uri) as session:
        wanted = session.infer({"images": image})["scores"].copy()
    for address, said in (
        ("models:/tiny@champion-onnxruntime-cpu-fp32", ""), ("models:/tiny/2", "is rejected"),
    ):  # fmt: skip
        caplog.clear()
        loaded = mlflow.pyfunc.load_model(address).get_raw_model()
        assert np.array_equal(loaded.infer({"images": image})["scores"], wanted)
        assert ("was withdrawn" in caplog.text) == bool(said) and said in caplog.text
    with pytest.raises(ArtifactError, match="holds artifact .*, not 0000"):
        mlflow.pyfunc.load_model("models:/tiny/4")  # its tag is that of other bytes


def test_it_is_fetched_once(home, monkeypatch):
    folder = registered.fetch("models:/tiny/1")
    assert folder.is_relative_to(home / "home" / "store")

    def never(*_):
        raise AssertionError("fetched again")

    monkeypatch.setattr(registered._RunFolder, "read", never)
    assert registered.fetch("models:/tiny@champion-onnxruntime-cpu-fp32") == folder


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("models:/tiny/2", ArtifactError, "is rejected: it was withdrawn"),
        ("models:/tiny/3", ArtifactError, "no tag sha256"),
        ("models:/tiny/4", ArtifactError, "what was fetched is artifact"),
        ("models:/tiny/9", StoreError, "404"),
        ("models:/tiny@gone", StoreError, "gone"),
        ("models:/tiny", ArtifactError, "names no registered version"),
        ("models:/../secret/1", ArtifactError, "names no registered version"),
    ],
)
def test_what_is_not_to_be_opened_is_refused_by_name(home, address, kind, words):
    with pytest.raises(kind, match=words):
        runtime.open(address)
    assert not list((home / "home").rglob("*.onnx"))


def test_another_identity_than_the_callers_is_refused(home):
    with pytest.raises(ArtifactError, match="the alias has moved on|not 1111"):
        runtime.open("models:/tiny/1", sha256="1" * 64)


def test_without_a_server_it_says_what_to_set(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(ArtifactError, match="MLFLOW_TRACKING_URI names none"):
        runtime.open("models:/tiny/1")


def test_pull_writes_a_whole_folder_or_none(home, engine, capsys):
    target = home / "out" / "engine"
    assert main(["pull", "tiny@champion-onnxruntime-cpu-fp32", "-o", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == engine.sha256
    assert {path.name for path in target.iterdir()} == {"manifest.json", "model.onnx"}
    assert main(["verify", str(target), "--sha256", engine.sha256]) == 0
    (target / "model.onnx").write_bytes(b"altered")
    assert main(["pull", "tiny/1", "-o", str(target)]) == 2
    assert main(["pull", "tiny/4", "-o", str(home / "out" / "other")]) == 2
    assert [path.name for path in (home / "out").iterdir()] == ["engine"]


def test_credentials_are_sent_and_never_printed_and_stay_with_the_server(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s%40cret@127.0.0.1:9")
    http = registered.server()
    assert http.base == "http://127.0.0.1:9"
    assert http.headers == {"Authorization": "Basic YW5uOnNAY3JldA=="}  # ann:s@cret
    with pytest.raises(StoreError) as refused:
        runtime.open("models:/tiny/1")
    assert "cret" not in str(refused.value)
    with pytest.raises(StoreError, match="sends us to"):
        from urllib.request import Request

        fetching._Staying().redirect_request(
            Request("http://here/a"), None, 302, "", {}, "http://elsewhere/a"
        )


def test_an_engine_in_a_bucket_is_opened_by_the_name_of_its_folder(
    s3_server, engine, tmp_path, monkeypatch
):
    import boto3

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "home"))
    client = boto3.client("s3")
    for path in Path(engine.uri).iterdir():
        for folder in (engine.sha256, "plain", "0" * 64):
            client.upload_file(str(path), s3_server.bucket, f"there/{folder}/{path.name}")
    with runtime.open(f"s3://{s3_server.bucket}/there/{engine.sha256}") as session:
        assert session.manifest.sha256 == engine.sha256
    with pytest.raises(ArtifactError, match="nothing says which engine"):
        runtime.open(f"s3://{s3_server.bucket}/there/plain")
    with runtime.open(f"s3://{s3_server.bucket}/there/plain", sha256=engine.sha256):
        pass
    with pytest.raises(ArtifactError, match="what was fetched is artifact"):
        runtime.open(f"s3://{s3_server.bucket}/there/{'0' * 64}")
    with pytest.raises(StoreError, match="NoSuchKey"):
        runtime.open(f"s3://{s3_server.bucket}/nowhere", sha256="2" * 64)


def test_a_server_that_drips_bytes_is_given_up(monkeypatch):
    """Each byte comes within its patience, the whole would take days."""
    now = [0.0]
    monkeypatch.setattr(fetching.time, "monotonic", lambda: now[0])

    class Drip:
        def read1(self, _):
            now[0] += 5.0
            return b" "

    with pytest.raises(StoreError, match="0 bytes a second, too few"):
        for _ in fetching._paced(Drip(), "http://server"):
            pass
    assert 30 < now[0] < 60


def _serving(answer):
    """A server that says these bytes, slowly or not, and nothing else; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk():
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                for part in answer:
                    connection.sendall(part)

    threading.Thread(target=talk, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def _drips(text):
    for _ in range(1000):
        yield text
        time.sleep(0.05)


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: _drips(b"H"), "does not answer"),
        (lambda: itertools.chain([HEAD], _drips(b"0")), "does not answer"),
        (lambda: iter([b"SSH-2.0-OpenSSH_9.6\r\n"]), "does not answer"),
        (lambda: iter([HEAD, b"5\r\nab"]), "does not answer"),
    ],
)
def test_whatever_answers_there_is_an_end_and_words_of_ours(monkeypatch, answer, words):
    monkeypatch.setattr(fetching, "_PATIENCE_S", 0.2)
    listener, url = _serving(answer())
    with listener, pytest.raises(StoreError, match=words):
        list(fetching.Http(base=url).get("/x"))
