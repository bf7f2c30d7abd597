"""A stage as a Prefect task: cached under its own key, run in a child process, timed and told.

Knows Prefect's task states and no stage: each file of this package makes its own request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.utilities.annotations import quote

from artifacts.summary import StageTiming
from engineworks import child, userfiles
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError, StageError
from engineworks.facts.plan import slug
from engineworks.manifest import Artifact
from engineworks.stages import Stage
from engineworks.store import LocalStore, disk_error
from tasks._cache import stage_key
from tasks._run import PROGRESS, Run, home

log = logging.getLogger("engineworks.flow")

Request = TypeVar("Request")
Value = TypeVar("Value")


def _key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return stage_key(context.task.name, parameters["request"])


def crashed(task: Any, task_run: Any, state: Any) -> bool:
    """Retry only what another try may mend: a crash or a time-out, never a clear refusal."""
    try:
        state.result()
    except StageError:
        return True
    except BaseException:
        return False
    return False


def _name() -> str:
    return Path(runtime.task_run.parameters["folder"]).name


#: Options of every stage task.
OPTIONS: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "cache_policy": CacheKeyFnPolicy(cache_key_fn=_key),
    "retry_condition_fn": crashed,
    "task_run_name": _name,
}


@dataclass(frozen=True)
class StageTask(Generic[Request, Value]):
    """A Prefect task of (request, folder, limit in seconds), and the type of its value."""

    task: Any
    value: type[Value]

    @property
    def anew(self) -> StageTask[Request, Value]:
        """The same, done every time and kept out of the cache."""
        return dataclasses.replace(self, task=self.task.with_options(cache_policy=NO_CACHE))

    def call(
        self,
        run: Run,
        request: Request,
        limit_s: float,
        variant: str = "",
        note: Callable[[Value], str] = lambda value: "",
        valid: Callable[[Value], bool] = lambda value: True,
    ) -> Value:
        """Call it, from the cache when nothing it depends on has changed.

        A cached value whose artifacts are gone from the store, or damaged there, is made anew.
        With a store on S3, what it needs is fetched before, and what it made is sent after it.

        Args:
            run: The run.
            request: What the stage is asked.
            limit_s: Time limit in seconds.
            variant: Row of the table that this call belongs to; with a size for further sizes.
            note: A few words about the value for the progress line.
            valid: Whether a cached value still holds; else the stage runs again.

        Raises:
            EngineworksError: What the stage raised.
        """
        label = f"{self.task.name} {variant}".strip()
        folder = run.folder / "logs" / "_".join(map(slug, label.split(" ")))
        begun = time.perf_counter()
        with _told(label):
            for artifact in _artifacts(request):
                run.store.fetch(artifact.sha256)
            outcome, cached = self._outcome(run, request, (str(folder), limit_s), valid)
            value = from_json(self.value, outcome["value"])
            for artifact in _artifacts(value):
                run.store.push(artifact)
        spent_s = 0.0 if cached else min(outcome["elapsed_s"], time.perf_counter() - begun)
        timing = StageTiming(
            name=self.task.name,
            variant=variant,
            elapsed_s=spent_s,
            cached=cached,
            peak_mib=outcome["peak_mib"],
            log=outcome["folder"],
        )
        run.timings.append(timing)
        sentence = note(value)
        spent = "cached" if cached else f"{timing.elapsed_s:.1f} s"
        get_run_logger().info("%s: %s %s", label, spent, sentence)
        PROGRESS.get().finished(label, timing, sentence)
        run.on_stage()
        return value

    def _outcome(
        self, run: Run, request: Request, rest: tuple[str, float], valid: Callable[[Value], bool]
    ) -> tuple[dict[str, Any], bool]:
        """What came of it, and whether the cache had it."""
        # Quoted: Prefect would search every nested value of the request for futures.
        state = self.task(quote(request), *rest, return_state=True)
        outcome: dict[str, Any] = state.result()
        value = from_json(self.value, outcome["value"])
        cached = state.name == "Cached"
        fresh = _intact(run.store, value) and _unaltered(outcome.get("read", {})) and valid(value)
        if fresh or not cached:
            return outcome, cached
        again = self.task.with_options(refresh_cache=True)
        return again(quote(request), *rest, return_state=True).result(), False


def stage_task(
    stage: Stage[Request, Value], description: str, *, retries: int = 1
) -> StageTask[Request, Value]:
    """The task of a stage.

    Args:
        stage: The stage.
        description: What it does, for Prefect's pages.
        retries: Of a crash or a time-out.
    """

    def run(request: Request, folder: str, limit_s: float) -> dict[str, Any]:
        outcome = child.run(stage.name, to_json(request), folder=Path(folder), limit_s=limit_s)
        return {**outcome, "folder": folder}

    run.__name__ = run.__qualname__ = stage.name  # Prefect tells tasks apart by it
    declare = task(
        name=stage.name, description=description, retries=retries, retry_delay_seconds=1, **OPTIONS
    )
    return StageTask(declare(run), stage.value)


@contextlib.contextmanager
def _told(label: str) -> Iterator[None]:
    """Say that a stage begins, and what it failed of."""
    PROGRESS.get().started(label)
    try:
        yield
    except Exception as error:
        reason = getattr(error, "message", str(error))
        get_run_logger().error("%s failed: %s", label, reason)
        PROGRESS.get().failed(label, reason)
        full = disk_error(error, home())
        if full is not None:
            raise full from error
        raise


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
