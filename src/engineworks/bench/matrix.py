"""The table that deployment guides promise: input sizes x batch sizes for one variant."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import hosts
from engineworks.bench import environment, protocol
from engineworks.errors import RecipeError
from engineworks.facts.timing import Benchmark, BenchmarkRow
from engineworks.manifest import Manifest
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.session import Session, open_engine
from engineworks.specs import BenchmarkSpec, Preprocess, Size


def feed(session: Session, preprocess: Preprocess, size: Size, batch: int) -> dict[str, Any]:
    """One batch of preprocessed noise: latency must not depend on a lucky picture."""
    height, width = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    (tensor,) = session.inputs
    row, _ = Preprocessor(preprocess, size, uint8=tensor.dtype == "uint8")(image)
    return {tensor.name: np.ascontiguousarray(np.repeat(row[None], batch, axis=0))}


def run(
    engines: Mapping[Size, tuple[Path, Manifest]], spec: BenchmarkSpec, packages: tuple[str, ...]
) -> Benchmark:
    """Measure every size and batch.

    Args:
        engines: Input size -> (engine folder, manifest); each size has its own engine.
        spec: Batches, threads, seconds.
        packages: Distributions to record the versions of.

    Raises:
        RecipeError: A batch above 1 is asked of an engine whose batch is fixed.
    """
    started = time.perf_counter()
    threads = spec.threads or hosts.cores()
    facts = environment.record(*packages)
    rows: list[BenchmarkRow] = []
    for size, (folder, _) in engines.items():
        with open_engine(folder, threads=threads) as session:
            rows += measure(session, size, spec, threads)
    return Benchmark(rows=tuple(rows), environment=facts, elapsed_s=time.perf_counter() - started)


def measure(
    session: Session, size: Size, spec: BenchmarkSpec, threads: int
) -> Iterator[BenchmarkRow]:
    """Measure one open session at every batch.

    Raises:
        RecipeError: A batch above 1 is asked of an engine whose batch is fixed.
    """
    manifest = session.manifest
    for batch in spec.batches:
        if batch > 1 and not manifest.dynamic_batch:
            raise RecipeError(
                f"benchmark.batches asks for {batch}, the model's batch is fixed at "
                f"{manifest.inputs[0].shape[0]}",
                hint="use benchmark.batches: [1], or a model with an open batch",
            )
        feeds = feed(session, manifest.preprocess or Preprocess(), size, batch)
        timing = protocol.measure(
            partial(session.infer, feeds), seconds=spec.seconds, calls=spec.calls
        )
        yield BenchmarkRow(
            height=size[0],
            width=size[1],
            batch=batch,
            threads=threads,
            throughput_per_s=batch * 1e3 / timing.mean_ms,
            **vars(timing),
        )
