"""What MLflow loads a registered engine with: pictures or tensors in, answers out.

The file `MLmodel` beside a registered engine names this module as its loader, so that MLflow's own
`load_model`, server and batch scoring run the engine without a pickle. MLflow calls; of MLflow
nothing is imported here. Knows no registry: what MLflow says of a version is asked of the module
that is calling.
Source: https://mlflow.org/docs/latest/ml/traditional-ml/tutorials/creating-custom-pyfunc/
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import store
from engineworks.errors import ArtifactError, DataError, EngineworksError, FeedError, said
from engineworks.runtime import engines
from engineworks.runtime.detections import Detections
from engineworks.runtime.elsewhere import image_model
from engineworks.runtime.heads.classification import Classification
from engineworks.runtime.heads.keypoints import Poses
from engineworks.runtime.picture_header import read_header
from engineworks.runtime.pictures import decode_picture, read_image
from engineworks.runtime.predictor import Predictor
from engineworks.runtime.preprocess import Placement
from engineworks.runtime.session import Session, open_engine
from engineworks.specs import NO_TASK

_log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

#: The column of pictures, where a table has several.
COLUMN = "image"

#: Written by MLflow into the folder of a version that it has fetched: `model_name`,
#: `model_version`.
_VERSION_FILE = "registered_model_meta"

#: Loaded only in a process that answers requests of others.
_SERVING = "mlflow.pyfunc.scoring_server.app"

#: Of `model_config`: what `open_engine` takes.
_SETTINGS = ("threads", "device")

#: Sets of settings that are kept ready: each has rows for a batch of its own.
_MOST_SETTINGS = 8

_PICTURES = (
    "give paths, the bytes of picture files, uint8 (height, width, 3) arrays in BGR order, or a "
    f"table with a column {COLUMN!r} of them; over HTTP the bytes in base64"
)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> LoadedEngine:
    """What MLflow calls: open the engine in a folder.

    Args:
        path: Folder with the engine's manifest and files.
        model_config: `threads` and `device`, as `runtime.open` takes them.

    Raises:
        ArtifactError: See `open_engine`; or it is another engine than the version's tag says.
        FeedError: A setting that there is none of.
    """
    settings = dict(model_config or {})
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise FeedError(
            f"model_config has no setting {unknown[0]!r}",
            hint=f"it has: {', '.join(_SETTINGS)}; confidence and the like are params of predict",
        )
    folder = Path(path)
    title, tags = _registered(folder)
    sha256 = tags.get("sha256", "")
    session = open_engine(folder, sha256=sha256 if store.is_identity(sha256) else "", **settings)
    verdict = tags.get("verdict", "shipped")
    if verdict != "shipped":
        _log.warning(
            "%s is %s: it was withdrawn and should not be used any more", title, verdict
        )  # fmt: skip
    simulated = tags.get("simulated", "") or engines.simulated(session.manifest.target)
    if simulated:
        _log.warning("%s is simulated: %s", title, simulated)
    return LoadedEngine(session)


def _registered(folder: Path) -> tuple[str, dict[str, str]]:
    """The version that a folder was fetched as, in words, and its tags; none where not known."""
    file = folder / _VERSION_FILE
    mlflow: Any = sys.modules.get("mlflow")
    if not file.is_file() or mlflow is None:
        return str(folder), {}
    import yaml

    from engineworks.yaml_text import parse

    try:
        known = parse(file.read_text(encoding="utf-8"))
        name, version = str(known["model_name"]), str(known["model_version"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return str(folder), {}
    title = f"version {version} of {name}"
    if not (mlflow.is_tracking_uri_set() or os.environ.get("MLFLOW_REGISTRY_URI")):
        return title, {}  # asking would make a database
    try:
        tags = mlflow.MlflowClient().get_model_version(name, version).tags
    except Exception as error:
        _log.warning(
            "%s: MLflow does not say whether it was withdrawn (%s)", title, type(error).__name__
        )
        return title, {}
    return title, {str(key): str(value) for key, value in tags.items()}


class LoadedEngine:
    """An open engine as MLflow's pyfunc calls it.

    Args:
        session: The engine.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._without = ""
        # A session answers one at a time, whatever the settings of those who ask are.
        self._lock = threading.Lock()
        self._predictors: dict[tuple[tuple[str, Any], ...], Predictor[Any]] = {}
        kind = session.manifest.task.kind if session.manifest.task else NO_TASK
        if kind == NO_TASK:
            self._without = "its recipe has no task"
            return
        try:
            self._predictor_for({})
        except ArtifactError as error:  # a decoder of the recipe's own is code, and not here
            self._without = error.message

    def get_raw_model(self) -> Session:
        """What MLflow's `PyFuncModel.get_raw_model` gives: the session."""
        return self.session

    def predict(
        self, data: Any, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]] | dict[str, Array]:
        """Answer for pictures or tensors.

        Args:
            data: Pictures: paths, bytes of picture files, uint8 (height, width, 3) BGR arrays; one,
                a sequence, an array of them, or a table's column. Or tensors as the engine takes
                them: float (n, ...) or (...), or a mapping from the input's name.
            params: Settings of the task, for example `confidence`; left out: as the manifest says.

        Returns:
            A mapping for each picture: `scores`, `class_ids`, `labels`; of objects `boxes`
            (x1, y1, x2, y2) in pixels of the picture (of a tensor: of the input), and `keypoints`;
            of other tasks what `Predictor.to_json` gives. Of an engine without a task its outputs
            by name.

        Raises:
            DataError: Something is no picture; the message says which.
            FeedError: Neither pictures nor tensors, or a setting that this task does not have.
        """
        if self._without:
            return self._tensors(data)
        predictor = self._predictor_for(params or {})
        items = _items(data, len(self.session.inputs[0].shape))
        answers: list[dict[str, Any]] = []
        for first in range(0, len(items), predictor.batch):
            part = [
                _read(item, f"row {first + at}")
                for at, item in enumerate(items[first : first + predictor.batch])
            ]
            with self._lock:
                answered = _answers(predictor, part)
            answers += [_columns(predictor, answer) for answer in answered]
        return answers

    def _predictor_for(self, settings: Mapping[str, Any]) -> Predictor[Any]:
        """The one with these settings; MLflow gives every declared one with every call."""
        key = tuple(sorted(settings.items()))
        with self._lock:
            if key not in self._predictors:
                predictor = _open(self.session, dict(settings))
                if len(self._predictors) >= _MOST_SETTINGS:
                    self._predictors.clear()
                self._predictors[key] = predictor
            return self._predictors[key]

    def _tensors(self, data: Any) -> dict[str, Array]:
        """The engine's outputs, where no head knows what they mean."""
        spec = self.session.inputs[0]
        feeds = dict(data) if isinstance(data, Mapping) else {spec.name: data}
        try:
            arrays = {
                name: np.asarray(value, _dtypes(self.session).get(name))
                for name, value in feeds.items()
            }
        except (ValueError, TypeError) as error:
            raise FeedError(
                f"{self.session.manifest.name} takes tensors only ({self._without}), and this is "
                f"none: {said(error)}",
                hint=f"give an array of shape {list(spec.shape)}",
            ) from error
        with self._lock:
            outputs = self.session.infer(arrays)
            return {name: array.copy() for name, array in outputs.items()}


