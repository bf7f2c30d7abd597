"""Quantize the graph of another input size in the same way."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import RequantizeRequest
from tasks import _stage


@task(name="requantize", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def requantize(request: RequantizeRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Quantize the graph of another input size in the same way."""
    return _stage.run("requantize", request, folder, limit_s)
