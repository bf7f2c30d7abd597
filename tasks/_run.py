"""One run's surroundings: folders, store, progress, and how a stage's task is called.

Knows Prefect's task states and the state folder (DESIGN: ENGINEWORKS_HOME); no stage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from prefect import get_run_logger
from prefect.utilities.annotations import quote

from artifacts.store.remote import open_store
from artifacts.summary import StageTiming
from engineworks import userfiles
from engineworks.codec import from_json
from engineworks.errors import ArtifactError, StoreError
from engineworks.manifest import Artifact
from engineworks.store import LocalStore, disk_error, explain_os_error

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
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    run_id = f"{stamp}-{name}"
    folder = root / "runs" / run_id
    try:
        lock = _running(root / "running" / run_id)
        (folder / "logs").mkdir(parents=True)
    except OSError as error:
        raise explain_os_error(error, root) from error
    return Run(run_id=run_id, folder=folder, store=store or open_home_store(), lock=lock)


def _running(path: Path) -> IO[str]:
    """A file that is locked while this process lives: the run's folder is in use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("w")
    with contextlib.suppress(ImportError):  # Windows has no such locks
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def call(
    run: Run,
    task: Any,
    request: Any,
    kind: type[T],
    *,
    limit_s: float,
    variant: str = "",
    note: Callable[[T], str] | None = None,
    valid: Callable[[T], bool] | None = None,
) -> T:
    """Call a stage's task, from the cache when nothing it depends on has changed.

    A cached value whose artifacts are gone from the store, or damaged there, is made anew. With a
    store on S3, what the stage needs is fetched before, and what it made is sent after it.

    Args:
        run: The run.
        task: The Prefect task of the stage; its name is the stage's.
        request: The stage's request.
        kind: The stage's value.
        limit_s: Time limit in seconds.
        variant: Row of the table that this call belongs to; with a size for further sizes.
        note: A few words about the value for the progress line.
        valid: Whether a cached value still holds; else the stage runs again.

    Returns:
        The stage's value.

    Raises:
        EngineworksError: What the stage raised.
    """
    label = f"{task.name} {variant}".strip()
    folder = run.folder / "logs" / label.replace("/", "-").replace(" ", "_")
    progress = PROGRESS.get()
    progress.started(label)
    begun = time.perf_counter()
    try:
        for artifact in _artifacts(request):
            run.store.fetch(artifact.sha256)
        # Quoted: Prefect would search every nested value of the request for futures.
        state = task(quote(request), str(folder), limit_s, return_state=True)
        outcome = state.result()
        value = from_json(kind, outcome["value"])
        fresh = (
            _intact(run.store, value)
            and _unaltered(outcome.get("read", {}))
            and (valid is None or valid(value))
        )
        if state.name == "Cached" and not fresh:
            again = task.with_options(refresh_cache=True)
            state = again(quote(request), str(folder), limit_s, return_state=True)
            outcome = state.result()
            value = from_json(kind, outcome["value"])
        for artifact in _artifacts(value):
            run.store.push(artifact)
    except Exception as error:
        reason = getattr(error, "message", str(error))
        get_run_logger().error("%s failed: %s", label, reason)
        progress.failed(label, reason)
        full = disk_error(error, home())
        if full is not None:
            raise full from error
        raise
    cached = state.name == "Cached"
    timing = StageTiming(
        name=task.name,
        variant=variant,
        elapsed_s=0.0 if cached else min(outcome["elapsed_s"], time.perf_counter() - begun),
        cached=cached,
        peak_mib=outcome["peak_mib"],
        log=outcome["folder"],
    )
    run.timings.append(timing)
    words = note(value) if note else ""
    get_run_logger().info(
        "%s: %s %s", label, "cached" if cached else f"{timing.elapsed_s:.1f} s", words
    )
    progress.finished(label, timing, words)
    run.on_stage()
    return value


def _unaltered(read: dict[str, str]) -> bool:
    """Whether the files that a user's own code has opened are as they were."""
    path = userfiles.altered(read)
    if path:
        log.warning("making it again: %s is not the file that it was made with", path)
    return not path


def _intact(store: LocalStore, value: Any) -> bool:
    for artifact in _artifacts(value):
        try:
            store.open(artifact)
        except ArtifactError as error:
            log.warning("making it again: %s", error.message)
            return False
    return True


def _artifacts(value: Any) -> Iterator[Artifact]:
    if isinstance(value, Artifact):
        yield value
    elif dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from _artifacts(getattr(value, item.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _artifacts(item)
