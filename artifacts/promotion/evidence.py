"""What is known of a registered version, from its run in MLflow, and its answers beside another's.

Knows MLflow, summary.json and the store; decides nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifacts import summary as summaries
from artifacts.registry.mlflow_log import client, engine_path, has_files, missing, speaking
from artifacts.summary import Summary, Variant, main_row
from engineworks import manifest as manifests
from engineworks.codec import digest
from engineworks.errors import ArtifactError, EngineworksError, StoreError
from engineworks.evaluate.annotations.coco import CocoLabels, read_coco
from engineworks.evaluate.precision import PHOTOS, Side, sides
from engineworks.evaluate.tasks.classification import class_of
from engineworks.facts.data import PinnedData
from engineworks.facts.plan import slug
from engineworks.manifest import Manifest
from engineworks.promotion import paired
from engineworks.promotion.gates import Standing
from engineworks.promotion.paired import Paired
from engineworks.store import LocalStore, file_sha256

DAY_MS = 86_400_000

#: Targets whose engines are doubles of real ones.
DOUBLES = {"null": "the target null replays recorded answers: it is simulated"}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A version's standing, and where it is from."""

    standing: Standing
    variant: Variant
    data: PinnedData | None
    kind: str
    """Of its task."""
    predictions: list[Any] | None
    """Its answers on the data; None: they are not there."""


def read(home: Path, model: str, version: str, variant: str) -> Evidence:
    """All that a version's run says of it.

    Args:
        home: State folder.
        model: Registered model.
        version: Its version.
        variant: The variant it is to be.

    Raises:
        StoreError: There is no such version, or MLflow does not answer.
        ArtifactError: The version and its run contradict each other.
    """
    # Else MLflow draws a bar on stderr for every small file.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with speaking(home), tempfile.TemporaryDirectory() as work:
        mlflow = client(home)
        registered = _version(mlflow, model, version)
        tags = dict(registered.tags)
        if tags.get("variant") != variant:
            raise StoreError(
                f"version {version} of {model} is of {tags.get('variant') or 'no variant'}, not "
                f"of {variant}",
                hint="choose a version of that variant: its page in MLflow has the tag `variant`",
            )
        run_id = registered.run_id or ""
        if not has_files(mlflow, run_id, engine_path(variant)):
            raise ArtifactError(
                f"version {version} of {model}: the engine is not in its MLflow run any more",
                hint="ship the model again",
            )
        file = mlflow.download_artifacts(run_id, "summary.json", work)
        summary = summaries.read(Path(file))
        row = _row(summary, tags, f"version {version} of {model}")
        path = mlflow.download_artifacts(run_id, f"{engine_path(variant)}/manifest.json", work)
        manifest = manifests.load(Path(path))
        if row.engine is None or manifest.sha256 != row.engine.sha256:
            raise ArtifactError(
                f"version {version} of {model}: the manifest in MLflow is not that of its engine",
                hint="somebody has changed the run's files: ship the model again",
            )
        ended_ms = mlflow.get_run(run_id).info.end_time or 0
        predictions = _predictions(mlflow, run_id, row, Path(work))
    return Evidence(
        standing=_standing(version, tags, summary, row, manifest, ended_ms),
        variant=row, data=summary.data, predictions=predictions,
        kind=manifest.task.kind if manifest.task else "none",
    )  # fmt: skip


def unusable(mlflow: Any, model: str, version: str) -> str:
    """Why a version cannot be live, in words; empty when it can."""
    try:
        found = _version(mlflow, model, version)
    except StoreError:
        return "it is not in the registry any more"
    verdict = found.tags.get("verdict", "")
    if verdict != "shipped":
        return f"it was withdrawn: its verdict is {verdict or 'gone'}"
    place = (found.source or "").removeprefix(f"runs:/{found.run_id}/")
    if not has_files(mlflow, found.run_id or "", place):
        return "its engine is not in MLflow any more"
    return ""


