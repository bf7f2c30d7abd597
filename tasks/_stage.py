"""What all stage tasks share: JSON results under the stage's key, retry after a crash only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext

from engineworks import child
from engineworks.codec import to_json
from engineworks.errors import StageError
from tasks._cache import stage_key


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
STAGE: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "cache_policy": CacheKeyFnPolicy(cache_key_fn=_key),
    "retry_condition_fn": crashed,
    "task_run_name": _name,
}


def run(stage: str, request: Any, folder: str, limit_s: float) -> dict[str, Any]:
    """Run a stage in a child process; the value and what it cost, as plain JSON."""
    outcome = child.run(stage, to_json(request), folder=Path(folder), limit_s=limit_s)
    return {**outcome, "folder": folder}
