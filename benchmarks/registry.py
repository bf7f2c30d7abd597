"""`make bench-registry`: promotions at one moment, rollbacks now, requests in MLflow.

Prints its bars, and writes `benchmarks/registry.json`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import _registry_events
from benchmarks import _registry_fleet as fleet
from benchmarks import _registry_race as race
from benchmarks._bars import Bar, finish
from infra.s3 import S3Server

RACERS, ROUNDS = 16, 20
DEVICES, ROLLBACKS = 4, 5

Part = tuple[list[Bar], dict[str, Any]]


def promotions(folder: Path) -> Part:
    """Sixteen processes that have all read the same record promote one variant, 20 times."""
    secret = uuid.uuid4().hex
    server = S3Server(folder / "s3", key="bench", secret=secret, bucket="models")
    (folder / "s3").mkdir()
    found = {"folder": race.run(str(folder / "records"), {}, racers=RACERS, rounds=ROUNDS)}
    try:
        server.start()
        found["S3"] = race.run(
            "s3://models/records", server.environment, racers=RACERS, rounds=ROUNDS
        )
    finally:
        server.stop()
    bars = []
    for where, one in found.items():
        rounds = Bar(f"rounds with one winner on {where}", one.one_winner, "rounds", ROUNDS, True)
        tried = f"moves of those that try again on {where}"
        bars += [
            rounds,
            Bar(f"updates lost on {where}", one.lost, "updates", 0),
            Bar(f"histories whole on {where}", int(one.whole), "histories", 1, True),
            Bar(tried, one.insisted, "moves", RACERS, True),
        ]
    return bars, {"promotions": {where: asdict(one) for where, one in found.items()}}


def rollbacks(folder: Path) -> Part:
    """From the command `flows.rollback --now` to every device's answer with the older engine."""
    registry, took, until_signed = fleet.Registry(folder), [], []
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(fleet.published(registry.world.folder / "repository"))
        running = [
            stack.enter_context(fleet.device(registry, f"device-{number}", address))
            for number in range(DEVICES)
        ]
        urls = [one.url for one in running]
        fleet.until_all(urls, fleet.FACTORS["1"])
        for number in range(ROLLBACKS):
            registry.promote("2")
            fleet.until_all(urls, fleet.FACTORS["2"])
            time.sleep(number)  # devices ask at their own moments
            begun = time.time()
            command = subprocess.Popen(
                [sys.executable, "-m", "flows.rollback", fleet.MODEL, "--now", "--why", "worse"],
                env=registry.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            fleet.until_all(urls, fleet.FACTORS["1"])
            took.append(round(time.time() - begun, 2))
            signed = (registry.world.repository.folder / "metadata/timestamp.json").stat().st_mtime
            until_signed.append(round(signed - begun, 2))
            said, _ = command.communicate(timeout=60)
            if command.returncode:
                raise RuntimeError(said.decode())
    name = f"rollback now until {DEVICES} devices answer, the slowest of {ROLLBACKS}"
    return [Bar(name, max(took), "s", 10)], {
        "rollback_s": took,
        "of_which_until_signed_s": until_signed,
    }


def events(folder: Path) -> Part:
    """From a tag in MLflow to the run that it starts, with a webhook and without."""
    seen = _registry_events.run(folder)
    bars = [
        Bar("event to created run, the slowest", max(seen.created_s), "s", 2),
        Bar("event to the flow's first line, the slowest", max(seen.first_line_s), "s", 20),
        Bar(f"lost webhooks found by the next poll among {seen.models} models", seen.repaired,
            "requests", 1, at_least=True),
    ]  # fmt: skip
    return bars, {"events": asdict(seen)}


PARTS: dict[str, Callable[[Path], Part]] = {
    "promotions": promotions, "rollbacks": rollbacks, "events": events
}  # fmt: skip


def main(names: list[str]) -> int:
    """Run the parts named, else all; 0 only if every bar holds."""
    if unknown := {*names} - {*PARTS}:
        print(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
        return 2
    bars: list[Bar] = []
    details: dict[str, Any] = {}
    for name in names or PARTS:
        folder = Path(tempfile.mkdtemp(prefix=f"registry-{name}-"))
        try:
            more, said = PARTS[name](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        bars += more
        details |= said
    return finish("_".join(["registry", *names]), bars, details)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
