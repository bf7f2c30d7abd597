"""The network of a version that a training job has registered: its ONNX file, and nothing else.

No pickle is ever opened: of an MLflow model only `MLmodel` (YAML) and the ONNX file are read.
Knows MLflow's models, no recipe.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from artifacts.registry.mlflow_log import client, speaking, tracking_uri
from engineworks import yaml_text
from engineworks.errors import ModelError

#: A version's files have so many bytes together, at most.
MOST_BYTES = 2**34

#: Schemes of places that are read: whoever registers a version may name any.
SOURCES = ("runs", "models", "mlflow-artifacts", "s3", "gs")

_MLMODEL = "MLmodel"

_BY_HAND = (
    "log it with mlflow.onnx.log_model, and ask again; or by hand: download its weights, name them "
    "in a recipe (model.source, model.weights), and run python -m flows.ship RECIPE"
)


@contextmanager
def onnx_file(home: Path, model: str, version: str) -> Iterator[Path]:
    """The ONNX file of a version, with the files beside it that may hold its weights.

    Args:
        home: State folder.
        model: Registered model.
        version: Its version.

    Raises:
        ModelError: It has none, or too much.
        StoreError: There is no such version, or MLflow does not answer.
    """
    # Else MLflow draws a bar on stderr for every file.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    name = f"version {version} of {model}"
    with tempfile.TemporaryDirectory(dir=home, prefix="trained-") as work:
        with speaking(home):
            files = _files(home, model, version)
            sizes = {entry.path: int(entry.file_size or 0) for entry in files.list_artifacts()
                     if not entry.is_dir}  # fmt: skip
            if sum(sizes.values()) > MOST_BYTES:
                raise ModelError(
                    f"{name} has {sum(sizes.values()) >> 30} GiB of files, at most "
                    f"{MOST_BYTES >> 30} are taken",
                    hint="ship it by hand: python -m flows.ship RECIPE",
                )
            flavours = {}
            if _MLMODEL in sizes and sizes[_MLMODEL] < yaml_text.MOST_BYTES:
                flavours = _flavours(Path(files.download_artifacts(_MLMODEL, work)))
            entry = _entry(name, flavours, list(sizes))
            for path in sizes:
                if path not in (_MLMODEL, entry):
                    files.download_artifacts(path, work)
            found = Path(files.download_artifacts(entry, work))
        yield found


def _files(home: Path, model: str, version: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri, mlflow = tracking_uri(home), client(home)
    source = str(mlflow.get_model_version(model, version).source)
    if urlsplit(source).scheme not in SOURCES:
        raise ModelError(
            f"version {version} of {model} lies at {source[:200]!r}: a run that an event started "
            f"opens sources of {', '.join(SOURCES)}",
            hint="log it to a run of MLflow, and register that",
        )
    place = mlflow.get_model_version_download_uri(model, version)
    return get_artifact_repository(place, tracking_uri=uri, registry_uri=uri)


def _flavours(path: Path) -> dict[str, Any]:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    flavours = said.get("flavors") if isinstance(said, dict) else None
    return flavours if isinstance(flavours, dict) else {}


def _entry(name: str, flavours: dict[str, Any], paths: list[str]) -> str:
    """Which of the files is the network."""
    graphs = [path for path in paths if path.lower().endswith(".onnx")]
    flavour = flavours.get("onnx")
    if isinstance(flavour, dict):
        data = str(flavour.get("data", "model.onnx"))
        if data in graphs and len(PurePosixPath(data).parts) == 1:
            return data
    elif flavours:
        kinds = ", ".join(sorted(str(kind) for kind in flavours if kind != "python_function"))
        pickled = " (a pickle, which is code)" if "pytorch" in flavours else ""
        raise ModelError(
            f"{name} is of the flavour {kinds or 'python_function'}{pickled}: a run that an event "
            "started opens ONNX only",
            hint=_BY_HAND,
        )
    elif len(graphs) == 1:
        return graphs[0]
    raise ModelError(
        f"{name} has {len(graphs)} ONNX files ({', '.join(graphs[:5]) or 'none'}), one is needed",
        hint=_BY_HAND,
    )
