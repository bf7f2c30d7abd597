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

from artifacts.registry import logged_files
from artifacts.registry import mlflow_facts as facts
from artifacts.registry.databases import embedded, sqlite_url
from artifacts.summary import Logged, Summary
from engineworks.codec import to_json
from engineworks.errors import EngineworksError, StoreError, said
from engineworks.facts.plan import slug
from engineworks.manifest import Artifact
from engineworks.store import LocalStore, disk_error

#: The recipe as it was understood, among a run's files.
RESOLVED = "recipe.resolved.json"

#: MLflow's own limits on one request.
MOST_METRICS, MOST_PARAMS = 1000, 100

#: What to do about a server that cannot be used.
HINT = "start it or correct MLFLOW_TRACKING_URI, then run again: only this step is left"

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
        text = re.sub(r"//[^/@\s]+@", "//", str(error))
        raise disk_error(error, home) or StoreError(
            f"MLflow at {public_uri(home)} cannot be used ({type(error).__name__}: {said(text)})",
            hint=HINT,
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
        if old.info.status != "FINISHED":
            mlflow.delete_run(old.info.run_id)
        elif logged_files.are_whole(mlflow, old.info.run_id, ""):
            return _logged(home, experiment_id, old.info.run_id)
        else:  # a registered version may need what is left of it
            mlflow.set_tag(old.info.run_id, KEY_TAG, f"{key}, not whole any more")
    run = mlflow.create_run(experiment_id, run_name=summary.run_id, tags={KEY_TAG: key})
    run_id = run.info.run_id
    try:
        _log_facts(mlflow, run_id, summary, files.get(RESOLVED))
        _log_files(mlflow, run_id, summary, store, files)
        logged_files.write(mlflow, run_id)
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

    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            mlflow.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)
    location = (home / "mlruns" / name).as_uri() if embedded(tracking_uri(home)) else None
    try:
        return str(mlflow.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        # Another run, on a machine that shares no lock with this one, was quicker.
        return str(mlflow.get_experiment_by_name(name).experiment_id)


def _log_facts(mlflow: Any, run_id: str, summary: Summary, resolved: Path | None) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    numbers = [Metric(name, value, now, step) for name, value, step in facts.numbers(summary)]
    params = [Param(k, v) for k, v in facts.parameters(summary, resolved).items()]
    mlflow.log_batch(run_id, tags=[RunTag(k, v) for k, v in facts.tags(summary).items()])
    for at in range(0, len(numbers), MOST_METRICS):
        mlflow.log_batch(run_id, metrics=numbers[at : at + MOST_METRICS])
    for at in range(0, len(params), MOST_PARAMS):
        mlflow.log_batch(run_id, params=params[at : at + MOST_PARAMS])
    inputs = [
        DatasetInput(
            Dataset(row["name"], row["digest"], "local", row["source"], profile=row["profile"]),
            [InputTag("mlflow.data.context", row["use"])],
        )
        for row in facts.data_sets(summary)
    ]
    if inputs:
        mlflow.log_inputs(run_id, inputs)


def _log_files(
    mlflow: Any, run_id: str, summary: Summary, store: LocalStore, files: Mapping[str, Path]
) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
        (folder / "summary.json").write_text(json.dumps(to_json(summary), indent=1))
        _copy_logs(summary, folder / "logs")
        mlflow.log_artifacts(run_id, str(folder))
    parts: dict[str, Artifact] = {"onnx": summary.exported.onnx}
    if summary.simplified is not None and summary.simplified.kept:
        parts["onnx-simplified"] = summary.simplified.onnx
    parts["reference"] = summary.reference.artifact
    if summary.reference.predictions is not None:
        parts["predictions/source"] = summary.reference.predictions
    if summary.calibration is not None:
        parts["calibration"] = summary.calibration.artifact
    for variant in summary.variants:
        if variant.quantized is not None:
            parts[f"quantized/{slug(variant.name)}"] = variant.quantized.onnx
        for package in variant.package:
            if package.sha256:
                where = f"packages/{slug(variant.name)}/{package.kind}"
                parts[where] = store.get(package.sha256)
        if variant.engine is not None:
            parts[engine_path(variant.name)] = store.get(variant.engine.sha256)
        if variant.predictions is not None:
            parts[f"predictions/{slug(variant.name)}"] = variant.predictions
        if variant.sealed is not None and variant.sealed.sha256:
            parts[f"sealed/{slug(variant.name)}"] = store.get(variant.sealed.sha256)
    for name, artifact in parts.items():
        mlflow.log_artifacts(run_id, str(store.open(artifact)), name)


def _copy_logs(summary: Summary, folder: Path) -> None:
    """What each stage printed, and how to repeat it; of servers that proved a package, theirs."""
    for stage in summary.stages:
        name = "_".join(filter(None, (stage.name, slug(stage.variant))))
        for file in ("log.txt", "command.txt"):
            _copy(Path(stage.log, file) if stage.log else None, folder / name / file)
    for variant in summary.variants:
        for package in variant.package:
            name = f"package_{slug(variant.name)}_{package.kind}"
            _copy(Path(package.log) if package.log else None, folder / name / "server.txt")


def _copy(file: Path | None, to: Path) -> None:
    """Copy a log, if it is on this machine and was not cleared."""
    if file is not None and file.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)


def engine_path(variant: str) -> str:
    """Where a variant's engine lies in its MLflow run."""
    return f"engines/{slug(variant)}"
