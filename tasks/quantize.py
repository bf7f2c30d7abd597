"""Search the INT8 graph of one target."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import QuantizeRequest
from tasks import _stage


@task(name="quantize", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def quantize(request: QuantizeRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Search the INT8 graph of one target."""
    return _stage.run("quantize", request, folder, limit_s)
