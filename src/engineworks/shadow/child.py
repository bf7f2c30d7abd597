"""The candidate's process: `python -m engineworks.shadow.child DESCRIPTOR`.

Answers the frames that come over a socket pair, with the candidate and a reference, and says how
much CPU time that took. Yields the CPU to everybody where it is asked to, and ends with its parent.
Nothing is unpickled: JSON and pixels alone travel.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError, EngineworksError
from engineworks.manifest import Manifest
from engineworks.shadow.side import EngineChoice, ShadowSide, refuse_other_task

#: Lowest priority of POSIX: whoever else wants the CPU gets it first.
_NICE = 19


def main(descriptor: int) -> None:
    """Answer until the other end is closed."""
    with contextlib.closing(Connection(descriptor)) as wire, contextlib.suppress(EOFError, OSError):
        asked = json.loads(wire.recv_bytes())
        if asked["yields"]:
            with contextlib.suppress(OSError, AttributeError):
                os.nice(_NICE)  # threads of the engines inherit it
        champion = from_json(Manifest, asked["champion"])
        try:
            sides = _open(asked, champion)
        except EngineworksError as error:
            _send(wire, {"refused": [type(error).__name__, error.message, error.hint]})
            return
        _send(wire, {"engines": {name: to_json(side.engine) for name, side in sides.items()}})
        while True:
            asked = json.loads(wire.recv_bytes())
            picture = np.frombuffer(wire.recv_bytes(), np.uint8).reshape(asked["shape"])
            _send(wire, _answer(sides, picture))


def _open(asked: dict[str, Any], champion: Manifest) -> dict[str, ShadowSide]:
    sides = {}
    for name in ("candidate", "reference"):
        if asked.get(name):
            side = ShadowSide(
                from_json(EngineChoice, asked[name]), champion if name == "reference" else None
            )
            refuse_other_task(champion, side.session.manifest, name)
            sides[name] = side
    if len({side.engine.sha256 for side in sides.values()}) < len(sides):
        raise ArtifactError(
            "the candidate cannot be its own reference: it would always be right",
            hint="give a stronger engine for --reference, or --labels",
        )
    return sides


def _answer(sides: dict[str, ShadowSide], picture: Any) -> dict[str, Any]:
    before = time.process_time()
    answers: dict[str, Any] = {}
    for name, side in sides.items():
        try:
            answers[name] = side(picture)
        except EngineworksError as error:
            answers[name], answers[f"{name}_error"] = None, error.line
    return {**answers, "cpu_s": time.process_time() - before}


def _send(wire: Connection, message: dict[str, Any]) -> None:
    wire.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
