"""Starts a server for a proof, waits until it is ready, and ends it with all it started.

Knows no server: what is started and how readiness is asked is given.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engineworks import child
from engineworks.errors import StageError

LOG = "server.log"
COMMAND = "command.txt"

#: Seconds that a server has to end by itself before it is killed.
_PATIENCE_S = 10.0

#: Of the environment of this process, what a server gets: its packages are its own.
_KEPT = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "JAVA_HOME")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, each another."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    work: Path,
    environment: Mapping[str, str],
    ready: Callable[[], bool],
    limit_s: float,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block runs.

    Args:
        command: Its words.
        work: Its working folder; `server.log` and `command.txt` are left here.
        environment: Beside a few variables of this process (`PATH`, `HOME`), nothing else.
        ready: Asked again and again; an `OSError` of it means not yet.
        limit_s: Seconds until it must be ready.

    Raises:
        StageError: It ended, or is not ready in time; the last lines of its log are named.
    """
    variables = {name: os.environ[name] for name in _KEPT if name in os.environ}
    variables.update(environment)
    told = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    (work / COMMAND).write_text(f"{told} {shlex.join(command)}\n", encoding="utf-8")
    # Within a stage it stays in the stage's group, which ends as a whole when the stage is stopped.
    nested = child.PARENT_VARIABLE in os.environ
    with (work / LOG).open("wb") as log:
        server = subprocess.Popen(
            list(command),
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=not nested,
        )
        try:
            _wait(server, work, ready, limit_s)
            yield server
        finally:
            _end(server, whole_group=not nested)


def _wait(
    server: subprocess.Popen[bytes], work: Path, ready: Callable[[], bool], limit_s: float
) -> None:
    until = time.monotonic() + limit_s
    while True:
        if server.poll() is not None:
            what = f"the server ended with code {server.returncode} before it was ready"
            break
        with contextlib.suppress(OSError):
            if ready():
                return
        if time.monotonic() > until:
            what = f"the server was not ready after {limit_s:.0f} s"
            break
        time.sleep(0.1)
    raise StageError(
        f"{what}\n{tail(work / LOG)}",
        hint=f"its log is {work / LOG}; start it by hand as {work / COMMAND} says",
    )


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a server's log, indented."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return "\n".join("    | " + line[:300] for line in text.splitlines()[-lines:])


def _end(server: subprocess.Popen[bytes], *, whole_group: bool) -> None:
    """SIGTERM to the server, then SIGKILL to whatever it has started and is left."""
    started = _descendants(server.pid)
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_PATIENCE_S)
    for pid in started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if whole_group:
            os.killpg(server.pid, signal.SIGKILL)
        else:
            server.kill()
    server.wait()


def _descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have; none where /proc is not."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            after_name = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
            parents[int(stat.parent.name)] = int(after_name.split()[1])
    pids, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        mine = [each for each, its_parent in parents.items() if its_parent == parent]
        pids += mine
        waiting += mine
    return pids
