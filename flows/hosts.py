"""The machines of the fleet, with their ages: `python -m flows.hosts`.

Ages are by the store's clock, so a machine with a wrong clock is not taken for dead.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from artifacts import fleet, s3
from artifacts.remote_store import address
from engineworks import targets
from engineworks.codec import to_json
from engineworks.errors import EngineworksError
from engineworks.fleet import SILENT_S, ago
from engineworks.values import RegisteredHost
from tasks._cache import checkout_sha256


def main(arguments: list[str] | None = None) -> int:
    """List the machines; 0, or 2 when the store cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m flows.hosts", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print their cards as JSON")
    parser.add_argument("--forget", metavar="NAME", help="remove a machine that is gone for good")
    options = parser.parse_args(arguments)
    try:
        bucket = s3.Bucket(address())
        if options.forget:
            fleet.forget(bucket, options.forget)
        found = fleet.registered(bucket)
    except EngineworksError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.message}\n  next: {error.hint}\n")
        return 2
    if options.json:
        data = [{**to_json(h), "state": _state(h), "builds": _builds(h)} for h in found]
        sys.stdout.write(json.dumps(data, indent=1) + "\n")
        return 0
    table = Table("machine", "pool", "state", "heard of", "what it is", "builds", box=None)
    for host in found:
        card = host.card
        what = [f"{card.os} {card.arch}", card.cpu, *(gpu.name for gpu in card.gpus)]
        cells = (card.name, host.pool, _state(host), f"{ago(host.age_s)} ago", ", ".join(what))
        table.add_row(*map(escape, (*cells, ", ".join(_builds(host)) or "nothing")))
    Console().print(table)
    return 0


def _builds(host: RegisteredHost) -> list[str]:
    """Targets that a machine can build, without the one that replays recorded answers."""
    known = [name for name in targets.names() if name != "null"]
    return [name for name in known if not targets.load(name).missing(host.card)]


def _state(host: RegisteredHost) -> str:
    if host.age_s > SILENT_S:
        return "silent"
    return "ready" if host.code_sha256 == checkout_sha256() else "other version"


if __name__ == "__main__":
    raise SystemExit(main())
