"""Run the source model, the truth for all engines."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import ReferenceRequest
from tasks import _stage


@task(name="reference", retries=0, retry_delay_seconds=1, **_stage.STAGE)
def reference(request: ReferenceRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Run the source model, the truth for all engines."""
    return _stage.run("reference", request, folder, limit_s)
