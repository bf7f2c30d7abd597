"""An MLflow that is away at the end of a run, by a server that comes and goes."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest

from artifacts.registry import mlflow_wait
from engineworks.errors import StoreError


class Server:
    """Answers /health with a status, while it runs."""

    def __init__(self, port=0, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self._server = http.server.HTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def mlflow(monkeypatch):
    made = Server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{made.port}")
    monkeypatch.setattr(mlflow_wait, "LOOK_S", 0.05)
    yield made
    made.stop()


def refused():
    raise StoreError("MLflow cannot be used", hint="start it")


def test_work_is_begun_anew_when_the_server_is_back(mlflow, tmp_path, monkeypatch):
    back, tries, told = [], [], []

    def work():
        tries.append(1)
        if len(tries) == 1:
            mlflow.stop()
        return "logged" if back else refused()

    def warning(text, *words):
        """It comes back when it was said to be away."""
        told.append(text % words)
        back.append(Server(mlflow.port))

    monkeypatch.setattr(mlflow_wait.log, "warning", warning)
    assert mlflow_wait.patiently(tmp_path, work) == "logged"
    back[0].stop()
    assert len(tries) == 2
    assert [words.count("does not answer, waiting up to") for words in told] == [1]


def test_an_error_of_a_server_that_answers_is_said_at_once(mlflow, tmp_path):
    with pytest.raises(StoreError, match="cannot be used"):
        mlflow_wait.patiently(tmp_path, refused)


def test_a_server_that_takes_connections_and_never_answers_is_not_asked(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("ENGINEWORKS_MLFLOW_PATIENCE_S", "0.1")
        monkeypatch.setattr(mlflow_wait, "HEALTH_S", 0.2)
        with pytest.raises(StoreError, match="did not answer for"):
            mlflow_wait.patiently(tmp_path, lambda: pytest.fail("it would wait for minutes"))


@pytest.mark.parametrize("patience", ["0.3", "0"])
def test_the_wait_has_an_end(mlflow, tmp_path, monkeypatch, patience):
    mlflow.stop()
    monkeypatch.setenv("ENGINEWORKS_MLFLOW_PATIENCE_S", patience)
    with pytest.raises(StoreError, match="did not answer for" if patience != "0" else "cannot"):
        mlflow_wait.patiently(tmp_path, refused)


@pytest.mark.parametrize(
    ("status", "is_away"),
    [(200, False), (401, False), (404, False), (500, False), (502, True), (503, True)],
)
def test_what_a_proxy_answers_for_a_server_that_is_away(status, is_away):
    server = Server(status=status)
    assert mlflow_wait.away(f"http://127.0.0.1:{server.port}") is is_away
    server.stop()


@pytest.mark.parametrize("uri", ["sqlite:////tmp/mlflow.db", "databricks", ""])
def test_what_is_no_server_is_not_waited_for(uri):
    assert not mlflow_wait.away(uri)
