"""How models are judged: one file per kind of task, and this folder's listing is the list of kinds.

A file declares `TASK = Task(...)` and is imported at first use. Packages elsewhere add kinds
through the entry-point group `engineworks.tasks` (kind -> module), with a head of the same name.
docs/add-a-task.md is the guide.
"""

from __future__ import annotations

from engineworks.errors import ArtifactError, RecipeError
from engineworks.evaluate.tasks._base import GalleryRequest, Infer, Look, Question, Task, Truth
from engineworks.listing import Listing
from engineworks.runtime import heads
from engineworks.specs import NO_TASK, Preprocess, TaskSpec

LISTING = Listing(
    __name__, __path__, Task, "TASK", noun="task", at="task.kind", guide="docs/add-a-task.md",
    error=RecipeError,
)  # fmt: skip


def names() -> tuple[str, ...]:
    """All kinds of tasks that can be judged here."""
    return tuple(LISTING.modules)


def load(kind: str) -> Task:
    """Import a task's file.

    Raises:
        RecipeError: There is no such kind, or its file does not import or declares none.
    """
    if kind not in LISTING.modules:
        raise RecipeError(
            f"task.kind: there is no task {kind!r}",
            hint=f"the tasks are: {', '.join((NO_TASK, *names()))}",
        )
    return LISTING.load(kind)


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
    foreign = sorted({each.foreign(task.kind) for each in (LISTING, heads.LISTING)} - {""})
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
