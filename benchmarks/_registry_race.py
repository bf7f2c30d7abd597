"""Many processes move one variant at one moment: by the real ledger, on a folder or a bucket."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.promotion import ledger
from artifacts.promotion.conditional import BucketPlace, FolderPlace, Place
from artifacts.promotion.ledger import Overtaken
from artifacts.store import s3

MODEL, VARIANT = "raced", "openvino/int8"


@dataclass(frozen=True, kw_only=True)
class Race:
    """What came of it."""

    one_winner: int
    """Rounds with exactly one winner, whose version is the champion afterwards."""
    lost: int
    """Moves that were said to be made and are not in the log, or the other way round."""
    whole: bool
    """Every entry of the log fits."""
    insisted: int
    """Generations that came of one round in which everybody tries again until it is moved."""


def place_of(address: str) -> Place:
    """Records in a bucket's prefix, or in a folder."""
    if address.startswith("s3://"):
        return BucketPlace(s3.Bucket(s3.parse(address), patience_s=60))
    return FolderPlace(Path(address))


def _move(place: Place, then: ledger.Read | None, version: str) -> bool:
    try:
        ledger.advance(
            place, then, model=MODEL, variant=VARIANT, what="promote", who="the race", new=version,
            stack=ledger.promoted(then.generation if then else None, version, good=True),
            why="a race", evidence={},
        )  # fmt: skip
    except Overtaken:
        return False
    return True


def _racer(
    address: str, environment: Mapping[str, str], rounds: int, number: int, gate: Any, told: Any
) -> None:
    os.environ.update(environment)
    place = place_of(address)
    for turn in range(rounds):
        then = ledger.read(place, MODEL, VARIANT)
        gate.wait(120)  # everybody has read the same record
        version = f"{turn}-{number}"
        told.put((turn, version, _move(place, then, version)))
        gate.wait(120)
    while not _move(place, ledger.read(place, MODEL, VARIANT), f"{rounds}-{number}"):
        pass


def run(address: str, environment: Mapping[str, str], *, racers: int, rounds: int) -> Race:
    """Race, then read what is left.

    Args:
        address: `s3://bucket/prefix`, or a folder.
        environment: What a client of the bucket needs.
        racers: Processes.
        rounds: How often they all begin at once.
    """
    context = multiprocessing.get_context("spawn")
    gate, told = context.Barrier(racers), context.Queue()
    processes = [
        context.Process(target=_racer, args=(address, environment, rounds, number, gate, told))
        for number in range(racers)
    ]
    for process in processes:
        process.start()
    said = [told.get(timeout=300) for _ in range(racers * rounds)]
    for process in processes:
        process.join(300)
    if any(process.exitcode for process in processes):
        raise RuntimeError("a racer ended with an error")
    os.environ.update(environment)
    place = place_of(address)
    now = ledger.read(place, MODEL, VARIANT)
    if now is None:
        raise RuntimeError("nobody has moved anything")
    log = ledger.moves(place, now.generation)
    raced = [move.new for move in log[:rounds]]
    won = [version for _, version, moved in said if moved]
    winners = Counter(turn for turn, _, moved in said if moved)
    return Race(
        one_winner=sum(
            winners[turn] == 1 and raced[turn].startswith(f"{turn}-") for turn in range(rounds)
        ),
        lost=len({*won} ^ {*raced}),
        whole=len(log) == now.generation.number == rounds + racers,
        insisted=len({move.new for move in log[rounds:]}),
    )
