"""A session: an open engine with named inputs and outputs.

`open_engine` (`engineworks.runtime.open`) reads the manifest, verifies the bytes, the machine and
the version, and only then lets a vendor package touch the file. Knows no images (`preprocess.py`)
and no tasks (`postprocess.py`).
"""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from engineworks import hosts
from engineworks.errors import (
    ArtifactError,
    EngineworksError,
    FeedError,
    InferenceError,
    MissingDependency,
    said,
)
from engineworks.manifest import Manifest, TensorSpec
from engineworks.runtime import engines, failures, registered
from engineworks.store import verify

Tensors = dict[str, np.ndarray[Any, Any]]


class Session(Protocol):
    """An open engine. Use it as a context manager: leaving closes it. One call at a time."""

    manifest: Manifest
    reuses_outputs: bool
    """Whether `infer` may overwrite the arrays that it gave last time."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """Run once.

        Args:
            feeds: Input name -> array of the declared dtype and shape, C-contiguous.

        Returns:
            Output name -> array; valid until the next call where `reuses_outputs` is true.

        Raises:
            FeedError: The feeds are not what the engine takes, or it is closed.
            InferenceError: The vendor's runtime failed: the batch, its words, and whether the
                session can go on.
        """
        ...

    def close(self) -> None:
        """Free the engine."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_machine(manifest: Manifest, *, arch: str, cpu_flags: tuple[str, ...]) -> None:
    """Refuse an engine that was built for another kind of machine.

    Raises:
        ArtifactError: The message says what the engine needs and what is here.
    """
    needs = manifest.requires
    if needs is None:
        raise ArtifactError(
            f"{manifest.name} is a {manifest.kind}, not an engine",
            hint="give an engine's folder (engine.uri in summary.json)",
        )
    if needs.arch and needs.arch != arch:
        raise ArtifactError(
            f"{manifest.name} was built for {needs.arch}, this machine is {arch}",
            hint="build this variant on this kind of machine",
        )
    missing = [flag for flag in needs.cpu_flags if flag not in cpu_flags]
    if missing and cpu_flags:
        raise ArtifactError(
            f"{manifest.name} was specialised for a CPU with {', '.join(missing)}, "
            "which this CPU lacks",
            hint="build this variant on this kind of machine",
        )


def check_version(manifest: Manifest, installed: Mapping[str, str]) -> None:
    """Refuse an engine that was built, and proven, with a newer runtime than the one here.

    Args:
        manifest: An engine's.
        installed: Distribution -> version; one that is not in it is not judged.

    Raises:
        ArtifactError: The message names both versions.
    """
    package, _, built = (manifest.requires.package if manifest.requires else "").partition("==")
    here = installed.get(package, "")
    if here and built and _release(here) < _release(built):
        raise ArtifactError(
            f"{manifest.name} was built with {package} {built}, here is {here}, which is older",
            hint=f"pip install '{package}>={built}', or build the engine anew with {here}",
        )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number; a patch release neither adds nor removes operators."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def local_folder(path_or_uri: Path | str, sha256: str = "") -> Path:
    """The folder of a path or a `file://` URI; what is registered or in a bucket is fetched.

    Args:
        path_or_uri: See `open_engine`.
        sha256: Identity that it must have, where it is known.

    Raises:
        ArtifactError: A URI of another scheme, or of another machine.
        StoreError: A registry or bucket does not answer, or refuses.
    """
    text = str(path_or_uri)
    if registered.is_address(text):
        return registered.fetch(text, sha256)
    if "://" not in text:
        return Path(text)
    uri = urlsplit(text)
    if uri.scheme != "file" or uri.netloc not in ("", "localhost"):
        raise ArtifactError(
            f"{text} is not on this machine: an engine is opened from a folder",
            hint="fetch the engine's folder first, then give its path or file:// URI",
        )
    return Path(url2pathname(uri.path))


def open_engine(
    path_or_uri: Path | str, *, threads: int = 0, device: int = 0, sha256: str = ""
) -> Session:
    """Open an engine folder.

    Args:
        path_or_uri: Folder with `manifest.json` and the engine's files, as a path or a
            `file://` URI; or `models:/name@alias`, `models:/name/version` (the MLflow server at
            MLFLOW_TRACKING_URI), `s3://bucket/folder`, which is fetched into the state folder's
            store first.
        threads: CPU threads for inference; 0: all that this process may use.
        device: Number of the GPU, for engines that run on one.
        sha256: Identity that the engine must have, where it is known (`engine.sha256` in
            summary.json, the tag `sha256` of a registered version).

    Raises:
        ArtifactError: Not an engine, another one than `sha256`, altered bytes, built for another
            machine or with a newer version of the runtime, or a device that it does not run on.
        MissingDependency: The vendor package is not installed.
    """
    if threads < 0:
        raise ArtifactError(f"{threads} threads are none", hint="use 0 for all")
    folder = local_folder(path_or_uri, sha256)
    manifest = verify(folder, sha256)
    check_machine(manifest, arch=platform.machine(), cpu_flags=hosts.cpu_flags())
    assert manifest.requires is not None  # noqa: S101 - check_machine has refused it
    if manifest.requires.package:
        check_version(manifest, hosts.versions(manifest.requires.package.partition("==")[0]))
    name = manifest.requires.runtime
    engine = _engine(name, folder)
    placed = {"device": device} if getattr(engine, "ON_GPU", False) else {}
    if device and not placed:
        raise ArtifactError(
            f"{manifest.name} ({name}) does not run on a GPU: there is no device {device}",
            hint="leave the device out; several sessions of a CPU all are device 0",
        )
    try:
        opened = engine.open_session(folder, manifest, threads or hosts.cores(), **placed)
    except EngineworksError:
        raise  # says more than the words below
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{manifest.target}/{manifest.precision} needs the package {error.name!r}",
            hint=_install(engine, name, error.name or ""),
        ) from error
    except Exception as error:
        known = failures.reason(
            error, failures.OnGpu(device=device) if placed else None, batch=False
        )
        raise ArtifactError(
            f"{folder / manifest.entry} cannot be opened by {name} "
            f"({known[0] if known else f'{type(error).__name__}: {said(error)}'})",
            hint=known[1]
            if known
            else f"it was made with {manifest.requires.package or 'another version'}: use that "
            "version, or build the engine anew",
        ) from error
    return cast(Session, opened)


