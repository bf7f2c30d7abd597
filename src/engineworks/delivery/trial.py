"""Opens an engine in a child process and lets it answer, before anybody depends on it.

What crashes, hangs or answers wrongly then costs nothing but the trial. `python -m
engineworks.delivery.trial FOLDER ...` is the child; it ends with its parent. Runs the engine's
sealed test where it has one; else it answers made-up input, which proves that it runs, not that it
is right. Knows no metadata and no slots.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError, EngineworksError
from engineworks.store import verify

_SAID = "trial: "

#: Runs that are timed at least, and seconds after which enough are.
_RUNS, _TIMING_S = 15, 2.0


@dataclass(frozen=True, kw_only=True)
class DeviceTrial:
    """What came of trying an engine."""

    ok: bool
    reason: str
    """Why not; or what was tried, in words."""
    check: str = ""
    """What failed: `trial` or `sealed test`."""
    p50_ms: float = 0.0
    """Median latency at the smallest batch; 0: it was not run."""


def run(folder: Path, sealed: Path | None, *, threads: int, limit_s: float) -> DeviceTrial:
    """Try an engine in a child process.

    Args:
        folder: The engine, named by its identity.
        sealed: Its sealed test; None: it has none.
        threads: CPU threads; 0: all.
        limit_s: The child may take so long.

    Raises:
        OSError: No child can be started: this says nothing of the engine.
    """
    command = [sys.executable, "-m", "engineworks.delivery.trial", str(folder)]
    command += ["--threads", str(threads)] + (["--sealed", str(sealed)] if sealed else [])
    ending, alive = os.pipe()  # closed with this process: the child ends with its parent
    try:
        child = subprocess.Popen(
            command, stdin=ending, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError:
        os.close(alive)
        raise
    finally:
        os.close(ending)
    try:
        out, err = child.communicate(timeout=limit_s or None)
    except subprocess.TimeoutExpired:
        reason = f"it did not answer within {limit_s:g} s"
        return DeviceTrial(ok=False, reason=reason, check="trial")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        os.close(alive)
    for line in out.decode(errors="replace").splitlines():
        if line.startswith(_SAID):
            with contextlib.suppress(ValueError, ArtifactError):
                return from_json(DeviceTrial, json.loads(line.removeprefix(_SAID)))
    last = err.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
    reason = f"its process ended with code {child.returncode}: {last[0][:300]}"
    return DeviceTrial(ok=False, reason=reason, check="trial")


def _tried(folder: Path, threads: int, sealed: Path | None) -> DeviceTrial:
    from engineworks import runtime

    session = runtime.open(folder, threads=threads, sha256=folder.name)
    try:
        feeds = _made_up(session)
        if feeds is None:
            reason, p50_ms = "it opens; it was not run, its sizes are open", 0.0
        else:
            wrong = _answers(session, feeds)
            if wrong:
                return DeviceTrial(ok=False, reason=wrong, check="trial")
            reason, p50_ms = "it opens and answers", _timed(session, feeds)
    finally:
        session.close()
    if sealed is not None:
        failed = _replayed(folder, sealed, threads)
        if failed:
            return DeviceTrial(ok=False, reason=failed, check="sealed test", p50_ms=p50_ms)
        reason += "; its sealed test holds"
    return DeviceTrial(ok=True, reason=reason, p50_ms=p50_ms)


def _replayed(folder: Path, test: Path, threads: int) -> str:
    """What does not hold of a sealed test; empty: all does."""
    from engineworks import sealed

    if sealed.parent_of(verify(test, test.name)) != folder.name:
        return "the sealed test that was signed with it is that of another engine"
    replay = sealed.replay(folder, test, threads=threads)
    return "" if replay.holds else replay.reason or "its answers are not those expected"


def _made_up(session: Any) -> dict[str, Any] | None:
    """Input of the right form; None where other sizes than the batch are open."""
    import numpy as np

    noise = np.random.default_rng(0)
    least, _ = session.manifest.batches(1)
    feeds = {}
    for spec in session.inputs:
        rest = spec.shape[1:]
        if not spec.shape or not all(isinstance(size, int) for size in rest):
            return None
        rows = spec.shape[0] if isinstance(spec.shape[0], int) else least
        values = noise.random((rows, *rest), np.float32)
        whole = np.dtype(spec.dtype).kind not in "f"
        feeds[spec.name] = (values * (200 if whole else 1)).astype(spec.dtype)
    return feeds


def _answers(session: Any, feeds: Mapping[str, Any]) -> str:
    """What is wrong with an answer; empty: nothing."""
    import numpy as np

    outputs = session.infer(feeds)
    for spec in session.outputs:
        array = outputs.get(spec.name)
        if array is None:
            return f"output {spec.name!r} is missing"
        fits = array.ndim == len(spec.shape) and all(
            want == got for want, got in zip(spec.shape, array.shape, strict=True)
            if isinstance(want, int)
        )  # fmt: skip
        if not fits:
            return f"output {spec.name!r} is {list(array.shape)}, declared is {list(spec.shape)}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"output {spec.name!r} holds values that are no numbers"
    return ""


def _timed(session: Any, feeds: Mapping[str, Any]) -> float:
    """Median ms of a run, the best of three series: others use the machine, too."""
    medians = []
    for _ in range(3):
        took: list[float] = []
        begun = time.perf_counter()
        while not took or (len(took) < _RUNS and time.perf_counter() - begun < _TIMING_S):
            at = time.perf_counter()
            session.infer(feeds)
            took.append((time.perf_counter() - at) * 1e3)
        medians.append(statistics.median(took))
    return min(medians)


def _end_with_parent() -> None:
    """Wait until the pipe from the parent is closed, then end at once."""
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


def main(arguments: list[str]) -> int:
    """The child."""
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sealed", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        trial = _tried(options.folder, options.threads, options.sealed)
    except EngineworksError as error:
        trial = DeviceTrial(ok=False, reason=error.line, check="trial")
    sys.stdout.write("\n" + _SAID + json.dumps(to_json(trial)) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a vendor's library may hang at its end


if __name__ == "__main__":
    main(sys.argv[1:])
