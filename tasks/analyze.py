"""Count the graph and ask the targets what they lack."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import AnalyzeRequest
from tasks import _stage


@task(name="analyze", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def analyze(request: AnalyzeRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Count the graph and ask the targets what they lack."""
    return _stage.run("analyze", request, folder, limit_s)
