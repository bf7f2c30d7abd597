"""The command `engineworks`: one module per group of subcommands.

A group has `register(subparsers)`, which adds its subcommands and sets `run` on each: a function
from the parsed options to the exit code. 0 is success, 1 says that some of the work failed, 2 is
a refusal with its reason on stderr, 130 an interruption. Knows the library only; whole runs are
started by `python -m flows.ship` in a checkout. A group imports nothing beyond numpy until it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from engineworks import __version__
from engineworks.cli import about, detect, engine, video
from engineworks.errors import EngineworksError

GROUPS = (detect, video, engine, about)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except EngineworksError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.message}\n  next: {error.hint}\n")
        return 2
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone: nothing to flush
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
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
    return parser
