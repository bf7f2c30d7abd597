"""Take calibration images from a function of the user's."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import GatherRequest
from tasks import _stage


@task(name="gather", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def gather(request: GatherRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Take calibration images from a function of the user's."""
    return _stage.run("gather", request, folder, limit_s)
