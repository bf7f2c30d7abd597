"""What every group of subcommands shares: how a command is added and how it answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # argparse gives this class no public name.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add(
    subparsers: Subparsers, name: str, run: Callable[[argparse.Namespace], int], help_text: str
) -> argparse.ArgumentParser:
    """A subcommand with `--json`; add its own arguments to what this returns."""
    command = subparsers.add_parser(name, help=help_text, description=help_text)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)
    return command


def answer(options: argparse.Namespace, data: Any, text: str) -> int:
    """Print one result, as JSON if that was asked for; exit code 0."""
    sys.stdout.write((json.dumps(data, indent=1) if options.json else text) + "\n")
    return 0


def short(value: Any) -> str:
    """A JSON value on one line, without brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
