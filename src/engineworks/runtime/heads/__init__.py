"""The heads: one file per kind of task, and the listing of this folder is the list of kinds.

A file declares `HEAD = Head(...)` and is imported at first use. Packages elsewhere add kinds
through the entry-point group `engineworks.heads` (kind -> module); a file of this folder wins over
one of the same name. docs/add-a-task.md is the guide.
"""

from __future__ import annotations

from engineworks.errors import ArtifactError
from engineworks.listing import Listing
from engineworks.runtime.heads._base import Decoder, Finish, Head, Outputs, check, label, only

LISTING = Listing(
    __name__, __path__, Head, "HEAD", noun="head", at="heads", guide="docs/add-a-task.md",
    error=ArtifactError,
)  # fmt: skip


def names() -> tuple[str, ...]:
    """All kinds of tasks that this installation can decode."""
    return tuple(LISTING.modules)


def load(kind: str) -> Head:
    """Import a head's file.

    Raises:
        ArtifactError: There is no such kind, or its file does not import or declares no head.
    """
    if kind not in LISTING.modules:
        raise ArtifactError(
            f"there is no head for the task {kind!r}",
            hint=f"this installation has: {', '.join(names())}; install the package that provides "
            "this task, or use the version of engineworks that built the engine",
        )
    return LISTING.load(kind)


__all__ = [
    "Decoder",
    "Finish",
    "Head",
    "Outputs",
    "check",
    "label",
    "load",
    "names",
    "only",
]