def _version(mlflow: Any, model: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version(model, version)
    except MlflowException as error:
        if not missing(error):
            raise
        raise StoreError(
            f"there is no version {version!r} of a registered model {model!r}",
            hint="look at MLflow's page of models for those that there are",
        ) from None


def _row(summary: Summary, tags: Mapping[str, str], name: str) -> Variant:
    for row in summary.variants:
        same = row.engine is not None and row.engine.sha256 == tags.get("sha256")
        if row.name == tags.get("variant") and same:
            return row
    raise ArtifactError(
        f"{name}: the run that it names has no such engine of {tags.get('variant')}",
        hint="somebody has changed the version's tags or its run: ship the model again",
    )


def _predictions(mlflow: Any, run_id: str, row: Variant, work: Path) -> list[Any] | None:
    """The answers that were logged, if they are those that the run made."""
    folder = f"predictions/{slug(row.name)}"
    if row.predictions is None or not has_files(mlflow, run_id, folder):
        return None
    manifest = row.predictions.manifest
    path = Path(mlflow.download_artifacts(run_id, f"{folder}/{manifest.entry}", str(work)))
    wanted = {entry.path: entry.sha256 for entry in manifest.files}[manifest.entry]
    if file_sha256(path) != wanted:
        raise ArtifactError(
            f"the answers of {row.name} in MLflow's run {run_id} are not those that it made",
            hint="somebody has changed the run's files: ship the model again",
        )
    found: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _standing(
    version: str, tags: Mapping[str, str], summary: Summary, row: Variant, manifest: Manifest,
    ended_ms: int,
) -> Standing:  # fmt: skip
    assert row.engine is not None  # noqa: S101 - `_row` chose it by its engine
    first = main_row(row, summary.size)
    task = manifest.task
    inputs = [(one.name, one.dtype, one.shape[1:]) for one in manifest.inputs]
    kind = (task.kind, task.layout, task.scores) if task else None
    return Standing(
        version=version,
        verdict=tags.get("verdict", "") if row.verdict == "shipped" else row.verdict,
        reason=row.reason,
        age_days=max(0.0, (time.time() * 1000 - ended_ms) / DAY_MS),
        simulated=DOUBLES.get(row.target, tags.get("simulated", "")),
        budget=summary.budget,
        accuracy=row.accuracy,
        parity=row.parity,
        delivered_precision=row.delivered_precision,
        machine=(row.host or summary.host).name,
        timed_as=f"{first.height}x{first.width}, {first.threads} threads" if first else "",
        p50_ms=first.p50_ms if first else None,
        inconclusive=first.inconclusive if first else "",
        size_bytes=row.engine.size_bytes,
        labels=tuple(task.labels) if task else (),
        data_sha256=summary.data.sha256 if summary.data else "",
        contract=digest([kind, inputs, manifest.preprocess]),
    )


def side_by_side(
    candidate: Evidence, champion: Evidence, store: LocalStore, max_drop: float
) -> Paired | str:
    """Both answers to the photos that both have seen, by the candidate's labels.

    Args:
        candidate: The version that is to be promoted.
        champion: The one that is live.
        store: Where known boxes lie.
        max_drop: Largest loss that is allowed.

    Returns:
        The figures; or why there are none, in words.
    """
    mine, theirs = candidate.data, champion.data
    if mine is None or theirs is None or not (mine.objects and candidate.standing.accuracy):
        return "there are no labelled photos that both have answered"
    if candidate.predictions is None or champion.predictions is None:
        return "the answers of one of the two are not in MLflow"
    common = [f for f in mine.files if mine.digests.get(f, "-") == theirs.digests.get(f, "")]
    if not common:
        return "the two have no photo in common"
    compare = _COMPARED.get(candidate.kind)
    if compare is None:
        return f"answers of the task {candidate.kind} are not compared photo by photo yet"
    try:
        return compare(candidate, champion, common, store, max_drop)
    except EngineworksError as error:
        return f"the known boxes cannot be read ({error.line})"


def _classes(
    one: Evidence, other: Evidence, files: list[str], store: LocalStore, max_drop: float
) -> Paired | str:
    labels = one.standing.labels
    mine, theirs = ({row[0]: row[1] for row in e.predictions or ()} for e in (one, other))
    both = [file for file in files if file in mine and file in theirs]
    return paired.of_classes(
        np.array([mine[file] for file in both], np.int64),
        np.array([theirs[file] for file in both], np.int64),
        np.array([class_of(file, labels) for file in both], np.int64),
        max_drop,
    )


def _objects(
    one: Evidence, other: Evidence, files: list[str], store: LocalStore, max_drop: float
) -> Paired | str:
    truths = [_boxes(e, store) for e in (one, other)]
    if truths[0] is None or truths[1] is None:
        return "the known boxes of one of the two were not kept"
    labels, before = truths[0], truths[1]
    ids = [labels.image_id[file] for file in files]
    renamed = {before.image_id[file]: labels.image_id[file] for file in files}
    theirs = [
        row | {"image_id": renamed[row["image_id"]]}
        for row in other.predictions or ()
        if row["image_id"] in renamed
    ]
    mine_sides, their_sides, known = [], [], []
    for at in range(0, len(ids), PHOTOS):  # as many as it looks at without choosing
        part = ids[at : at + PHOTOS]
        answered, truth = sides(one.predictions or (), labels, part)
        mine_sides += answered
        known += truth
        their_sides += sides(theirs, labels, part)[0]
    answered_by: tuple[list[Side], list[Side]] = (mine_sides, their_sides)
    return paired.of_objects(*answered_by, known, max_drop)


def _boxes(one: Evidence, store: LocalStore) -> CocoLabels | None:
    if one.data is None or one.data.truth is None:
        return None
    return read_coco(store.entry(one.data.truth), one.standing.labels)


#: How answers to the same photos are compared, by the task.
_COMPARED = {"classification": _classes, "detection": _objects}
