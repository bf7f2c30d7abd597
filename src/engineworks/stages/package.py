"""Stage `package`: what a server loads, written from a shipped engine and proven by that server."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks import packaging
from engineworks.codec import place
from engineworks.evaluate import datasets
from engineworks.facts.data import PinnedData
from engineworks.facts.package import Packaged
from engineworks.facts.prepared import Shared
from engineworks.facts.timing import BenchmarkRow
from engineworks.manifest import Artifact
from engineworks.packaging import PackageInput
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore, pinned_bytes


@dataclass(frozen=True, kw_only=True)
class PackageRequest:
    """One engine and one kind of package, which it fits."""

    shared: Shared
    package: str
    options: dict[str, Any]
    engine: Artifact
    rows: tuple[BenchmarkRow, ...]
    """What this engine measured: the package's numbers come from it."""
    cores: int
    data: PinnedData | None
    photos: int
    code_sha256: str
    """Of the code that writes it and that travels in it (`packaging.code_sha256`)."""
    server_sha256: str
    """Of the lock file of the proof's server."""
    home: str = place()
    """State folder, under which servers lie."""
    logs: str = place()
    """Where the server's log stays."""


def package(request: PackageRequest) -> Packaged:
    """Stage `package`."""
    kind = packaging.load(request.package)
    store = LocalStore(Path(request.shared.store))
    engine = store.open(request.engine)
    with tempfile.TemporaryDirectory() as work:
        output = kind.write(
            PackageInput(
                engine=engine,
                manifest=request.engine.manifest,
                rows=request.rows,
                cores=request.cores,
                options=request.options,
                work=Path(work),
            )
        )
        artifact = store.put(
            output.files,
            kind="package",
            name=request.shared.name,
            entry=output.entry,
            target=request.engine.manifest.target,
            precision=request.engine.manifest.precision,
            details={"package": request.package, **output.details},
            provenance=provenance("package", request.shared, (request.engine,), *kind.packages),
        )
    with tempfile.TemporaryDirectory() as folder:
        proof = packaging.prove(
            request.package,
            kind,
            store.open(artifact),
            engine,
            _photos(request, Path(folder)),
            home=Path(request.home),
            work=_emptied(Path(request.logs)),
        )
    return Packaged(kind=request.package, artifact=artifact, proof=proof)


def _photos(request: PackageRequest, folder: Path) -> list[Path]:
    """Copies of the photos to send, each the file that was pinned."""
    if request.data is None:
        return []
    chosen = datasets.sample_evenly(request.data, request.photos)
    root = datasets.root_of(chosen.spec)
    copies = []
    for number, name in enumerate(chosen.files):
        copy = folder / f"{number:04d}{Path(name).suffix}"
        copy.write_bytes(pinned_bytes(root / name, chosen.digests[name]))
        copies.append(copy)
    return copies


def _emptied(folder: Path) -> Path:
    """A folder for the proof; what another try left there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


STAGE = Stage("package", package, PackageRequest, Packaged, ("tritonclient", "protobuf"))
