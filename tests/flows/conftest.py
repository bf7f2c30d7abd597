"""Flow tests run the real command as a process of its own, against one real Prefect server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]

MODEL = """
import torch


class Net(torch.nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.head = torch.nn.Linear(8, classes)

    def forward(self, images):
        return self.head(torch.relu(self.conv(images)).mean((2, 3)))


def build(classes=4):
    return Net(classes)


def broken(**options):
    raise RuntimeError("the factory's own trouble")


def not_a_number():
    net = Net()
    torch.nn.init.constant_(net.head.bias, float("nan"))
    return net


class Stubborn(Net):
    def forward(self, images):
        seen = torch.from_numpy(images.detach().numpy().mean((1, 2, 3)))  # no exporter sees this
        return super().forward(images) * seen[:, None]


def stubborn():
    return Stubborn()
"""

RECIPE = """
name: tiny
model:
  source: model:build
  weights: weights.pt
  input: {size: [32, 32]}
export: {exporters: [legacy], simplify: false}  # the quick ones; one test tries them all
targets:
  - target: "null"
benchmark: {batches: [1, 2], seconds: 0.1}
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One Prefect server for all flow tests: (its API address)."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1"}
    environment["PREFECT_SERVER_API_HOST"] = "127.0.0.1"
    environment.pop("PREFECT_API_URL", None)
    with (home / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, (home / "log.txt").read_text()[-3000:]
                assert time.monotonic() < until, "the Prefect server did not start"
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass
class Outcome:
    code: int
    out: str
    err: str
    home: Path

    @property
    def summary(self) -> dict:
        return json.loads((self.home / "runs" / "latest" / "summary.json").read_text())

    @property
    def executed(self) -> set[str]:
        return {stage["name"] for stage in self.summary["stages"] if not stage["cached"]}

    def variant(self, name: str) -> dict:
        return next(v for v in self.summary["variants"] if v["name"] == name)


class Project:
    """A recipe folder and a state folder, and the command run on them."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        self.home = folder / "state"
        self.api = api
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(RECIPE)
        (folder / "model.py").write_text(MODEL)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "flows.ship", str(self.recipe), *words]

    def environment(self, **extra: str) -> dict[str, str]:
        # What other tests of this process have set for Prefect is none of this project's.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment = {**inherited, "ENGINEWORKS_HOME": str(self.home), **extra}
        if self.api:
            environment["PREFECT_API_URL"] = self.api
        return environment

    def ship(self, *words: str, **extra: str) -> Outcome:
        done = subprocess.run(
            self.command(*words),
            cwd=ROOT,
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=600,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, self.home)

    def edit(self, old: str, new: str) -> None:
        text = self.recipe.read_text()
        assert old in text
        self.recipe.write_text(text.replace(old, new, 1))

    def engines(self) -> list[Path]:
        """Engine artifacts in the store."""
        manifests = (self.home / "store").glob("??/*/manifest.json")
        return [p.parent for p in manifests if json.loads(p.read_text())["kind"] == "engine"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A state_dict of the tiny model."""
    import torch

    torch.manual_seed(0)
    scope: dict = {}
    exec(MODEL, scope)  # noqa: S102 - our own text above
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(scope["build"]().state_dict(), path)
    return path


@pytest.fixture
def fresh(tmp_path, server, weights):
    """A project whose state folder is not there yet."""
    made = Project(tmp_path, server)
    (tmp_path / "weights.pt").write_bytes(weights.read_bytes())
    return made


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory):
    """A database as MLflow makes it, with nothing in it: its migrations take seconds each time."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def project(fresh, empty_mlflow):
    """A project on a machine that has used MLflow before."""
    fresh.home.mkdir()
    shutil.copy(empty_mlflow, fresh.home)
    return fresh


@pytest.fixture(scope="session")
def first_home(tmp_path_factory, server, weights, empty_mlflow):
    """The state folder after the recipe was shipped once."""
    made = Project(tmp_path_factory.mktemp("first"), server)
    (made.folder / "weights.pt").write_bytes(weights.read_bytes())
    made.home.mkdir()
    shutil.copy(empty_mlflow, made.home)
    outcome = made.ship()
    assert outcome.code == 0, outcome.err
    return made.home


@pytest.fixture
def prepared(project, first_home):
    """A project whose first run finds every stage but the last in the cache.

    For tests of what comes after a first run, which need not build, check and time again.
    """
    shutil.copytree(first_home / "store", project.home / "store")
    results = project.home / "prefect" / "storage"
    results.mkdir(parents=True)
    for path in (first_home / "prefect" / "storage").iterdir():
        text = path.read_text()
        if "tracking_uri" not in text:  # that is the last one, which speaks of that folder's MLflow
            results.joinpath(path.name).write_text(text.replace(str(first_home), str(project.home)))
    return project
