"""Simplify the graph, or keep it on any doubt."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import SimplifyRequest
from tasks import _stage


@task(name="simplify", retries=0, retry_delay_seconds=1, **_stage.STAGE)
def simplify(request: SimplifyRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Simplify the graph, or keep it on any doubt."""
    return _stage.run("simplify", request, folder, limit_s)
