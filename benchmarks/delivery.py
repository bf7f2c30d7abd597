"""`make chaos-delivery [PARTS="attacks kills cuts"]`: what may go wrong on the way to a device.

Attacks with honest deliveries in between; kill -9 at random moments; power cuts after every single
operation on the disk. Prints its bars, and writes `benchmarks/delivery_<part>.json`.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _delivery_attacks, _delivery_kills
from benchmarks._bars import Bar, finish
from benchmarks._delivery_disk import WAYS, RecordingDisk, read_tree, rebuilt, write_tree
from benchmarks._delivery_kills import opens
from engineworks.delivery.home import Home
from engineworks.delivery.status import Status
from tests.deliveries import World

ATTACKS, HONEST, KILLS, DELIVERIES = 200, 100, 200, 50


def _say(line: str) -> None:
    print(line, flush=True)


def attacks(folder: Path) -> tuple[list[Bar], dict[str, Any]]:
    """Attacks, two to each honest delivery."""
    seen = _delivery_attacks.run(folder, ATTACKS, HONEST, _say)
    bars = [
        Bar("attacks refused, each by its check", seen.refused, "attacks", ATTACKS, at_least=True),
        Bar("attacks that changed what runs", seen.changed, "attacks", 0),
        Bar("honest deliveries accepted", seen.accepted, "deliveries", HONEST, at_least=True),
    ]
    kinds = {kind: dict(checks) for kind, checks in sorted(seen.checks.items())}
    return bars, {"checks": kinds, "missed": seen.missed, "rotations": seen.rotations,
                  "rollbacks": seen.rollbacks}  # fmt: skip


def kills(folder: Path) -> tuple[list[Bar], dict[str, Any]]:
    """Kill -9."""
    seen = _delivery_kills.run(folder, KILLS, DELIVERIES, _say)
    bars = [
        Bar("kills of the agent", seen.kills, "kills", KILLS, at_least=True),
        Bar("deliveries with kills", seen.deliveries, "deliveries", DELIVERIES, at_least=True),
        Bar("kills that left no working engine", seen.without_engine, "kills", 0),
        Bar("kills that left a half switch", seen.half, "kills", 0),
        Bar("deliveries that ended astray", seen.astray, "deliveries", 0),
    ]
    return bars, {"phases": dict(seen.phases)}


def cuts(folder: Path) -> tuple[list[Bar], dict[str, Any]]:
    """Power cuts after every operation of some deliveries, in every way of losing."""
    chance = random.Random(7)  # noqa: S311 - losses by chance
    world, counts = World(folder), Counter[str]()
    parts: dict[str, Any] = {"asks": lambda server: {}, "watches": lambda *_: ""}
    ill = {**parts, "watches": lambda *_: "it is not ready"}
    home = world.device(server="http://127.0.0.1:1", watch_s=1.0)
    engines = [world.engine(float(n), extra={"more/a.bin": bytes(700_000)}) for n in range(1, 5)]
    world.put(engines[0])
    world.agent(home, **parts).once()
    scenes: list[tuple[str, Callable[[], Any], dict[str, Any], str, set[str]]] = [
        ("a newer engine", lambda: world.put(engines[1]), parts, engines[1].name, set()),
        ("one that falls ill", lambda: world.put(engines[2]), ill, engines[1].name,
         {engines[2].name}),
        ("a wanted rollback", lambda: world.put(engines[0]), parts, engines[0].name, set()),
        ("one that falls ill, once more", lambda: world.put(engines[3]), ill, engines[0].name,
         {engines[3].name}),
        ("what runs is damaged, and not named", lambda: _damage(home), parts, engines[1].name,
         set()),
        ("an engine again", lambda: world.put(engines[2]), parts, engines[2].name, set()),
        ("repair of what runs", lambda: _damage(home), parts, engines[2].name, set()),
    ]  # fmt: skip
    for title, prepare, how, wanted, between in scenes:
        prepare()
        before, was = read_tree(home.folder), opens(home)
        disk = RecordingDisk(home.folder)
        status = world.agent(home, disk=disk, **how).once()
        _check(status, opens(home) == wanted)
        done = disk.operations
        for number in range(len(done) + 1):
            for way in WAYS:
                tree = rebuilt(before, done[:number], way, chance)
                place = Home(write_tree(tree, world.folder / "cut"))
                counts["states"] += 1
                now = opens(place)
                # What was damaged before may be so until the next look, and no longer.
                counts["without"] += not now and bool(was)
                counts["half"] += bool(now) and now not in {was or wanted, wanted, *between}
                world.agent(place, **how).once()
                ends = opens(place)
                counts["astray"] += ends != wanted
        _say(f"{title}: {len(done)} operations, {dict(counts)}")
    bars = [
        Bar("power cuts that were rebuilt", counts["states"], "states", 500, at_least=True),
        Bar("power cuts that left no working engine", counts["without"], "states", 0),
        Bar("power cuts that left a half switch", counts["half"], "states", 0),
        Bar("power cuts after which the next look ended astray", counts["astray"], "states", 0),
    ]
    return bars, {}


def _damage(home: Home) -> None:
    path = home.current("main").resolve() / "model.onnx"
    path.write_bytes(path.read_bytes()[:-7])


def _check(status: Status, as_wanted: bool) -> None:
    if not as_wanted:
        raise RuntimeError(f"the delivery that is recorded went wrong: {status}")


PARTS = {"attacks": attacks, "kills": kills, "cuts": cuts}


def main(names: list[str]) -> int:
    """Run the parts named, else all; 0 only if every bar holds."""
    unknown = set(names) - set(PARTS)
    if unknown:
        print(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
        return 2
    codes = []
    for name in names or PARTS:
        folder = Path(tempfile.mkdtemp(prefix=f"delivery-{name}-"))
        begun = time.monotonic()
        try:
            bars, details = PARTS[name](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        details["elapsed_s"] = round(time.monotonic() - begun, 1)
        codes.append(finish(f"delivery_{name}", bars, details))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
