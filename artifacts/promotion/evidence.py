"""What is known of a registered version, from its run in MLflow.

Knows MLflow, summary.json and the store; decides nothing.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import summary as summaries
from artifacts.registry import logged_files
from artifacts.registry.logged_files import missing
from artifacts.registry.mlflow_log import client, engine_path, speaking
from artifacts.summary import Summary, Variant
from artifacts.table import main_row
from engineworks import manifest as manifests
from engineworks.codec import digest
from engineworks.errors import ArtifactError, StoreError
from engineworks.facts.data import PinnedData
from engineworks.manifest import Manifest
from engineworks.promotion.gates import Standing
from engineworks.runtime import engines
from engineworks.specs import Size

DAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A version's standing, and where it is from."""

    standing: Standing
    variant: Variant
    manifest: Manifest
    """Of its engine."""
    data: PinnedData | None
    size: Size
    threads: int
    """With which it was timed; 0: all."""


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
        if not logged_files.are_whole(mlflow, run_id, engine_path(variant)):
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
    return Evidence(
        standing=_standing(version, tags, summary, row, manifest, ended_ms),
        variant=row, manifest=manifest, data=summary.data, size=summary.size,
        threads=first.threads if (first := main_row(row, summary.size)) else 0,
    )  # fmt: skip


def unusable(mlflow: Any, model: str, version: str) -> str:
    """Why a version cannot be live, in words; empty when it can."""
    try:
        registered = _version(mlflow, model, version)
    except StoreError:
        return "it is not in the registry any more"
    verdict = registered.tags.get("verdict", "")
    if verdict != "shipped":
        return f"it was withdrawn: its verdict is {verdict or 'gone'}"
    place = (registered.source or "").removeprefix(f"runs:/{registered.run_id}/")
    if not logged_files.are_whole(mlflow, registered.run_id or "", place):
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


def _standing(
    version: str, tags: Mapping[str, str], summary: Summary, row: Variant, manifest: Manifest,
    ended_ms: int,
) -> Standing:  # fmt: skip
    assert row.engine is not None  # noqa: S101 - `_row` chose it by its engine
    first = main_row(row, summary.size)
    task = manifest.task
    inputs = [(tensor.name, tensor.dtype, tensor.shape[1:]) for tensor in manifest.inputs]
    kind = (task.kind, task.layout, task.scores) if task else None
    return Standing(
        version=version,
        sha256=row.engine.sha256,
        verdict=tags.get("verdict", "") if row.verdict == "shipped" else row.verdict,
        reason=row.reason,
        age_days=max(0.0, (time.time() * 1000 - ended_ms) / DAY_MS),
        simulated=engines.simulated(row.target) or tags.get("simulated", ""),
        budget=summary.budget,
        accuracy=row.accuracy,
        parity=row.parity,
        delivered_precision=row.delivered_precision,
        machine=(row.host or summary.host).name,
        p50_ms=first.p50_ms if first else None,
        size_bytes=row.engine.size_bytes,
        packages=tuple((package.kind, package.state) for package in row.package),
        labels=tuple(task.labels) if task else (),
        data_sha256=summary.data.sha256 if summary.data else "",
        contract=digest([kind, inputs, manifest.preprocess]),
    )
