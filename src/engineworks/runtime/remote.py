"""An engine that a server holds, as a session: `runtime.remote` is `runtime.open` over a network.

Whatever runs a session runs on it: `Detector`, `Classifier`, video. Pictures are prepared and
answers decoded here, by the engine's manifest, which the server's configuration of the model
holds; tensors travel. Speaks the Open Inference Protocol by NVIDIA's client, over HTTP or gRPC
(`pip install 'engineworks[remote]'`). Knows no engine and no vendor.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from engineworks import manifest as manifests
from engineworks.codec import to_json
from engineworks.errors import ArtifactError, FeedError, InferenceError, MissingDependency, said
from engineworks.manifest import Manifest
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads.classification import Classification
from engineworks.runtime.session import SessionBase, Tensors

#: Where a server's configuration of a model holds the engine's manifest.
MANIFEST = "engineworks.manifest"

_SCHEMES = {"http": False, "https": True, "grpc": False, "grpcs": True}

#: What servers say of a request that is at fault, and of one that they have no room for.
_FAULT = ("400", "StatusCode.INVALID_ARGUMENT")
_FULL = ("503", "429", "StatusCode.UNAVAILABLE", "StatusCode.RESOURCE_EXHAUSTED")
_LATE = ("499", "504", "StatusCode.DEADLINE_EXCEEDED")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a server is and how it is asked."""

    address: str
    grpc: bool
    tls: bool
    headers: Mapping[str, str]
    timeout_s: float
    clients: threading.local = field(default_factory=threading.local)

    @property
    def module(self) -> Any:
        try:
            if self.grpc:
                import tritonclient.grpc as module
            else:
                import tritonclient.http as module
        except ModuleNotFoundError as error:
            raise MissingDependency(
                f"asking a server needs the package {error.name!r}",
                hint="pip install 'engineworks[remote]'",
            ) from error
        return module

    @property
    def client(self) -> Any:
        """This thread's client: the HTTP one must not go from thread to thread."""
        client = getattr(self.clients, "client", None)
        if client is None:
            options: dict[str, Any] = {"ssl": self.tls}
            if not self.grpc:
                options["connection_timeout"] = options["network_timeout"] = self.timeout_s
            client = self.module.InferenceServerClient(self.address, **options)
            self.clients.client = client
        return client

    @property
    def limits(self) -> dict[str, Any]:
        """Of a call that runs an engine: the server drops it from its queue after this, too."""
        own = {"client_timeout": self.timeout_s} if self.grpc else {}
        return {"headers": dict(self.headers), "timeout": int(self.timeout_s * 1e6), **own}

    def config(self, model: str) -> dict[str, Any]:
        """The server's configuration of a model."""
        options = {"as_json": True} if self.grpc else {}
        reply = self.client.get_model_config(model, headers=dict(self.headers), **options)
        return dict(reply["config"] if self.grpc else reply)

    def models(self) -> list[str]:
        """Names of the models that the server holds."""
        options = {"as_json": True} if self.grpc else {}
        reply = self.client.get_model_repository_index(headers=dict(self.headers), **options)
        entries = reply.get("models", []) if self.grpc else reply
        return sorted({entry["name"] for entry in entries})


