"""Candidate and champion run now, side by side: their answers to the photos, and a race.

The machine that built them does it. What cannot be done is said in words. Knows no gate.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timezone

from artifacts.promotion.evidence import Evidence
from artifacts.store.remote import RemoteStore
from engineworks.errors import EngineworksError
from engineworks.evaluate.paired import Paired
from engineworks.facts.prepared import Shared
from engineworks.facts.timing import Comparison
from engineworks.promotion.gates import Race
from flows.fleet.attachments import pack_data
from flows.fleet.machine import this_machine
from flows.fleet.measuring import Untimed, measure
from flows.fleet.timing import ASKED, AskedPhotos, TimeOrder
from tasks._cache import checkout_sha256
from tasks._run import Run

OTHER = "the two are not asked the same"


@dataclass(frozen=True, kw_only=True)
class Rematch:
    """What both do now; or why that is not known, in words."""

    answers: Paired | str
    race: Race | str


def play(run: Run, candidate: Evidence, champion: Evidence, max_drop: float) -> Rematch:
    """Have both answer the candidate's photos, and race.

    Args:
        run: The run.
        candidate: What may be promoted.
        champion: What is live.
        max_drop: Largest loss of the metric that is allowed.
    """
    mine, theirs = candidate.standing, champion.standing
    if (mine.labels, mine.contract) != (theirs.labels, theirs.contract):
        return Rematch(answers=OTHER, race=OTHER)
    machine = mine.machine
    order = _order(candidate, champion)
    photos = _photos(run, candidate, champion, max_drop)
    answering = None if isinstance(photos, str) else dataclasses.replace(order, photos=photos)
    racing = None if (why := _no_race(candidate, champion)) else order
    replies = iter(
        measure(run, [(machine, asked) for asked in (answering, racing) if asked], "promote")
    )
    answers = next(replies) if answering else photos
    raced = next(replies) if racing else why
    return Rematch(
        answers=answers if isinstance(answers, Paired | str) else _why(answers),
        race=_race(machine, raced) if isinstance(raced, Comparison) else _why(raced),
    )


def _why(answer: object) -> str:
    assert isinstance(answer, Untimed | str)  # noqa: S101 - an order finds what it asks for
    return answer.reason if isinstance(answer, Untimed) else answer


def _order(candidate: Evidence, champion: Evidence) -> TimeOrder:
    return TimeOrder(
        engine_sha256=candidate.standing.sha256,
        beside_sha256=champion.standing.sha256,
        name=candidate.variant.name,
        target=candidate.variant.target,
        precision=candidate.variant.precision,
        size=candidate.size,
        threads=candidate.threads,
        asked_at=datetime.now(timezone.utc).isoformat(),
        checkout_sha256=checkout_sha256(),
    )


def _photos(
    run: Run, candidate: Evidence, champion: Evidence, max_drop: float
) -> AskedPhotos | str:  # fmt: skip
    manifest, data = candidate.manifest, candidate.data
    task, preprocess = manifest.task, manifest.preprocess
    if data is None or not data.objects or task is None or preprocess is None:
        return "there are no labelled photos"
    if ":" in task.layout:
        return f"its own decoder {task.layout} is code that no promotion runs"
    if champion.manifest.task is None:
        return "the champion has no task"
    files = None
    try:
        if isinstance(run.store, RemoteStore) and candidate.standing.machine != this_machine():
            files = pack_data(run.store, data, manifest.name)
    except EngineworksError as error:
        return error.line
    shared = Shared(
        name=manifest.name, preprocess=preprocess, task=task, labels=tuple(task.labels),
        recipe_sha256="", store="",
    )  # fmt: skip
    return AskedPhotos(shared=shared, data=data, files=files, max_drop=max_drop)


def _no_race(candidate: Evidence, champion: Evidence) -> str:
    """Why the two cannot be timed against each other; empty when they can."""
    mine, theirs = candidate.standing.machine, champion.standing.machine
    if mine != theirs:
        return f"it was built on {mine}, the champion on {theirs}: only one machine compares"
    if (candidate.size, candidate.threads) != (champion.size, champion.threads):
        return "the two were timed with other sizes or threads"
    return ""


def _race(machine: str, timed: Comparison) -> Race:
    first, second = timed.contenders
    mine, theirs = (first, second) if first.variant == ASKED else (second, first)
    ratio, interval = mine.ratio, mine.ci95
    if mine is first:  # the fastest, of which the other's ratio is
        ratio, interval = 1 / theirs.ratio, (1 / theirs.ci95[1], 1 / theirs.ci95[0])
    return Race(machine=machine, ratio=ratio, ci95=interval, ms=(mine.p50_ms, theirs.p50_ms))
