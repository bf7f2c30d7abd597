"""`make deploy`, and the deployment `ship/cpu` through a real work pool and a real worker."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled

from artifacts.registry.webhook import RegistryEvent
from flows import promote, receiver
from flows.commands.outcome import Promotion
from flows.fleet import trigger
from flows.steps import deliver
from infra import automations, notices
from infra.automations import DEAD_RUNS
from tests.flows.conftest import ROOT
from tests.sinks import http_sink, smtp_sink

pytestmark = pytest.mark.flows

DEPLOYMENTS = ["benchmark/nightly",
               "build-target/cpu", "build-target/gpu", "build-target/jetson", "build-target/mac",
               "complete/fleet", "deliver/registry", "history/registry", "poll/registry",
               "promote/registry", "prune/weekly", "rollback/registry",
               "ship/cpu", "ship/fleet", "ship/registered",
               "time-engine/cpu", "time-engine/gpu", "time-engine/jetson", "time-engine/mac",
               ]  # fmt: skip


def asked_for(client):
    """Machines that ask for a run of `complete` share one, until it has begun or is gone."""

    def runs():
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[trigger.TAG]))
        found = client.read_flow_runs(flow_run_filter=tagged)
        return sorted(found, key=lambda run: run.created, reverse=True)

    assert "no worker of pool cpu" in trigger.obstacle()
    made = []
    for _ in range(5):
        assert trigger.ask() and trigger.ask()
        newest = runs()[0]
        made.append(newest.id)
        client.set_flow_run_state(newest.id, Cancelled(), force=True)
    assert [run.id for run in runs()] == made[::-1] and len(set(made)) == 5
    assert {run.work_queue_name for run in runs()} == {"registry"}


def started_by_events(client):
    """What the receiver tells becomes a run, by the automations that were just installed."""
    asked = {"promote": RegistryEvent(kind="promote", model="a{{b}}", version="7"),
             "ship": RegistryEvent(kind="ship", model="m", version="3", recipe="r.yaml"),
             "history": RegistryEvent(kind="moved", model="m")}  # fmt: skip
    wanted = {"promote": {"model": "a{{b}}", "version": "7", "asked": True},
              "ship": {"recipe": "r.yaml", "registered": "m/3", "fleet": False},
              "history": {"model": "m", "repair": True}}  # fmt: skip
    for event in asked.values():
        receiver.to_prefect(event)
    until = time.monotonic() + 30
    runs = {}
    while len(runs) < 3 and time.monotonic() < until:
        time.sleep(0.2)
        runs = {run.name.split("/")[0]: run for run in _made_by_automations(client)}
    assert {name: run.parameters for name, run in runs.items()} == wanted
    for run in runs.values():
        client.set_flow_run_state(run.id, Cancelled(), force=True)


def _made_by_automations(client):
    flows = {flow.id: flow.name for flow in client.read_flows()}
    made = [
        run
        for run in client.read_flow_runs()
        if run.created_by and run.created_by.type == "AUTOMATION"
    ]
    return [run.model_copy(update={"name": f"{flows[run.flow_id]}/{run.name}"}) for run in made]


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
        started_by_events(client)
    found = {d.name: d for d in known if "ship" in d.tags}
    nightly = next(d for d in known if d.name == "nightly")
    for deployment, cron in ((found["fleet"], "0 3 * * 0"), (nightly, "0 2 * * *")):
        (schedule,) = deployment.schedules
        assert (schedule.schedule.cron, schedule.schedule.timezone) == (cron, "Europe/Berlin")
        assert not schedule.active
    form = nightly.parameter_openapi_schema["properties"]
    assert form["stage"]["enum"] == ["champion", "candidate", "production"]
    assert form["model"]["description"] == "Name of one registered model; empty: all"
    assert form["slower_than"]["description"].startswith("Largest p50 now / p50 when registered")
    form = found["cpu"].parameter_openapi_schema["properties"]
    assert form["recipe"]["description"].startswith("Recipe file, relative to the checkout of")
    assert form["fleet"]["description"].startswith("Build every variant on a registered machine")
    assert form["overrides"]["description"] == "What is another than in the recipe, for this run."
    # One at a time by the queue: leases of a deployment's limit die with Prefect's server.
    assert found["cpu"].global_concurrency_limit is None
    with temporary_settings({PREFECT_API_URL: project.api}), get_client(sync_client=True) as client:
        queue = client.read_work_queue_by_name(found["cpu"].work_queue_name, work_pool_name="cpu")
    assert (queue.name, queue.concurrency_limit) == ("ship", 1)
    with pytest.raises(PrefectHTTPStatusError, match="409") as refused:
        ask(project.api, found["cpu"].id, {"recipe": "r.yaml", "flett": True})
    assert "'flett' was unexpected" in refused.value.response.text

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
        overrides = 'overrides={"budget": {"max_size_mib": 4096}}'
        python("prefect", "deployment", "run", "ship/cpu", "--watch", "-p", recipe, "-p", overrides)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    summary = project.home / "runs" / "latest" / "summary.json"
    assert summary.is_file(), log.read_text()[-3000:]
    assert '"verdict": "shipped"' in summary.read_text()
    assert json.loads(summary.read_text())["budget"]["max_size_mib"] == 4096


def ask(api, deployment_id, parameters):
    """Have a deployment run, as the Prefect UI does."""
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployment_id, parameters=parameters)


def test_what_people_changed_stays_and_is_said(project, tmp_path):
    environment = project.environment(PREFECT_HOME=str(tmp_path))

    def deploy(*words):
        done = subprocess.run(
            [sys.executable, "-m", "infra.deploy", *words], cwd=ROOT, env=environment,
            capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    deploy()
    with temporary_settings({PREFECT_API_URL: project.api}), get_client(sync_client=True) as client:
        there = client.read_deployment_by_name("ship/fleet")
        (schedule,) = there.schedules
        client.update_deployment_schedule(
            there.id, schedule.id, active=True,
            schedule=CronSchedule(cron="30 4 * * 1", timezone="Europe/Madrid"),
        )  # fmt: skip
        update = DeploymentUpdate(
            parameters={"recipe": "mine.yaml", "fleet": True}, tags=["mine"], paused=True
        )
        client.update_deployment(there.id, update)
        (automation,) = client.read_automations_by_name(DEAD_RUNS)
        slower = automation.trigger.model_copy(update={"within": timedelta(minutes=10)})
        kept = {name: getattr(automation, name) for name in ("name", "description", "actions")}
        client.update_automation(automation.id, AutomationCore(trigger=slower, **kept))
        client.pause_automation(automation.id)
        # As an earlier version left it: an open form, a limit of its own, a parameter that is gone.
        old = client.read_deployment_by_name("ship/cpu")
        form = {**old.parameter_openapi_schema, "additionalProperties": True}
        client.update_deployment(
            old.id,
            DeploymentUpdate(
                parameter_openapi_schema=form, parameters={**old.parameters, "gone": 1},
                concurrency_limit=1, work_pool_name="cpu", work_queue_name="default",
            ),
        )  # fmt: skip
        queued = ask(project.api, old.id, {"recipe": "r.yaml"})

        said = deploy("--dry-run")
        assert "gone" in client.read_deployment_by_name("ship/cpu").parameters  # only said
        assert deploy().endswith(said.replace("would be ", ""))
        for line in (
            "ship/fleet: would be kept: parameter recipe is mine.yaml "
            "(prefect.yaml: examples/yolox_nano/recipe.yaml)",
            "ship/fleet: would be kept: schedule weekly-rebuild is 30 4 * * 1 Europe/Madrid on "
            "(prefect.yaml: 0 3 * * 0 Europe/Berlin off)",
            "ship/fleet: would be kept: paused is True (prefect.yaml: False)",
            "ship/fleet: would be kept: tags is ['mine'] (prefect.yaml: ['fleet', 'ship'])",
            "ship/cpu: would be brought up to date: the form of its parameters, parameter gone, "
            "which its flow no longer has, goes, its limit of one run is its queue's now, "
            "its runs wait in the queue ship",
            f"automation {DEAD_RUNS!r}: would be kept: trigger",
        ):
            assert line in said.splitlines()
        there = client.read_deployment_by_name("ship/fleet")
        assert there.parameters == {"recipe": "mine.yaml", "fleet": True}
        assert (there.tags, there.paused) == (["mine"], True)
        (schedule,) = there.schedules
        assert (schedule.schedule.cron, schedule.active) == ("30 4 * * 1", True)
        (automation,) = client.read_automations_by_name(DEAD_RUNS)
        assert not automation.enabled
        assert automation.trigger.within == timedelta(minutes=10)
        old = client.read_deployment_by_name("ship/cpu")
        assert old.parameters == {"recipe": "examples/yolox_nano/recipe.yaml", "fleet": False}
        assert (old.work_queue_name, old.global_concurrency_limit) == ("ship", None)
        assert client.read_flow_run(queued.id).state.is_scheduled()  # what waited waits

        deploy("--reset", "ship/fleet", DEAD_RUNS)
        (automation,) = client.read_automations_by_name(DEAD_RUNS)
        assert automation.trigger.within == timedelta(seconds=90)
        there = client.read_deployment_by_name("ship/fleet")
        assert there.parameters["recipe"] == "examples/yolox_nano/recipe.yaml"
        assert not there.paused
        (schedule,) = there.schedules
        assert (schedule.schedule.cron, schedule.active) == ("0 3 * * 0", False)
        assert deploy("--dry-run") == "nothing would change\n"
        client.resume_automation(automation.id)


#: A module of each part, imported by the flow's process or by a stage's.
CLONED = ("flows/ship.py", "tasks/build.py", "artifacts/summary.py",
          "src/engineworks/recipe/load.py", "src/engineworks/targets/null.py")  # fmt: skip
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


def test_people_are_told_by_webhook_and_mail_where_a_sink_is_named(server, monkeypatch):
    posted, mailed = [], []
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setattr(promote, "get_run_logger", lambda: logging.getLogger("test"))
    with (
        http_sink(posted) as http, smtp_sink(mailed) as smtp,
        temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client,
    ):  # fmt: skip
        automations.install(client)
        assert not client.read_automations_by_name(notices.BY_MAIL)  # nobody has named a sink
        monkeypatch.setenv(notices.WEBHOOK, f"http://127.0.0.1:{http}/hook")
        monkeypatch.setenv(notices.MAIL, f"mailto://127.0.0.1:{smtp}?from=a@b.org&to=c@d.org")
        would = automations.install(client, dry_run=True)
        assert f"automation {notices.BY_MAIL!r}: would be new" in would
        said = automations.install(client)
        assert f"automation {notices.BY_WEBHOOK!r}: new" in said
        assert not any(
            "webhook of" in line or "mail" in line for line in automations.install(client)
        )
        promotion = Promotion(
            model="tiny", variant="openvino/int8", version="7", before="6", outcome="promoted",
            reason='in place of "6"\n{{ event.id }}',
        )  # fmt: skip
        unchanged = dataclasses.replace(promotion, outcome="unchanged")
        promote.state_of([unchanged, promotion], "ann")
        deliver.notice_failure("tiny", "openvino/int8", "7", "its keys are away")
        until = time.monotonic() + 60
        while (len(posted) < 2 or len(mailed) < 2) and time.monotonic() < until:
            time.sleep(0.1)
        for name in (notices.BY_MAIL, notices.BY_WEBHOOK):
            for automation in client.read_automations_by_name(name):
                client.delete_automation(automation.id)
    told = {one["event"]: one for one in posted}
    assert len(posted) == len(mailed) == 2
    assert told["engineworks.promoted"] == {
        "event": "engineworks.promoted", "model": "tiny", "variant": "openvino/int8",
        "version": "7", "what": "promoted", "reason": promotion.reason, "who": "ann",
    }  # fmt: skip
    assert told["engineworks.not-delivered"]["reason"] == "its keys are away"
    mail = next(text for text in mailed if "Subject: engineworks: tiny promoted" in text)
    assert "version 7: promoted" in mail and "by ann" in mail
    monkeypatch.setenv(notices.MAIL, "smtp.example.org")
    with pytest.raises(RuntimeError, match="must begin with mailtos:// or mailto://"):
        notices.by_events(dry_run=True)
