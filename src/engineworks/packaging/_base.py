"""What the file of a kind of package holds. Knows no server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engineworks.errors import RecipeError
from engineworks.facts.package import Check
from engineworks.facts.timing import BenchmarkRow
from engineworks.manifest import Manifest
from engineworks.packaging._environment import ServerEnvironment
from engineworks.runtime.detections import Detections
from engineworks.runtime.heads.classification import Classification
from engineworks.runtime.session import Tensors

Answer = Detections | Classification


@dataclass(frozen=True, kw_only=True)
class PackageInput:
    """What a package is written from."""

    engine: Path
    """The engine's folder, whose bytes were verified."""
    manifest: Manifest
    rows: tuple[BenchmarkRow, ...]
    """What this engine measured on the machine it is for; empty where nothing was."""
    cores: int
    """CPUs of the machine that was measured."""
    options: Mapping[str, Any]
    work: Path
    """An empty folder of its own; the package's files are left here."""


@dataclass(frozen=True, kw_only=True)
class PackageOutput:
    """What writing a package gives back."""

    files: Mapping[str, Path]
    """Path inside the package -> file, in `work` or in the engine's folder."""
    entry: str
    details: dict[str, Any] = field(default_factory=dict)
    """Facts that its proof and its users need, into the manifest: `servers`, `reasons` ..."""


class Served(Protocol):
    """A running server that holds one package, asked through its real client."""

    server: str
    """What it says of itself."""
    client: str

    def tensors(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Tensors | None:
        """The engine's own tensors through the server; None: it serves none."""
        ...

    def photo(self, data: bytes) -> Answer | None:
        """The answer for an encoded picture; None: the package takes none."""
        ...

    def probes(self, photo: bytes) -> tuple[Check, ...]:
        """What is asked beside right answers: wrong requests, the server's own counters."""
        ...


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where and with what a server is started for a proof."""

    package: Path
    """The package's folder."""
    manifest: Manifest
    """The package's."""
    engine: Manifest
    environment: Path
    """The installed server environment (`ServerEnvironment.folder`)."""
    work: Path
    """An empty folder of its own; the server's log is `server.log` here."""
    limit_s: float
    """Until it must be ready."""


def _nothing_pending(manifest: Manifest) -> str:
    return ""


def _any_value(options: Mapping[str, Any]) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Package:
    """Everything that is to be known of what one server loads: `PACKAGE` of its file."""

    title: str
    """One line for people."""
    fits: Callable[[Manifest, Mapping[str, Any]], str]
    """Why an engine cannot be packaged so with these options; "" where it can."""
    write: Callable[[PackageInput], PackageOutput]
    """Raises BuildError where the engine does not allow it."""
    environment: ServerEnvironment
    """What the proof runs the server in."""
    serve: Callable[[Site], AbstractContextManager[Served]]
    """Start the server on the package, wait until it is ready, end it and all it started."""
    unproven: Callable[[Manifest], tuple[str, ...]]
    """Of a written package's manifest: what a proof here says nothing of, a sentence each."""
    packages: tuple[str, ...] = ()
    """Distributions that are needed here to write it and to ask the server."""
    pending: Callable[[Manifest], str] = _nothing_pending
    """Of a written package's manifest: why no server here can load it; "" where one can."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Option name -> description; anything else is refused."""
    check_options: Callable[[Mapping[str, Any]], None] = _any_value
    """Rules of the options' values: raises BuildError, touches no file."""


def check_options(name: str, package: Package, options: Mapping[str, Any]) -> None:
    """Refuse options that a kind of package does not have.

    Raises:
        RecipeError: Names the value and what there is.
    """
    for option in options:
        if option not in package.options:
            raise RecipeError(
                f"packages: {name} has no option {option!r}",
                hint=f"it has: {', '.join(package.options) or 'none'}",
            )
    package.check_options(options)
