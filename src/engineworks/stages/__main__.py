"""The child's side of `engineworks.child`: runs the stage asked for in a folder."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from engineworks import child, loglevels, streams, userfiles
from engineworks.codec import from_json, to_json
from engineworks.errors import EngineworksError, StageError, said
from engineworks.stages import STAGES
from engineworks.store import disk_error

log = logging.getLogger("engineworks.stages")


def main(arguments: list[str] | None = None) -> int:
    """Run the stage whose `request.json` lies in the folder named by the first argument."""
    streams.tolerate()
    (folder,) = map(Path, arguments if arguments is not None else sys.argv[1:])
    loglevels.configure(
        loglevels.asked("info"), "%(asctime)s %(levelname)s %(name)s: %(message)s", others="info"
    )
    _die_with_parent()
    started = time.perf_counter()
    asked = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    stage = STAGES[asked["stage"]]
    result: dict[str, Any]
    try:
        request = from_json(stage.request, asked["request"])
        log.info("stage %s begins", asked["stage"])
        value = to_json(stage.run(request))
        result = {"value": value, "read": userfiles.seen()}
    except EngineworksError as error:
        log.exception("stage %s refused", asked["stage"])
        result = _refusal(error)
    except MemoryError:
        raise
    except Exception as error:
        log.exception("stage %s failed", asked["stage"])
        unexpected = StageError(
            f"{asked['stage']} failed: {type(error).__name__}: {said(error)}",
            hint=f"see {folder / 'log.txt'}; repeat it alone with: "
            f"python -m engineworks.stages {folder}",
        )
        result = _refusal(disk_error(error, folder) or unexpected)
    result["elapsed_s"] = time.perf_counter() - started
    result["peak_mib"] = _peak_mib()
    partial = folder / "result.json.part"
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.rename(folder / "result.json")
    # Skip interpreter shutdown: vendor libraries are known to crash or hang in it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if "error" in result else 0)


def _refusal(error: EngineworksError) -> dict[str, Any]:
    kind = type(error).__name__
    return {"error": {"kind": kind, "message": error.message, "hint": error.hint}}


def _peak_mib() -> float:
    """Largest resident memory of this process; 0 where the system does not tell.

    Not `getrusage`: its figure starts at the size of the parent that forked this process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return float(peak.split()[1]) / 1024


def _die_with_parent() -> None:
    """End this process when the flow that started it is gone, killed even by SIGKILL."""
    parent = os.environ.get(child.PARENT_VARIABLE)
    if parent is None:
        return  # run by hand

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        # The thread cannot run while native code holds the interpreter; the kernel can.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)


if __name__ == "__main__":
    raise SystemExit(main())
