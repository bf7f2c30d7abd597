"""`make deploy`: work pools, deployments and the automation that notices dead runs.

May be run again at any time: what is there is brought up to date, nothing is doubled. Needs
PREFECT_API_URL.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).parents[1]
#: Name of the automation, by which it is found again.
DEAD_RUNS = "engineworks: a run whose heartbeats stop has crashed"
#: Workers let their runs send a heartbeat every 30 s.
SILENCE = timedelta(seconds=90)


def pools(client: Any) -> None:
    """Create the work pools that are missing."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    listed = yaml.safe_load((TOP / "deployments" / "pools.yaml").read_text(encoding="utf-8"))
    for name, description in listed.items():
        try:
            client.create_work_pool(
                WorkPoolCreate(name=name, type="process", description=description)
            )
        except ObjectAlreadyExists:
            continue


def deployments(git: str | None, branch: str | None) -> None:
    """Register what prefect.yaml lists."""
    # Set here, the checkout would be this machine's: workers must put in their own.
    environment = {k: v for k, v in os.environ.items() if k != "ENGINEWORKS_CHECKOUT"}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with tempfile.TemporaryDirectory() as work:
        if git:
            listed = yaml.safe_load((TOP / "prefect.yaml").read_text(encoding="utf-8"))
            listed["pull"] = _clone(git, branch)
            path = Path(work, "prefect.yaml")
            path.write_text(yaml.safe_dump(listed, sort_keys=False), encoding="utf-8")
            command += ["--prefect-file", str(path)]
        done = subprocess.run(
            command, cwd=TOP, env=environment, capture_output=True, text=True, timeout=300
        )
    if done.returncode:
        raise RuntimeError(f"prefect deploy failed:\n{(done.stdout + done.stderr)[-3000:]}")


def _clone(git: str, branch: str | None) -> list[dict[str, Any]]:
    step: dict[str, Any] = {"repository": git, "id": "clone"}
    if branch:
        step["branch"] = branch
    return [
        {"prefect.deployments.steps.git_clone": step},
        {"prefect.deployments.steps.set_working_directory": {"directory": "{{ clone.directory }}"}},
    ]


def automation(client: Any) -> None:
    """Install the automation that declares a silent run crashed; replace an older one."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    beat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{word}" for word in ("Completed", "Failed", "Cancelled", "Crashed")}
    wanted = AutomationCore(
        name=DEAD_RUNS,
        description="Installed by engineworks (make deploy).",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ends},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name=None, state=StateType.CRASHED, message="its heartbeats stopped", force=False
            )
        ],
    )
    for old in client.read_automations_by_name(DEAD_RUNS):
        client.delete_automation(old.id)
    client.create_automation(wanted)


def check(client: Any) -> list[str]:
    """Names of all deployments; the schema of their parameters must have come along."""
    found = []
    for deployment in client.read_deployments():
        flow = client.read_flow(deployment.flow_id)
        found.append(f"{flow.name}/{deployment.name}")
        if not (deployment.parameter_openapi_schema or {}).get("properties"):
            raise RuntimeError(f"{found[-1]} has no parameters: its entrypoint was not found")
    return sorted(found)


def main(arguments: list[str] | None = None) -> int:
    """Deploy; 0, or 3 when Prefect's server cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__)
    parser.add_argument("--git", metavar="URL", help="workers clone this instead of a checkout")
    parser.add_argument("--branch", help="branch or tag of --git")
    options = parser.parse_args(arguments)
    if "PREFECT_API_URL" not in os.environ:
        sys.stderr.write("PREFECT_API_URL is not set\n  next: set it to your Prefect server\n")
        return 3
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            pools(client)
            deployments(options.git, options.branch)
            automation(client)
            names = check(client)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write("\n".join(names) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
