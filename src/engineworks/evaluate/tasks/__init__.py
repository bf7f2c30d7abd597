"""How models are judged: one file per kind of task, and this folder's listing is the list of kinds.

A file declares `TASK = Task(...)` and is imported at first use. Packages elsewhere add kinds
through the entry-point group `engineworks.tasks` (kind -> module), with a head of the same name.
docs/add-a-task.md is the guide.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib import metadata

from engineworks.errors import ArtifactError, RecipeError
from engineworks.evaluate.tasks._base import GalleryRequest, Infer, Look, Question, Task, Truth
from engineworks.runtime import heads
from engineworks.specs import NO_TASK, Preprocess, TaskSpec

GROUP = "engineworks.tasks"


@cache
def _modules() -> dict[str, str]:
    """Kind -> module to import, this folder's first."""
    found = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            found[module.name] = f"{__name__}.{module.name}"
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """All kinds of tasks that can be judged here."""
    return tuple(_modules())


@cache
def load(kind: str) -> Task:
    """Import a task's file.

    Raises:
        RecipeError: There is no such kind, or its file does not import or declares none.
    """
    modules = _modules()
    if kind not in modules:
        raise RecipeError(
            f"task.kind: there is no task {kind!r}",
            hint=f"the tasks are: {', '.join((NO_TASK, *modules))}",
        )
    try:
        module = importlib.import_module(modules[kind])
    except Exception as error:
        raise RecipeError(
            f"task.kind: {kind} comes from {modules[kind]}, which cannot be imported "
            f"({type(error).__name__}: {error})",
            hint="repair or uninstall the package that provides this task",
        ) from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise RecipeError(
            f"task.kind: {modules[kind]} has no TASK = Task(...)",
            hint="see docs/add-a-task.md for what a task's file holds",
        )
    return task


def check(task: TaskSpec, labels: tuple[str, ...], preprocess: Preprocess) -> None:
    """Refuse what a kind of task does not have.

    Args:
        task: Of the recipe.
        labels: Class names in index order.
        preprocess: Of the recipe.

    Raises:
        RecipeError: Names the value and what there is.
    """
    if not task.judged:
        return
    kind = load(task.kind)
    try:
        head = heads.load(task.kind)
    except ArtifactError as error:
        raise RecipeError(f"task.kind: {error.message}", hint=error.hint) from error
    heads.check(head, task)
    kind.check(task, labels, preprocess)


def metric(task: TaskSpec) -> str:
    """Name of the metric that judges a task; empty where none does."""
    return load(task.kind).metric if task.judged else ""


def own_layout(task: TaskSpec) -> str:
    """The recipe's own decoder, `module:function`; empty for a layout that is known."""
    own = task.judged and ":" in task.layout and bool(heads.load(task.kind).own_decoder)
    return task.layout if own else ""


def own_code(task: TaskSpec) -> tuple[str, ...]:
    """What judges this task and is not of this library, as `module:name`: other code, other keys.

    The recipe's own decoder; files of a task and a head from a package elsewhere.
    """
    if not task.judged:
        return ()
    modules = {_modules().get(task.kind, __name__), heads.module(task.kind)}
    foreign = sorted(name for name in modules if not name.startswith("engineworks."))
    return (*filter(None, [own_layout(task)]), *(f"{name}:TASK" for name in foreign))


__all__ = [
    "GalleryRequest",
    "Infer",
    "Look",
    "Question",
    "Task",
    "Truth",
    "check",
    "load",
    "metric",
    "names",
    "own_code",
    "own_layout",
]
