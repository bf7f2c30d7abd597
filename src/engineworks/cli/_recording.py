"""The options --metrics-port and --log, for every command that runs an engine for a while."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO, cast

from engineworks.cli._numbers import whole
from engineworks.errors import StoreError
from engineworks.runtime.logs import LogRecorder, json_handler
from engineworks.runtime.metrics import PrometheusRecorder, Recorder, Recorders, serve


def add_recording(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    command.add_argument(
        "--metrics-port",
        type=whole(0, 65535),
        metavar="PORT",
        help="serve Prometheus metrics on 127.0.0.1:PORT while this runs",
    )
    command.add_argument(
        "--log",
        metavar="FILE",
        help="write one JSON line per image or frame to FILE, or to stderr for -",
    )


@contextlib.contextmanager
def recorder(options: argparse.Namespace) -> Iterator[Recorder]:
    """What the options ask for, while the block runs; the recorder of nothing without them."""
    with contextlib.ExitStack() as stack:
        chosen: list[Recorder] = []
        if options.metrics_port is not None:
            counts = PrometheusRecorder()
            port = stack.enter_context(serve(counts, options.metrics_port))
            sys.stderr.write(f"metrics: http://127.0.0.1:{port}/metrics\n")
            chosen.append(counts)
        if options.log is not None:
            file: TextIO = sys.stderr
            if options.log != "-":
                file = stack.enter_context(_appended(options.log))
            chosen.append(LogRecorder(file))
            handler, log = json_handler(file), logging.getLogger("engineworks")
            # A disk that is full is told by the line of an image, once.
            handler.handleError = lambda record: None  # type: ignore[method-assign]
            log.addHandler(handler)
            stack.callback(log.removeHandler, handler)
            if log.level == logging.NOTSET:  # else --log-level has said which
                stack.callback(log.setLevel, log.level)
                log.setLevel(logging.INFO)
        yield chosen[0] if len(chosen) == 1 else Recorders(chosen) if chosen else Recorder()


@contextlib.contextmanager
def _appended(path: str) -> Iterator[TextIO]:
    """A file, device or pipe to write lines to; a pipe that nobody reads is refused at once."""
    try:
        # Without O_NONBLOCK, opening a pipe waits for whoever reads from it.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags, 0o666)
        os.set_blocking(descriptor, True)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    file = _Log(io.FileIO(descriptor, "w"), path)
    try:
        yield cast(TextIO, file)
    finally:
        with contextlib.suppress(OSError):
            file.close()


class _Log:
    """Lines for a file, written at once; one that takes none ends the command in words."""

    def __init__(self, file: io.FileIO, path: str) -> None:
        self._file, self._path = file, path
        self.close = file.close

    def write(self, text: str) -> None:
        """All of it."""
        data = memoryview(text.encode("utf-8", errors="backslashreplace"))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def flush(self) -> None:
        """Nothing is held back."""


def _unwritable(path: str, error: Exception) -> StoreError:
    reason = getattr(error, "strerror", None) or error
    if getattr(error, "errno", None) == errno.ENXIO:
        reason = "a pipe that nobody reads"
    return StoreError(f"--log: {path} cannot be written ({reason})", hint="give another file, or -")
