"""Stage `validate`: every image is decoded once, and labels are held against images."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from engineworks.codec import place
from engineworks.facts.data import PinnedData
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact
from engineworks.specs import (
    DataSpec,
)
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class ValidateRequest:
    """Decode every image once and hold labels against images."""

    shared: Shared
    data: DataSpec
    digests: dict[str, str] = place(default_factory=dict)
    """sha256 of every image that was listed, by name and in that order; empty: the stage lists
    them itself."""
    answers: Artifact | None = place(default=None)
    """The store's copy of the annotations."""
    bytes_sha256: str


def validate(request: ValidateRequest) -> PinnedData:
    """Stage `validate`."""
    from engineworks.evaluate import datasets, pinned
    from engineworks.evaluate.annotations import truth
    from engineworks.evaluate.tasks import Truth

    shared, store = request.shared, LocalStore(Path(request.shared.store))

    def keep(labels: Truth) -> Artifact:
        with tempfile.TemporaryDirectory() as work:
            path = Path(work, datasets.ANNOTATIONS)
            truth.write(labels, path)
            return store.put(
                {path.name: path}, kind="annotations", name=shared.name, entry=path.name,
                provenance=provenance("validate", shared, ()),
            )  # fmt: skip

    with pinned.settled(request.data, request.answers, store) as spec:
        validated = datasets.validate(
            spec, shared.task, shared.labels, keep,
            digests=request.digests or None, answers=request.answers,
        )  # fmt: skip
    return dataclasses.replace(validated, spec=request.data)


STAGE = Stage("validate", validate, ValidateRequest, PinnedData, ("opencv-python-headless",))
