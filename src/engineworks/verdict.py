"""The decision: facts and a budget in, a verdict with its reason out. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from engineworks.errors import DataError
from engineworks.facts.data import Chance, Suspect
from engineworks.facts.engine import Built, Checked
from engineworks.facts.int8 import Quantized
from engineworks.facts.model import Reference
from engineworks.facts.plan import Verdict
from engineworks.facts.timing import BenchmarkRow, PrecisionComparison
from engineworks.specs import BudgetSpec

#: 0.922 - 0.920 is a little more than 0.002 in binary; it is still inside that budget.
ROUNDING = 1e-9


def decide(
    budget: BudgetSpec,
    built: Built,
    checked: Checked,
    first: BenchmarkRow | None,
    comparison: PrecisionComparison | None = None,
    goal: str = "latency",
    quantized: Quantized | None = None,
) -> Verdict:
    """Judge one variant.

    Args:
        budget: The recipe's limits.
        built: Engine and delivered precision.
        checked: Parity and task metric.
        first: The benchmark row at the model's own size and batch 1, if measured.
        comparison: For INT8, the next higher precision, which it must beat at `goal`.
        goal: latency or size.
        quantized: For INT8, the search that found its graph.

    Returns:
        `shipped` when everything holds; `failed` when the engine is not what was asked;
        `rejected` when it is, but breaks a limit. The reason names every broken limit.
    """
    truth = built.delivered_precision
    if not truth.holds:
        return _untrue(built)
    broken, held = _accuracy(budget, checked)
    for name, limit in budget.latencies.items():
        value: float | None = getattr(first, f"{name}_ms") if first is not None else None
        if first is None or value is None:
            broken.append(f"{name} was not measured, allowed {limit:.2f} ms")
        elif value > limit:
            doubt = f" (inconclusive: {first.inconclusive})" if first.inconclusive else ""
            broken.append(f"{name} {value:.2f} ms, allowed {limit:.2f} ms{doubt}")
        else:
            held.append(f"{name} {value:.2f} ms of {limit:.2f}")
    broken += _size(budget, built)
    if comparison is not None:
        gain, won = _against(comparison, goal, built)
        (held if won else broken).append(gain)
    cut = cut_short(quantized.stopped if quantized else "")
    if broken:
        broken += [cut] * bool(cut)
        return Verdict(verdict="rejected", reason="; ".join(broken))
    held.append(f"parity holds ({checked.parity.limit})")
    held += [cut] * bool(cut)
    return Verdict(verdict="shipped", reason="; ".join(held))


def cut_short(stopped: str) -> str:
    """That a search for INT8 ended before it was done, and what to raise; empty when it was not.

    Args:
        stopped: Of `facts.int8.Quantized`.
    """
    if not stopped:
        return ""
    option = "int8.evaluations" if "evaluations" in stopped else "int8.limit_s"
    return f"the search was cut short ({stopped}): raise {option}, more of it may find better"


def waiting(
    budget: BudgetSpec,
    built: Built,
    needs: str,
    quantized: Quantized | None = None,
    checked: Checked | None = None,
) -> Verdict:
    """Judge a variant whose engine was built where it cannot be opened.

    Args:
        budget: The recipe's limits.
        built: Engine and delivered precision.
        needs: What a machine must have to open it, in words.
        quantized: For INT8, what a simulation on the CPU says.
        checked: What ONNX Runtime finds when it runs what the engine holds, where it can.

    Returns:
        `pending`; `failed` when the engine is not even what was asked; `rejected` when what it
        holds is already outside the budget.
    """
    if not built.delivered_precision.holds:
        return _untrue(built)
    broken, held = _accuracy(budget, checked) if checked else ([], [])
    broken += _size(budget, built)
    if broken:
        return Verdict(verdict="rejected", reason="; ".join(broken) + REPLAYED * bool(checked))
    waits = f"waits for a host with {needs} to be"
    if checked is not None:
        held.append(f"parity holds ({checked.parity.limit})")
        return Verdict(
            verdict="pending", reason="; ".join(held) + f"{REPLAYED}; {waits} opened and timed"
        )
    reason = f"built here; {waits} checked and timed"
    if quantized is not None:
        reason += f"; {quantized.reason}"
    return Verdict(verdict="pending", reason=reason)


#: Behind figures that the engine's own runtime has not confirmed.
REPLAYED = " (run with ONNX Runtime in place of its own runtime)"


def refuse_chance(reference: Reference, accepted: Sequence[str]) -> None:
    """End a run whose source model scores near zero on the user's own data.

    Args:
        reference: With the evidence, if it was scored.
        accepted: Findings that the recipe allows.

    Raises:
        DataError: It scores no better than chance, and the recipe does not allow that.
    """
    chance = reference.chance
    if chance is None or chance.word != "near zero" or "near_zero" in accepted:
        return
    raise DataError(
        f"the source model scores near zero on this data: {chance.reason}. {likely(chance)}",
        hint="correct the recipe or the data; a model that is meant to be so can be shipped with "
        "data.accept: [near_zero]",
    )


def refuse_frame(reference: Reference) -> None:
    """End a run whose boxes fit the pictures better as they are stored than upright.

    Raises:
        DataError: So it is.
    """
    frames = reference.frames
    if frames is None or not frames.doubtful:
        return
    raise DataError(
        f"{frames.photos} images with boxes are turned by their EXIF, and on them the source model "
        f"scores AP {frames.upright:.4f}, but {frames.unturned:.4f} if the boxes were drawn on the "
        "images as they are stored",
        hint="set data.frame: unturned, and boxes are turned upright with their images; or "
        "data.frame: upright if they are right as they are",
    )


def likely(chance: Chance) -> str:
    """What is most likely wrong, with what was seen when it was tried."""
    right = [suspect for suspect in chance.suspects if suspect.better]
    if right:
        first = right[0]
        advice = f"Most likely it is {first.words}: {reach(first)}"
        return advice + "".join(f"; or {other.words}: {reach(other)}" for other in right[1:3])
    if not chance.suspects:
        return "Check task.labels, task.layout and preprocess, the weights and the annotations"
    tried = ", ".join(suspect.words for suspect in chance.suspects)
    return f"None of these makes it better: {tried}. Check the weights and the annotations"


def reach(suspect: Suspect) -> str:
    """A trial's score in words."""
    return f"with that it scores {suspect.value:.4f} on {suspect.photos} photos"