def _dtypes(session: Session) -> dict[str, np.dtype[Any]]:
    """Of the inputs whose element type numpy has."""
    known = {}
    for spec in session.inputs:
        try:
            known[spec.name] = np.dtype(spec.dtype)
        except TypeError:
            continue
    return known


def _open(session: Session, settings: dict[str, Any]) -> Predictor[Any]:
    """As `runtime.Detector` and `Classifier` have it, and `Predictor` for the other tasks."""
    task = session.manifest.task
    if task is not None and task.kind in ("detection", "classification"):
        return image_model(session.manifest, session, **settings)
    return Predictor(session, **settings)


def _answers(predictor: Predictor[Any], rows: Sequence[Array]) -> list[Any]:
    """Answers for up to a batch, in order: uint8 rows are pictures, float rows tensors."""
    answers: dict[int, Any] = {}
    pictures = [at for at, row in enumerate(rows) if row.dtype == np.uint8]
    tensors = [at for at, row in enumerate(rows) if row.dtype != np.uint8]
    if pictures:
        answers |= zip(pictures, predictor([rows[at] for at in pictures]), strict=True)
    if tensors:
        height, width = predictor.size
        whole = Placement(
            scale_x=1, scale_y=1, offset_x=0, offset_y=0, width=width, height=height
        )  # fmt: skip
        outputs = predictor.infer(_as_input(predictor, [rows[at] for at in tensors]))
        answers |= {
            at: predictor.finish(row, whole) for at, row in zip(tensors, outputs, strict=True)
        }
    return [answers[at] for at in range(len(rows))]


