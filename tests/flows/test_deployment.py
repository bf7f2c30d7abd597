"""`make deploy`, and the deployment `ship/cpu` through a real work pool and a real worker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import partial

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
        found = client.read_flow_runs(flow_run_filter=tagged)
        return sorted(found, key=lambda run: run.created, reverse=True)

    assert "no worker of pool cpu" in _trigger.obstacle()
    made = []
    for _ in range(5):
        assert _trigger.ask() and _trigger.ask()
        newest = runs()[0]
        made.append(newest.id)
        client.set_flow_run_state(newest.id, Cancelled(), force=True)
    assert [run.id for run in runs()] == made[::-1] and len(set(made)) == 5
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


#: A module of each part, imported by the flow's process or by a stage's.
CLONED = ("flows/ship.py", "tasks/build.py", "artifacts/summary.py",
          "src/engineworks/recipe.py", "src/engineworks/targets/null.py")  # fmt: skip
NOTE = """
import os as _os

with open(_os.environ["NOTES"], "a") as _notes:
    _notes.write("{name}\\n")
"""


@pytest.fixture
def repository(tmp_path):
    """A git repository of this checkout of which some modules note that they are used."""
    folder = tmp_path / "repository"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this checkout is no git repository")
    for name in listed.stdout.splitlines():
        wanted = name.startswith(("src/", "flows/", "tasks/", "artifacts/"))
        if wanted and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for name in CLONED:
        path = folder / name
        path.write_text(path.read_text() + NOTE.format(name=name))
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "another version"]):
        subprocess.run([*git, *words], cwd=folder, check=True, capture_output=True)
    return folder


def test_a_worker_clones_the_repository_and_uses_nothing_else(
    project, repository, tmp_path_factory
):
    home = tmp_path_factory.mktemp("worker")
    environment = project.environment(PREFECT_HOME=str(home), NOTES=str(home / "notes.txt"))
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, timeout=180)
    done = run([sys.executable, "-m", "infra.deploy", "--git", repository.as_uri()], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with (home / "worker.txt").open("wb") as stream:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu"], cwd=home,
            env={**environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}, stdout=stream,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        words = ["deployment", "run", "ship/cpu", "--watch", "-p", f"recipe={project.recipe}"]
        done = run([sys.executable, "-m", "prefect", *words], cwd=home)
        assert done.returncode == 0, done.stdout + (home / "worker.txt").read_text()[-3000:]
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        assert run([sys.executable, "-m", "infra.deploy"], cwd=ROOT).returncode == 0
    assert set((home / "notes.txt").read_text().split()) == set(CLONED)
