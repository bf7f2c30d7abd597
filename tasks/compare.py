"""Time engines against each other: a precision beside the next, and all that ship at the end."""

from __future__ import annotations

from engineworks import targets
from engineworks.facts.timing import Comparison, PrecisionComparison
from engineworks.manifest import Artifact
from engineworks.specs import Size
from engineworks.stages import compare as stage
from engineworks.stages.compare import NamedEngine
from tasks._job import Job
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Time engines against each other.")


def compare(
    job: Job, engines: dict[str, Artifact], names: set[str], size: Size, variant: str = ""
) -> Comparison:
    """Engines side by side.

    Args:
        job: The run.
        engines: By the name of their variant.
        names: Their targets.
        size: Input (height, width).
        variant: The variant that is held against another; empty: all are compared.
    """
    request = stage.CompareRequest(
        engines=tuple(NamedEngine(variant=name, engine=engine) for name, engine in engines.items()),
        size=size,
        threads=job.recipe.benchmark.threads,
        tools=targets.tools(*sorted(names)),
        host=job.host,
        store=str(job.run.store.root),
    )
    limit_s = job.recipe.limits.benchmark_s
    return TASK.call(
        job.run, request, limit_s, variant,
        lambda value: value.reason if variant else f"{value.recommended}: {value.reason}",
    )  # fmt: skip


def against(
    job: Job, mine: tuple[str, Artifact], other: tuple[str, Artifact], target: str, size: Size
) -> PrecisionComparison:
    """One engine held against the next higher precision of its target.

    Args:
        job: The run.
        mine: Name and engine of the variant that is judged.
        other: The same of the one it must beat.
        target: Of both.
        size: Input (height, width).
    """
    timed = compare(job, dict((mine, other)), {target}, size, mine[0])
    first, second = (
        next(c for c in timed.contenders if c.variant == name) for name, _ in (mine, other)
    )
    if first.ci95 == (1.0, 1.0):  # this one is what the other's ratio is of
        speedup, interval = second.ratio, second.ci95
    else:
        speedup, interval = 1 / first.ratio, (1 / first.ci95[1], 1 / first.ci95[0])
    size_bytes = other[1].size_bytes
    return PrecisionComparison(
        variant=other[0], speedup=speedup, ci95=interval, size_bytes=size_bytes
    )
