"""The gates between a registered version and the place of the champion: numbers, limits, reasons.

Pure: what is known of both versions in, a list of gates out. A gate that nothing can answer here
is pending, never passed. Knows no registry.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engineworks.errors import RecipeError
from engineworks.evaluate.paired import Paired
from engineworks.facts.engine import Accuracy, DeliveredPrecision, Parity
from engineworks.specs import BudgetSpec
from engineworks.verdict import ROUNDING

#: What a person may take upon themselves, by the word that says so.
ACCEPTABLE = ("accuracy", "age", "data", "latency")

FIRST = "the first champion: there was nothing to compare with"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate may lose against the champion: `promote` of the flow's form."""

    max_drop: float = 0.01
    """Of the metric, absolute: the lower 95 % bound of the difference must lie above -max_drop."""
    slower_than: float = 1.1
    """Largest latency of the candidate / of the champion, in a race on the machine of both."""
    max_age_days: float = 30.0
    """Largest age of the run that the verdict is of."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("max_drop", self.max_drop, 0.0),
            ("slower_than", self.slower_than, 0.0),
            ("max_age_days", self.max_age_days, 0.0),
        ):
            if not (math.isfinite(value) and value > least):
                raise RecipeError(
                    f"promote.{name} is {value:g}, it must be a number above {least:g}",
                    hint="leave it out for its default: max_drop 0.01, slower_than 1.1, "
                    "max_age_days 30",
                )


@dataclass(frozen=True, kw_only=True)
class Race:
    """Candidate and champion timed now, side by side, on one machine."""

    machine: str
    ratio: float
    """Latency of the candidate / of the champion: median over neighbouring blocks."""
    ci95: tuple[float, float]
    ms: tuple[float, float]
    """Median latencies at batch 1."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of a registered version."""

    version: str
    sha256: str
    """Of its engine."""
    verdict: str
    """As the version says now: a later run may have withdrawn it."""
    reason: str
    """The verdict's own."""
    age_days: float
    simulated: str
    """What of it was answered by a double; empty: nothing."""
    budget: BudgetSpec
    accuracy: Accuracy | None
    parity: Parity | None
    delivered_precision: DeliveredPrecision | None
    machine: str
    """Which built it and measured its latency."""
    p50_ms: float | None
    size_bytes: int
    labels: tuple[str, ...]
    data_sha256: str
    """Of images and labels; empty: there were none."""
    packages: tuple[tuple[str, str], ...] = ()
    """(kind, state of its proof) of what servers load of it."""
    contract: str = ""
    """Digest of task, input and preprocessing, as its manifest has them."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One question that a version must answer before it is promoted."""

    name: str
    outcome: Literal["passed", "failed", "pending"]
    reason: str
    number: float | None = None
    threshold: float | None = None
    accept: str = ""
    """The word with which a person may take it upon themselves; empty: nobody may."""
    accepted: bool = False
    """Whether one has."""

    @property
    def opens(self) -> bool:
        """Whether it lets the version through."""
        return self.outcome == "passed" or self.accepted


def judge(
    candidate: Standing,
    champion: Standing | None,
    paired: Paired | str,
    race: Race | str,
    limits: Limits,
    accept: Collection[str] = (),
) -> list[Gate]:
    """Put every question to a candidate.

    Args:
        candidate: The version that is to be promoted.
        champion: The one in its place now; None: there is none.
        paired: Both answers to the same photos side by side, or why that could not be done.
        race: Both latencies, likewise.
        limits: What may be lost.
        accept: Words of `ACCEPTABLE` that a person has said.

    Raises:
        RecipeError: A word that nobody may say.
    """
    check(accept)
    gates = [
        *_own(candidate, limits),
        *_kind(candidate, champion),
        _accuracy(candidate, champion, paired, limits),
        _latency(candidate, champion, race, limits),
        _size(candidate, champion),
        _packages(candidate),
    ]
    return [_with(gate, accept) for gate in gates]


