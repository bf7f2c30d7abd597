"""Asks Prefect for a run of `complete`, once for all that ask at the same time.

Knows Prefect's deployments and run states, nothing of what waits.
"""

from __future__ import annotations

import logging
from datetime import datetime

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType, WorkQueueStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.fleet.fanout import long_ago

log = logging.getLogger("engineworks.flow")

DEPLOYMENT = "complete/fleet"
#: Tells runs that machines asked for from those that a person started for one model.
TAG = "machine-is-back"
#: Runs among which the newest is looked for: machines' clocks may differ.
RECENT = 100


def obstacle() -> str:
    """Why nothing would be completed by itself, with the next step; empty when it would."""
    with get_client(sync_client=True) as client:
        try:
            there = client.read_deployment_by_name(DEPLOYMENT)
            pool, name = there.work_pool_name, there.work_queue_name or "default"
            # Only workers that reach MLflow serve it.
            queue = client.read_work_queue_by_name(name, work_pool_name=pool)
        except ObjectNotFound:
            return f"there is no deployment {DEPLOYMENT}: make deploy"
    if queue.status != WorkQueueStatus.READY:
        return f"no worker of pool {pool} has MLFLOW_TRACKING_URI and the package mlflow"
    return ""


def _made(run: FlowRun) -> datetime:
    """When a run was made, by the server's clock. Its id says nothing of that."""
    assert run.created is not None  # noqa: S101 - it comes from the server
    return run.created


def ask() -> bool:
    """Queue a run, unless one is queued that has not begun.

    Call it after the own card is written. All that see the same newest run give their run the same
    key, so it is one run; and it begins after each of them has looked, so it sees all their cards.

    Returns:
        False when there is no such deployment.
    """
    with get_client(sync_client=True) as client:
        recent = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,  # by the clocks of those that asked
            limit=RECENT,
        )
    newest = max(recent, key=_made, default=None)
    if newest is not None and newest.state_type == StateType.SCHEDULED:
        return True
    after = newest.id if newest is not None else "none"
    try:
        run_deployment(
            DEPLOYMENT,
            timeout=0,
            scheduled_time=long_ago(),
            as_subflow=False,
            tags=[TAG],
            idempotency_key=f"{TAG}:after:{after}",
        )
    except ObjectNotFound:
        return False
    return True
