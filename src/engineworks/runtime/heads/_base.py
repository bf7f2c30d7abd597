"""What a head's file holds, and the small things that several of them share.

Knows no kind of task. Imports numpy alone, for the runtime installs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engineworks.errors import RecipeError
from engineworks.runtime.planes import Planes
from engineworks.runtime.preprocess import Placement
from engineworks.specs import Size, TaskSpec

Array = np.ndarray[Any, Any]

#: One image's outputs by name, without the batch dimension.
Outputs = Mapping[str, Array]

#: A recipe's own decoder, `task.layout: module:function`: (outputs of one image by name, input
#: size, confidence) -> what the kind's head says of `own_decoder`.
Decoder = Callable[[Outputs, Size, float], Any]

#: From one image's outputs to its answer, in pixels of the source image.
Finish = Callable[[Outputs, Placement], Any]

#: What is drawn into: uint8 (height, width, 3) BGR, or the planes of a video's frame.
Picture = Array | Planes


def _any_value(options: Mapping[str, Any]) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Head:
    """Everything a device needs to know of a kind of task: `HEAD` of its file.

    `answer` stands for what `open` gives for one image; a class of the head's own.
    """

    title: str
    """What it does with images, for people: "find objects"."""
    command: str
    """The word of its command and of a server's route: `detect`."""
    open: Callable[[TaskSpec, Size, Decoder | None], Finish]
    """(task, input size, the recipe's own decoder) -> what turns one image's outputs into its
    answer. Keeps nothing between calls, so threads may share it. Raises ValueError when outputs
    are not what the task says."""
    to_json: Callable[[Any, TaskSpec], dict[str, Any]]
    """An answer as plain JSON types."""
    lines: Callable[[Any, TaskSpec], list[str]]
    """An answer in words, a line for each thing that was found."""
    count: Callable[[Any, TaskSpec], dict[str, int]]
    """How often each class was found."""
    draw: Callable[[Picture, Any, TaskSpec, str | None], None] | None = None
    """(picture, answer, task, words for the upper left corner or None): draws in place."""
    objects: bool = False
    """Whether answers are `Detections`, or of a class made from it, so that they can be tracked."""
    layouts: tuple[str, ...] = ()
    """Words of `task.layout`; none: outputs have one form, and `task.layout` is not read."""
    columns: Mapping[str, int] | None = None
    """What an answer has beside `scores`, `class_ids` and `labels` where it is a row of a table:
    column -> how deeply its numbers are nested. None: it is no row."""
    own_decoder: str = ""
    """What a recipe's own decoder returns; empty: a recipe cannot bring one."""
    scores: bool = False
    """Whether `task.scores` says what the outputs are."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a caller may set for showing, beside what the engine's manifest says: fields of
    `TaskSpec` or names of `options` -> the commands' own default; None: as the manifest says."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Name in `task.options` -> description; anything else is refused."""
    check_options: Callable[[Mapping[str, Any]], None] = _any_value
    """Rules of the options' values: raises ValueError."""


def label(task: TaskSpec, class_id: int) -> str:
    """The name of a class; its number where the model names none."""
    names = task.labels if isinstance(task.labels, tuple) else ()
    return names[class_id] if 0 <= class_id < len(names) else str(class_id)


def labels(task: TaskSpec) -> Sequence[str]:
    """All names of classes, in index order."""
    return task.labels if isinstance(task.labels, tuple) else ()


def only(outputs: Outputs) -> Array:
    """The array of a model with one output.

    Raises:
        ValueError: It has more.
    """
    if len(outputs) != 1:
        raise ValueError(
            f"this layout has one output, the model has {len(outputs)}: {sorted(outputs)}"
        )
    (array,) = outputs.values()
    return array


def check(head: Head, task: TaskSpec) -> None:
    """Refuse what a kind of task does not have.

    Raises:
        RecipeError: Names the value and what there is.
    """
    if head.layouts and task.layout not in head.layouts:
        has = ", ".join(head.layouts)
        own = " or module:function (see docs/recipe.md, 'Your own decoder')"
        if ":" not in task.layout or not head.own_decoder:
            raise RecipeError(
                f"task.layout: {task.layout!r} is unknown to {task.kind}",
                hint=f"use {has}" + (own if head.own_decoder else ""),
            )
    if task.scores != "auto" and not head.scores:
        raise RecipeError(
            f"task.scores: {task.scores} says nothing of the task {task.kind}",
            hint="remove task.scores; the layout says what the scores are",
        )
    for name in task.options:
        if name not in head.options:
            raise RecipeError(
                f"task.options: {task.kind} has no option {name!r}",
                hint=f"it has: {', '.join(head.options) or 'none'}",
            )
    try:
        head.check_options(task.options)
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"task.options: {error}",
            hint="; ".join(f"{name}: {said}" for name, said in head.options.items()),
        ) from error
