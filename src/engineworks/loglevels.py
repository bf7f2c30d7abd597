"""How much is logged: one level for a command and for the processes that it starts.

Set by `--log-level`, or by the environment, which children inherit. Knows logging alone.
"""

from __future__ import annotations

import argparse
import logging
import os

LEVELS = ("debug", "info", "warning", "error")

#: Name of a level, for this process and its children.
VARIABLE = "ENGINEWORKS_LOG_LEVEL"

FORMAT = "%(levelname)s %(name)s: %(message)s"


def add_option(parser: argparse.ArgumentParser, default: str = "warning") -> None:
    """Add `--log-level`. A parser of subcommands and theirs may both have it."""
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=argparse.SUPPRESS,
        help=f"log this and what is worse on stderr (default: {VARIABLE}, else {default})",
    )


def asked(default: str) -> str:
    """The level that the environment asks for; the default where it names none."""
    word = os.environ.get(VARIABLE, "").lower()
    return word if word in LEVELS else default


def configure(level: str, form: str = FORMAT, others: str = "warning") -> None:
    """Log this process's records of a level on stderr, and have children do the same.

    Args:
        level: One of `LEVELS`.
        form: Of a line, as `logging` takes it.
        others: Level of other packages' records, if it is the higher one; at `debug` their
            information is logged, and no more than that.
    """
    os.environ[VARIABLE] = level
    number = getattr(logging, level.upper())
    least = logging.INFO if number < logging.INFO else getattr(logging, others.upper())
    root = logging.getLogger()
    handler = next((handler for handler in root.handlers if handler.name == VARIABLE), None)
    if handler is None:
        handler = logging.StreamHandler()
        handler.name = VARIABLE
        root.addHandler(handler)
    handler.setFormatter(logging.Formatter(form))
    root.setLevel(max(number, least))
    logging.getLogger("engineworks").setLevel(number)
