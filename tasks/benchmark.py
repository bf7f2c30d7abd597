"""Time an engine at every size and batch."""

from __future__ import annotations

import dataclasses

from engineworks.facts.timing import Benchmark
from engineworks.specs import BenchmarkSpec
from engineworks.stages import benchmark as stage
from engineworks.stages.benchmark import SizedEngine
from tasks._job import VariantJob
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Time an engine at every size and batch.")

#: The same, measured every time and kept out of the cache.
ANEW = TASK.anew


def benchmark(job: VariantJob, engines: list[SizedEngine]) -> Benchmark:
    """Its latency at every batch that all of its engines take."""
    request = stage.BenchmarkRequest(
        engines=tuple(engines),
        spec=served(job.recipe.benchmark, engines),
        tools=job.tools,
        host=job.host,
        store=str(job.run.store.root),
    )
    return TASK.call(job.run, request, job.recipe.limits.benchmark_s, job.planned.name, note)


def served(spec: BenchmarkSpec, engines: list[SizedEngine]) -> BenchmarkSpec:
    """Of the batches to time, those that every engine takes."""
    most = min(sized.engine.manifest.batches(max(spec.batches))[1] for sized in engines)
    return dataclasses.replace(spec, batches=tuple(n for n in spec.batches if n <= most) or (most,))


def note(value: Benchmark) -> str:
    """The first row in a few words."""
    return f"p50 {value.rows[0].p50_ms:.2f} ms at batch {value.rows[0].batch}"
