"""The options --metrics-port and --log, for every command that runs an engine for a while."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from engineworks.cli._numbers import whole
from engineworks.errors import EngineworksError
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
            file = sys.stderr
            if options.log != "-":
                file = stack.enter_context(_appended(options.log))
            chosen.append(LogRecorder(file))
            handler, log = json_handler(file), logging.getLogger("engineworks")
            log.addHandler(handler)
            stack.callback(log.removeHandler, handler)
            if log.level == logging.NOTSET:  # else --log-level has said which
                stack.callback(log.setLevel, log.level)
                log.setLevel(logging.INFO)
        yield chosen[0] if len(chosen) == 1 else Recorders(chosen) if chosen else Recorder()


def _appended(path: str) -> contextlib.AbstractContextManager[TextIO]:
    try:
        return Path(path).open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise EngineworksError(
            f"--log: {path} cannot be written ({error.strerror})", hint="give another file, or -"
        ) from error
