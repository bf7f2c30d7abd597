"""Numbers on the command line, each with the range in which it means something.

What is out of range is refused by argparse, before anything is opened.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from engineworks.specs import MAX_PIXELS

#: Streams, sessions, threads, frames of a batch: what more of would ask any machine to its knees.
MOST = 1024

#: Rows of a written video: no player shows more (ITU-T H.264 ends at 8192 x 4320, level 6.2).
MOST_ROWS = 8192


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """A whole number in a range."""

    def parse(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{_short(text)} is no whole number from {least} to {most}"
            )
        return value

    return parse


def number(above: float, most: float) -> Callable[[str], float]:
    """A finite number above one and up to another."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not above < value <= most:
            raise argparse.ArgumentTypeError(
                f"{_short(text)} is no number above {above:g} and up to {most:g}"
            )
        return value

    return parse


def size(text: str) -> tuple[int, int]:
    """`WxH` as (height, width)."""
    width, _, height = text.lower().partition("x")
    sides = (width, height)
    if not all(s.isascii() and s.isdigit() and len(s) < 10 and int(s) for s in sides):
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a size such as 640x480")
    return int(height), int(width)


def add_max_pixels(command: argparse.ArgumentParser) -> None:
    """Add --max-pixels."""
    command.add_argument(
        "--max-pixels",
        type=whole(1, 2**30),
        default=MAX_PIXELS,
        metavar="N",
        help="read no picture or frame with more pixels; 12 bytes of memory for each "
        f"(default: {MAX_PIXELS}, 8192 x 8192)",
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
