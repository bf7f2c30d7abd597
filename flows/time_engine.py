"""Time one shipped engine on the machine that it was built on.

Started by `benchmark` on the machine's own queue, so that nothing else of ours runs there; gets
the name of an order, leaves a row.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from artifacts import fleet
from engineworks import targets
from flows.fleet.machine import HostName, OrderDigest, RowName, at_work
from flows.fleet.timing import TimeOrder, carry_out, words
from tasks import _run


@flow(name="time-engine", flow_run_name="{variant} on {host}", validate_parameters=True)
def time_engine(
    order: OrderDigest,
    variant: RowName = "",
    host: HostName = "",
) -> State[Any]:
    """Carry out one order on this machine.

    Returns:
        Completed with the latency; the row lies in the store.

    Raises:
        EngineworksError: The store cannot be used, the order is for another version, or the
            engine cannot be fetched or opened.
    """
    began = time.time()
    with at_work(order, TimeOrder, host) as work:
        run = _run.open_run("time-engine", work.store)
        timed = carry_out(run, work.order, work.card)
        fleet.put_row(
            work.store.bucket,
            order,
            fleet.Row(
                host=work.card,
                tools=targets.tools(work.order.target),
                found=timed,
                stages=tuple(run.timings),
                wall_s=time.time() - began,
            ),
        )
    return Completed(message=words(timed))


__all__ = ["time_engine"]
