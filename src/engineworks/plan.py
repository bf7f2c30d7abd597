"""The planner: every variant of a recipe, the machine that builds it, or why none does.

The one place that makes a `PlannedVariant`. Pure: same targets and same cards, same plan. Touches
no device and knows no Prefect, no store, no YAML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from engineworks import hosts, targets
from engineworks.facts.host import HostCard, RegisteredHost
from engineworks.facts.plan import Plan, PlannedVariant
from engineworks.specs import TargetSpec

#: A machine that was not heard of for this long gets no work. Its worker speaks every 30 s.
SILENT_S = 90.0


def plan(
    specs: Sequence[TargetSpec],
    host: HostCard | None = None,
    *,
    registered: Sequence[RegisteredHost] | None = None,
    code_sha256: str = "",
) -> Plan:
    """Every variant: where it runs, or skipped and why.

    Args:
        specs: The targets of a recipe.
        host: Card of this machine; left out: asked for now.
        registered: The machines of the fleet; None: everything runs here.
        code_sha256: Of the library that plans; a machine with another one gets no work.
    """
    card = host or hosts.probe()
    if registered is not None:
        return Plan(host=card, variants=place(specs, registered, code_sha256))
    here: list[PlannedVariant] = []
    for spec in specs:
        missing = targets.load(spec.target).missing_requirements(card)
        here += rows(spec, "skip" if missing else "run", missing)
    return Plan(host=card, variants=tuple(here))


def rows(
    spec: TargetSpec,
    action: Literal["run", "skip", "pending"] = "run",
    reason: str = "",
    host: RegisteredHost | None = None,
) -> tuple[PlannedVariant, ...]:
    """The variants of one entry of `targets:`, one per precision.

    Args:
        spec: The entry.
        action: What is to become of them.
        reason: Why they do not run.
        host: Machine of the fleet; None: the one that runs the flow.
    """
    return tuple(
        PlannedVariant(
            target=spec.target,
            precision=precision,
            label=spec.label,
            options=dict(spec.options),
            required=spec.required,
            action=action,
            reason=reason,
            host=host.card.name if host else "",
            pool=host.pool if host else spec.pool,
            everywhere=spec.devices == "all" and host is not None,
        )
        for precision in spec.precisions
    )


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
        fitting, missing = _fitting(spec, hosts)
        if not fitting:
            planned += _without_host(spec, missing)
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
            planned += rows(spec, "pending" if reason else "run", reason, host)
            load[host.card.name] += len(spec.precisions)
    return tuple(planned)


def _fitting(
    spec: TargetSpec, hosts: Sequence[RegisteredHost]
) -> tuple[list[RegisteredHost], dict[str, str]]:
    """Machines that can build a target, and what each of the others lacks.

    Where some of them can open its engines too, only those: what is built elsewhere has to wait.
    """
    target = targets.load(spec.target)
    fitting, missing = [], {}
    for host in hosts:
        if spec.pool and host.pool != spec.pool:
            continue
        reason = target.missing_requirements(host.card)
        if reason:
            missing[host.card.name] = reason
        else:
            fitting.append(host)
    opening = [host for host in fitting if not target.cannot_run(host.card)]
    return opening or fitting, missing


def _without_host(spec: TargetSpec, missing: dict[str, str]) -> tuple[PlannedVariant, ...]:
    where = f"pool {spec.pool}" if spec.pool else "the fleet"
    if not missing:
        return rows(spec, "pending", f"no machine of {where} is registered")
    common, count = Counter(missing.values()).most_common(1)[0]
    names = [name for name, reason in missing.items() if reason == common]
    which = ", ".join(names[:3]) + (f" and {count - 3} more" if count > 3 else "")
    return rows(spec, "skip", f"no machine of {where} can build it: {which}: {common}")


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
