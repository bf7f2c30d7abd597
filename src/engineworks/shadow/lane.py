"""Hands frames to the candidate's process, one at a time, within its share of the CPU.

A thread of the champion's process waits for the answers, so that nobody else does. Knows no
engine and no score.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np

from engineworks import errors
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError
from engineworks.facts.shadow import ShadowEngine
from engineworks.manifest import Manifest
from engineworks.runtime.sources import Frame
from engineworks.shadow.side import EngineChoice

#: What became of a frame that was offered.
Taken = Literal["taken", "busy", "over_share"]

#: Seconds in which both engines must be open.
_OPEN_S = 600.0


class Lane:
    """The candidate's process, and the reference's.

    Args:
        champion: What both are held to.
        candidate: Which engine.
        reference: Which engine judges; None: none.
        share: Of the CPU time of all cores since the first frame, in 0..1.
        cores: How many there are.
        yields: Whether it runs at the lowest priority.
        answered: Gets what the process says of a frame, on this lane's thread.

    Raises:
        EngineworksError: One of the two cannot be used, as `ShadowSide` says.
    """

    def __init__(
        self,
        champion: Manifest,
        candidate: EngineChoice,
        reference: EngineChoice | None,
        *,
        share: float,
        cores: int,
        yields: bool,
        answered: Callable[[Any, dict[str, Any]], None],
    ) -> None:
        self._share, self._cores, self._answered = share, cores, answered
        self.cpu_s = 0.0
        """CPU time of all runs so far."""
        self.broken = ""
        """Why the process is no more; empty: it is there."""
        self.failure: Exception | None = None
        """What `answered` has raised."""
        self._began: float | None = None
        self._frames: SimpleQueue[tuple[Any, Frame] | None] = SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        # A group of its own: Ctrl-C is the champion's. No session of its own: Linux may give each
        # session an equal part of the CPU (autogroup), and the lowest priority would mean nothing.
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "engineworks.shadow.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0,
            )  # fmt: skip
        self._wire = Connection(ours.detach())
        self._thread = threading.Thread(target=self._work, daemon=True)
        try:
            engines = self._opened(champion, candidate, reference, yields)
        except BaseException:
            self.close()
            raise
        self.candidate = from_json(ShadowEngine, engines["candidate"])
        self.reference = from_json(ShadowEngine, engines["reference"]) if reference else None
        self._thread.start()

    def _opened(
        self,
        champion: Manifest,
        candidate: EngineChoice,
        reference: EngineChoice | None,
        yields: bool,
    ) -> dict[str, Any]:
        asked = {
            "champion": to_json(champion), "candidate": to_json(candidate),
            "reference": to_json(reference) if reference else None, "yields": yields,
        }  # fmt: skip
        try:
            self._wire.send_bytes(json.dumps(asked).encode())
            if not self._wire.poll(_OPEN_S):
                raise ArtifactError(
                    f"the candidate did not open within {_OPEN_S:g} s",
                    hint="see whether it opens at all: engineworks bench CANDIDATE",
                )
            said = json.loads(self._wire.recv_bytes())
        except (EOFError, OSError) as error:
            raise ArtifactError(
                f"the candidate's process ended with code {self._child.wait()} while it opened",
                hint="see whether it opens at all: engineworks bench CANDIDATE",
            ) from error
        if "refused" in said:
            name, message, hint = said["refused"]
            kind = getattr(errors, name, ArtifactError)
            raise kind(message, hint=hint)
        engines: dict[str, Any] = said["engines"]
        return engines

    @property
    def working(self) -> bool:
        """Whether a frame is being answered now."""
        return not self._idle.is_set()

    @property
    def used(self) -> float:
        """Share of the CPU time of all cores that the runs have taken."""
        spent_s = time.monotonic() - self._began if self._began is not None else 0.0
        return self.cpu_s / (spent_s * self._cores) if spent_s > 0 else 0.0

    def offer(self, ticket: Any, frame: Frame, *, wait: bool) -> Taken:
        """Give a frame, if it may be taken now.

        Args:
            ticket: Comes back with the answer.
            frame: The frame; it is not changed.
            wait: Wait for an earlier frame to be answered.
        """
        if self._began is None:
            self._began = time.monotonic()
        if wait:
            self._idle.wait()
        if self.working:
            return "busy"
        if self._share < 1 and self.used > self._share:
            return "over_share"
        self._idle.clear()
        self._frames.put((ticket, frame))
        return "taken"

    def finish(self) -> None:
        """Wait for the frame that is being answered."""
        self._idle.wait()

    def close(self) -> None:
        """End the process."""
        self._frames.put(None)
        self._child.kill()
        self._child.wait()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(OSError):
            self._wire.close()

    def _work(self) -> None:
        while (given := self._frames.get()) is not None:
            ticket, frame = given
            try:
                picture = frame.image
                self._wire.send_bytes(json.dumps({"shape": picture.shape}).encode())
                self._wire.send_bytes(np.ascontiguousarray(picture).data.cast("B"))
                said = json.loads(self._wire.recv_bytes())
                self.cpu_s += said["cpu_s"]
                self._answered(ticket, said)
            except (EOFError, OSError):
                self.broken = f"the candidate's process ended with code {self._child.wait()}"
            except Exception as error:  # whoever offers the next frame gets it
                self.failure = error
            finally:
                self._idle.set()
