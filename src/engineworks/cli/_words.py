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


#: A list with more entries than this is shown by its ends.
LONG = 12


def add(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_text: str,
    json_help: str = "JSON",
) -> argparse.ArgumentParser:
    """A subcommand with `--json`; add its own arguments to what this returns."""
    command = subparsers.add_parser(name, help=help_text, description=help_text)
    command.add_argument("--json", action="store_true", help=f"print {json_help}")
    command.set_defaults(run=run)
    return command


def answer(options: argparse.Namespace, data: Any, text: str) -> int:
    """Print one result, as JSON if that was asked for; exit code 0."""
    sys.stdout.write((json.dumps(data, indent=1) if options.json else text) + "\n")
    return 0


def short(value: Any) -> str:
    """A JSON value on one line, without brackets; a long list by its ends and its length."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inner(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_inner, _ends(value))) or "none"
    return _inner(value)


def _inner(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_inner, _ends(value)))})" if value else "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if value or value == 0 else "none"


def _ends(items: list[Any]) -> list[Any]:
    if len(items) <= LONG:
        return items
    return [*items[: LONG - 2], f"... {items[-1]} ({len(items)})"]
