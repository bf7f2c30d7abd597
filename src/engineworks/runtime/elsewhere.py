"""The two ends of an engine that runs somewhere else: pictures to its input, outputs to answers.

A server's steps and a client have the engine's manifest and not the engine. Knows no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engineworks.errors import ArtifactError, InferenceError
from engineworks.manifest import Manifest
from engineworks.runtime.heads.classification import Classifier
from engineworks.runtime.heads.detection import Detector
from engineworks.runtime.session import Session, SessionBase, Tensors


class Elsewhere(SessionBase):
    """A session without an engine: has a manifest, runs nothing."""

    reuses_outputs = False

    def __enter__(self) -> Elsewhere:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """There is nothing to run.

        Raises:
            InferenceError: Always.
        """
        raise InferenceError(
            f"{self.title} runs somewhere else", hint="use its prepare and finish only"
        )


def image_model(
    manifest: Manifest, session: Session | None = None, **options: Any
) -> Detector | Classifier:
    """The detector or classifier of a manifest.

    Args:
        manifest: An engine's.
        session: What runs it; None: nothing here, only `prepare` and `finish` are of use.
        options: As the class takes them.

    Raises:
        ArtifactError: The engine's task has no such class, or its manifest lacks something.
    """
    kinds: dict[str, type[Detector] | type[Classifier]] = {
        "detection": Detector,
        "classification": Classifier,
    }
    kind = manifest.task.kind if manifest.task else "none"
    if kind not in kinds:
        raise ArtifactError(
            f"{manifest.name} is an engine for the task {kind}: its outputs are tensors and no "
            "answers for a picture",
            hint=f"give an engine for {' or '.join(kinds)}, or use its tensors",
        )
    return kinds[kind](session or Elsewhere(manifest), **options)
