"""One variant through the gates, or back: read what is known, decide, move, show it in MLflow.

Knows records, evidence and gates; no form and no terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from artifacts.promotion import evidence, ledger, projection
from artifacts.promotion.conditional import Place, place
from artifacts.promotion.ledger import Generation, Overtaken, Read
from artifacts.registry import mlflow_wait
from artifacts.registry.mlflow_log import client, public_uri, speaking
from artifacts.registry.promoted import promoted
from engineworks.codec import to_json
from engineworks.errors import ArtifactError, EngineworksError, StoreError
from engineworks.promotion import gates
from engineworks.promotion import shadows as shadow_gate
from engineworks.promotion.gates import FIRST, Gate, Limits
from engineworks.promotion.shadows import ShadowEvidence
from engineworks.shadow import record as shadow_record
from flows.commands.outcome import History, Promotion
from tasks import _run


def records() -> Place:
    """Where this installation's records lie."""
    return place(_run.open_home_store(), _run.home())


def candidates(model: str, variant: str, version: str) -> list[tuple[str, str]]:
    """(variant, version) of what is to be promoted.

    Args:
        model: Registered model.
        variant: One variant; empty: all that have a candidate.
        version: One version; empty: the candidate.

    Raises:
        StoreError: There is nothing of that name.
    """
    home = _run.home()
    if version:
        with speaking(home):
            registered = client(home).get_model_version(model, version)
        name = variant or registered.tags.get("variant", "")
        if not name:
            raise StoreError(
                f"version {version} of {model} is no engine: it has no tag `variant`",
                hint="ship its network: the tag engineworks.request = ship RECIPE, or flows.ship",
            )
        return [(name, version)]
    known = promoted(home, "candidate", model)
    chosen = [
        (generation.variant, generation.version)
        for generation in known
        if variant in ("", generation.variant)
    ]
    if not chosen:
        names = ", ".join(generation.variant for generation in known) or "none"
        raise StoreError(
            f"{model} has no candidate {variant or 'of any variant'} in MLflow at "
            f"{public_uri(home)}",
            hint=f"candidates: {names}; ship the model, or give --variant and --version",
        )
    return chosen


def promote_one(
    model: str,
    variant: str,
    version: str,
    *,
    limits: Limits,
    accept: Sequence[str],
    who: str,
    dry_run: bool,
    shadows: Sequence[ShadowEvidence] = (),
) -> Promotion:
    """Hold a version against its champion, and put it in its place when every gate opens.

    With `shadows`, one of them must speak for it, too.
    """
    records_at, home = records(), _run.home()
    then = ledger.read(records_at, model, variant)
    live = then.generation.champion if then else ""

    def outcome(word: Any, reason: str, judged: Sequence[Gate] = ()) -> Promotion:
        return Promotion(
            model=model, variant=variant, version=version, before=live, outcome=word,
            reason=reason, gates=tuple(judged),
        )  # fmt: skip

    try:
        if live == version:
            return outcome("unchanged", "it is the champion already")
        candidate = evidence.read(home, model, version, variant)
        champion = evidence.read(home, model, live, variant) if live else None
        judged, good = _gates(home, model, candidate, champion, limits, accept)
        if shadows:
            before = champion.standing if champion else None
            judged.append(shadow_gate.gate(candidate.standing, before, shadows, limits))
        word = gates.verdict(judged)
        if word != "passed":
            return outcome("refused" if word == "failed" else "pending", _closed(judged), judged)
        why = f"in place of version {live}" if live else FIRST
        accepted = [gate.name for gate in judged if gate.accepted]
        why += f"; accepted by {who}: {', '.join(accepted)}" if accepted else ""
        if dry_run:
            return outcome("passes", why, judged)
        stack = ledger.promoted(then.generation if then else None, version, good=good)
        ledger.advance(
            records_at, then, model=model, variant=variant, what="promote", who=who, new=version,
            stack=stack, why=why,
            evidence={"gates": to_json(judged), "limits": to_json(limits), "accept": list(accept)},
        )  # fmt: skip
        return outcome("promoted", why, judged)
    except Overtaken as error:
        return outcome("overtaken", error.line)
    except EngineworksError as error:
        return outcome("failed", error.line)


def shadow_evidence(paths: Sequence[str]) -> list[ShadowEvidence]:
    """Records of shadow runs, with their ages.

    Raises:
        ArtifactError: A file is none.
    """
    now = datetime.now(timezone.utc)
    read = [shadow_record.read(Path(path)) for path in paths]
    return [
        ShadowEvidence(record=record, age_days=shadow_record.age_days(record, now))
        for record in read
    ]


def _gates(
    home: Path,
    model: str,
    candidate: evidence.Evidence,
    champion: evidence.Evidence | None,
    limits: Limits,
    accept: Sequence[str],
) -> tuple[list[Gate], bool]:
    """The gates, and whether the champion may be gone back to."""
    if champion is None:
        return gates.judge(candidate.standing, None, "", "", limits, accept), False
    with speaking(home):
        good = not evidence.unusable(client(home), model, champion.standing.version)
    from flows.steps import rematch  # it needs Prefect, which no rollback waits for

    run = _run.open_run("promote")
    now = rematch.play(run, candidate, champion, limits.max_drop)
    judged = gates.judge(
        candidate.standing, champion.standing, now.answers, now.race, limits, accept
    )  # fmt: skip
    return judged, good


def _closed(judged: Sequence[Gate]) -> str:
    reasons = []
    for gate in judged:
        if not gate.opens:
            taken = f" (--accept {gate.accept}, if you take that on yourself)" * bool(gate.accept)
            reasons.append(f"{gate.name}: {gate.reason}{taken}")
    return "; ".join(reasons)


