"""One MLflow run per shipped recipe: every artifact, metric, parameter, verdict and the report.

Knows MLflow's tracking API (https://mlflow.org/docs/latest/ml/tracking/), no Prefect. A run
becomes visible as FINISHED only when everything is in it; an interrupted one is deleted by the
next attempt.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from artifacts.registry.databases import embedded, sqlite_url
from artifacts.summary import Logged, Summary, Variant, main_row, markdown
from engineworks.codec import to_json
from engineworks.errors import EngineworksError, StoreError, said
from engineworks.facts.plan import slug
from engineworks.manifest import Artifact
from engineworks.store import LocalStore, disk_error

#: Tag that finds the run of a set of facts again.
KEY_TAG = "engineworks.key"


def tracking_uri(home: Path) -> str:
    """MLFLOW_TRACKING_URI, else the embedded database in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(home / "mlflow.db")


def public_uri(home: Path) -> str:
    """`tracking_uri` without user and password, fit to be written down."""
    scheme, separator, rest = tracking_uri(home).partition("://")
    if not separator or scheme.startswith("sqlite"):
        return tracking_uri(home)
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def client(home: Path) -> Any:
    """An MLflow client on `tracking_uri`; the database is made when there is none."""
    from mlflow import MlflowClient

    uri = tracking_uri(home)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextlib.contextmanager
def speaking(home: Path) -> Iterator[None]:
    """Talk to MLflow: what goes wrong with it is a `StoreError` without passwords.

    Raises:
        StoreError: It does not answer, refuses, or its disk is full.
    """
    try:
        yield
    except EngineworksError:
        raise
    except Exception as error:
        # MLflow's own words repeat its address with the password in it: scrubbed, and not chained.
        words = re.sub(r"//[^/@\s]+@", "//", str(error))
        raise disk_error(error, home) or StoreError(
            f"MLflow at {public_uri(home)} cannot be used ({type(error).__name__}: {said(words)})",
            hint="start it or correct MLFLOW_TRACKING_URI, then run again: only this step is left",
        ) from None


def exists(home: Path) -> bool:
    """Whether there is an MLflow to ask: a server, or the embedded database."""
    return "MLFLOW_TRACKING_URI" in os.environ or (home / "mlflow.db").exists()


def known(home: Path, name: str) -> bool:
    """Whether any run of a model was ever logged, shipped or not.

    Raises:
        StoreError: MLflow does not answer.
    """
    if not exists(home):
        return False  # asking would make one
    with speaking(home):
        return client(home).get_experiment_by_name(name) is not None


