"""What the commands of `flows` share: options, progress on a terminal, errors as exit codes.

Knows Prefect's settings and signals; no flow.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import errno
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.markup import escape

from artifacts.summary import StageTiming
from engineworks import interrupts, loglevels
from engineworks.errors import (
    DataError,
    EngineworksError,
    ExportError,
    ModelError,
    RecipeError,
    StoreError,
    said,
)
from engineworks.store import disk_error
from flows.commands.names import refuse_unwritable
from flows.commands.settings import configure, running_server
from flows.commands.termination import ended_by_sigterm

STOPPED = "\nstopped. Finished stages are kept: the same command goes on there.\n"

#: Seconds that Prefect has to tell its server of a Ctrl-C or SIGTERM.
PATIENCE_S = 10.0

BAD_INPUT = (RecipeError, ModelError, DataError, ExportError)


def add_options(parser: argparse.ArgumentParser, *, json_is: str) -> None:
    """The options that all commands have."""
    parser.add_argument(
        "--home",
        type=Path,
        help="state folder (default: ENGINEWORKS_HOME, else ./.engineworks)",
    )
    parser.add_argument("--json", action="store_true", help=f"print {json_is} on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--debug", action="store_true", help="show stack traces")
    loglevels.add_option(parser)


def guarded(options: argparse.Namespace, work: Callable[[argparse.Namespace, Console], int]) -> int:
    """Set the state folder up and do the work; an error becomes words and an exit code."""
    root = options.home or Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks")
    console = Console(stderr=True, quiet=options.quiet)
    try:
        refuse_unwritable(options, root)
        configure(root.absolute())
        _choose_level(options)
        return work(options, console)
    except EngineworksError as error:
        if options.debug:
            console.print_exception()
        sys.stderr.write(f"\n{error.block}")
        return 2 if isinstance(error, BAD_INPUT) else 3
    except Exception as error:
        known = disk_error(error, root) or _server_error(error)
        if known is not None:
            if options.debug:
                console.print_exception()
            sys.stderr.write(f"\n{known.block}")
            return 3
        if options.debug:
            raise
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            sys.stderr.write(f"\n{str(error.filename)[:200]} ...: {error.strerror}\n")
            sys.stderr.write("  next: correct that path in the recipe\n")
            return 2
        sys.stderr.write(f"\nunexpected {type(error).__name__}: {said(error, 500)}\n")
        sys.stderr.write("  next: run it again with --debug and report what it prints\n")
        return 3
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        return 130


@contextlib.contextmanager
def following(options: argparse.Namespace, console: Console, title: str) -> Iterator[list[Path]]:
    """Show a flow's stages while it runs; gives the list of folders that its runs leave."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from tasks import _run

    if not options.debug:
        _quiet_prefect()
        _choose_level(options)  # again: Prefect takes the place of what logs
    terminal = Terminal(console)
    _run.PROGRESS.set(terminal)
    _run.STARTED.set(time.time() - _age_s())
    console.print(title, highlight=False)
    terminal.started("starting")
    finished: list[Path] = []
    _run.FINISHED.set(finished)
    # Heartbeats tell a shared server of a run that died; on this machine's own state nobody
    # listens, and sending the last one takes most of a second.
    root = Path(os.environ["ENGINEWORKS_HOME"])
    ours = os.environ.get("PREFECT_API_URL") in (None, running_server(root))
    quieter = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if ours else {}
    embedded = "PREFECT_API_URL" not in os.environ
    signal.signal(signal.SIGINT, _stop_at_once if embedded else _stop_soon)
    # During a flow Prefect takes it, tells its server and hands it on.
    signal.signal(signal.SIGTERM, _stop_at_once)
    patience_s = 0.0 if embedded else PATIENCE_S
    try:
        with (
            ended_by_sigterm(lambda number: _stop_at_once(number, None), patience_s),
            temporary_settings(quieter),
        ):
            yield finished
    finally:
        terminal.stop()


def _choose_level(options: argparse.Namespace) -> None:
    level = getattr(options, "log_level", "") or loglevels.asked("")
    if level:
        loglevels.configure(level)


def _quiet_prefect() -> None:
    """The terminal shows stages and errors itself; Prefect's pages keep the full log."""
    from prefect.logging.configuration import setup_logging
    from prefect.logging.handlers import PrefectConsoleHandler

    setup_logging()
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.CRITICAL)


class Terminal:
    """Progress on a terminal: a spinner while a stage runs, one line when it is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Any = None

    def started(self, stage: str) -> None:
        """See `tasks._run.Progress`."""
        self.stop()
        self._status = self._console.status(f"{escape(stage)} ...")
        self._status.start()

    def finished(self, stage: str, timing: StageTiming, note: str) -> None:
        """See `tasks._run.Progress`."""
        self.stop()
        spent = "cached" if timing.cached else f"{timing.elapsed_s:.1f} s"
        self._console.print(
            f"[green]ok[/] {stage:<32} [dim]{spent:>8}[/]  {escape(note)}",
            highlight=False,
            soft_wrap=True,
        )

    def failed(self, stage: str, reason: str) -> None:
        """See `tasks._run.Progress`."""
        self.stop()
        first = reason.splitlines()[0] if reason else ""
        self._console.print(
            f"[red]no[/] {stage:<32} {escape(first)}", highlight=False, soft_wrap=True
        )

    def stop(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def _server_error(error: BaseException) -> StoreError | None:
    """The `StoreError` behind Prefect's own error when its server does not answer."""
    import httpx

    url = os.environ.get("PREFECT_API_URL")
    seen: BaseException | None = error
    while url and seen is not None:
        if isinstance(seen, httpx.TransportError):
            at = re.sub(r"//[^/@\s]+@", "//", url)
            return StoreError(
                f"Prefect's server at {at} does not answer ({type(seen).__name__})",
                hint="start it, or correct or unset PREFECT_API_URL, then run again: finished "
                "stages are kept",
            )
        seen = seen.__cause__ or seen.__context__
    return None


def _stop_at_once(number: int, frame: Any) -> None:
    """A signal beside Prefect's embedded server, which gets the same one and is gone already.

    Letting the exception rise would make Prefect wait for its answer. Everything a later run
    needs is in the store and the cache; what is half-made has no name yet.
    """
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    sys.stderr.write(STOPPED)
    sys.stderr.flush()
    os._exit(128 + number)


def _stop_soon(number: int, frame: Any) -> None:
    """Ctrl-C beside a server: let Prefect tell it, but not for longer than a person waits."""
    if interrupts.importing(frame):  # what is imported may swallow the exception
        _stop_at_once(number, frame)
    # No `threading.Timer`: it waits for a lock that whoever was interrupted may hold.
    _thread.start_new_thread(_stop_later, (number,))
    raise KeyboardInterrupt


def _stop_later(number: int) -> None:
    time.sleep(PATIENCE_S)
    _stop_at_once(number, None)


def _age_s() -> float:
    """Seconds since this process began, so that imports count as overhead too.

    From the kernel's clock where there is one: psutil's create_time is off by up to a second.
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return time.time() - psutil.Process().create_time()
    return uptime_s - ticks / os.sysconf("SC_CLK_TCK")