def check(accept: Collection[str]) -> None:
    """Refuse a word that accepts nothing.

    Raises:
        RecipeError: Names it, and those that do.
    """
    unknown = sorted(set(accept) - set(ACCEPTABLE))
    if unknown:
        raise RecipeError(
            f"{unknown[0]!r} is nothing that a person may accept",
            hint=f"accept one of {', '.join(ACCEPTABLE)}; all other gates hold for everybody",
        )


def verdict(gates: Sequence[Gate]) -> Literal["passed", "failed", "pending"]:
    """What all gates say together: the worst of those that do not let through."""
    closed = {gate.outcome for gate in gates if not gate.opens}
    return "failed" if "failed" in closed else "pending" if closed else "passed"


def _with(gate: Gate, accept: Collection[str]) -> Gate:
    taken = gate.outcome != "passed" and bool(gate.accept) and gate.accept in accept
    return replace(gate, accepted=True) if taken else gate


def _own(candidate: Standing, limits: Limits) -> Iterator[Gate]:
    """What the version must be by itself."""
    ships = candidate.verdict == "shipped"
    reason = (
        candidate.reason if ships else f"the version is {candidate.verdict or 'without a verdict'}"
    )
    waits = candidate.verdict == "pending"
    yield Gate(
        name="verdict", outcome="passed" if ships else "pending" if waits else "failed",
        reason=reason,
    )  # fmt: skip
    yield Gate(
        name="real", outcome="failed" if candidate.simulated else "passed",
        reason=candidate.simulated or "nothing of it is simulated",
    )  # fmt: skip
    yield Gate(
        name="age", accept="age", number=candidate.age_days, threshold=limits.max_age_days,
        outcome="passed" if candidate.age_days <= limits.max_age_days else "failed",
        reason=f"its run ended {candidate.age_days:.1f} days ago, allowed {limits.max_age_days:g}"
        + ("" if candidate.age_days <= limits.max_age_days else ": ship it again"),
    )  # fmt: skip
    if candidate.parity is None:
        yield Gate(name="parity", outcome="pending", reason="parity was not measured")
    else:
        parity = candidate.parity
        yield Gate(
            name="parity", outcome="passed" if parity.holds else "failed",
            number=parity.snr_db, reason=parity.reason or parity.limit,
        )  # fmt: skip
    if candidate.delivered_precision is None:
        yield Gate(name="precision", outcome="pending", reason="precision was not read back")
    else:
        truth = candidate.delivered_precision
        yield Gate(
            name="precision", outcome="passed" if truth.holds else "failed",
            reason=f"asked {truth.asked}, delivered {truth.delivered}",
        )  # fmt: skip
    if candidate.accuracy is not None:
        accuracy, most = candidate.accuracy, candidate.budget.max_drop
        holds = most is None or accuracy.drop <= most + ROUNDING
        allowed = "any" if most is None else f"{most:.4f}"
        yield Gate(
            name="budget", outcome="passed" if holds else "failed", number=accuracy.drop,
            threshold=most, reason=f"{accuracy.metric} {accuracy.value:.4f}, drop against "
            f"the source model {accuracy.drop:+.4f}, allowed {allowed}",
        )  # fmt: skip


def _kind(candidate: Standing, champion: Standing | None) -> Iterator[Gate]:
    """Whether both answer the same question."""
    if champion is None:
        yield Gate(name="classes", outcome="passed", reason=FIRST)
        yield Gate(name="data", outcome="passed", reason=FIRST)
        return
    same = candidate.labels == champion.labels and candidate.contract == champion.contract
    if candidate.labels != champion.labels:
        reason = (
            f"{len(candidate.labels)} classes, the champion has {len(champion.labels)} or others: "
            "another model, which needs a name of its own"
        )
    elif not same:
        reason = "task, input or preprocessing are not the champion's: an application would notice"
    else:
        reason = "task, classes, input and preprocessing are the champion's"
    yield Gate(name="classes", outcome="passed" if same else "failed", reason=reason)
    equal = candidate.data_sha256 == champion.data_sha256
    reason = (
        "the same photos and labels as the champion's"
        if equal
        else f"photos or labels {candidate.data_sha256[:12] or 'none'} are not the champion's "
        f"{champion.data_sha256[:12] or 'none'}"
    )
    yield Gate(name="data", accept="data", outcome="passed" if equal else "failed", reason=reason)


