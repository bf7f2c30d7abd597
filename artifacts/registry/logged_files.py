"""What MLflow still has of a run: whether it is finished, and none of its files is gone or cut.

The list of files is one itself, with names and sizes, and written last. Of bytes MLflow says
nothing: an engine's are compared with its manifest by whoever opens it. Knows no run's facts.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engineworks.errors import ArtifactError
from engineworks.manifest import MANIFEST_NAME, load

LIST = "files.json"


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


def write(mlflow: Any, run_id: str) -> None:
    """List what a run has; the last thing that is logged to it.

    Args:
        mlflow: A client.
        run_id: The run.
    """
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, LIST)
        path.write_text(json.dumps(_sizes(mlflow, run_id, ""), indent=1, sort_keys=True))
        mlflow.log_artifact(run_id, str(path))


def are_whole(mlflow: Any, run_id: str, folder: str) -> bool:
    """Whether a run that is not deleted has all its files of a folder.

    Of a run without a list, from before there was one, any file is taken for all.

    Args:
        mlflow: A client.
        run_id: The run.
        folder: In the run; empty: everything.
    """
    from mlflow.exceptions import MlflowException

    try:
        if mlflow.get_run(run_id).info.lifecycle_stage != "active":
            return False
        there = _sizes(mlflow, run_id, folder)
        wanted = _listed(mlflow, run_id)
    except MlflowException as error:
        if not missing(error):
            raise
        return False
    if wanted is None:
        wanted = _of_manifest(mlflow, run_id, folder, there)
    if wanted is None:
        return bool(there)
    inside = {
        path: size for path, size in wanted.items() if not folder or path.startswith(f"{folder}/")
    }
    return bool(inside) and all(there.get(path) == size for path, size in inside.items())


def _of_manifest(
    mlflow: Any, run_id: str, folder: str, there: dict[str, int]
) -> dict[str, int] | None:
    """What an artifact's own manifest says that its folder has; None where there is none."""
    place = f"{folder}/{MANIFEST_NAME}"
    if not folder or place not in there:
        return None
    with tempfile.TemporaryDirectory() as work, _quietly():
        try:
            manifest = load(Path(mlflow.download_artifacts(run_id, place, work)))
        except ArtifactError:  # it is not what was logged
            return {place: -1}
    return {f"{folder}/{entry.path}": entry.size_bytes for entry in manifest.files}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without MLflow's progress bars."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    yield


def _sizes(mlflow: Any, run_id: str, folder: str) -> dict[str, int]:
    """Bytes by path, in all folders below."""
    sizes: dict[str, int] = {}
    for entry in mlflow.list_artifacts(run_id, folder or None):
        if entry.is_dir:
            sizes |= _sizes(mlflow, run_id, entry.path)
        else:
            sizes[entry.path] = int(entry.file_size or 0)
    return sizes


def _listed(mlflow: Any, run_id: str) -> dict[str, int] | None:
    if all(entry.path != LIST for entry in mlflow.list_artifacts(run_id)):
        return None
    with tempfile.TemporaryDirectory() as work, _quietly():
        path = Path(mlflow.download_artifacts(run_id, LIST, work))
        try:
            return {str(name): int(size) for name, size in json.loads(path.read_bytes()).items()}
        except (ValueError, AttributeError, TypeError):  # the list itself was cut
            return {LIST: -1}
