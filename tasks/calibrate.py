"""Collect statistics of every activation over the calibration images."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import CalibrateRequest
from tasks import _stage


@task(name="calibrate", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def calibrate(request: CalibrateRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Collect statistics of every activation over the calibration images."""
    return _stage.run("calibrate", request, folder, limit_s)
