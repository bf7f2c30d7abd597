"""The set-up scripts and service files of machines, as far as they can be checked here."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from artifacts import prune_prefect
from flows.fleet import pools
from flows.fleet.queues import REGISTRY, SHIP

TOP = Path(__file__).parents[2] / "deployments"
SCRIPTS = sorted(TOP.rglob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(TOP)))
def test_scripts_are_sound(script):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert script.stat().st_mode & 0o100, "not executable"


def test_there_is_a_script_per_pool():
    names = pools.names()
    assert {path.parent.name for path in TOP.glob("*/setup.sh")} == set(names)
    listed = yaml.safe_load((TOP.parent / "prefect.yaml").read_text())["deployments"]
    assert {d["work_pool"]["name"] for d in listed} == set(names)


def test_runs_of_every_flow_are_pruned():
    flows = [path.read_text() for path in (TOP.parent / "flows").glob("*.py")]
    named = [name for text in flows for name in re.findall(r'@flow\(\s*name="([^"]+)"', text)]
    assert sorted(named) == sorted(prune_prefect.FLOWS)


def test_the_runs_that_plan_and_log_are_in_the_pool_whose_workers_do():
    listed = yaml.safe_load((TOP.parent / "prefect.yaml").read_text())["deployments"]
    queues = {(d["work_pool"]["name"], d["work_pool"].get("work_queue_name", "")) for d in listed}
    planning = {queue for pool, queue in queues if pool == pools.planning()} - {""}
    assert planning == {*SHIP, *REGISTRY}
    assert {pool for pool, queue in queues if queue} == {pools.planning()}
    assert [pool.name for pool in pools.pools() if pool.plans] == [pools.planning()]
    assert pools.plans(pools.planning())
    assert not pools.plans("a pool of somebody's own")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_unit_is_one_that_systemd_takes(tmp_path):
    text = (TOP / "engineworks-worker.service").read_text()
    filled = text.replace("@POOL@", "cpu").replace("@CHECKOUT@", "/tmp")
    unit = tmp_path / "engineworks-worker.service"
    unit.write_text(filled.replace("@HOME@/venv/bin/python", sys.executable).replace("@HOME@", "/"))
    assert not re.search("@[A-Z]+@", unit.read_text())
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Unknown" not in done.stderr


def test_the_agent_is_one_that_launchd_reads():
    text = (TOP / "mac" / "engineworks.worker.plist").read_bytes()
    agent = plistlib.loads(text.replace(b"@HOME@", b"/Users/me").replace(b"@CHECKOUT@", b"/opt/e"))
    assert agent["KeepAlive"] is True
    assert "flows.worker --pool mac" in agent["ProgramArguments"][-1]
