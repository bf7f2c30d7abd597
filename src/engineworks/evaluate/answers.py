"""Runs a model over images and gives each one's answer: preprocessing and head of the runtime.

Knows no kind of task and no truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engineworks.errors import InputError, ModelError
from engineworks.evaluate import datasets
from engineworks.evaluate.tasks._base import Infer, Question
from engineworks.runtime import heads
from engineworks.runtime.preprocess import Preprocessor


def answers(infer: Infer, question: Question) -> Iterator[tuple[str, Any]]:
    """Put all images to a model, one at a time.

    Args:
        infer: The model.
        question: Images, and how they are put.

    Returns:
        (file, what the head of the task makes of the outputs), in the order of the images.

    Raises:
        ModelError: The outputs are not what the task says.
    """
    task, decode = question.task, question.decode
    head = heads.load(task.kind)
    prepare = Preprocessor(question.preprocess, question.size)
    try:
        finish = head.open(task, question.size, decode)
    except ValueError as error:
        raise ModelError(
            f"the task {task.kind} cannot be decoded: {error}", hint="see docs/recipe.md, task"
        ) from error
    data = question.data
    for name, image in zip(data.files, datasets.images(data), strict=True):
        row, placement = prepare(image)
        outputs = {key: value[0] for key, value in infer(row[None]).items()}
        try:
            answer = finish(outputs, placement)
        except InputError:
            raise  # the decoder's code was replaced
        except Exception as error:
            shapes = {key: value.shape for key, value in outputs.items()}
            what = f"task.layout {task.layout!r}" if head.layouts else f"the task {task.kind}"
            raise ModelError(
                f"{what} cannot decode outputs of shape {shapes}: {type(error).__name__}: {error}",
                hint="the stage's log.txt has the line in your decoder; see docs/recipe.md, "
                "'Your own decoder'"
                if decode
                else f"use the layout of this model's head ({', '.join(head.layouts)}) or your own "
                "module:function, see docs/recipe.md",
            ) from error
        yield name, answer


def refuse_unnamed(highest: int, classes: int) -> None:
    """Refuse an answer of a class that nobody named.

    Raises:
        ModelError: `highest`, a class number, is none of so many classes.
    """
    if highest >= classes:
        raise ModelError(
            f"the model found class {highest}, but only {classes} classes are named",
            hint="give task.labels for every class of the model, in its order",
        )


def refuse_other_count(shown: int, labels: tuple[str, ...], layout: str) -> None:
    """Hold the number of labels against the classes that outputs show.

    Raises:
        ModelError: They differ, so that names would stand for other classes.
    """
    if labels and shown != len(labels):
        raise ModelError(
            f"the model scores {shown} classes (task.layout {layout}), task.labels names "
            f"{len(labels)}",
            hint="give one label per class, in the model's order; an empty line keeps the place of "
            "a class without a name",
        )
