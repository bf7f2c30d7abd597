"""How a machine of the fleet carries out an order: its card, its sign of life, its refusals.

Knows nothing of what the order asks; `build_target` and `time_engine` do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from prefect import runtime
from pydantic import Field

from artifacts import fleet
from artifacts.store.remote import RemoteStore
from engineworks import hosts
from engineworks.errors import StoreError
from engineworks.facts.host import HostCard
from engineworks.store import explain_os_error
from flows.fleet import elsewhere
from tasks import _run
from tasks._cache import checkout_sha256

#: Set by `flows.worker`: the name under which this machine is registered.
HOST_VARIABLE = "ENGINEWORKS_HOST"

T = TypeVar("T")


def this_machine() -> str:
    """The name under which this machine is known."""
    return os.environ.get(HOST_VARIABLE) or hosts.probe().name


#: Parameters of every flow that carries out an order, as Prefect's form shows them.
OrderDigest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Digest of the order.")]
RowName = Annotated[str, Field(description="Name of the row, for people.")]
HostName = Annotated[str, Field(description="The machine it is for, by its name.")]


@dataclass(frozen=True, kw_only=True)
class Assignment(Generic[T]):
    """An order on the machine that carries it out."""

    order: T
    store: RemoteStore
    card: HostCard


@contextmanager
def at_work(order: str, kind: type[T], host: str) -> Iterator[Assignment[T]]:
    """Take an order, and show a new worker of this machine that it is being carried out.

    Args:
        order: Its digest.
        kind: What it must be; has `checkout_sha256`.
        host: Name of this machine where its worker has not said it.

    Raises:
        ArtifactError: There is no such order.
        StoreError: There is no store that machines share, or the order is for another version.
    """
    with marked_as_running():
        store = elsewhere.shared(_run.open_home_store())
        asked = fleet.order(store.bucket, order, kind)
        if asked.checkout_sha256 != checkout_sha256():  # type: ignore[attr-defined]
            raise StoreError(
                "this machine's checkout is another version than the one that gave the order",
                hint="bring both to the same commit and start the worker again",
            )
        card = dataclasses.replace(hosts.probe(), name=os.environ.get(HOST_VARIABLE) or host)
        yield Assignment(order=asked, store=store, card=card)


@contextmanager
def marked_as_running() -> Iterator[None]:
    """Hold a lock that tells a new worker whether this run is still alive.

    Raises:
        StoreError: The state folder cannot be written.
    """
    path = running_file(_run.home(), str(runtime.flow_run.id or f"by-hand-{os.getpid()}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w")
    except OSError as error:
        raise explain_os_error(error, _run.home()) from error
    with stream:
        with contextlib.suppress(ImportError):  # Windows has no such locks, and no workers
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_file(home: Path, flow_run_id: str) -> Path:
    """The file that a running order of a machine keeps locked."""
    return home / "running" / flow_run_id
