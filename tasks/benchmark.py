"""Time an engine at every size and batch."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from engineworks.stages.requests import BenchmarkRequest
from tasks import _stage


@task(name="benchmark", retries=1, retry_delay_seconds=1, **_stage.STAGE)
def benchmark(request: BenchmarkRequest, folder: str, limit_s: float) -> dict[str, Any]:
    """Time an engine at every size and batch."""
    return _stage.run("benchmark", request, folder, limit_s)


#: The same, measured every time and kept out of the cache.
benchmark_anew = benchmark.with_options(cache_policy=NO_CACHE)
