"""Runs that a worker of this machine left behind when it ended: their stages are kept, they go on.

A run keeps a file of the state folder locked while it lives (`_machine`), whatever queue it came
from. A file that nobody locks is of a run whose process is gone.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkQueueFilter,
    WorkQueueFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound

from flows.fleet.fanout import RESUMES, again
from flows.fleet.machine import running_file
from flows.fleet.queues import REGISTRY, SHIP, SILENCE_WORDS

log = logging.getLogger("engineworks.worker")

#: Prefect's worker writes its name onto the runs that it takes.
WORKER_LABEL = "prefect.worker.name"


def take_up(root: Path, machine: str) -> None:
    """Let everything that was left here go on.

    Args:
        root: State folder of this machine.
        machine: Its name, which its own queue has too.
    """
    with get_client(sync_client=True) as client:
        left = {run.id: run for run in (*_taken(client, machine), *_begun_here(client, root))}
        for run in left.values():
            if not _alive(running_file(root, str(run.id))):
                log.warning("%s was left by a worker that ended: it goes on", run.name)
                client.set_flow_run_state(run.id, again(), force=True)


def _taken(client: Any, machine: str) -> list[FlowRun]:
    """What goes on by the server's record and was taken by a worker of this name.

    Also before its flow has begun, and has locked a file.
    """
    runs: list[FlowRun] = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
            )
        ),
        work_queue_filter=WorkQueueFilter(
            name=WorkQueueFilterName(any_=[machine, *SHIP, *REGISTRY])
        ),
    )
    return [
        run
        for run in runs
        if run.work_queue_name == machine or run.labels.get(WORKER_LABEL) == machine
    ]


def _begun_here(client: Any, root: Path) -> Iterator[FlowRun]:
    """Runs of any queue whose file nobody locks; files of those that need nothing are removed."""
    for path in sorted(running_file(root, "any").parent.glob("*")):
        if _alive(path):
            continue
        run = _read(client, path.name)
        if run is not None and _was_left(run):
            yield run
        path.unlink(missing_ok=True)


def _read(client: Any, name: str) -> FlowRun | None:
    try:
        run: FlowRun = client.read_flow_run(UUID(name))
    except (ValueError, ObjectNotFound):  # a command's own run, or one of another server
        return None
    return run


def _was_left(run: FlowRun) -> bool:
    """Whether a run only lacks its process, and a worker would begin it again.

    One that a living worker has declared dead is not: its message says how it ended.
    """
    state = run.state
    if state is None or run.deployment_id is None or run.run_count > RESUMES:
        return False
    silent = state.is_crashed() and SILENCE_WORDS in (state.message or "")
    return silent or state.type in (StateType.RUNNING, StateType.PENDING)


def _alive(path: Path) -> bool:
    """Whether the process of a run still holds its lock."""
    try:
        with path.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
