"""Build, check, time and judge one variant on the machine that will run it.

Started by `ship --fleet` on the machine's work pool; gets the name of an order, leaves a row.
Everything else comes from the store and goes there: machines share no disk.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from artifacts import fleet
from artifacts.remote_store import RemoteStore
from engineworks import hosts, targets
from engineworks.errors import StoreError
from flows._order import Order, unpack
from flows._variant import ship_variant
from tasks import _run
from tasks._cache import checkout_sha256

#: Set by `flows.worker`: the name under which this machine is registered.
HOST_VARIABLE = "ENGINEWORKS_HOST"


@flow(name="build-target", flow_run_name="{variant} on {host}", validate_parameters=True)
def build_target(
    order: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Digest of the order.")],
    variant: Annotated[str, Field(description="Name of the row, for people.")] = "",
    host: Annotated[str, Field(description="The machine it is for, by its name.")] = "",
) -> State[Any]:
    """Carry out one order on this machine.

    Args:
        order: Digest of an order in the store.
        variant: Name of the row, for people.
        host: The machine it is for.

    Returns:
        Completed with the verdict; the row lies in the store.

    Raises:
        EngineworksError: The store cannot be used, the disk is full, or the order is for another
            version. What the variant itself does wrong is in its verdict.
    """
    began = time.time()
    with _marked_as_running():
        store = _run.open_home_store()
        if not isinstance(store, RemoteStore):
            raise StoreError(
                "this machine has no store in common with others",
                hint="set ENGINEWORKS_STORE=s3://bucket/prefix for its worker",
            )
        asked = fleet.order(store.bucket, order, Order)
        _refuse_other_code(asked)
        card = dataclasses.replace(hosts.probe(), name=os.environ.get(HOST_VARIABLE) or host)
        work = unpack(asked, store, card)
        run = _run.open_run(work.loaded.recipe.name, store)
        row = ship_variant(run, work.loaded, work.plan, work.planned, work.model, work.sized)
        fleet.put_row(
            store.bucket,
            order,
            fleet.Row(
                host=card,
                tools=targets.tools(asked.target),
                variant=dataclasses.replace(row, host=card),
                stages=tuple(run.timings),
                wall_s=time.time() - began,
            ),
        )
    get_run_logger().info("%s: %s, %s", row.name, row.verdict, row.reason)
    return Completed(message=f"{row.verdict}: {row.reason}"[:500])


def _refuse_other_code(asked: Order) -> None:
    if asked.checkout_sha256 != checkout_sha256():
        raise StoreError(
            "this machine's checkout is another version than the one that gave the order",
            hint="bring both to the same commit and start the worker again",
        )


@contextmanager
def _marked_as_running() -> Iterator[None]:
    """Hold a lock that tells a new worker whether this run is still alive."""
    path = running_file(str(runtime.flow_run.id or "by-hand"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_file(flow_run_id: str) -> Any:
    """The file that a running order of this machine keeps locked."""
    return _run.home() / "running" / flow_run_id


__all__ = ["build_target", "running_file"]