def shown(model: str) -> list[str]:
    """Make MLflow say what the records say; repairs in words."""
    home = _run.home()
    return mlflow_wait.patiently(home, lambda: projection.reconcile(home, records(), model))


def back(
    model: str, variant: str, to: str, *, who: str, why: str, dry_run: bool, asked: bool = True
) -> Promotion:
    """Move a variant to the version that was live and good before, or to one of its history.

    Args:
        model: Registered model.
        variant: Its name.
        to: A version of its history; empty: the last live and good one.
        who: Who asks.
        why: The reason.
        dry_run: Move nothing.
        asked: Ask MLflow whether it was withdrawn meanwhile; without, `shown` moves on from it.

    Raises:
        StoreError: There is none to go back to.
    """
    records_at, home = records(), _run.home()
    then = ledger.read(records_at, model, variant)
    if then is None:
        raise StoreError(
            f"nothing of {model}: {variant} was ever promoted", hint=f"see: {_known(model)}"
        )
    now = then.generation
    with speaking(home):
        mlflow = client(home) if asked else None
        new, stack, skipped = _earlier(mlflow, records_at, then, to)
    reason = why or "asked for" + "".join(f"; passed over version {version}" for version in skipped)
    outcome: Any = "passes"
    if not dry_run:
        try:
            ledger.advance(
                records_at, then, model=model, variant=variant, what="rollback", who=who, new=new,
                stack=stack, why=reason, evidence={"passed over": skipped},
            )  # fmt: skip
            outcome = "rolled back"
        except Overtaken as error:
            outcome, reason = "overtaken", error.line
    return Promotion(
        model=model, variant=variant, version=new, before=now.champion, outcome=outcome,
        reason=reason,
    )  # fmt: skip


def _earlier(
    mlflow: Any, records_at: Place, then: Read, to: str
) -> tuple[str, list[str], list[str]]:  # fmt: skip
    """(version, stack below it, versions passed over with the reason)."""

    def unusable(version: str) -> str:
        return "" if mlflow is None else evidence.unusable(mlflow, then.generation.model, version)

    now = then.generation
    skipped: list[str] = []
    stack = list(now.stack)
    if to:
        lived = {move.new for move in ledger.moves(records_at, now)} - {"", now.champion}
        why = unusable(to) if to in lived else "it was never live"
        if to == now.champion:
            why = "it is the champion now"
        if why:
            raise StoreError(
                f"{now.model}: {now.variant} cannot go back to version {to}: {why}",
                hint=f"versions that were live: {', '.join(sorted(lived)) or 'none'}",
            )
        return to, stack[: stack.index(to)] if to in stack else stack, skipped
    while stack:
        version = stack.pop()
        why = unusable(version)
        if not why:
            return version, stack, skipped
        skipped.append(f"{version} ({why})")
    raise StoreError(
        f"{now.model}: {now.variant} has no earlier version that was live and good"
        + (f"; passed over: {', '.join(skipped)}" if skipped else ""),
        hint="promote another version, or name one of the history: --to VERSION",
    )


def _known(model: str) -> str:
    variants = [generation.variant for generation in ledger.all_of(records(), model)]
    return f"promoted are: {', '.join(variants) or 'none'}"


def only(model: str, variant: str) -> str:
    """The variant that is meant: the one that is named, or the only one that was ever promoted.

    Raises:
        StoreError: There is none, or more than one.
    """
    variants = [generation.variant for generation in _live(model, variant)]
    if len(variants) > 1:
        raise StoreError(
            f"{len(variants)} variants of {model} are promoted: {', '.join(variants)}",
            hint="name the one that is to go back: --variant VARIANT",
        )
    return variants[0]


def histories(model: str, variant: str) -> list[History]:
    """The moves of every variant, verified."""
    records_at, home = records(), _run.home()
    rows = []
    for live in _live(model, variant):
        broken, moves = "", []
        try:
            moves = projection.verify(home, records_at, live)
        except ArtifactError as error:
            broken = error.line
        rows.append(
            History(
                model=model, variant=live.variant, champion=live.champion, previous=live.previous,
                broken=broken, moves=tuple(moves), lost=_lost(home, live, moves),
            )
        )  # fmt: skip
    return rows


def models(variant: str) -> list[str]:
    """Every model of which something was ever promoted; with a variant, of which that was."""
    records_at = records()
    return [
        model
        for model in ledger.models(records_at)
        if not variant or any(one.variant == variant for one in ledger.all_of(records_at, model))
    ]


def _lost(home: Path, live: Generation, moves: Sequence[ledger.Move]) -> dict[str, str]:
    """Versions that were live and cannot be again, each with the reason."""
    lived = dict.fromkeys(move.new for move in moves if move.new not in ("", live.champion))
    with speaking(home):
        mlflow = client(home)
        reasons = {version: evidence.unusable(mlflow, live.model, version) for version in lived}
    return {version: reason for version, reason in reasons.items() if reason}


def _live(model: str, variant: str) -> list[Generation]:
    """What is live of a model; of one variant, if it is named.

    Raises:
        StoreError: Nothing of that name was ever promoted.
    """
    generations = [
        generation
        for generation in ledger.all_of(records(), model)
        if variant in ("", generation.variant)
    ]
    if not generations:
        raise StoreError(
            f"nothing of {model}{': ' + variant if variant else ''} was ever promoted",
            hint=_known(model),
        )
    return generations
