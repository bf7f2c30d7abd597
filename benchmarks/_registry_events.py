"""From a tag that a person sets in MLflow to the run that it starts: every server is a real one."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from artifacts.registry.requests import ANSWER, REQUEST
from infra import postgres
from infra.ports import free_port

T = TypeVar("T")

TOP = Path(__file__).parents[1]
MODELS, EVENTS = 150, 5


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was measured."""

    created_s: list[float]
    """From the tag to the run in Prefect."""
    first_line_s: list[float]
    """From the tag to the flow's first line, on a worker that asks every 5 s."""
    repaired: int
    """Requests whose webhook was lost and that the next poll has found, of one."""
    poll_s: float
    """From the poll's start to the answer."""
    models: int


@contextlib.contextmanager
def _process(
    folder: Path, name: str, words: list[str], environment: Mapping[str, str]
) -> Iterator[Any]:
    with (folder / f"{name}.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=TOP,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[dict[str, str]]:
    """PostgreSQL for Prefect's server, where this machine has it, as `make stack` does."""
    if postgres.programs() is None:
        yield {}
        return
    folder.chmod(0o755)  # it runs as another user, where we are root
    port, password, data = free_port(), secrets.token_urlsafe(16), folder / "postgres"
    postgres.create(data, password)
    with (folder / "postgres.txt").open("wb") as log:
        process = subprocess.Popen(
            postgres.command(data, port), stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True, **postgres.account(),
        )  # fmt: skip
    try:
        _until(partial(_listens, port), "PostgreSQL")
        yield {"PREFECT_API_DATABASE_CONNECTION_URL": postgres.url(port, password)}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _listens(port: int) -> bool | None:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def _until(look: Callable[[], T | None], what: str, limit_s: float = 240.0) -> T:
    until = time.monotonic() + limit_s
    while True:
        with contextlib.suppress(OSError):
            found = look()
            if found is not None:
                return found
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: not within {limit_s:.0f} s")
        time.sleep(0.1)


def _answers(url: str) -> bool | None:
    with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - 127.0.0.1
        return True


def _run(words: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], env=dict(environment), cwd=TOP, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")


def run(folder: Path) -> Seen:
    """Start everything, set tags, and see what becomes of them."""
    from cryptography.fernet import Fernet

    prefect, mlflow, receiver = (free_port() for _ in range(3))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))},
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "ENGINEWORKS_WEBHOOK_SECRET": secrets.token_urlsafe(32),
        "ENGINEWORKS_HOME": str(folder / "home"),
        "ENGINEWORKS_CHECKOUT": str(TOP),
        "PREFECT_WORKER_QUERY_SECONDS": "5",
    }
    server = {k: v for k, v in environment.items() if k != "PREFECT_API_URL"}
    backend = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    backend += ["--artifacts-destination", str(folder / "files"), "--workers", "1"]
    with contextlib.ExitStack() as stack:
        server |= stack.enter_context(_database(folder))
        stack.enter_context(_process(
            folder, "prefect", ["prefect", "server", "start", "--port", str(prefect)], server
        ))  # fmt: skip
        stack.enter_context(_process(
            folder, "mlflow", ["mlflow", "server", "--port", str(mlflow), *backend], server
        ))  # fmt: skip
        _until(lambda: _answers(f"http://127.0.0.1:{prefect}/api/health"), "Prefect")
        _until(lambda: _answers(f"http://127.0.0.1:{mlflow}/health"), "MLflow")
        _run(["infra.deploy"], environment)
        listening = stack.enter_context(_process(
            folder, "receiver", ["flows.receiver", "--port", str(receiver)], environment
        ))  # fmt: skip
        address = f"http://127.0.0.1:{receiver}"
        _until(lambda: _answers(f"{address}/health"), "the receiver")
        _run(["flows.receiver", "--register", f"{address}/mlflow"], environment)
        words = ["prefect", "worker", "start", "--pool", "cpu", "--work-queue", "registry"]
        stack.enter_context(_process(folder, "worker", words, environment))
        return _measure(environment, listening)


def _measure(environment: Mapping[str, str], listening: Any) -> Seen:
    from mlflow import MlflowClient
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = environment["MLFLOW_TRACKING_URI"]
    mlflow = MlflowClient(uri, uri)
    for number in range(MODELS):
        mlflow.create_registered_model(f"model-{number:03d}")
        mlflow.create_model_version(f"model-{number:03d}", "s3://bucket/nothing")

    def ask(number: int) -> tuple[str, float]:
        name = f"model-{number:03d}"
        begun = time.time()
        mlflow.set_model_version_tag(name, "1", REQUEST, "promote")
        return name, begun

    def answered(name: str) -> bool | None:
        return ANSWER in mlflow.get_model_version(name, "1").tags or None

    created, first = [], []
    settings = temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]})
    with settings, get_client(sync_client=True) as client:

        def run_of(name: str) -> Any:
            runs = client.read_flow_runs(limit=50)
            return next((run for run in runs if run.parameters.get("model") == name), None)

        def begun_run(run: Any) -> Any:
            now = client.read_flow_run(run.id)
            return now if now.start_time else None

        def ended(run: Any) -> bool | None:
            now = client.read_flow_run(run.id)
            return (now.state is not None and now.state.is_final()) or None

        _until(lambda: client.read_workers_for_work_pool("cpu") or None, "the worker")
        for number in range(EVENTS):
            name, begun = ask(number)
            run = _until(partial(run_of, name), "the run")
            created.append(round(run.created.timestamp() - begun, 2))
            began = _until(partial(begun_run, run), "the flow's first line")
            first.append(round(began.start_time.timestamp() - begun, 2))
            _until(partial(answered, name), "the answer")
            _until(partial(ended, run), "the run's end")
        os.killpg(listening.pid, signal.SIGKILL)
        name, _ = ask(MODELS - 13)
        time.sleep(5)
        if run_of(name) is not None:
            raise RuntimeError("the webhook was not lost")
        begun = time.time()
        poll = client.read_deployment_by_name("poll/registry")
        client.create_flow_run_from_deployment(poll.id)
        repaired = _until(lambda: answered(name), "the answer after the poll")
    return Seen(
        created_s=created, first_line_s=first, repaired=int(repaired), models=MODELS,
        poll_s=round(time.time() - begun, 2),
    )  # fmt: skip
