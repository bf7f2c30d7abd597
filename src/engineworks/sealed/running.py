"""An open engine and the pictures of a test: rows in, outputs and answers out.

Everything goes the way that a picture takes in use: decoded, placed by the manifest's own
preprocessing, run, decoded by the head of the manifest's task. Knows no expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError
from engineworks.manifest import Manifest
from engineworks.runtime import heads
from engineworks.runtime.predictor import image_input
from engineworks.runtime.preprocess import Placement, Preprocessor
from engineworks.runtime.session import Session, Tensors
from engineworks.sealed import answers
from engineworks.sealed.answers import Fields

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Way:
    """The way in and out that an engine's manifest describes."""

    manifest: Manifest
    prepare: Preprocessor
    finish: Callable[[Tensors, Placement], Any] | None
    """None: nothing here knows what the outputs mean."""

    def rows(self, pictures: Sequence[Array]) -> tuple[list[Array], list[Placement]]:
        """The engine's input for every picture."""
        placed = [self.prepare(picture) for picture in pictures]
        return [row for row, _ in placed], [where for _, where in placed]

    def found(self, outputs: Tensors, where: Placement) -> Fields | None:
        """What was found in a picture, as plain arrays; None where nothing decodes it here."""
        if self.finish is None:
            return None
        try:
            return answers.fields(self.finish(outputs, where))
        except (ValueError, IndexError) as error:
            raise ArtifactError(
                f"{self.manifest.name}: its outputs cannot be decoded ({error})",
                hint="do not use it: its manifest does not describe it; fetch the engine again",
            ) from error


def way_of(manifest: Manifest) -> Way:
    """The way in and out of an engine.

    Raises:
        ArtifactError: It takes no image, or does not say how one becomes its input.
    """
    size, uint8 = image_input(manifest)
    if manifest.preprocess is None:
        raise ArtifactError(
            f"{manifest.name} does not say how an image becomes its input",
            hint="build the engine from a recipe with preprocess, see docs/recipe.md",
        )
    finish = None
    task = manifest.task
    if task is not None and task.judged and task.kind in heads.names():
        head = heads.load(task.kind)
        if not (head.own_decoder and ":" in task.layout):
            finish = head.open(task, size, None)
    return Way(
        manifest=manifest,
        prepare=Preprocessor(manifest.preprocess, size, uint8=uint8),
        finish=finish,
    )


def infer(session: Session, rows: Sequence[Array], batch: int = 1) -> list[Tensors]:
    """Outputs of every row by name, without the batch dimension, in memory of their own.

    Args:
        session: An open engine with one input.
        rows: Of `Way.rows`.
        batch: Rows in a call; an engine of fixed batch has its own, filled up with the last row.
    """
    spec = session.inputs[0]
    fixed = spec.shape[0] if isinstance(spec.shape[0], int) else None
    low, _ = session.manifest.batches(1)
    step = fixed or max(batch, low)
    outputs: list[Tensors] = []
    for first in range(0, len(rows), step):
        chunk = list(rows[first : first + step])
        used = len(chunk)
        wanted = fixed or max(used, low)
        chunk += [chunk[-1]] * (wanted - used)
        answered = session.infer({spec.name: np.ascontiguousarray(np.stack(chunk))})
        outputs += [
            {name: np.array(array[place]) for name, array in answered.items()}
            for place in range(used)
        ]
    return outputs
