"""Runs a model over the data and scores it: the source model and every engine the same way.

What is asked and how it is scored is the task's own (`tasks/`); preprocessing and decoding are the
runtime's, by the specs that travel in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engineworks import usercode, userfiles
from engineworks.evaluate import tasks
from engineworks.evaluate.tasks import Infer, Question
from engineworks.facts.data import PinnedData
from engineworks.runtime.heads import Decoder
from engineworks.specs import Preprocess, Size, TaskSpec

#: Name of the share of images with more objects than `max_detections`; there only when above 0.
CUT = "cut_share"


def decoder(task: TaskSpec, folder: Path) -> Decoder | None:
    """The recipe's own decoder, or None for a built-in layout."""
    own = tasks.own_layout(task)
    if not own:
        return None
    with userfiles.noted(folder):
        own_decoder: Decoder = usercode.load(own, folder, "task.layout")
    return own_decoder


def judge(
    infer: Infer,
    data: PinnedData,
    task: TaskSpec,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    size: Size,
    decode: Decoder | None,
) -> tuple[dict[str, float], list[Any]]:
    """Score a model on all images, one at a time.

    Args:
        infer: (1, channels, height, width) float32 -> outputs by name, batch dimension first.
        data: Images and labels.
        task: What the outputs mean.
        labels: Class names in index order.
        preprocess: How images become input.
        size: Input (height, width).
        decode: The recipe's own decoder, if it has one.

    Returns:
        (metrics by name, predictions, in the form of the task).

    Raises:
        ModelError: The outputs are not what the task's layout says.
    """
    question = Question(
        data=data, task=task, labels=labels, preprocess=preprocess, size=size, decode=decode
    )
    return tasks.load(task.kind).judge(infer, question)


def check_labels(task: TaskSpec, labels: tuple[str, ...], outputs: Mapping[str, Any]) -> None:
    """Hold the labels against the outputs of a model.

    Args:
        task: Its layout says where classes are.
        labels: Class names in index order; none: nothing is compared.
        outputs: Of the model, with a batch dimension.

    Raises:
        ModelError: They differ, so that names would stand for other classes.
    """
    if task.judged:
        tasks.load(task.kind).check_outputs(task, labels, outputs)


class _Metrics(Mapping[str, str]):
    """Kind of a task -> name of its metric."""

    def __getitem__(self, kind: str) -> str:
        return tasks.metric(TaskSpec(kind=kind))

    def __iter__(self) -> Any:
        return iter(tasks.names())

    def __len__(self) -> int:
        return len(tasks.names())


#: Name of the metric that the budget's max_drop speaks of.
METRIC = _Metrics()
