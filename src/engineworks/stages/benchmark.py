"""Stage `benchmark`: how long an engine takes at every size and batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engineworks.codec import place
from engineworks.facts.host import HostCard
from engineworks.facts.timing import Benchmark
from engineworks.manifest import Artifact
from engineworks.specs import (
    BenchmarkSpec,
    Size,
)
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class SizedEngine:
    """The engine of one input size."""

    size: Size
    engine: Artifact


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """All sizes and batches of one variant."""

    engines: tuple[SizedEngine, ...]
    spec: BenchmarkSpec
    tools: dict[str, str]
    host: HostCard
    store: str = place()


def benchmark(request: BenchmarkRequest) -> Benchmark:
    """Stage `benchmark`."""
    from engineworks.bench import matrix

    store = LocalStore(Path(request.store))
    engines = {
        sized.size: (store.open(sized.engine), sized.engine.manifest) for sized in request.engines
    }
    return matrix.run(engines, request.spec, tuple(request.tools))


STAGE = Stage("benchmark", benchmark, BenchmarkRequest, Benchmark)
