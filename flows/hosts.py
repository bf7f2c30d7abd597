"""The machines of the fleet, with their ages: `engineworks hosts`.

Ages are by the store's clock, so a machine with a wrong clock is not taken for dead.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from artifacts import fleet
from artifacts.store import s3
from artifacts.store.remote import address
from engineworks import streams, targets
from engineworks.codec import to_json
from engineworks.errors import EngineworksError
from engineworks.facts.host import RegisteredHost
from engineworks.plan import SILENT_S, ago
from tasks._cache import checkout_sha256

#: Seconds that a server is waited for: somebody looks on.
PATIENCE_S = 15.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engineworks hosts",
        description="List the machines of the fleet, by the store that ENGINEWORKS_STORE names.",
        epilog="States: ready; silent, when its worker was not heard of for "
        f"{SILENT_S:.0f} s; other version, when its checkout is not this one. Exit codes: 0 "
        "listed, also when there is none; 2 unknown option; 3 the store cannot be asked, or the "
        "machine cannot be forgotten; 130 stopped.",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON list: each machine's card, pool, age_s, state and builds (targets)",
    )
    parser.add_argument("--forget", metavar="NAME", help="remove a machine that is gone for good")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """List the machines; the exit code is its meaning."""
    streams.tolerate()
    options = _parser().parse_args(arguments)
    try:
        own = "ENGINEWORKS_STORE_PATIENCE_S" in os.environ
        bucket = s3.Bucket(address(), patience_s=None if own else PATIENCE_S)
        if options.forget is not None:
            fleet.forget(bucket, options.forget)
        hosts = fleet.registered(bucket)
    except EngineworksError as error:
        sys.stderr.write(error.block)
        return 3
    except KeyboardInterrupt:
        return 130
    if options.json:
        data = [{**to_json(h), "state": _state(h), "builds": _builds(h)} for h in hosts]
        sys.stdout.write(json.dumps(data, indent=1) + "\n")
    elif hosts:
        _show(hosts)
    else:
        sys.stderr.write(
            f"no machine is registered in {bucket.address}\n"
            "  next: start `python -m flows.worker --pool cpu` on each (docs/fleet.md)\n"
        )
    return 0


def _show(hosts: list[RegisteredHost]) -> None:
    table = Table("machine", "pool", "state", "heard of", "what it is", "builds", box=None)
    for host in hosts:
        card = host.card
        what = [f"{card.os} {card.arch}", card.cpu, *(gpu.name for gpu in card.gpus)]
        cells = (card.name, host.pool, _state(host), f"{ago(host.age_s)} ago", ", ".join(what))
        table.add_row(*map(escape, (*cells, ", ".join(_builds(host)) or "nothing")))
    # Without a terminal a machine is one line, for grep and awk.
    (Console() if sys.stdout.isatty() else Console(width=400)).print(table)


def _builds(host: RegisteredHost) -> list[str]:
    """Targets that a machine can build, without those that only replay recorded answers."""
    known = {name: targets.load(name) for name in targets.names()}
    building = {
        name: target for name, target in known.items() if not target.missing_requirements(host.card)
    }
    return [name for name, target in building.items() if not target.replays]


def _state(host: RegisteredHost) -> str:
    if host.age_s > SILENT_S:
        return "silent"
    return "ready" if host.code_sha256 == checkout_sha256() else "other version"


if __name__ == "__main__":
    from flows.commands.signals import end

    end(main())
