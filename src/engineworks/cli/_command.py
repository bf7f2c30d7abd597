"""What the command `engineworks` consists of: its groups, its help, errors as exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from engineworks import __version__, loglevels, loopback
from engineworks.cli import (
    about,
    agent,
    answers,
    deliver,
    engine,
    loadtest,
    raw,
    sealed,
    serve,
    video,
)
from engineworks.errors import EngineworksError

GROUPS = (answers, raw, video, serve, loadtest, engine, sealed, deliver, agent, about)


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code; a signal rises as `Stopped`."""
    options = _parser().parse_args(arguments)
    loopback.spare(os.environ)
    level = getattr(options, "log_level", "") or loglevels.asked("")
    if level:
        loglevels.configure(level)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except EngineworksError as error:
        sys.stderr.write(error.block)
        return 2
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone: nothing to flush
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engineworks",
        description="Runs and inspects engines; shows targets, this machine and the recipe format.",
        epilog="Ship a model with: python -m flows.ship RECIPE (in a checkout).",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for group in GROUPS:
        group.register(subparsers)
    for command in (parser, *subparsers.choices.values()):
        loglevels.add_option(command)
    return parser
