"""One variant through the gates, or back: read what is known, decide, move, show it in MLflow.

Knows records, evidence and gates; no form and no terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from engineworks.promotion.gates import FIRST, Gate, Limits
from flows.commands.outcome import History, Promotion
from flows.steps import rematch
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
            found = client(home).get_model_version(model, version)
        return [(variant or found.tags.get("variant", ""), version)]
    known = promoted(home, "candidate", model)
    chosen = [(one.variant, one.version) for one in known if variant in ("", one.variant)]
    if not chosen:
        names = ", ".join(one.variant for one in known) or "none"
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
) -> Promotion:
    """Hold a version against its champion, and put it in its place when every gate opens."""
    records_at, home = records(), _run.home()
    then = ledger.read(records_at, model, variant)
    live = then.generation.champion if then else ""

    def outcome(word: Any, reason: str, found: Sequence[Gate] = ()) -> Promotion:
        return Promotion(
            model=model, variant=variant, version=version, before=live, outcome=word,
            reason=reason, gates=tuple(found),
        )  # fmt: skip

    try:
        if live == version:
            return outcome("unchanged", "it is the champion already")
        found, good = _gates(home, model, variant, version, live, limits, accept)
        word = gates.verdict(found)
        if word != "passed":
            return outcome("refused" if word == "failed" else "pending", _closed(found), found)
        why = f"in place of version {live}" if live else FIRST
        accepted = [gate.name for gate in found if gate.accepted]
        why += f"; accepted by {who}: {', '.join(accepted)}" if accepted else ""
        if dry_run:
            return outcome("passes", why, found)
        stack = ledger.promoted(then.generation if then else None, version, good=good)
        ledger.advance(
            records_at, then, model=model, variant=variant, what="promote", who=who, new=version,
            stack=stack, why=why,
            evidence={"gates": to_json(found), "limits": to_json(limits), "accept": list(accept)},
        )  # fmt: skip
        return outcome("promoted", why, found)
    except Overtaken as error:
        return outcome("overtaken", error.line)
    except EngineworksError as error:
        return outcome("failed", error.line)


def _gates(
    home: Path, model: str, variant: str, version: str, live: str, limits: Limits,
    accept: Sequence[str],
) -> tuple[list[Gate], bool]:  # fmt: skip
    """The gates, and whether the champion may be gone back to."""
    candidate = evidence.read(home, model, version, variant)
    if not live:
        return gates.judge(candidate.standing, None, "", "", limits, accept), False
    with speaking(home):
        good = not evidence.unusable(client(home), model, live)
    champion = evidence.read(home, model, live, variant)
    run = _run.open_run("promote")
    now = rematch.play(run, candidate, champion, limits.max_drop)
    found = gates.judge(
        candidate.standing, champion.standing, now.answers, now.race, limits, accept
    )  # fmt: skip
    return found, good


def _closed(found: Sequence[Gate]) -> str:
    words = []
    for gate in found:
        if not gate.opens:
            taken = f" (--accept {gate.accept}, if you take that on yourself)" * bool(gate.accept)
            words.append(f"{gate.name}: {gate.reason}{taken}")
    return "; ".join(words)


def shown(model: str) -> list[str]:
    """Make MLflow say what the records say; repairs in words."""
    home = _run.home()
    return mlflow_wait.patiently(home, lambda: projection.reconcile(home, records(), model))


def back(model: str, variant: str, to: str, *, who: str, why: str, dry_run: bool) -> Promotion:
    """Move a variant to the version that was live and good before, or to one of its history.

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
        new, stack, skipped = _earlier(client(home), records_at, then, to)
    words = why or "asked for" + "".join(f"; passed over version {one}" for one in skipped)
    outcome: Any = "passes"
    if not dry_run:
        try:
            ledger.advance(
                records_at, then, model=model, variant=variant, what="rollback", who=who, new=new,
                stack=stack, why=words, evidence={"passed over": skipped},
            )  # fmt: skip
            outcome = "rolled back"
        except Overtaken as error:
            outcome, words = "overtaken", error.line
    return Promotion(
        model=model, variant=variant, version=new, before=now.champion, outcome=outcome,
        reason=words,
    )  # fmt: skip


def _earlier(
    mlflow: Any, records_at: Place, then: Read, to: str
) -> tuple[str, list[str], list[str]]:  # fmt: skip
    """(version, stack below it, versions passed over with the reason)."""
    now = then.generation
    skipped: list[str] = []
    stack = list(now.stack)
    if to:
        lived = {move.new for move in ledger.moves(records_at, now)} - {"", now.champion}
        why = evidence.unusable(mlflow, now.model, to) if to in lived else "it was never live"
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
        why = evidence.unusable(mlflow, now.model, version)
        if not why:
            return version, stack, skipped
        skipped.append(f"{version} ({why})")
    raise StoreError(
        f"{now.model}: {now.variant} has no earlier version that was live and good"
        + (f"; passed over: {', '.join(skipped)}" if skipped else ""),
        hint="promote another version, or name one of the history: --to VERSION",
    )


def _known(model: str) -> str:
    variants = [one.variant for one in ledger.all_of(records(), model)]
    return f"promoted are: {', '.join(variants) or 'none'}"


def only(model: str, variant: str) -> str:
    """The variant that is meant: the one that is named, or the only one that was ever promoted.

    Raises:
        StoreError: There is none, or more than one.
    """
    found = [one.variant for one in _live(model, variant)]
    if len(found) > 1:
        raise StoreError(
            f"{len(found)} variants of {model} are promoted: {', '.join(found)}",
            hint="name the one that is to go back: --variant VARIANT",
        )
    return found[0]


def histories(model: str, variant: str) -> list[History]:
    """The moves of every variant, verified."""
    records_at, home = records(), _run.home()
    found = []
    for one in _live(model, variant):
        broken, moves = "", []
        try:
            moves = projection.verify(home, records_at, one)
        except ArtifactError as error:
            broken = error.line
        found.append(
            History(
                model=model, variant=one.variant, champion=one.champion, previous=one.previous,
                broken=broken, moves=tuple(moves),
            )
        )  # fmt: skip
    return found


def _live(model: str, variant: str) -> list[Generation]:
    """What is live of a model; of one variant, if it is named.

    Raises:
        StoreError: Nothing of that name was ever promoted.
    """
    found = [one for one in ledger.all_of(records(), model) if variant in ("", one.variant)]
    if not found:
        raise StoreError(
            f"nothing of {model}{': ' + variant if variant else ''} was ever promoted",
            hint=_known(model),
        )
    return found
