"""Hold an engine against the source model."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import CheckRequest
from tasks import _stage


@task(name="check", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def check(request: CheckRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Hold an engine against the source model."""
    return _stage.run("check", request, folder, limit_s)
