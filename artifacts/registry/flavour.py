"""The files that make the folder of a registered engine a model that MLflow can load.

`MLmodel` names `engineworks.runtime.pyfunc` as its loader: no pickle, no code beside the engine.
The engine's own files and identity stay as they are. Knows MLflow's model format, no run's facts.
Source: https://mlflow.org/docs/latest/ml/model/
"""

from __future__ import annotations

import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from engineworks import manifest as manifests
from engineworks.errors import ArtifactError
from engineworks.manifest import MANIFEST_NAME, Manifest, TensorSpec
from engineworks.runtime import engines, heads
from engineworks.specs import NO_TASK

#: Module with `_load_pyfunc`: its name is in every registered version, and stays.
LOADER = "engineworks.runtime.pyfunc"

MODEL_FILE = "MLmodel"

#: What whoever loads it may set, as `runtime.open` takes it: MLflow passes on declared names only.
_SETTINGS = {"threads": 0, "device": 0}

_REQUIREMENTS, _CONDA, _PYTHON = "requirements.txt", "conda.yaml", "python_env.yaml"


def has(mlflow: Any, run_id: str, folder: str) -> bool:
    """Whether the engine in a run's folder can be loaded by MLflow."""
    return any(
        PurePosixPath(file.path).name == MODEL_FILE
        for file in mlflow.list_artifacts(run_id, folder)
    )


def add(mlflow: Any, run_id: str, folder: str) -> None:
    """Write the flavour beside an engine that was logged, unless it is there.

    Args:
        mlflow: A client.
        run_id: The run that the engine was logged in.
        folder: Where in it.
    """
    if has(mlflow, run_id, folder):
        return
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as work:
        got, upload = Path(work, "got"), Path(work, "upload")
        got.mkdir()
        upload.mkdir()
        file = mlflow.download_artifacts(run_id, f"{folder}/{MANIFEST_NAME}", str(got))
        manifest = manifests.load(Path(file))
        write(manifest, upload, run_id=run_id, folder=folder)
        # Last, so that a folder with it has the others too.
        last = (upload / MODEL_FILE).rename(Path(work, MODEL_FILE))
        mlflow.log_artifacts(run_id, str(upload), folder)
        mlflow.log_artifact(run_id, str(last), folder)


def write(manifest: Manifest, to: Path, *, run_id: str = "", folder: str = "") -> None:
    """Write `MLmodel` and the files that it names.

    Args:
        manifest: The engine's.
        to: Folder.
        run_id: The run that the engine was logged in, and where in it.
        folder: See `run_id`.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    model = Model(
        artifact_path=folder or None,
        run_id=run_id or None,
        signature=signature(manifest),
        metadata={
            "engineworks.sha256": manifest.sha256,
            "engineworks.variant": f"{manifest.target}/{manifest.precision}",
            "engineworks.input": _input(manifest),
        },
    )
    mlflow.pyfunc.add_to_model(
        model, loader_module=LOADER, conda_env=_CONDA, python_env=_PYTHON,
        model_config=_SETTINGS,
    )  # fmt: skip
    model.save(str(to / MODEL_FILE))
    (to / _REQUIREMENTS).write_text("\n".join(requirements(manifest)) + "\n", encoding="utf-8")
    python = platform.python_version()
    (to / _PYTHON).write_text(
        f"python: {python}\nbuild_dependencies:\n- pip\ndependencies:\n- -r {_REQUIREMENTS}\n",
        encoding="utf-8",
    )
    (to / _CONDA).write_text(
        f"name: mlflow-env\nchannels:\n- conda-forge\ndependencies:\n- python={python}\n- pip\n"
        f"- pip:\n  - -r {_REQUIREMENTS}\n",
        encoding="utf-8",
    )


def requirements(manifest: Manifest) -> list[str]:
    """What must be installed to load an engine, as pip reads it."""
    runtime = manifest.requires.runtime if manifest.requires else ""
    try:
        extra = getattr(engines.load(runtime), "EXTRA", "") if runtime else ""
    except ArtifactError:  # a package's runtime that is not installed here
        extra = ""
    own = f"engineworks[{extra}]" if extra else "engineworks"
    needed = [f"mlflow=={version('mlflow')}", f"{own}=={version('engineworks')}"]
    package = manifest.requires.package if manifest.requires else ""
    return needed + ([package] if "==" in package else [])


def _kind(manifest: Manifest) -> str:
    return manifest.task.kind if manifest.task else NO_TASK


def _input(manifest: Manifest) -> str:
    """What `predict` takes, for people: MLflow has no type for it."""
    if _kind(manifest) == NO_TASK:
        return "tensors"
    return (
        "a column image of pictures (paths, bytes of files, over HTTP in base64), uint8 "
        "(height, width, 3) arrays in BGR order, or float tensors as the engine takes them"
    )


def signature(manifest: Manifest) -> Any:
    """What goes in, where MLflow has a type for it, what comes out, and what may be set.

    A schema of inputs is enforced by MLflow, and none admits both pictures of any size and tensors:
    only an engine without a task has one.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema

    if _kind(manifest) == NO_TASK:
        if not manifest.inputs or not manifest.outputs:
            return None
        return ModelSignature(
            inputs=Schema([_tensor(spec) for spec in manifest.inputs]),
            outputs=Schema([_tensor(spec) for spec in manifest.outputs]),
        )
    outputs, params = _outputs(_kind(manifest)), _params(manifest)
    return ModelSignature(outputs=outputs, params=params) if outputs or params else None


def _tensor(spec: TensorSpec) -> Any:
    from mlflow.types.schema import TensorSpec as Tensor

    shape = tuple(size if isinstance(size, int) else -1 for size in spec.shape)
    return Tensor(np.dtype(spec.dtype), shape, name=spec.name)


def _outputs(kind: str) -> Any:
    """Columns of an answer, as `engineworks.runtime.pyfunc` gives them."""
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    try:
        more = heads.load(kind).columns
    except ArtifactError:  # a package's task that is not installed here
        more = None
    if more is None:
        return None
    columns = [
        ColSpec(Array(DataType.double), "scores"),
        ColSpec(Array(DataType.long), "class_ids"),
        ColSpec(Array(DataType.string), "labels"),
    ]
    for name, depth in more.items():
        nested: Any = DataType.double
        for _ in range(depth):
            nested = Array(nested)
        columns.append(ColSpec(nested, name))
    return Schema(columns)


def _params(manifest: Manifest) -> Any:
    """What may be set for a call; by default what the manifest says."""
    from mlflow.types.schema import ParamSchema, ParamSpec

    assert manifest.task is not None  # noqa: S101 - `signature` has asked
    try:
        settings = heads.load(manifest.task.kind).settings
    except ArtifactError:
        return None
    types = {bool: "boolean", int: "long", float: "double", str: "string"}
    given: list[Any] = []
    for name, shown in settings.items():
        default = manifest.task.options.get(name, getattr(manifest.task, name, shown))
        if type(default) in types:
            given.append(ParamSpec(name, types[type(default)], default))
    return ParamSchema(given) if given else None
