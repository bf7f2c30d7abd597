"""Make the sealed test of a shipped engine, of the photos that may leave the house."""

from __future__ import annotations

from engineworks.errors import EngineworksError
from engineworks.evaluate import datasets
from engineworks.facts.engine import Built
from engineworks.facts.prepared import PreparedModel
from engineworks.facts.sealed import SealedTest
from engineworks.manifest import Artifact, Provenance
from engineworks.specs import SealedSpec
from engineworks.stages import seal as stage
from tasks._job import Job, VariantJob
from tasks._stage import stage_task

TASK = stage_task(stage.STAGE, "Make the test that shows whether an engine still answers so.")


def photos(job: Job) -> Artifact | None:
    """The photos that the recipe lets go, as an artifact: they travel with a run; None: none.

    Raises:
        DataError: A folder, list or file is not there.
    """
    chosen = datasets.photo_files(job.recipe.sealed)
    if not chosen:
        return None
    files = {f"{number:03}{path.suffix.lower()}": path for number, path in enumerate(chosen)}
    return job.run.store.hold(
        files, kind="samples", name=job.recipe.name, entry=next(iter(files)),
        provenance=Provenance(stage="seal"),
    )  # fmt: skip


def seal(
    job: VariantJob, model: PreparedModel, built: Built, spec: SealedSpec
) -> SealedTest:  # fmt: skip
    """The sealed test of one engine, replayed once.

    Args:
        job: The variant's part of a run.
        model: At the engine's size, as it was before anything was rounded.
        built: The engine.
        spec: What the test is made of.
    """
    if job.target.replays:
        return SealedTest(state="skipped", reason="it replays recorded answers")
    request = stage.SealRequest(
        shared=model.shared,
        engine=built.engine,
        source=model.onnx,
        photos=model.leaving,
        pictures=spec.pictures,
        size=model.size,
        tools=job.tools,
        host=job.host,
    )
    return TASK.call(job.run, request, job.recipe.limits.check_s, job.planned.name, _note)


def failure(error: EngineworksError) -> SealedTest:
    """Why there is no test."""
    return SealedTest(state="failed", reason=error.line)


def _note(value: SealedTest) -> str:
    kind = "photos" if value.photos else "made pictures"
    return f"{value.pictures} {kind}, replayed in {value.replay_s:.1f} s"
