"""Child runs on machines of the fleet: submitted, watched, gone on with after a crash, cancelled.

A machine is judged by its card in the store, which its worker writes again every 30 s: Prefect
calls a dead worker online for minutes. Deadlines are measured on one clock, this process's.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkQueueFilter,
    WorkQueueFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Cancelling, Scheduled

from artifacts import fleet
from artifacts.fleet import Row
from artifacts.store import s3
from engineworks.errors import StoreError
from engineworks.facts.host import RegisteredHost
from engineworks.plan import SILENT_S

log = logging.getLogger("engineworks.flow")

#: Times that a run which crashed or was cancelled is gone on with.
RESUMES = 3
POLL_S = 2.0
#: Seconds between two looks at the machines' cards.
CARDS_S = 10.0
#: Seconds that Prefect's server may be away. It is asked again every few seconds, not after
#: pauses that double, so that a short absence costs a short wait.
SERVER_S = 600.0
OFTEN = {PREFECT_CLIENT_MAX_RETRIES: 1}

AWAY = (httpx.TransportError, PrefectHTTPStatusError)


def _refused(error: Exception) -> bool:
    """Whether the server has understood and says no, which another try does not mend."""
    if not isinstance(error, PrefectHTTPStatusError):
        return False
    status = error.response.status_code
    return status < 500 and status not in (408, 429)


def long_ago() -> datetime:
    """When a run is due that shall begin now, also by the clock of a machine that is behind."""
    return datetime.now(timezone.utc) - timedelta(days=2)


def again() -> State[Any]:
    """The state of a run that any worker may take up now."""
    return Scheduled(name="AwaitingRetry", scheduled_time=long_ago())


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long machines are waited for."""

    start_s: float
    """A machine that is awake and idle has this long to begin with what it was given."""
    return_s: float
    """One that fell silent in the middle of a build has this long to come back."""


def patience() -> Patience:
    """ENGINEWORKS_START_S and ENGINEWORKS_RETURN_S, else 300 and 600 s."""
    return Patience(
        start_s=float(os.environ.get("ENGINEWORKS_START_S") or 300),
        return_s=float(os.environ.get("ENGINEWORKS_RETURN_S") or 600),
    )


@dataclass
class Child:
    """One order on its way to a row, or to a reason why there is none."""

    name: str
    """Of its variant."""
    host: str
    pool: str
    order: str
    row: Row | None = None
    pending: str = ""
    run_id: UUID | None = None
    refused: bool = False
    """Whether a row is there that does not hold any more."""
    begun: bool = False
    resumes: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    silent_since: float | None = None

    @property
    def open(self) -> bool:
        """Whether it may still come to a row."""
        return self.row is None and not self.pending


