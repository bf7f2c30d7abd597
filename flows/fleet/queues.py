"""Queues of the work pools: which there are beside a machine's own, and how they are made.

A queue lets so many of its runs go on at the same time; Prefect keeps that in its database. (A
limit on a deployment is kept alive by leases in the server's memory, and a run is ended when the
server forgets them: it may be restarted at any time.)
"""

from __future__ import annotations

import contextlib
from typing import Any

#: Of the deployments that plan and wait; any worker of pool cpu serves them.
SHIP = ("ship", "ship-fleet")
#: Of those that log to MLflow; only workers of pool cpu that reach it serve them.
REGISTRY = ("registry", "nightly", "ship-registered")
#: Names that no machine may have: its own queue is called after it.
TAKEN = ("default", *SHIP, *REGISTRY)

#: Prefect's word for a run whose machine fell silent (`make deploy` installs what says it).
SILENCE_WORDS = "its heartbeats stopped"


def make_queue(client: Any, pool: str, name: str) -> None:
    """Make a queue of one run at a time; one that is there stays as it is."""
    from prefect.exceptions import ObjectAlreadyExists

    if name == "default":  # Prefect makes it with its pool, without a limit
        return
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_work_queue(name=name, work_pool_name=pool, concurrency_limit=1)


def limit_queue(client: Any, pool: str, name: str) -> None:
    """Let one run of a queue go on at a time."""
    queue = client.read_work_queue_by_name(name, work_pool_name=pool)
    client.update_work_queue(queue.id, concurrency_limit=1)
