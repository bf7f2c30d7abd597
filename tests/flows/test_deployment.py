"""The deployment `ship/cpu`, through a real work pool and a real worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.flows.conftest import ROOT

pytestmark = pytest.mark.flows


def test_a_worker_elsewhere_ships_by_deployment(project, tmp_path_factory):
    environment = project.environment(
        PREFECT_HOME=str(tmp_path_factory.mktemp("worker")), ENGINEWORKS_CHECKOUT=str(ROOT)
    )

    def prefect(*words, timeout=180):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("work-pool", "create", "cpu", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")
    log = project.folder / "worker.txt"
    with log.open("wb") as stream:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu"],
            cwd=project.folder,  # not the checkout: the deployment must find it
            env={**environment, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        prefect("deployment", "run", "ship/cpu", "--watch", "-p", f"recipe={project.recipe}")
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    summary = project.home / "runs" / "latest" / "summary.json"
    assert summary.is_file(), log.read_text()[-3000:]
    assert '"verdict": "shipped"' in summary.read_text()
