"""`engineworks prune` on what real runs have left, and that the next run is none the worse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from artifacts import prune_prefect
from engineworks.store import LocalStore
from tests.flows.conftest import ROOT

pytestmark = pytest.mark.flows

OLD = time.time() - 3 * 24 * 3600


def test_what_a_version_or_the_last_run_needs_stays(project):
    shipped = project.ship()
    assert shipped.code == 0, shipped.err
    project.edit("name: tiny", "name: tiny\nbudget: {max_size_mib: 0.000001}")
    project.edit("legacy", "dynamo")
    rejected = project.ship()
    assert rejected.code == 1, rejected.err
    project.edit("0.000001", "100")
    project.edit("dynamo", "legacy")
    last = project.ship()
    assert last.code == 0, last.err
    for path in project.home.rglob("*"):
        os.utime(path, (OLD, OLD), follow_symlinks=False)

    def prune(*words):
        done = subprocess.run(
            [sys.executable, "-m", "engineworks.cli", "prune", "--json", "--last", "1", *words],
            cwd=ROOT, env=project.environment(ENGINEWORKS_HOME=str(project.home)),
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    store = LocalStore(project.home / "store")
    before = sorted(path.name for path in store.root.glob("??/*"))
    said = prune()
    assert {item["kind"] for item in said} >= {"run", "artifact", "stage result"}
    assert sorted(path.name for path in store.root.glob("??/*")) == before  # only said
    gone = prune("--apply")
    assert {(item["kind"], item["name"]) for item in gone} == {
        (item["kind"], item["name"]) for item in said
    }
    assert prune() == []
    (variant,) = last.summary["variants"]
    store.open(store.get(variant["engine"]["sha256"]))
    assert [path.name for path in (project.home / "runs").glob("2*")] == [last.summary["run_id"]]
    again = project.ship()
    assert again.code == 0 and again.executed == set(), again.err
    project.edit("legacy", "dynamo")  # what went is made again
    assert project.ship().code == 0

    with temporary_settings({PREFECT_API_URL: project.api}), get_client(sync_client=True) as client:
        kept = prune_prefect.plan(client, 0, 1)
        # The server is shared with other tests of this process, whose runs may be of other flows.
        assert "ship" in {item.name.split()[0] for item in kept}
        assert prune_prefect.take(client, kept) == kept
        assert prune_prefect.plan(client, 0, 1) == []
        assert prune_prefect.plan(client, 1, 1) == []
