"""`loadtest`: how much a server stands, and how long its answers take."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engineworks.cli._numbers import number
from engineworks.cli._words import add, answer
from engineworks.errors import DataError
from engineworks.files import read_bytes

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers
    from engineworks.load.knee import Knee
    from engineworks.load.poisson import Load

Result = TypeVar("Result")

#: Environment variable of the key, so that it stands in no list of processes.
KEY = "ENGINEWORKS_KEY"

#: Bytes of the largest body that is posted.
_MOST_BODY = 2**28

_HEAD = (
    f"{'load':<8} {'asked/s':>8} {'sent':>7} {'good':>7} {'late':>7} {'refused':>8} {'wrong':>6} "
    f"{'unanswered':>11} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}"
)


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommand."""
    command = add(subparsers, "loadtest", _loadtest, "measure a server under load")
    command.add_argument("url", help="for example http://127.0.0.1:8000/detect")
    command.add_argument(
        "--body", type=Path, required=True, metavar="FILE", help="what is posted, e.g. a photo"
    )
    command.add_argument(
        "--content-type", default="application/octet-stream", metavar="TYPE", help="of FILE"
    )
    command.add_argument(
        "--rate", type=number(0, 1e6), metavar="R",
        help="send R a second and report (default: look for the knee)",
    )  # fmt: skip
    command.add_argument(
        "--seconds", type=number(0, 3600), default=5.0, help="of each measurement (default: 5)"
    )
    command.add_argument(
        "--limit-ms", type=number(0, 3.6e6), metavar="MS",
        help="a good answer takes at most so long (default: 10 times one alone, at least 100)",
    )  # fmt: skip
    command.add_argument(
        "--give-up-s", type=number(0, 3600), default=30.0, metavar="S",
        help="a request without an answer counts as unanswered (default: 30)",
    )  # fmt: skip
    command.add_argument("--ca", default="", metavar="FILE", help="certificates to trust, PEM")
    command.epilog = f"A key is read from the environment variable {KEY}."


def _loadtest(options: argparse.Namespace) -> int:
    """0: measured, and well up to half the knee; 1: not even there; 2: no such server."""
    from engineworks.load import knee
    from engineworks.load.wire import Client, target

    try:
        body = read_bytes(options.body, _MOST_BODY)
    except OSError as error:
        raise DataError(
            f"{options.body} cannot be read ({error.strerror})", hint="give a file for --body"
        ) from error
    key = os.environ.get(KEY, "")
    where = target(
        options.url, body, content_type=options.content_type, ca_file=options.ca,
        headers={"Authorization": f"Bearer {key}"} if key else None,
    )  # fmt: skip
    client = Client(where)
    if options.rate is not None:
        load = _run(lambda: _at_rate(client, options))
        _warn(options, load)
        return answer(options, asdict(load), f"{_HEAD}\n{_line('asked', load)}") or (
            0 if load.well else 1
        )
    if not options.json:
        sys.stdout.write(_HEAD + "\n")

    def tell(name: str, load: Load) -> None:
        if not options.json:
            sys.stdout.write(_line(name, load) + "\n")
            sys.stdout.flush()

    outcome = _run(
        lambda: knee.find(
            client,
            seconds=options.seconds,
            limit_ms=options.limit_ms,
            give_up_s=options.give_up_s,
            tell=tell,
        )
    )
    if outcome.at is not None:
        _warn(options, outcome.at)
    answer(options, asdict(outcome), _summary(outcome))
    return 0 if outcome.half is not None and outcome.half.well else 1


async def _at_rate(client: Any, options: argparse.Namespace) -> Load:
    from engineworks.load import knee, poisson

    latencies = await knee.alone(client, 0.5, options.give_up_s)
    alone_ms = poisson.percentile(latencies, 50) * 1e3
    limit_ms = options.limit_ms or max(100.0, 10 * alone_ms)
    return await poisson.send(
        client,
        options.rate,
        options.seconds,
        limit_s=limit_ms / 1e3,
        give_up_s=options.give_up_s,
    )


def _run(make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(make())
    return uvloop.run(make())  # type: ignore[no-any-return]


def _line(name: str, load: Load) -> str:
    return (
        f"{name:<8} {load.rate_per_s:>8.1f} {load.sent:>7} {load.ok:>7} {load.late:>7} "
        f"{load.refused:>8} {load.wrong:>6} {load.unanswered:>11} "
        f"{load.p50_ms:>8.1f} {load.p95_ms:>8.1f} {load.p99_ms:>8.1f}"
    )


def _summary(knee: Knee) -> str:
    if not knee.knee_per_s:
        return (
            f"no knee: {knee.steps[-1].rate_per_s:.1f} requests a second are too many; one alone "
            f"takes {knee.alone_p50_ms:.1f} ms, {knee.limit_ms:.0f} ms are allowed"
        )
    return (
        f"knee: {knee.knee_per_s:.1f} requests a second; up to there 99 of 100 are answered "
        f"within {knee.limit_ms:.0f} ms (one alone takes {knee.alone_p50_ms:.1f} ms)"
    )


def _warn(options: argparse.Namespace, load: Load) -> None:
    if load.generator_p99_ms > max(5.0, load.p50_ms / 2):
        sys.stderr.write(
            f"warning: this program itself sent {load.generator_p99_ms:.1f} ms late (p99): run it "
            "on another machine, or leave it a core\n"
        )