class FanOut:
    """The children of one run."""

    def __init__(
        self,
        bucket: s3.Bucket,
        children: list[Child],
        tag: str,
        on_row: Callable[[Child], None],
        flow: str = "build-target",
    ) -> None:
        self._flow = flow
        """Name of the flow that carries out an order; each pool has a deployment of it."""
        self._bucket = bucket
        self._children = children
        self._tag = tag
        self._on_row = on_row
        self._limits = patience()
        self._hosts: dict[str, RegisteredHost] = {}
        self._hosts_read = 0.0

    def carry_out(self) -> None:
        """Submit all and wait until each has a row or a reason; leave nothing queued behind."""
        with temporary_settings(OFTEN):
            try:
                self._wait()
            finally:
                self._cancel_leftovers()

    def _wait(self) -> None:
        answered = time.monotonic()
        while waiting := [child for child in self._children if child.open]:
            try:
                self._read_hosts()
                with get_client(sync_client=True) as client:
                    for child in waiting:
                        if child.run_id is None:
                            self._submit(child)
                        else:
                            self._look(client, child)
                answered = time.monotonic()
            except AWAY as error:
                if _refused(error):
                    raise
                log.warning("Prefect's server does not answer (%s)", type(error).__name__)
                if time.monotonic() - answered > SERVER_S:
                    raise StoreError(
                        f"Prefect's server did not answer for {SERVER_S:.0f} s",
                        hint="start it, then run again: finished variants are kept",
                    ) from error
            if any(child.open for child in waiting):
                time.sleep(POLL_S)

    def _submit(self, child: Child) -> None:
        for attempt in range(10_000):
            try:
                run: Any = run_deployment(
                    f"{self._flow}/{child.pool}",
                    parameters={
                        "order": child.order,
                        "variant": child.name,
                        "host": child.host,
                    },
                    timeout=0,
                    scheduled_time=long_ago(),
                    as_subflow=False,
                    work_queue_name=child.host,
                    tags=[self._tag],
                    # Two runs of one recipe at once share the build; one that ended without a
                    # row is not asked again.
                    idempotency_key=f"{child.order}:{child.host}:{attempt}",
                )
            except ObjectNotFound:
                child.pending = f"pool {child.pool} has no deployment {self._flow}: make deploy"
                return
            child.run_id = run.id
            if run.state.is_completed() and not child.refused:
                if self._take_row(child):  # another run of this recipe was quicker
                    return
                continue  # its row is lost: it is asked again
            if not run.state.is_final():
                child.idle_since = time.monotonic()
                return
        raise StoreError("no free key for a child run", hint="delete old runs in Prefect")

    def _read_hosts(self) -> None:
        if time.monotonic() - self._hosts_read > CARDS_S:
            self._hosts = {host.card.name: host for host in fleet.registered(self._bucket)}
            self._hosts_read = time.monotonic()

    def _look(self, client: Any, child: Child) -> None:
        run: FlowRun = client.read_flow_run(child.run_id)
        state = run.state
        if state is None:
            return
        if state.is_completed():
            if not self._take_row(child):
                self._ask_again(child)
        elif state.is_failed():
            message = (state.message or "").replace("Flow run encountered an exception: ", "")
            child.pending = f"{child.host}: {' '.join(message.split())[:400]}"
        elif state.is_crashed() or state.is_cancelled():
            self._resume(client, child, state.name or "gone")
        elif state.type == StateType.RUNNING:
            child.begun = True
            child.idle_since = time.monotonic()
            self._mind_silence(child)
        else:
            self._mind_waiting(client, child)

    def _take_row(self, child: Child) -> bool:
        """Whether the machine's answer lies in the store."""
        for row in fleet.rows(self._bucket, child.order):
            if row.host.name == child.host:
                child.row = row
                self._on_row(child)
                return True
        return False

    def _ask_again(self, child: Child) -> None:
        """An answer that was given and is not in the store (any more)."""
        if child.resumes >= RESUMES:
            child.pending = f"{child.host} ended without a row in the store"
            return
        child.resumes += 1
        log.warning("%s: its row is not in the store, asking again", child.name)
        self._submit(child)

    def _resume(self, client: Any, child: Child, word: str) -> None:
        if child.resumes >= RESUMES:
            child.pending = f"{child.host}: {word} {RESUMES + 1} times"
            return
        child.resumes += 1
        child.idle_since = time.monotonic()
        log.warning("%s: %s, going on", child.name, word)
        if word == "Cancelled":  # by another run that shared it and was stopped
            self._submit(child)
        else:
            client.set_flow_run_state(child.run_id, again(), force=True)

    def _silent(self, child: Child) -> str:
        host = self._hosts.get(child.host)
        if host is None:
            return f"no worker: {child.host} is not registered any more"
        if host.age_s > SILENT_S:
            return f"no worker: {host.card.name} was last heard of {host.age_s:.0f} s ago"
        return ""

    def _mind_silence(self, child: Child) -> None:
        """A machine that fell silent while it built may come back and go on."""
        reason = self._silent(child)
        if not reason:
            child.silent_since = None
            return
        child.silent_since = child.silent_since or time.monotonic()
        if time.monotonic() - child.silent_since > self._limits.return_s:
            child.pending = reason

    def _mind_waiting(self, client: Any, child: Child) -> None:
        """A run that has not begun: its machine may be busy, asleep or gone."""
        if child.begun:  # it was gone on with after a crash: the machine has time to return
            self._mind_silence(child)
        elif reason := self._silent(child):
            child.pending = reason
        if self._silent(child):
            child.idle_since = time.monotonic()  # it has time to begin once it is awake
        waited_s = time.monotonic() - child.idle_since
        if child.pending or waited_s < self._limits.start_s:
            return
        if self._busy(client, child.host):
            child.idle_since = time.monotonic()
        else:
            child.pending = f"no worker: {child.host} did not begin within {waited_s:.0f} s"

    def _busy(self, client: Any, host: str) -> bool:
        """Whether a machine is at work on something, ours or not."""
        running = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
            ),
            work_queue_filter=WorkQueueFilter(name=WorkQueueFilterName(any_=[host])),
            limit=1,
        )
        return bool(running)

    def _cancel_leftovers(self) -> None:
        """A queued run would begin whenever its machine appears, for nobody."""
        left = [child for child in self._children if child.run_id and child.row is None]
        if not left:
            return
        try:
            with get_client(sync_client=True) as client:
                for child in left:
                    assert child.run_id is not None  # noqa: S101 - see above
                    state = client.read_flow_run(child.run_id).state
                    if state is not None and not state.is_final():
                        running = state.type == StateType.RUNNING
                        end: Any = Cancelling() if running else Cancelled()
                        client.set_flow_run_state(child.run_id, end, force=True)
        except AWAY as error:
            log.warning("queued runs could not be cancelled (%s)", type(error).__name__)