def missing(error: Any) -> bool:
    """Whether MLflow says that something is not there."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def is_finished(mlflow: Any, run_id: str) -> bool:
    """Whether a run is there, not deleted, and everything is in it."""
    from mlflow.exceptions import MlflowException

    try:
        info = mlflow.get_run(run_id).info
    except MlflowException as error:
        if not missing(error):
            raise
        return False
    return bool(info.lifecycle_stage == "active" and info.status == "FINISHED")


def has_files(mlflow: Any, run_id: str, folder: str) -> bool:
    """Whether a run that is not deleted has artifacts in a folder of its own."""
    from mlflow.exceptions import MlflowException

    try:
        if mlflow.get_run(run_id).info.lifecycle_stage != "active":
            return False
        return bool(mlflow.list_artifacts(run_id, folder or None))
    except MlflowException as error:
        if not missing(error):
            raise
        return False


def log_run(
    summary: Summary, store: LocalStore, files: Mapping[str, Path], key: str, home: Path
) -> Logged:
    """Log a run, or find the finished one with the same key.

    Args:
        summary: The run's facts.
        store: Where its artifacts lie.
        files: Name in MLflow -> file: report, recipe, summary.
        key: Digest of the facts.
        home: State folder.
    """
    mlflow = client(home)
    experiment_id = _experiment(mlflow, summary.name, home)
    for old in mlflow.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'"):
        if old.info.status == "FINISHED" and has_files(mlflow, old.info.run_id, ""):
            return _logged(home, experiment_id, old.info.run_id)
        mlflow.delete_run(old.info.run_id)
    run = mlflow.create_run(experiment_id, run_name=summary.run_id, tags={KEY_TAG: key})
    run_id = run.info.run_id
    try:
        _log_facts(mlflow, run_id, summary)
        _log_files(mlflow, run_id, summary, store, files)
        mlflow.set_terminated(run_id, "FINISHED")
    except BaseException:
        mlflow.set_terminated(run_id, "KILLED")
        mlflow.delete_run(run_id)
        raise
    return _logged(home, experiment_id, run_id)


def _logged(home: Path, experiment_id: str, run_id: str) -> Logged:
    return Logged(tracking_uri=public_uri(home), run_id=run_id, experiment_id=experiment_id)


def _experiment(mlflow: Any, name: str, home: Path) -> str:
    from mlflow.exceptions import MlflowException

    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            mlflow.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    location = (home / "mlruns" / name).as_uri() if embedded(tracking_uri(home)) else None
    try:
        return str(mlflow.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        # Another run, on a machine that shares no lock with this one, was quicker.
        return str(mlflow.get_experiment_by_name(name).experiment_id)


def _log_facts(mlflow: Any, run_id: str, summary: Summary) -> None:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    metrics = {"reference": summary.reference.value, "wall_s": summary.wall_s}
    metrics.update({f"reference/{k}": v for k, v in summary.reference.detail.items()})
    metrics["flops"] = float(summary.analysis.flops)
    metrics["parameters"] = float(summary.analysis.parameters)
    tags = {
        "mlflow.note.content": markdown(summary),
        "engineworks.recipe_sha256": summary.recipe_sha256,
        "engineworks.recommended": summary.comparison.recommended if summary.comparison else "",
        "engineworks.host": summary.host.cpu,
    }
    for variant in summary.variants:
        metrics.update(_metrics(variant, summary))
        tags[f"verdict.{slug(variant.name)}"] = variant.verdict
        tags[f"reason.{slug(variant.name)}"] = variant.reason[:5000]
        for package in variant.package:
            tags[f"package.{slug(variant.name)}.{package.kind}"] = package.state
    params = {
        "recipe": summary.name,
        "size": f"{summary.size[0]}x{summary.size[1]}",
        "exporter": summary.exported.chosen,
        "opset": str(summary.exported.opset),
        "simplified": str(bool(summary.simplified and summary.simplified.kept)),
        "variants": ", ".join(variant.name for variant in summary.variants)[:500],
        "images": str(summary.reference.images),
        "cpu": summary.host.cpu,
    }
    mlflow.log_batch(
        run_id,
        metrics=[Metric(k, float(v), now, 0) for k, v in metrics.items() if v is not None],
        params=[Param(k, v) for k, v in params.items()],
        tags=[RunTag(k, v) for k, v in tags.items()],
    )


def _metrics(variant: Variant, summary: Summary) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    if variant.accuracy is not None:
        found.update(variant.accuracy.detail)
        found["drop"] = variant.accuracy.drop
    if variant.parity is not None:
        found["parity/max_abs_diff"] = variant.parity.max_abs_diff
        found["parity/snr_db"] = variant.parity.snr_db
    if variant.meaning is not None and variant.meaning.agreement is not None:
        found["meaning/agreement"] = variant.meaning.agreement
    if variant.engine is not None:
        found["size_mib"] = variant.engine.size_bytes / 2**20
    first = main_row(variant, summary.size)
    for row in variant.benchmark:
        at = f"{row.height}x{row.width}/batch{row.batch}"
        found[f"{at}/p50_ms"] = row.p50_ms
        found[f"{at}/p95_ms"] = row.p95_ms
        found[f"{at}/throughput_per_s"] = row.throughput_per_s
    if first is not None:
        found["p50_ms"] = first.p50_ms
    return {f"{slug(variant.name)}/{name}": value for name, value in found.items()}


def _log_files(
    mlflow: Any, run_id: str, summary: Summary, store: LocalStore, files: Mapping[str, Path]
) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
        (folder / "summary.json").write_text(json.dumps(to_json(summary), indent=1))
        mlflow.log_artifacts(run_id, str(folder))
    parts: dict[str, Artifact] = {"onnx": summary.exported.onnx}
    if summary.simplified is not None and summary.simplified.kept:
        parts["onnx-simplified"] = summary.simplified.onnx
    parts["reference"] = summary.reference.artifact
    if summary.reference.predictions is not None:
        parts["predictions/source"] = summary.reference.predictions
    for variant in summary.variants:
        if variant.engine is not None:
            parts[engine_path(variant.name)] = store.get(variant.engine.sha256)
        if variant.predictions is not None:
            parts[f"predictions/{slug(variant.name)}"] = variant.predictions
        if variant.sealed is not None and variant.sealed.sha256:
            parts[f"sealed/{slug(variant.name)}"] = store.get(variant.sealed.sha256)
    for name, artifact in parts.items():
        mlflow.log_artifacts(run_id, str(store.open(artifact)), name)


def engine_path(variant: str) -> str:
    """Where a variant's engine lies in its MLflow run."""
    return f"engines/{slug(variant)}"
