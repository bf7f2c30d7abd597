"""What is timed, what a variant may cost, and how long a stage may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engineworks.codec import later
from engineworks.specs.ground import STRICT, Size, must

#: Calls from which the 99th percentile is known (MLPerf LoadGen's early-stopping figure).
P99_CALLS = 660


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec:
    """What is timed, and how thoroughly."""

    __pydantic_config__ = STRICT

    sizes: tuple[Size, ...] = ()
    """Input sizes [height, width] beside the model's own, which is always timed. Each is exported
    and built for itself, so that every row is the engine one would really deploy."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes."""
    threads: int = 0
    """CPU threads for inference; 0: all that this process may use."""
    seconds: float = 3.0
    """Time spent on each row after warm-up."""
    calls: int = later(default=30)
    """Least number of calls of each row, however long they take; p99 needs 660."""

    def __post_init__(self) -> None:
        must(
            2 <= self.calls <= 1_000_000,
            f"benchmark.calls: {self.calls} is out of range",
            "leave it out for 30, or use 660, from which p99 is given",
        )
        must(
            len(self.batches) > 0 and all(1 <= batch <= 1024 for batch in self.batches),
            f"benchmark.batches: {list(self.batches)} must be numbers from 1 to 1024",
            "use for example [1, 4, 8]",
        )
        must(
            all(min(size) > 0 and max(size) <= 2**16 for size in self.sizes),
            f"benchmark.sizes: {[list(size) for size in self.sizes]} must be sizes in pixels",
            "use for example [[416, 416]]",
        )
        must(
            self.threads >= 0 and 0 < self.seconds <= 3600,
            f"benchmark: threads {self.threads} and seconds {self.seconds} are out of range",
            "use threads: 0 (all cores) and seconds: 3",
        )


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """What a variant may cost. It is shipped only if it holds every limit that is given."""

    __pydantic_config__ = STRICT

    max_drop: float | None = 0.01
    """Largest loss of the task metric against the source model, absolute (0.01 = 1 point)."""
    max_p50_ms: float | None = None
    """Largest median latency at the model's own size and batch 1, in milliseconds."""
    max_p95_ms: float | None = later(default=None)
    """Largest latency of 95 % of the calls, there too."""
    max_p99_ms: float | None = later(default=None)
    """Largest latency of 99 % of the calls, there too; needs benchmark.calls: 660."""
    max_size_mib: float | None = None
    """Largest engine, in MiB."""

    def __post_init__(self) -> None:
        limits = (
            self.max_drop, self.max_p50_ms, self.max_p95_ms, self.max_p99_ms, self.max_size_mib
        )  # fmt: skip
        must(
            all(limit is None or 0 <= limit < math.inf for limit in limits),
            f"budget: limits {limits} must be numbers of at least 0, not infinite",
            "leave a limit out when there is none",
        )

    @property
    def latencies(self) -> dict[str, float]:
        """The limits of latency that are given, by percentile: p50, p95, p99."""
        limits = {"p50": self.max_p50_ms, "p95": self.max_p95_ms, "p99": self.max_p99_ms}
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True, kw_only=True)
class LimitsSpec:
    """Time limits in seconds; a stage that passes its limit is stopped and its variant fails."""

    __pydantic_config__ = STRICT

    export_s: float = 900.0
    """Validation of the data, export, simplification and analysis, each."""
    build_s: float = 1800.0
    """One engine build."""
    check_s: float = 1800.0
    """Parity and task metric of one engine, or of the source model."""
    benchmark_s: float = 1800.0
    """All benchmark rows of one variant."""
    calibrate_s: float = 3600.0
    """One pass of the float model over the calibration images."""
    package_s: float = later(default=900.0)
    """One package of one variant, with its proof."""

    def __post_init__(self) -> None:
        limits = (
            self.export_s, self.build_s, self.check_s, self.benchmark_s, self.calibrate_s,
            self.package_s,
        )  # fmt: skip
        must(
            all(0 < limit <= 1e9 for limit in limits),
            f"limits: {limits} must all be greater than 0 and at most 1e9 seconds",
            "leave a limit out for its default",
        )
