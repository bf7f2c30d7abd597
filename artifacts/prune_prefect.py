"""What of Prefect's database may go: flow runs that ended long ago, with their tasks and states.

A run that some other one may still ask for has ended in the last hours; much more is kept.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from artifacts.store.prune_home import Item

PAGE = 200
#: Of these flows alone: others may share the server.
FLOWS = (
    *("ship", "complete", "benchmark", "prune", "build-target", "time-engine"),
    *("promote", "rollback", "history", "deliver", "poll"),
)


def plan(client: Any, days: float, last: int) -> list[Item]:
    """Flow runs that may go.

    Args:
        client: Prefect's, synchronous.
        days: For how long one must have ended.
        last: How many of the newest of every flow are kept in any case.
    """
    names = {flow.id: flow.name for flow in client.read_flows() if flow.name in FLOWS}
    kept: Counter[Any] = Counter()
    items = []
    before = datetime.now(timezone.utc) - timedelta(days=days)
    for run in _ended(client):
        if run.flow_id not in names:
            continue
        kept[run.flow_id] += 1
        if kept[run.flow_id] > last and run.end_time is not None and run.end_time < before:
            items.append(
                Item(
                    kind="Prefect run", name=f"{names[run.flow_id]} {run.name}", detail=str(run.id)
                )
            )
    return items


def _ended(client: Any) -> list[Any]:
    """All flow runs that have ended, the newest first."""
    runs: list[Any] = []
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
        end_time=FlowRunFilterEndTime(is_null_=False),
    )
    while True:
        page = client.read_flow_runs(
            flow_run_filter=ended, sort=FlowRunSort.END_TIME_DESC, limit=PAGE, offset=len(runs)
        )
        runs += page
        if len(page) < PAGE:
            return runs


def take(client: Any, items: list[Item]) -> list[Item]:
    """Remove flow runs; gives what has gone."""
    gone = []
    for item in items:
        try:
            run = client.read_flow_run(item.detail)
            if run.state is not None and run.state.is_final():  # nobody has begun it again
                client.delete_flow_run(item.detail)
                gone.append(item)
        except ObjectNotFound:
            continue
    return gone
