"""The heads: one file per kind of task, and the listing of this folder is the list of kinds.

A file declares `HEAD = Head(...)` and is imported at first use. Packages elsewhere add kinds
through the entry-point group `engineworks.heads` (kind -> module); a file of this folder wins over
one of the same name. docs/add-a-task.md is the guide.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib import metadata

from engineworks.errors import ArtifactError
from engineworks.runtime.heads._base import Decoder, Finish, Head, Outputs, check, label, only

GROUP = "engineworks.heads"


@cache
def _modules() -> dict[str, str]:
    """Kind -> module to import, this folder's first."""
    found = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            found[module.name] = f"{__name__}.{module.name}"
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """All kinds of tasks that this installation can decode."""
    return tuple(_modules())


def module(kind: str) -> str:
    """The module that has a kind's head, in whatever package."""
    return _modules().get(kind, __name__)


@cache
def load(kind: str) -> Head:
    """Import a head's file.

    Raises:
        ArtifactError: There is no such kind, or its file does not import or declares no head.
    """
    modules = _modules()
    if kind not in modules:
        raise ArtifactError(
            f"there is no head for the task {kind!r}",
            hint=f"this installation has: {', '.join(modules)}; install the package that provides "
            "this task, or use the version of engineworks that built the engine",
        )
    try:
        module = importlib.import_module(modules[kind])
    except Exception as error:
        raise ArtifactError(
            f"the head for {kind} comes from {modules[kind]}, which cannot be imported "
            f"({type(error).__name__}: {error})",
            hint="repair or uninstall the package that provides this task",
        ) from error
    head = getattr(module, "HEAD", None)
    if not isinstance(head, Head):
        raise ArtifactError(
            f"{modules[kind]} has no HEAD = Head(...)",
            hint="see docs/add-a-task.md for what a head's file holds",
        )
    return head


__all__ = [
    "Decoder",
    "Finish",
    "Head",
    "Outputs",
    "check",
    "label",
    "load",
    "module",
    "names",
    "only",
]
