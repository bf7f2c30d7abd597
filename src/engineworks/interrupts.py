"""Ctrl-C and SIGTERM in a command: none is lost, none becomes a lie or a trace.

An exception raised while a package is being imported may be swallowed by the package, or come out
of it as a broken installation: there the process ends at once. Anywhere else `Stopped` is raised,
and should it be swallowed too, the process ends some seconds later. Imports next to nothing, since
it must be there before anything else is; changes no handler unless it is asked to.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

#: Seconds in which a command must have ended after a signal.
PATIENCE_S = 5.0

_WORDS = b"stopped\n"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_IMPORTING = "<frozen importlib"

#: How often `watched` was entered or left: who waits for the end of one sees that it has come.
_turns = 0


class Stopped(KeyboardInterrupt):
    """Somebody asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number
        """Exit code by the shell's rule: 130 after Ctrl-C, 143 after SIGTERM."""


def watch() -> dict[int, Any]:
    """Take care of both signals from now on; gives the handlers before, by number.

    A signal that is ignored (`nohup`) stays so. Main thread only.
    """
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _asked)
    return before


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """`watch` while the block runs; does nothing on another thread than the main one."""
    global _turns
    if _thread.get_ident() != _main_thread():
        yield
        return
    before = watch()
    try:
        yield
    finally:
        _turns += 1
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def told(asked: KeyboardInterrupt) -> int:
    """Say that the command was stopped; its exit code."""
    _say()
    return asked.code if isinstance(asked, Stopped) else 128 + signal.SIGINT


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit code, whenever a signal comes."""
    try:
        code = main()
        _ignore()
    except KeyboardInterrupt as asked:  # outside of what the command itself cares for
        _ignore()
        code = told(asked)
    end(code)


def _ignore() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end(code: int) -> NoReturn:
    """End the process with this code; a signal that comes now comes too late to change it."""
    _ignore()
    if code in (128 + number for number in _SIGNALS):
        _flush_and_go(code)  # what a package does at the end may take for ever
    sys.exit(code)


def _asked(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(RuntimeError):  # no thread can be made any more
        _thread.start_new_thread(_be_patient, (number, _turns))
    if importing(frame):
        _say()
        _flush_and_go(128 + number)
    raise Stopped(number)


def importing(frame: FrameType | None) -> bool:
    """Whether a package is being imported at this place of the program."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            return True
        frame = frame.f_back
    return False


def _be_patient(number: int, turn: int) -> None:
    """End the process if it goes on as if nothing had been asked."""
    time.sleep(PATIENCE_S)
    if turn == _turns:
        _say()
        os._exit(128 + number)


def _say() -> None:
    with contextlib.suppress(OSError):
        os.write(2, _WORDS)


def _flush_and_go(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _main_thread() -> int | None:
    import threading

    return threading.main_thread().ident
