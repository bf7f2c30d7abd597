"""One run's surroundings: its folder, its store, whoever watches it, and what it has spent.

Knows the state folder, ENGINEWORKS_HOME; no stage.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Protocol, TypeVar

from artifacts.store.remote import open_store
from artifacts.summary import StageTiming
from engineworks import locks
from engineworks.errors import StoreError
from engineworks.store import LocalStore, explain_os_error

log = logging.getLogger("engineworks.flow")

T = TypeVar("T")


def home() -> Path:
    """The state folder: ENGINEWORKS_HOME, else .engineworks in the working folder."""
    return Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks").absolute()


class Progress(Protocol):
    """Whoever shows a run while it runs."""

    def started(self, stage: str) -> None:
        """A stage begins."""

    def finished(self, stage: str, timing: StageTiming, note: str) -> None:
        """A stage ended well."""

    def failed(self, stage: str, reason: str) -> None:
        """A stage ended badly."""


class Silent:
    """Shows nothing: a worker's run is followed by its log lines and in the Prefect UI."""

    def started(self, stage: str) -> None:
        """See `Progress`."""

    def finished(self, stage: str, timing: StageTiming, note: str) -> None:
        """See `Progress`."""

    def failed(self, stage: str, reason: str) -> None:
        """See `Progress`."""


#: Set by the command line.
PROGRESS: ContextVar[Progress] = ContextVar("progress", default=Silent())  # noqa: B039


#: Where a run puts its folder when it is finished; a command sets a list of its own.
FINISHED: ContextVar[list[Path] | None] = ContextVar("finished", default=None)

#: `time.time()` at which a command began, so that imports and Prefect's start count as overhead.
STARTED: ContextVar[float | None] = ContextVar("started", default=None)


@dataclass
class Run:
    """One run of a flow: where it works, and what it has spent so far."""

    run_id: str
    folder: Path
    store: LocalStore
    timings: list[StageTiming] = field(default_factory=list)
    on_stage: Callable[[], None] = lambda: None
    """Called after every stage."""
    started: float = field(default_factory=lambda: STARTED.get() or time.time())
    """`time.time()` at which this run began."""
    elsewhere: list[StageTiming] = field(default_factory=list)
    """Stages that other machines ran for this run."""
    waited_s: float = 0.0
    """Seconds spent waiting for them."""
    lock: IO[str] | None = None
    """Held while the run lives."""

    @property
    def busy_s(self) -> float:
        """Seconds spent inside stages."""
        return sum(timing.elapsed_s for timing in self.timings)


#: A run of a small model writes about 50 MiB; below this it would only fail later.
LEAST_FREE_MIB = 100


def open_home_store() -> LocalStore:
    """The store of the state folder, with what the environment puts behind it."""
    return open_store(home() / "store")


def open_run(name: str, store: LocalStore | None = None) -> Run:
    """Make the run's folder.

    Args:
        name: What it is about: the end of its folder's name.
        store: Left out: `open_home_store`.

    Raises:
        StoreError: The state folder cannot be written, or its disk is nearly full.
    """
    root = home()
    free_mib = shutil.disk_usage(root if root.exists() else root.parent).free // 2**20
    if free_mib < LEAST_FREE_MIB:
        raise StoreError(
            f"the disk under {root} is nearly full: {free_mib} MiB free, a run needs at least "
            f"{LEAST_FREE_MIB}",
            hint="free space there or set ENGINEWORKS_HOME to another disk",
        )
    try:
        run_id, lock = _claimed(root, name)
    except OSError as error:
        raise explain_os_error(error, root) from error
    folder = root / "runs" / run_id
    return Run(run_id=run_id, folder=folder, store=store or open_home_store(), lock=lock)


def _claimed(root: Path, name: str) -> tuple[str, IO[str]]:
    """A name that no other run has, its folder, and a file that is locked while this process lives.

    Runs that begin within one millisecond have one stamp; the later one takes the next.
    """
    for place in ("running", "runs"):
        (root / place).mkdir(parents=True, exist_ok=True)
    while True:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")[:-3]
        run_id = f"{stamp}-{name}"
        stream = (root / "running" / run_id).open("w")
        if locks.attempt(stream):
            with contextlib.suppress(FileExistsError):
                (root / "runs" / run_id).mkdir()
                (root / "runs" / run_id / "logs").mkdir()
                return run_id, stream
        stream.close()
        time.sleep(0.001)