def _engine(name: str, folder: Path) -> ModuleType:
    try:
        return engines.load(name)
    except ArtifactError as error:
        raise ArtifactError(f"{folder}: {error.message}", hint=error.hint) from error


def _install(engine: ModuleType, runtime: str, module: str) -> str:
    """How to get a module that an engine's file imports."""
    extra = getattr(engine, "EXTRA", "")
    if extra:
        return f"pip install 'engineworks[{extra}]'"
    return (
        f"install the package that provides {module!r}: the runtime {runtime!r} is not one of this "
        "project's own"
    )


class SessionBase:
    """The part that every engine file shares: checks on the way in, closing on the way out."""

    #: An engine file whose runtime allocates new outputs for every call says False.
    reuses_outputs = True

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.inputs = manifest.inputs
        self.outputs = manifest.outputs
        self._closed = False

    def settings(self, name: str, known: Collection[str]) -> dict[str, Any]:
        """A vendor's settings out of the manifest, and only those that engines here are given.

        A vendor reads many more, some of which name files to write or addresses to call.

        Raises:
            ArtifactError: There is another one.
        """
        settings = dict(self.manifest.details.get(name) or {})
        strange = sorted(set(settings) - set(known))
        if strange:
            raise ArtifactError(
                f"{self.manifest.name}: its manifest sets {strange[0]!r} in details.{name}, which "
                "no engine of this project does",
                hint="do not use it: ask whoever made it for the artifact again",
            )
        return settings

    def check(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Refuse feeds whose names, dtypes or shapes are not the engine's.

        Raises:
            FeedError: Names the input, what it must be and what came; or it is closed.
        """
        if self._closed:
            raise FeedError(
                f"{self.title} is closed", hint="open it anew, or run it before it is closed"
            )
        if not isinstance(feeds, Mapping):
            raise FeedError(
                f"feeds are {type(feeds).__name__}, no mapping of input names to arrays",
                hint=f"give {{{', '.join(f'{spec.name!r}: array' for spec in self.inputs)}}}",
            )
        for spec in self.inputs:
            array = feeds.get(spec.name)
            if array is None:
                raise FeedError(
                    f"input {spec.name!r} is missing; given: {sorted(map(str, feeds))}",
                    hint="give an array for each of the session's inputs",
                )
            if not isinstance(array, np.ndarray):
                raise FeedError(
                    f"input {spec.name!r} is {type(array).__name__}, no array",
                    hint="give numpy arrays, C-contiguous",
                )
            fits = array.ndim == len(spec.shape) and all(
                want == got if isinstance(want, int) else got > 0
                for want, got in zip(spec.shape, array.shape, strict=True)
            )
            if array.dtype != np.dtype(spec.dtype) or not fits:
                raise FeedError(
                    f"input {spec.name!r} must be {spec.dtype} {list(spec.shape)}, "
                    f"got {array.dtype} {list(array.shape)}",
                    hint="open dimensions take any size from 1 on, the others their own",
                )
        names = [spec.name for spec in self.inputs]
        if other := [name for name in feeds if name not in names]:
            raise FeedError(
                f"there is no input {str(other[0])[:80]!r}; the inputs are: {', '.join(names)}",
                hint="give an array for each of the session's inputs, and no other",
            )

    def hold_to(self, dims: Mapping[str, Sequence[Any]], outputs: int) -> None:
        """Refuse a manifest that declares other inputs or outputs than the engine itself has.

        Args:
            dims: Input name -> its sizes as the vendor tells them; what is no number is open.
            outputs: How many there are.

        Raises:
            ArtifactError: Names both.
        """
        if len(self.outputs) != outputs:
            raise ArtifactError(
                f"{self.title}: its manifest says {len(self.outputs)} outputs, the engine itself "
                f"has {outputs}",
                hint="do not use it: ask whoever made it for the artifact again",
            )
        for spec in self.inputs:
            real = dims.get(spec.name)
            if (
                real is None
                or len(real) != len(spec.shape)
                or any(
                    isinstance(said, int) and isinstance(size, int) and said != size
                    for said, size in zip(spec.shape, real, strict=True)
                )
            ):
                raise ArtifactError(
                    f"{self.title}: its manifest says input {spec.name!r} {list(spec.shape)}, the "
                    f"engine itself has { ({name: list(sizes) for name, sizes in dims.items()}) }",
                    hint="do not use it: ask whoever made it for the artifact again",
                )

    #: Where it runs; None: on the CPU.
    gpu: failures.OnGpu | None = None

    def failure(
        self, error: Exception, feeds: Mapping[str, np.ndarray[Any, Any]]
    ) -> InferenceError:
        """What the vendor raised while it ran, in words that say what to do."""
        return failures.inference_error(self.title, feeds, error, self.gpu)

    @property
    def title(self) -> str:
        """The engine's name for people."""
        return f"{self.manifest.name} ({self.manifest.target}/{self.manifest.precision})"

    def close(self) -> None:
        """Take no more feeds; what has more to free does so, and calls this."""
        self._closed = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
