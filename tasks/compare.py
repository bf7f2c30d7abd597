"""Time the shipped variants against each other."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import CompareRequest
from tasks import _stage


@task(name="compare", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def compare(request: CompareRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Time the shipped variants against each other."""
    return _stage.run("compare", request, folder, limit_s)
