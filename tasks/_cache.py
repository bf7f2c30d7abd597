"""When a stage need not run again.

Key = sha256 of the stage, its request (parents' digests and spec; host card and versions of the
target's packages where the request holds them) and the versions of the stage's own tools.
Engines are not bit-reproducible, so no key is ever made of what a build would return.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import engineworks
from engineworks import hosts
from engineworks.codec import digest
from engineworks.stages import STAGES


@cache
def library_sha256() -> str:
    """Digest of this library's own code: a changed stage gives other results."""
    return _code_sha256(Path(engineworks.__file__).parent)


@cache
def logging_sha256() -> str:
    """Digest of the code that decides what is logged and registered."""
    top = Path(__file__).parents[1]
    return _code_sha256(top / "artifacts") + _code_sha256(top / "tasks")


@cache
def checkout_sha256() -> str:
    """Digest of all code that the machines of a fleet must have in common."""
    top = Path(__file__).parents[1]
    return digest([library_sha256(), logging_sha256(), _code_sha256(top / "flows")])


def _code_sha256(root: Path) -> str:
    sha256 = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".j2")):
        sha256.update(f"{path.relative_to(root).as_posix()}\0".encode())
        sha256.update(path.read_bytes())
    return sha256.hexdigest()


def stage_key(stage: str, request: Any) -> str:
    """Cache key of one stage with one request."""
    return digest(
        {
            "stage": stage,
            "request": request,
            "tools": hosts.versions("numpy", *(STAGES[stage].packages if stage in STAGES else ())),
            "library": library_sha256(),
        }
    )
