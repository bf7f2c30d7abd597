"""Build, check, time and judge one variant on the machine that will run it.

Started by `ship --fleet` on the machine's work pool; gets the name of an order, leaves a row.
Everything else comes from the store and goes there: machines share no disk.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from artifacts import fleet
from flows.fleet.machine import HostName, OrderDigest, RowName, at_work
from flows.fleet.order import Order, take
from flows.steps.variant import ship_variant


@flow(name="build-target", flow_run_name="{variant} on {host}", validate_parameters=True)
def build_target(
    order: OrderDigest,
    variant: RowName = "",
    host: HostName = "",
) -> State[Any]:
    """Carry out one order on this machine.

    Returns:
        Completed with the verdict; the row lies in the store.

    Raises:
        EngineworksError: The store cannot be used, the disk is full, or the order is for another
            version. What the variant itself does wrong is in its verdict.
    """
    began = time.time()
    with at_work(order, Order, host) as work:
        job, prepared = take(work.order, work.store, work.card)
        outcome = dataclasses.replace(ship_variant(job, prepared), host=work.card)
        fleet.put_row(
            work.store.bucket,
            order,
            fleet.Row(
                host=work.card,
                tools=job.tools,
                found=outcome,
                stages=tuple(job.run.timings),
                wall_s=time.time() - began,
            ),
        )
    verdict = outcome.verdict
    get_run_logger().info("%s: %s, %s", outcome.planned.name, verdict.verdict, verdict.reason)
    return Completed(message=f"{verdict.verdict}: {verdict.reason}"[:500])


__all__ = ["build_target"]
