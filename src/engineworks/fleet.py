"""The planner of a fleet: which machine builds which variant, from their cards alone.

Pure: same targets and same cards, same plan. Touches no device and knows no Prefect, no store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from engineworks import targets
from engineworks.facts.host import RegisteredHost
from engineworks.facts.plan import PlannedVariant
from engineworks.specs import TargetSpec

#: A machine that was not heard of for this long gets no work. Its worker speaks every 30 s.
SILENT_S = 90.0


def place(
    specs: Sequence[TargetSpec], registered: Sequence[RegisteredHost], code_sha256: str = ""
) -> tuple[PlannedVariant, ...]:
    """Give every variant a machine, or the reason why it has none.

    All precisions of one target go to one machine, so that their times can be compared; targets
    are spread over the machines that can build them, the least burdened first.

    Args:
        specs: The targets of a recipe.
        registered: The machines, in any order.
        code_sha256: Of the library that plans; a machine with another one gets no work.
    """
    hosts = sorted(registered, key=lambda host: host.card.name)
    load: Counter[str] = Counter()
    chosen: dict[tuple[str, str], str] = {}
    planned: list[PlannedVariant] = []
    for spec in specs:
        fitting, lacking = _fitting(spec, hosts)
        if not fitting:
            planned += _without_host(spec, lacking)
            continue
        if spec.devices == "one":
            awake = [host for host in fitting if not absence(host, code_sha256)]
            earlier = chosen.get((spec.target, spec.pool))
            host = next(
                (host for host in awake if host.card.name == earlier),
                min(awake or fitting, key=lambda host: (load[host.card.name], host.card.name)),
            )
            chosen[spec.target, spec.pool] = host.card.name
            fitting = [host]
        for host in fitting:
            reason = absence(host, code_sha256)
            planned += _rows(spec, "pending" if reason else "run", reason, host)
            load[host.card.name] += len(spec.precisions)
    return tuple(planned)


def _fitting(
    spec: TargetSpec, hosts: Sequence[RegisteredHost]
) -> tuple[list[RegisteredHost], dict[str, str]]:
    """Machines that can build a target, and what each of the others lacks.

    Where some of them can open its engines too, only those: what is built elsewhere has to wait.
    """
    target = targets.load(spec.target)
    fitting, lacking = [], {}
    for host in hosts:
        if spec.pool and host.pool != spec.pool:
            continue
        reason = target.missing(host.card)
        if reason:
            lacking[host.card.name] = reason
        else:
            fitting.append(host)
    opening = [host for host in fitting if not target.cannot_run(host.card)]
    return opening or fitting, lacking


def _without_host(spec: TargetSpec, lacking: dict[str, str]) -> list[PlannedVariant]:
    where = f"pool {spec.pool}" if spec.pool else "the fleet"
    if not lacking:
        return _rows(spec, "pending", f"no machine of {where} is registered")
    common, count = Counter(lacking.values()).most_common(1)[0]
    names = [name for name, reason in lacking.items() if reason == common]
    which = ", ".join(names[:3]) + (f" and {count - 3} more" if count > 3 else "")
    return _rows(spec, "skip", f"no machine of {where} can build it: {which}: {common}")


def absence(host: RegisteredHost, code_sha256: str) -> str:
    """Why a machine that could build something gets no work now; empty when it can."""
    if host.age_s > SILENT_S:
        return f"no worker: {host.card.name} was last heard of {ago(host.age_s)} ago"
    if code_sha256 and host.code_sha256 != code_sha256:
        return f"{host.card.name} runs another version of engineworks: bring both to the same"
    return ""


def ago(age_s: float) -> str:
    """An age in words."""
    for limit, unit, word in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if age_s < limit:
            return f"{age_s / unit:.0f} {word}"
    return f"{age_s / 86400:.0f} days"


def _rows(
    spec: TargetSpec,
    action: Literal["run", "skip", "pending"],
    reason: str,
    host: RegisteredHost | None = None,
) -> list[PlannedVariant]:
    return [
        PlannedVariant(
            target=spec.target,
            precision=precision,
            options=dict(spec.options),
            required=spec.required,
            action=action,
            reason=reason,
            host=host.card.name if host else "",
            pool=host.pool if host else spec.pool,
            everywhere=spec.devices == "all" and host is not None,
        )
        for precision in spec.precisions
    ]