class RemoteSession(SessionBase):
    """A session of an engine that runs in a server; made by `remote`.

    Threads may share it. A call of more rows than the server takes at once becomes several.
    """

    reuses_outputs = False

    def __init__(
        self, place: _Place, manifest: Manifest, *, model: str, photos: str, max_batch: int
    ) -> None:
        super().__init__(manifest)
        self.model = model
        self._place, self._photos, self._max_batch = place, photos, max_batch

    def __enter__(self) -> RemoteSession:
        return self

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See `Session.infer`; a FeedError may also be the server's word."""
        self.check(feeds)
        parts = list(self._parts(feeds))
        names = [spec.name for spec in self.outputs]
        answers = [self._asked(self.model, part, names) for part in parts]
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in names}

    def _parts(self, feeds: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        rows = len(next(iter(feeds.values())))
        if not self.manifest.dynamic_batch or not 0 < self._max_batch < rows:
            yield feeds
            return
        for first in range(0, rows, self._max_batch):
            chosen = slice(first, first + self._max_batch)
            yield {name: np.ascontiguousarray(array[chosen]) for name, array in feeds.items()}

    def _asked(self, model: str, feeds: Mapping[str, Any], names: list[str]) -> Tensors:
        from tritonclient.utils import np_to_triton_dtype

        module = self._place.module
        inputs = []
        for name, array in feeds.items():
            given = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            given.set_data_from_numpy(array)
            inputs.append(given)
        outputs = [module.InferRequestedOutput(name) for name in names]
        try:
            result = self._place.client.infer(model, inputs, outputs=outputs, **self._place.limits)
        except Exception as error:
            raise _explained(error, f"{self.title} at {self._place.address}") from error
        tensors: Tensors = {name: result.as_numpy(name) for name in names}
        missing = [name for name, array in tensors.items() if array is None]
        if missing:
            raise InferenceError(
                f"{self.title} at {self._place.address} gave no output {missing[0]!r}",
                hint="the server holds another model than its configuration says",
            )
        return tensors

    def photo(self, data: bytes) -> Detections | Classification:
        """The answer for an encoded picture, which the server decodes: the file travels, as it is.

        Args:
            data: A picture file, for example a JPEG.

        Raises:
            FeedError: It is no picture, or this server's model takes tensors only.
        """
        if not self._photos:
            raise FeedError(
                f"{self.title} at {self._place.address} takes tensors only",
                hint="use runtime.Detector(session) with runtime.read_image",
            )
        detection = self.manifest.task is not None and self.manifest.task.kind == "detection"
        names = [*(["boxes"] if detection else []), "confidence", "class_id"]
        columns = self._asked(self._photos, {"photo": np.array([[data]], np.object_)}, names)
        confidence, class_id = columns["confidence"], columns["class_id"]
        if not detection:
            return Classification(class_id=class_id, confidence=confidence)
        xyxy = columns["boxes"].reshape(-1, 4)
        return Detections(xyxy=xyxy, confidence=confidence, class_id=class_id)

    def close(self) -> None:
        """Let this thread's connection go; the engine stays in its server."""
        if not self._closed and getattr(self._place.clients, "client", None) is not None:
            self._place.client.close()
        super().close()


def remote(
    url: str,
    model: str = "",
    *,
    timeout_s: float = 30.0,
    headers: Mapping[str, str] | None = None,
    sha256: str = "",
) -> RemoteSession:
    """Open an engine that a server holds: Triton with a package of ours, or `engineworks serve`.

    Args:
        url: `http://host:port`, `https://`, `grpc://` or `grpcs://`.
        model: Its name there; empty: the only one.
        timeout_s: Seconds that a call may take, in the server's queue as well.
        headers: Sent with every call, for example `{"Authorization": "Bearer ..."}`.
        sha256: Identity that the engine must have, where it is known.

    Raises:
        FeedError: The address is none.
        InferenceError: Nobody answers there.
        ArtifactError: There is no such model, it is not one of ours, or another engine.
        MissingDependency: The client is not installed.
    """
    place = _place(url, headers or {}, timeout_s)
    try:
        known = place.models()
        name = model or _only(known, url)
        if name not in known:
            raise ArtifactError(
                f"{url} holds no model {name!r}", hint=f"it holds: {', '.join(known) or 'none'}"
            )
        config = place.config(name)
        ensemble = bool(config.get("ensemble_scheduling"))
        tensors = f"{name}.engine" if ensemble else name
        if ensemble:
            config = place.config(tensors)
    except (ArtifactError, MissingDependency):
        raise
    except Exception as error:
        raise _explained(error, url) from error
    manifest = _manifest(config, f"{url}, {tensors}")
    if sha256 and manifest.sha256 != sha256:
        raise ArtifactError(
            f"{url} holds engine {manifest.sha256[:16]}..., not {sha256[:16]}...",
            hint="load the version that is wanted into the server, or ask for the one it has",
        )
    return RemoteSession(
        place, manifest, model=tensors, photos=name if ensemble else "",
        max_batch=int(config.get("max_batch_size", 0)),
    )  # fmt: skip


def _place(url: str, headers: Mapping[str, str], timeout_s: float) -> _Place:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc or parts.path.strip("/"):
        raise FeedError(
            f"{url!r} is no address of a server",
            hint="give http://host:port, https://, grpc:// or grpcs://; the model is an argument",
        )
    if not 0 < timeout_s < 3600:
        raise FeedError(f"timeout_s: {timeout_s} is no time to wait", hint="give seconds")
    return _Place(
        address=parts.netloc, grpc=parts.scheme.startswith("grpc"), tls=_SCHEMES[parts.scheme],
        headers=headers, timeout_s=timeout_s,
    )  # fmt: skip


def _only(known: list[str], url: str) -> str:
    """The one model that is not a step of another."""
    whole = [name for name in known if name.rpartition(".")[0] not in known]
    if len(whole) != 1:
        raise ArtifactError(
            f"{url} holds {len(whole)} models: say which",
            hint=f"it holds: {', '.join(whole) or 'none'}",
        )
    return whole[0]


def _manifest(config: Mapping[str, Any], where: str) -> Manifest:
    """The engine's manifest out of a configuration, checked as one of a file."""
    held = config.get("parameters", {}).get(MANIFEST, {})
    text = held.get("string_value", "") if isinstance(held, dict) else ""
    if not text:
        raise ArtifactError(
            f"{where}: its configuration holds no manifest of an engine",
            hint="serve a package that engineworks has written, or `engineworks serve`",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / manifests.MANIFEST_NAME
        path.write_text(text, encoding="utf-8")
        try:
            return manifests.load(path)
        except ArtifactError as error:
            message = error.message.replace(str(path), where)
            raise ArtifactError(message, hint=error.hint) from error


def _explained(error: Exception, where: str) -> FeedError | InferenceError:
    """A client's exception in words that tell what to do."""
    status = getattr(error, "status", None)
    code = str(status() if callable(status) else status)
    message = getattr(error, "message", None)
    text = said(str(message()) if callable(message) else error)
    if code in _FAULT:
        return FeedError(f"{where} refused the request: {text}", hint="send what it takes")
    if code in _LATE or isinstance(error, TimeoutError):
        return InferenceError(
            f"{where} did not answer in time: {text}", hint="ask later, or raise timeout_s"
        )
    if code in _FULL and "connect" not in text.lower():
        return InferenceError(
            f"{where} has no room for the request: {text}",
            hint="ask again later, or let fewer ask at once",
        )
    if code in ("401", "403", "StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED"):
        return InferenceError(
            f"{where} wants to know who asks: {text}",
            hint='give headers={"Authorization": "Bearer ..."}',
        )
    return InferenceError(
        f"{where}: {type(error).__name__}: {text}",
        hint="check that the server runs and that its address and port are these",
    )


def manifest_text(manifest: Manifest) -> str:
    """A manifest as the value of the parameter `MANIFEST`."""
    return json.dumps(to_json(manifest), sort_keys=True, separators=(",", ":"))
