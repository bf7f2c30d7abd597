"""Decode every image once and hold labels against images; fix them by their bytes."""

from __future__ import annotations

import dataclasses

from engineworks.evaluate import datasets
from engineworks.evaluate import pinned as pinning
from engineworks.facts.data import PinnedData
from engineworks.facts.prepared import Shared
from engineworks.specs import DataSpec
from engineworks.stages import validate as stage
from tasks._job import Job
from tasks._run import Run
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Decode every image once and hold labels against images.", retries=0)


def validate(job: Job, shared: Shared, spec: DataSpec, part: str = "") -> PinnedData:
    """Images fixed by their bytes as they are now; every stage after this one reads the same.

    Args:
        job: The run.
        shared: What stages need of the recipe; its task says which labels are looked for.
        spec: The images.
        part: For images that judge nothing: what they are for.
    """
    digests = pinning.digests(datasets.root_of(spec), datasets.list_images(spec))
    answers = pinning.hold_answers(spec, job.run.store, job.recipe.name)
    request = stage.ValidateRequest(
        shared=shared,
        data=spec,
        digests=digests,
        answers=answers,
        bytes_sha256=pinning.bytes_sha256(digests, answers),
    )

    def note(value: PinnedData) -> str:
        labels = "" if part else f", {value.objects} labels"
        skipped = [f"{len(value.bad)} skipped"] if value.bad else []
        return ", ".join([f"{len(value.files)} images{labels}", *skipped, *value.notes])

    return settled(
        job.run, spec, TASK.call(job.run, request, job.recipe.limits.export_s, part, note)
    )


def settled(run: Run, spec: DataSpec, pinned: PinnedData) -> PinnedData:
    """Validated data with paths of this run.

    Paths are not part of the key: a moved data set is the same data set. Boxes are read from
    where `validate` left them, as it understood them.
    """
    if pinned.truth is not None:
        spec = dataclasses.replace(spec, annotations=str(run.store.entry(pinned.truth)))
    return dataclasses.replace(pinned, spec=spec)
