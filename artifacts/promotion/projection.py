"""MLflow's aliases as the generation records say: `champion-<variant>`, `previous-<variant>`.

The records are the truth; aliases are what people and programs see of them. What a crash left
half-done or a person bent is made right, and said. A tag of the model keeps the newest head of each
log, so that a store that was set back contradicts MLflow. Knows MLflow and records, no gates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.promotion import evidence, ledger
from artifacts.promotion.conditional import Place
from artifacts.promotion.ledger import Generation, Overtaken
from artifacts.registry.mlflow_log import client, speaking
from engineworks.errors import ArtifactError
from engineworks.facts.plan import slug

#: Who moves what nobody has asked to move.
RECONCILER = "reconciler"

#: Tries against others who move the same variant at the same time.
TRIES = 50


def champion_of(variant: str) -> str:
    """Alias of the version that is live."""
    return f"champion-{slug(variant)}"


def previous_of(variant: str) -> str:
    """Alias of the version that a rollback goes to."""
    return f"previous-{slug(variant)}"


def witness_of(variant: str) -> str:
    """Tag of a registered model that keeps generation and head of a variant's log."""
    return f"engineworks.head.{slug(variant)}"


def reconcile(home: Path, place: Place, model: str) -> list[str]:
    """Make MLflow say what the records say; what had to be repaired, in words.

    A champion that was withdrawn or is gone makes way for the last good version before it.

    Args:
        home: State folder.
        place: Where the records lie.
        model: Registered model.

    Raises:
        ArtifactError: A log is not whole, or is not the one that MLflow has seen before.
        StoreError: MLflow or the store does not answer.
    """
    said: list[str] = []
    with speaking(home):
        mlflow = client(home)
        for record in ledger.all_of(place, model):
            said += _variant(mlflow, place, model, record.variant)
    return said


def verify(home: Path, place: Place, generation: Generation) -> list[ledger.Move]:
    """The log of a variant, held against itself and against what MLflow has seen.

    Raises:
        ArtifactError: It is not whole, or not the one that MLflow has seen.
        StoreError: MLflow or the store does not answer.
    """
    with speaking(home):
        tags = client(home).get_registered_model(generation.model).tags or {}
    return _held(place, generation, tags.get(witness_of(generation.variant), ""))


def _held(place: Place, generation: Generation, witness: str) -> list[ledger.Move]:
    log = ledger.moves(place, generation)
    number, _, head = witness.partition(" ")
    if not head:
        return log
    heads = [*(move.before for move in log[1:]), generation.head]
    if not number.isdigit() or int(number) > len(heads) or heads[int(number) - 1] != head:
        raise ArtifactError(
            f"the history of {generation.model}: {generation.variant} is not the one that MLflow "
            f"has seen: there generation {number} has head {head[:12]}, the store has "
            f"{generation.number} generations without it",
            hint="the store was set back or rewritten: restore promotions/ from a copy, and find "
            "out who may write there",
        )
    return log


def _variant(mlflow: Any, place: Place, model: str, variant: str) -> list[str]:
    said: list[str] = []
    for _ in range(TRIES):
        now = ledger.read(place, model, variant)
        if now is None:
            return said
        registered = mlflow.get_registered_model(model)
        witness = (registered.tags or {}).get(witness_of(variant), "")
        try:
            _held(place, now.generation, witness)
        except ArtifactError:
            again = ledger.read(place, model, variant)
            if again is not None and again.token != now.token:
                continue  # MLflow was told of a newer generation meanwhile
            raise
        withdrawn = _withdrawn(mlflow, place, now)
        if withdrawn is not None:
            said += [withdrawn] * bool(withdrawn)
            continue
        said += _project(mlflow, now.generation, registered.aliases, witness)
        last = ledger.read(place, model, variant)
        if last is not None and last.token == now.token:
            return said
    return said


def _withdrawn(mlflow: Any, place: Place, now: ledger.Read) -> str | None:
    """Move on from a champion that cannot be live; None: it can."""
    old = now.generation
    why = evidence.unusable(mlflow, old.model, old.champion) if old.champion else ""
    if not why:
        return None
    stack = list(old.stack)
    while stack and evidence.unusable(mlflow, old.model, stack[-1]):
        stack.pop()
    new = stack.pop() if stack else ""
    try:
        ledger.advance(
            place, now, model=old.model, variant=old.variant, what="withdraw", who=RECONCILER,
            new=new, stack=stack, why=why, evidence={},
        )  # fmt: skip
    except Overtaken:
        return ""
    return (
        f"{old.variant}: version {old.champion} is champion no more ({why}); "
        + (f"version {new} is again" if new else "there is none now")
    )  # fmt: skip


def _project(
    mlflow: Any, now: Generation, aliases: dict[str, Any], witness: str
) -> list[str]:  # fmt: skip
    said = []
    mark = f"{now.number} {now.head}"
    for alias, version in (
        (champion_of(now.variant), now.champion), (previous_of(now.variant), now.previous)
    ):  # fmt: skip
        there = str(aliases.get(alias, ""))
        gone = version and alias.startswith("previous-") and evidence.unusable(
            mlflow, now.model, version
        )  # fmt: skip
        wanted = "" if gone else version
        if there == wanted:
            continue
        if witness == mark:  # this generation had been shown already: somebody moved it since
            said.append(
                f"{alias} was on version {there or 'none'}, and is on {wanted or 'none'} again: "
                "promote and rollback move it"
            )
        if wanted:
            mlflow.set_registered_model_alias(now.model, alias, wanted)
        else:
            mlflow.delete_registered_model_alias(now.model, alias)
    if witness != mark:
        mlflow.set_registered_model_tag(now.model, witness_of(now.variant), mark)
    return said
