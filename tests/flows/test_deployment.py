"""`make deploy`, and the deployment `ship/cpu` through a real work pool and a real worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled

from flows import _trigger
from infra.deploy import DEAD_RUNS
from tests.flows.conftest import ROOT

pytestmark = pytest.mark.flows

DEPLOYMENTS = ["benchmark/nightly",
               "build-target/cpu", "build-target/gpu", "build-target/jetson", "build-target/mac",
               "complete/fleet", "ship/cpu", "ship/fleet",
               "time-engine/cpu", "time-engine/gpu", "time-engine/jetson", "time-engine/mac",
               ]  # fmt: skip


def asked_for(client):
    """Machines that ask for a run of `complete` share one, until it has begun or is gone."""

    def runs():
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[_trigger.TAG]))
        return client.read_flow_runs(flow_run_filter=tagged, sort="ID_DESC")

    assert "no worker of pool cpu" in _trigger.obstacle()
    made = []
    for _ in range(3):
        assert _trigger.ask() and _trigger.ask()
        newest = runs()[0]
        made.append(newest.id)
        client.set_flow_run_state(newest.id, Cancelled(), force=True)
    assert [run.id for run in runs()] == made[::-1] and len(set(made)) == 3
    assert {run.work_queue_name for run in runs()} == {_trigger.QUEUE}


def test_what_is_deployed_ships_through_a_worker_elsewhere(project, tmp_path_factory):
    environment = project.environment(PREFECT_HOME=str(tmp_path_factory.mktemp("worker")))

    def python(*words, timeout=180):
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert python("infra.deploy").split() == DEPLOYMENTS
    assert python("infra.deploy").split() == DEPLOYMENTS  # again at any time
    with temporary_settings({PREFECT_API_URL: project.api}), get_client(sync_client=True) as client:
        pools = Counter(pool.name for pool in client.read_work_pools())
        assert all(pools[name] == 1 for name in ("cpu", "gpu", "jetson", "mac"))
        assert len(client.read_automations_by_name(DEAD_RUNS)) == 1
        known = client.read_deployments()
        asked_for(client)
    found = {d.name: d for d in known if "ship" in d.tags}
    nightly = next(d for d in known if d.name == "nightly")
    for deployment, cron in ((found["fleet"], "0 3 * * 0"), (nightly, "0 2 * * *")):
        (schedule,) = deployment.schedules
        assert (schedule.schedule.cron, schedule.schedule.timezone) == (cron, "Europe/Berlin")
        assert not schedule.active
    form = nightly.parameter_openapi_schema["properties"]
    assert form["stage"]["enum"] == ["production", "candidate"]
    assert all(form[name]["description"] for name in ("model", "stage", "slower_than"))
    form = found["cpu"].parameter_openapi_schema["properties"]
    assert all(form[name]["description"] for name in ("recipe", "fleet"))
    assert found["cpu"].concurrency_limit == 1 or found["cpu"].global_concurrency_limit.limit == 1

    log = project.folder / "worker.txt"
    with log.open("wb") as stream:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu"],
            cwd=project.folder,  # not the checkout: the deployment must find it
            env={
                **environment,
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "ENGINEWORKS_CHECKOUT": str(ROOT),
            },
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        recipe = f"recipe={project.recipe}"
        python("prefect", "deployment", "run", "ship/cpu", "--watch", "-p", recipe)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    summary = project.home / "runs" / "latest" / "summary.json"
    assert summary.is_file(), log.read_text()[-3000:]
    assert '"verdict": "shipped"' in summary.read_text()
