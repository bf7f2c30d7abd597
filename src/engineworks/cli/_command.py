"""What the command `engineworks` consists of: its groups, its help, errors as exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from engineworks import __version__, loglevels, loopback
from engineworks.errors import EngineworksError

#: Modules of this package, in the order of the help.
GROUPS = (
    "answers",
    "raw",
    "video",
    "shadow",
    "serve",
    "loadtest",
    "engine",
    "sealed",
    "provenance",
    "pull",
    "deliver",
    "agent",
    "about",
)

#: Commands whose start is waited for: where one is the first word, no other group is imported.
_ALONE = {"serve": "serve", "serve-key": "serve", "loadtest": "loadtest"}


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code; a signal rises as `Stopped`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    alone = _ALONE.get(given[0]) if given else None
    options = _parser(groups((alone,) if alone else GROUPS)).parse_args(given)
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
    except MemoryError as error:
        sys.stderr.write(
            f"memory ran out ({str(error) or 'MemoryError'})\n"
            "  next: give less at once, or end what else uses memory\n"
        )
        return 2
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone: nothing to flush
        return 0
    except OSError as error:
        # A name that is too long, a full disk behind standard output: nobody's fault but words.
        where = f"{str(error.filename)[:200]}: " if error.filename else ""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{where}{error.strerror or error}\n")
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            sys.stdout = None  # what cannot be written now cannot be at the end either
        return 2
    return code


def groups(names: Sequence[str] = GROUPS) -> list[ModuleType]:
    """The modules of these groups."""
    return [import_module(f"engineworks.cli.{name}") for name in names]


def _parser(groups: Sequence[ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engineworks",
        description="Runs and inspects engines; shows targets, this machine and the recipe format.",
        epilog="Ship a model with: python -m flows.ship RECIPE (in a checkout).",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for group in groups:
        group.register(subparsers)
    for command in (parser, *subparsers.choices.values()):
        loglevels.add_option(command)
    return parser