def _untrue(built: Built) -> Verdict:
    asked, delivered = built.delivered_precision.asked, built.delivered_precision.delivered
    return Verdict(verdict="failed", reason=f"asked for {asked}, the engine is {delivered}")


def _accuracy(budget: BudgetSpec, checked: Checked) -> tuple[list[str], list[str]]:
    """What breaks and what holds in an engine's answers, in words."""
    broken, held = [], []
    parity, accuracy = checked.parity, checked.accuracy
    if not parity.holds:
        broken.append(f"parity: {parity.reason}")
    meaning = checked.meaning
    if accuracy is None and meaning is not None:
        if meaning.holds:
            held.append(meaning.words)
        else:
            broken.append(f"it does not mean what the source means: {meaning.reason}")
    if accuracy is not None:
        change = f"{accuracy.metric} {accuracy.value:.4f}, source {accuracy.reference:.4f}"
        if budget.max_drop is not None and accuracy.drop > budget.max_drop + ROUNDING:
            broken.append(f"{change}: drops {accuracy.drop:.4f}, allowed {budget.max_drop:.4f}")
        else:
            held.append(change)
        if accuracy.reference <= 0:
            held.append("the source model itself finds nothing: check labels and preprocess")
    return broken, held


def _size(budget: BudgetSpec, built: Built) -> list[str]:
    size_mib = built.engine.size_bytes / 2**20
    if budget.max_size_mib is None or size_mib <= budget.max_size_mib:
        return []
    return [f"engine {size_mib:.2f} MiB, allowed {budget.max_size_mib:.2f} MiB"]


def _against(comparison: PrecisionComparison, goal: str, built: Built) -> tuple[str, bool]:
    """What INT8 gains over the next precision, in words, and whether it is enough."""
    if goal == "size":
        sizes = (
            f"engine {built.engine.size_bytes / 2**20:.2f} MiB, {comparison.variant} "
            f"{comparison.size_bytes / 2**20:.2f} MiB"
        )
        won = built.engine.size_bytes < comparison.size_bytes
        return (sizes, True) if won else (f"{sizes}: not smaller, use {comparison.variant}", False)
    low, high = comparison.ci95
    interval = f"(95 % interval {low:.2f}-{high:.2f})"
    if low > 1:
        return f"{comparison.speedup:.2f}x as fast as {comparison.variant} {interval}", True
    if high < 1:
        claim = f"slower than {comparison.variant}: takes {1 / comparison.speedup:.2f}x as long"
        interval = f"(95 % interval {1 / high:.2f}-{1 / low:.2f})"
    else:
        ratio = f"{comparison.speedup:.2f}x as fast"
        claim = f"not faster than {comparison.variant} with confidence: {ratio}"
    return f"{claim} {interval}; use {comparison.variant}", False
