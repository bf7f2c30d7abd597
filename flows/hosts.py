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
        data = [{**to_json(host), "state": _state(host)} for host in found]
        sys.stdout.write(json.dumps(data, indent=1) + "\n")
        return 0
    table = Table("machine", "pool", "state", "heard of", "what it is", box=None)
    for host in found:
        card = host.card
        words = f"{card.os} {card.arch}, {card.cpu}, {card.cores} cores, {card.memory_mib} MiB"
        table.add_row(
            escape(card.name), escape(host.pool), _state(host), f"{ago(host.age_s)} ago",
            escape(words),
        )  # fmt: skip
    Console().print(table)
    return 0


def _state(host: RegisteredHost) -> str:
    if host.age_s > SILENT_S:
        return "silent"
    return "ready" if host.code_sha256 == checkout_sha256() else "other version"


if __name__ == "__main__":
    raise SystemExit(main())
