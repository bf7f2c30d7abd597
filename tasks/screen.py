"""Decode every image once and hold labels against images."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import ScreenRequest
from tasks import _stage


@task(name="screen", retries=0, retry_delay_seconds=1, **_stage.STAGE)
def screen(request: ScreenRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Decode every image once and hold labels against images."""
    return _stage.run("screen", request, folder, limit_s)
