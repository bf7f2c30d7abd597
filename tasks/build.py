"""Build the engine of one variant on this machine."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import BuildRequest
from tasks import _stage


@task(name="build", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def build(request: BuildRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Build the engine of one variant on this machine."""
    return _stage.run("build", request, folder, limit_s)
