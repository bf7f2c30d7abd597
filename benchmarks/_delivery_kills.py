"""`kill -9` of an agent at random moments of real deliveries; trials run in child processes.

After each kill the link must lead to a whole engine that opens, the old or the new one; the next
looks must end on what is named. A delivery that a kill has cut short twice is let through.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engineworks import runtime
from engineworks.delivery import trial
from engineworks.delivery.disk import Disk
from engineworks.delivery.home import Home
from engineworks.delivery.slots import SlotState
from engineworks.errors import EngineworksError
from tests.deliveries import World

#: A watch takes so long here.
WATCH_S = 0.6


@dataclass
class Kills:
    """What was seen."""

    deliveries: int = 0
    kills: int = 0
    without_engine: int = 0
    half: int = 0
    astray: int = 0
    """Deliveries after which another engine ran than the one that should."""
    phases: Counter[str] = field(default_factory=Counter)
    """What the record said when a kill came."""


def opens(home: Home) -> str:
    """Identity of the engine that the link leads to, opened; empty: there is none that works."""
    link = home.current("main")
    try:
        folder = link.resolve(strict=True)
        session = runtime.open(folder, threads=1, sha256=folder.name)
        session.close()
    except (OSError, RuntimeError, EngineworksError):
        return ""
    return folder.name


def _child(world: World, home: Home, wrong: str) -> int:
    """Look in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()

        def watches(*_: object) -> str:
            time.sleep(WATCH_S)
            return wrong

        world.agent(home, tries=trial.run, asks=lambda server: {}, watches=watches).once()
    finally:
        os._exit(0)


def _wait(child: int, seconds: float) -> bool:
    """Whether a process ended by itself within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            return True
        time.sleep(0.002)
    return False


def run(folder: Path, kills: int, deliveries: int, tell: Callable[[str], None]) -> Kills:
    """Kill until both numbers are reached."""
    world, chance, seen = World(folder), random.Random(16), Kills()  # noqa: S311 - moments by chance
    home = world.device(server="http://127.0.0.1:1", watch_s=1.0)
    last = world.engine(1.0)
    world.put(last)
    begun = time.monotonic()
    os.waitpid(_child(world, home, ""), 0)
    took_s = time.monotonic() - begun
    good = last.name
    while seen.kills < kills or seen.deliveries < deliveries:
        number = seen.deliveries + 2
        bad = number % 5 == 0
        new = world.engine(float(number), extra={"labels/a.txt": os.urandom(300_000)}).name
        world.put(world.store.root / new[:2] / new)
        wrong = "it is not ready" if bad else ""
        for _ in range(6):
            child = _child(world, home, wrong)
            # Half of them before the trial, which takes most of the time.
            until_s = took_s * (1.1 if chance.random() < 0.5 else 0.4)
            if _wait(child, chance.uniform(0.0, until_s)):
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            seen.kills += 1
            state = SlotState(home, Disk(), "main")
            seen.phases[state.record.phase or "before the trial"] += 1
            now = opens(home)
            seen.without_engine += not now
            seen.half += now not in (good, new)
            if state.record.tries >= 2:
                break
        begun = time.monotonic()
        os.waitpid(_child(world, home, wrong), 0)
        took_s = 0.7 * took_s + 0.3 * max(0.3, time.monotonic() - begun)
        wanted = good if bad else new
        seen.astray += opens(home) != wanted
        good = wanted
        seen.deliveries += 1
        if seen.deliveries % 10 == 0:
            tell(f"{seen.deliveries} deliveries, {seen.kills} kills, {dict(seen.phases)}")
    return seen
