"""Standard output and error that take any text, whatever their encoding. Imports nothing heavy.

A label in Greek, a file name that is no text: on a stream of another encoding Python would end the
command with a trace, in the middle of its work.
"""

from __future__ import annotations

import io
import sys


def tolerate() -> None:
    """From now on what the streams of this process cannot hold is written as its escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where somebody has put another one
            stream.reconfigure(errors="backslashreplace")