def _accuracy(
    candidate: Standing, champion: Standing | None, paired: Paired | str, limits: Limits
) -> Gate:
    def gate(outcome: Literal["passed", "failed"], reason: str, number: float | None) -> Gate:
        return Gate(
            name="accuracy", outcome=outcome, reason=reason, number=number,
            threshold=-limits.max_drop if number is not None else None,
            accept="" if isinstance(paired, Paired) and champion else "accuracy",
        )  # fmt: skip

    if champion is None:
        if candidate.accuracy is None:
            return gate("failed", "accuracy not judged: there are no labels", None)
        return gate("passed", FIRST, None)
    if isinstance(paired, str):
        return gate("failed", f"accuracy not judged: {paired}", None)
    number = paired.bound if math.isfinite(paired.bound) else None
    figures = (
        f"{paired.metric} {paired.candidate:.4f}, the champion {paired.champion:.4f} on the same "
        f"{paired.photos} photos"
    )
    if paired.bound > -limits.max_drop:
        return gate(
            "passed", f"{figures}; with 95 % confidence it loses less than {limits.max_drop:g}",
            number,
        )  # fmt: skip
    if paired.difference <= -limits.max_drop and not paired.needed:
        lost = f"worse by {-paired.difference:.4f}, allowed {limits.max_drop:g}"
        return gate("failed", f"{figures}: {lost}", number)
    needed = f"about {paired.needed} labelled photos are needed" if paired.needed else (
        "no number of photos would tell at this difference"
    )  # fmt: skip
    return gate(
        "failed",
        f"{figures}: too few photos to tell a loss of {limits.max_drop:g}, {needed}",
        number,
    )


def _latency(
    candidate: Standing, champion: Standing | None, race: Race | str, limits: Limits
) -> Gate:
    if champion is None:
        if candidate.p50_ms is None:
            reason = "latency was not measured"
            return Gate(name="latency", outcome="pending", reason=reason, accept="latency")
        return Gate(name="latency", outcome="passed", number=candidate.p50_ms, reason=FIRST)
    if isinstance(race, str):
        return Gate(
            name="latency", outcome="pending", accept="latency", reason=f"not raced: {race}"
        )
    low, high = race.ci95
    most = limits.slower_than
    outcome: Literal["passed", "failed", "pending"] = (
        "passed" if high <= most else "failed" if low > most else "pending"
    )
    ratio = (
        f"in a race on {race.machine} it takes {race.ratio:.3f} ({low:.3f} to {high:.3f}) of the "
        f"champion's time, allowed {most:g}; {race.ms[0]:.3g} and {race.ms[1]:.3g} ms"
    )
    unsure = ": this race could not tell, run it on a quieter machine" * (outcome == "pending")
    return Gate(
        name="latency", outcome=outcome, number=race.ratio, threshold=most, reason=ratio + unsure,
        accept="latency" if outcome == "pending" else "",
    )  # fmt: skip


def _size(candidate: Standing, champion: Standing | None) -> Gate:
    mib, most = candidate.size_bytes / 2**20, candidate.budget.max_size_mib
    before = f"the champion {champion.size_bytes / 2**20:.2f}" if champion else FIRST
    holds = most is None or mib <= most + ROUNDING
    return Gate(
        name="size", outcome="passed" if holds else "failed", number=mib, threshold=most,
        reason=f"{mib:.2f} MiB, allowed {'any' if most is None else f'{most:g}'}; {before}",
    )  # fmt: skip


def _packages(candidate: Standing) -> Gate:
    """Whether real servers have proven what is served of it; what does not fit counts for none."""
    states = {state for _, state in candidate.packages} - {"skipped"}
    outcome: Literal["passed", "failed", "pending"] = (
        "failed" if "failed" in states else "pending" if "pending" in states else "passed"
    )
    said = ", ".join(f"{kind} {state}" for kind, state in candidate.packages)
    return Gate(name="packages", outcome=outcome, reason=said or "no package was asked for")