def _as_input(predictor: Predictor[Any], rows: list[Array]) -> Array:
    """Float rows as the engine takes them.

    Raises:
        FeedError: They have another shape, or the engine takes pixels.
    """
    spec = predictor.session.inputs[0]
    wanted = tuple(spec.shape[1:])
    for row in rows:
        if row.shape != wanted or not spec.dtype.startswith("float"):
            raise FeedError(
                f"a float array of shape {list(row.shape)} is no row of {spec.name!r}, which takes "
                f"{spec.dtype} {list(wanted)}",
                hint=f"a picture is not scaled before: {_PICTURES}",
            )
    return np.stack(rows).astype(spec.dtype)


def _columns(predictor: Predictor[Any], answer: Any) -> dict[str, Any]:
    """An answer as plain JSON types, its numbers whole."""
    if not isinstance(answer, Detections | Classification):
        return predictor.to_json(answer)
    class_ids = answer.class_id.tolist()
    columns = {
        "scores": answer.confidence.tolist(),
        "class_ids": class_ids,
        "labels": [predictor.label(number) for number in class_ids],
    }
    if isinstance(answer, Detections):
        columns["boxes"] = answer.xyxy.tolist()
    if isinstance(answer, Poses):
        columns["keypoints"] = answer.points.tolist()
    return columns


def _items(data: Any, rank: int) -> list[Any]:
    """What was given, one entry a picture or row.

    Args:
        data: As `LoadedEngine.predict` takes it.
        rank: Dimensions of the engine's input, its batch among them.

    Raises:
        FeedError: It is nothing of the kind.
    """
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return list(data[_column([*data.columns])])
    if hasattr(data, "iloc"):
        return list(data)
    if isinstance(data, Mapping):
        return _items(data[_column([*data])], rank)
    if isinstance(data, str | bytes | bytearray | memoryview | os.PathLike):
        return [data]
    if isinstance(data, np.ndarray):
        if data.dtype.kind in "OSU":
            return [*data.reshape(-1)]
        if data.ndim in (rank, rank - 1):
            return [*data] if data.ndim == rank else [data]
        raise FeedError(
            f"an array of shape {list(data.shape)} is neither one picture or row nor several",
            hint=_PICTURES,
        )
    if isinstance(data, Sequence):
        return [*data]
    raise FeedError(f"{type(data).__name__} holds no pictures", hint=_PICTURES)


def _column(names: list[Any]) -> Any:
    if COLUMN in names:
        return COLUMN
    if len(names) == 1:
        return names[0]
    raise FeedError(
        f"a table with the columns {', '.join(str(name) for name in names)} does not say which of "
        "them holds the pictures",
        hint=f"name that column {COLUMN!r}",
    )


def _read(item: Any, name: str) -> Array:
    """A picture, uint8 (height, width, 3) BGR; or a row of the engine's input, float.

    Raises:
        DataError: It is neither; the message names it.
    """
    try:
        if isinstance(item, str):
            return _from_text(item, name)
        if isinstance(item, os.PathLike):
            return _from_path(Path(item))
        if isinstance(item, bytes | bytearray | memoryview):
            return decode_picture(bytes(item), name).image
        return _from_numbers(item)
    except EngineworksError as error:
        if error.message.startswith(name):
            raise
        raise type(error)(f"{name}: {error.message}", hint=error.hint) from error


def _from_text(text: str, name: str) -> Array:
    """A picture's bytes in base64, or its path where nobody else asks."""
    head, comma, _ = text[:100].partition(",")
    encoded = text[len(head) + 1 :] if comma and head.startswith("data:") else text
    try:
        raw = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if raw and (encoded is not text or read_header(raw) is not None):
        return decode_picture(raw, name).image
    return _from_path(Path(text))


def _from_path(path: Path) -> Array:
    if _SERVING in sys.modules:
        raise DataError(
            "a text that is no picture in base64; files of this server are opened for nobody",
            hint="send the bytes of the picture file in base64",
        )
    if "://" in str(path) or str(path).startswith(("http:", "https:")):
        raise DataError(f"{path} is an address: nothing is fetched", hint=_PICTURES)
    return read_image(path)


def _from_numbers(item: Any) -> Array:
    try:
        array = np.asarray(item)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind == "f" and array.ndim:
        return array
    if array.dtype.kind in "iu" and array.ndim == 3 and array.size:
        if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
            raise DataError(
                f"whole numbers from {array.min()} to {array.max()} are no pixels (0 to 255)",
                hint=_PICTURES,
            )
        return array.astype(np.uint8, copy=False)
    given = f"{array.dtype} {list(array.shape)}" if array.dtype != object else type(item).__name__
    raise DataError(f"{given} is neither a picture nor a row", hint=_PICTURES)
