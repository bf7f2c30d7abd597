"""The command line of `python -m flows.ship`: sets the state folder up, shows progress, exits.

Exit codes: 0 every required variant is shipped; 1 the run ended and one is not; 2 recipe, model
or data cannot be used; 3 this machine cannot do it (disk, missing package, crash); 4 one
is pending, waiting for another machine; 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from artifacts.summary import StageTiming
from engineworks.codec import to_json
from engineworks.errors import (
    DataError,
    EngineworksError,
    ExportError,
    ModelError,
    RecipeError,
    StoreError,
)
from engineworks.store import disk_error
from flows.settings import configure, running_server

STOPPED = "\nstopped. Finished stages are kept: the same command goes on there.\n"

#: Seconds that Prefect has to tell its server of a Ctrl-C.
PATIENCE_S = 10.0

BAD_INPUT = (RecipeError, ModelError, DataError, ExportError)
COLOURS = {"shipped": "green", "rejected": "yellow", "failed": "red", "pending": "cyan"}


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.ship",
        description="Ship one trained model: export it, build it for every target of the recipe, "
        "check, time, judge and register each.",
        epilog="Finished stages are kept: after a stop or a change the same command runs only "
        "what is missing. Exit codes: 0 shipped, 1 a required variant is not, 2 bad recipe, "
        "model or data, 3 trouble on this machine, 4 one waits for another machine, "
        "130 stopped.",
    )
    parser.add_argument("recipe", help="recipe file, for example examples/yolox_nano/recipe.yaml")
    parser.add_argument(
        "--home",
        type=Path,
        help="state folder (default: ENGINEWORKS_HOME, else ./.engineworks)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would run here, and what not and why"
    )
    parser.add_argument(
        "--fleet",
        action="store_true",
        help="build every variant on a registered machine that can, not here (docs/fleet.md)",
    )
    parser.add_argument("--json", action="store_true", help="print summary.json on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--debug", action="store_true", help="show stack traces")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is its meaning."""
    options = _parser().parse_args(arguments)
    root = options.home or Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks")
    console = Console(stderr=True, quiet=options.quiet)
    try:
        configure(root.absolute())
        return _dry_run(options) if options.dry_run else _ship(options, console)
    except EngineworksError as error:
        if options.debug:
            console.print_exception()
        kind = type(error).__name__
        sys.stderr.write(f"\n{kind}: {error.message}\n  next: {error.hint}\n")
        return 2 if isinstance(error, BAD_INPUT) else 3
    except Exception as error:
        known = disk_error(error, root) or _server_error(error)
        if known is not None:
            if options.debug:
                console.print_exception()
            sys.stderr.write(f"\nStoreError: {known.message}\n  next: {known.hint}\n")
            return 3
        if options.debug:
            raise
        sys.stderr.write(f"\nunexpected {type(error).__name__}: {str(error)[:500]}\n")
        sys.stderr.write("  next: run it again with --debug and report what it prints\n")
        return 3
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        return 130


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


def _dry_run(options: argparse.Namespace) -> int:
    from flows.ship import preflight

    _, found = preflight(options.recipe, fleet=options.fleet)
    plan = to_json(found)
    if options.json:
        sys.stdout.write(json.dumps(plan, indent=1) + "\n")
        return 0
    table = Table("variant", "plan", "where", "because", box=None)
    for variant in found.variants:
        where = variant.host or (variant.pool if options.fleet else "here")
        reason = variant.reason or "all it needs is there"
        table.add_row(variant.name, variant.action, where, escape(reason))
    Console().print(table)
    return 0


def _ship(options: argparse.Namespace, console: Console) -> int:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from artifacts import summary as summaries
    from flows.ship import preflight, ship
    from tasks import _run

    preflight(options.recipe, fleet=options.fleet)
    if not options.debug:
        _quiet_prefect()
    terminal = Terminal(console)
    _run.PROGRESS.set(terminal)
    _run.STARTED.set(time.time() - _age_s())
    console.print(f"[bold]ship[/] {escape(options.recipe)}", highlight=False)
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
    try:
        with temporary_settings(quieter):
            state = ship(options.recipe, options.fleet, return_state=True)
    finally:
        terminal.stop()
    if not finished:
        state.result()  # raises what stopped the run
        raise RuntimeError("the flow ended without a summary")
    latest = finished[0]
    summary = summaries.read(latest / "summary.json")
    if options.json:
        sys.stdout.write(json.dumps(to_json(summary), indent=1) + "\n")
    else:
        _show(summary, latest)
    if summary.missed:
        return 1
    return 4 if summary.waiting else 0


def _stop_at_once(number: int, frame: Any) -> None:
    """Ctrl-C beside Prefect's embedded server, which gets the same signal and is gone already.

    Letting the exception rise would make Prefect wait for its answer. Everything a later run
    needs is in the store and the cache; what is half-made has no name yet.
    """
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    sys.stderr.write(STOPPED)
    sys.stderr.flush()
    os._exit(130)


def _stop_soon(number: int, frame: Any) -> None:
    """Ctrl-C beside a server: let Prefect tell it, but not for longer than a person waits."""
    timer = threading.Timer(PATIENCE_S, _stop_at_once, (number, frame))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


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


def _show(summary: Any, folder: Path) -> None:
    from artifacts import summary as summaries

    out = Console() if sys.stdout.isatty() else Console(width=120)
    table = Table(title=f"{summary.name} on {summary.host.cpu}", title_justify="left")
    for heading in summaries.HEADINGS:
        right = heading in ("drop", "p50 ms", "images/s", "MiB")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row, variant in zip(summaries.rows(summary), summary.variants, strict=True):
        colour = COLOURS.get(variant.verdict, "dim")
        cells = [escape(cell) for cell in row]
        cells[1] = f"[{colour}]{cells[1]}[/]"
        table.add_row(*cells)
    out.print(table)
    for note in summaries.footnotes(summary):
        out.print(escape(note), highlight=False, soft_wrap=True)
    cached = sum(timing.cached for timing in summary.stages)
    out.print(
        f"{len(summary.stages) - cached} stages ran, {cached} came from the cache; "
        f"{summary.wall_s:.1f} s, of which {summary.overhead_s:.1f} s outside stages.",
        highlight=False,
    )
    best = next((v for v in summary.variants if v.recommended and v.engine is not None), None)
    if best is not None:
        out.print(f"engine       {best.engine.uri}", highlight=False, soft_wrap=True)
    for name in ("report.html", "summary.json"):
        if (folder / name).exists():
            out.print(f"{name:<13}{folder / name}", highlight=False, soft_wrap=True)
