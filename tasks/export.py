"""Export the model to ONNX; keep the graph that agrees with it."""

from __future__ import annotations

from typing import Any

from prefect import task

from engineworks.stages.requests import ExportRequest
from tasks import _stage


@task(name="export", retries=0, retry_delay_seconds=1, **_stage.STAGE)
def export(request: ExportRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Export the model to ONNX; keep the graph that agrees with it."""
    return _stage.run("export", request, folder, limit_s)
