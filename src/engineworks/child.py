"""Runs one stage in a child process with a time limit and leaves what is needed to repeat it.

A vendor library that crashes, hangs or leaks then costs one stage, not the run. The folder of a
stage holds `request.json`, `command.txt`, `log.txt` and `result.json`. Knows no stage: the child
is `python -m engineworks.stages FOLDER`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from engineworks.errors import KINDS, EngineworksError, StageError
from engineworks.store import explain_os_error

#: Set in the child, so that it can end itself when its parent is gone.
PARENT_VARIABLE = "ENGINEWORKS_PARENT_PID"


def run(stage: str, request: Any, *, folder: Path, limit_s: float) -> dict[str, Any]:
    """Run a stage and wait for it.

    Args:
        stage: Name of a function that `engineworks.stages` lists.
        request: Its request as plain JSON types.
        folder: Made if missing; an earlier try's files in it are replaced.
        limit_s: Seconds after which the child and all it started are killed.

    Returns:
        `{"value": ..., "peak_mib": ..., "elapsed_s": ...}`.

    Raises:
        EngineworksError: The error that the stage raised, of its own class.
        StageError: It crashed or ran out of time.
    """
    command = [sys.executable, "-m", "engineworks.stages", str(folder)]
    result_path = folder / "result.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        result_path.unlink(missing_ok=True)
        (folder / "request.json").write_text(
            json.dumps({"stage": stage, "request": request}, indent=1), encoding="utf-8"
        )
        (folder / "command.txt").write_text(shlex.join(command) + "\n", encoding="utf-8")
        exit_code = _wait(command, folder, limit_s)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    if exit_code is None:
        raise StageError(
            f"{stage} was stopped after its limit of {limit_s:.0f} s",
            hint=f"raise the recipe's limits, or see {folder / 'log.txt'}",
        )
    if result_path.is_file():
        return _unwrap(json.loads(result_path.read_text(encoding="utf-8")))
    raise StageError(
        f"{stage} ended without a result: {_describe(exit_code)}\n{_tail(folder / 'log.txt')}",
        hint=f"repeat it alone with: {shlex.join(command)}",
    )


def _wait(command: list[str], folder: Path, limit_s: float) -> int | None:
    """Exit code of the child, or None when it ran out of time."""
    # A stage within a stage stays in its group, so that the outer limit ends both.
    nested = PARENT_VARIABLE in os.environ
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=not nested,
        )
        try:
            return child.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # On Ctrl-C and time-out, and for anything the child left running.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if nested:
                    child.kill()
                else:
                    os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _unwrap(result: dict[str, Any]) -> dict[str, Any]:
    error = result.get("error")
    if error is None:
        return result
    kind = KINDS.get(error["kind"], EngineworksError)
    raise kind(error["message"], hint=error["hint"])


def _describe(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-exit_code).name
        memory = " (often: out of memory)" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"
    return f"killed by signal {-exit_code}"


def _tail(log: Path, lines: int = 12) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return "\n".join("    | " + line for line in text.splitlines()[-lines:])
