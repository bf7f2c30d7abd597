"""The decision: facts and a budget in, a verdict with its reason out. Pure functions."""

from __future__ import annotations

from engineworks.specs import BudgetSpec
from engineworks.values import (
    Benchmark,
    BenchmarkRow,
    Built,
    Checked,
    Quantized,
    Rival,
    Verdict,
)

#: 0.922 - 0.920 is a little more than 0.002 in binary; it is still inside that budget.
ROUNDING = 1e-9


def decide(
    budget: BudgetSpec,
    built: Built,
    checked: Checked,
    first: BenchmarkRow | None,
    rival: Rival | None = None,
    goal: str = "latency",
) -> Verdict:
    """Judge one variant.

    Args:
        budget: The recipe's limits.
        built: Engine and precision truth.
        checked: Parity and task metric.
        first: The benchmark row at the model's own size and batch 1, if measured.
        rival: For INT8, the next higher precision, which it must beat at `goal`.
        goal: latency or size.

    Returns:
        `shipped` when everything holds; `failed` when the engine is not what was asked;
        `rejected` when it is, but breaks a limit. The reason names every broken limit.
    """
    truth, parity, accuracy = built.truth, checked.parity, checked.accuracy
    if not truth.holds:
        return Verdict(
            verdict="failed",
            reason=f"asked for {truth.asked}, the engine is {truth.delivered}",
        )
    broken, held = [], []
    if not parity.holds:
        broken.append(f"parity: {parity.reason}")
    if accuracy is not None:
        change = f"{accuracy.metric} {accuracy.value:.4f}, source {accuracy.reference:.4f}"
        if budget.max_drop is not None and accuracy.drop > budget.max_drop + ROUNDING:
            broken.append(f"{change}: drops {accuracy.drop:.4f}, allowed {budget.max_drop:.4f}")
        else:
            held.append(change)
        if accuracy.reference <= 0:
            held.append("the source model itself finds nothing: check labels and preprocess")
    if budget.max_p50_ms is not None:
        if first is None:
            broken.append(f"p50 was not measured, allowed {budget.max_p50_ms:.2f} ms")
        elif first.p50_ms > budget.max_p50_ms:
            doubt = f" (inconclusive: {first.inconclusive})" if first.inconclusive else ""
            limit = f"allowed {budget.max_p50_ms:.2f} ms"
            broken.append(f"p50 {first.p50_ms:.2f} ms, {limit}{doubt}")
        else:
            held.append(f"p50 {first.p50_ms:.2f} ms of {budget.max_p50_ms:.2f}")
    size_mib = built.engine.size_bytes / 2**20
    if budget.max_size_mib is not None and size_mib > budget.max_size_mib:
        broken.append(f"engine {size_mib:.2f} MiB, allowed {budget.max_size_mib:.2f} MiB")
    if rival is not None:
        gain, won = _against(rival, goal, built)
        (held if won else broken).append(gain)
    if broken:
        return Verdict(verdict="rejected", reason="; ".join(broken))
    held.append(f"parity holds ({parity.limit})")
    return Verdict(verdict="shipped", reason="; ".join(held))


def waiting(built: Built, needs: str, quantized: Quantized | None = None) -> Verdict:
    """Judge a variant whose engine was built where it cannot be opened.

    Args:
        built: Engine and precision truth.
        needs: What a machine must have to open it, in words.
        quantized: For INT8, what a simulation on the CPU says.

    Returns:
        `pending`, or `failed` when the engine is not even what was asked.
    """
    truth = built.truth
    if not truth.holds:
        return Verdict(
            verdict="failed", reason=f"asked for {truth.asked}, the engine is {truth.delivered}"
        )
    reason = f"built here; waits for a host with {needs} to be checked and timed"
    if quantized is not None:
        reason += f"; {quantized.reason}"
    return Verdict(verdict="pending", reason=reason)


def _against(rival: Rival, goal: str, built: Built) -> tuple[str, bool]:
    """What INT8 gains over the next precision, in words, and whether it is enough."""
    if goal == "size":
        sizes = (
            f"engine {built.engine.size_bytes / 2**20:.2f} MiB, {rival.variant} "
            f"{rival.size_bytes / 2**20:.2f} MiB"
        )
        won = built.engine.size_bytes < rival.size_bytes
        return (sizes, True) if won else (f"{sizes}: not smaller, use {rival.variant}", False)
    low, high = rival.ci95
    interval = f"(95 % interval {low:.2f}-{high:.2f})"
    if low > 1:
        return f"{rival.speedup:.2f}x as fast as {rival.variant} {interval}", True
    if high < 1:
        words = f"slower than {rival.variant}: takes {1 / rival.speedup:.2f}x as long"
        interval = f"(95 % interval {1 / high:.2f}-{1 / low:.2f})"
    else:
        words = f"not faster than {rival.variant} with confidence: {rival.speedup:.2f}x as fast"
    return f"{words} {interval}; use {rival.variant}", False


def first_row(benchmark: Benchmark, height: int, width: int) -> BenchmarkRow | None:
    """The row at the model's own size and batch 1."""
    for row in benchmark.rows:
        if (row.height, row.width, row.batch) == (height, width, 1):
            return row
    return None
