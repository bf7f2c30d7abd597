"""Stage `seal`: the sealed test of a shipped engine, replayed once before it is kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engineworks import sealed
from engineworks.errors import ArtifactError
from engineworks.facts.host import HostCard
from engineworks.facts.prepared import Shared
from engineworks.facts.sealed import SealedTest
from engineworks.manifest import Artifact
from engineworks.runtime.pictures import read_image
from engineworks.sealed import contents, making, pictures
from engineworks.sealed.making import SealedPicture
from engineworks.specs import Size
from engineworks.stages._records import provenance
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class SealRequest:
    """One shipped engine."""

    shared: Shared
    engine: Artifact
    source: Artifact | None
    """The source model's graph, as it was before any rounding."""
    photos: Artifact | None
    """Photos that may leave the house; None: pictures are made."""
    pictures: int
    size: Size
    tools: dict[str, str]
    """Versions of the target's packages: tolerances are measured with them."""
    host: HostCard


def seal(request: SealRequest) -> SealedTest:
    """Stage `seal`."""
    from engineworks.export.torch_onnx import runner

    begun = time.perf_counter()
    shared, store = request.shared, LocalStore(Path(request.shared.store))
    engine = store.open(request.engine)
    source = runner(store.entry(request.source)) if request.source is not None else None
    with tempfile.TemporaryDirectory() as work:
        test, files = making.seal(engine, list(_pictures(request, store)), source, Path(work))
        artifact = store.put(
            files,
            kind=contents.KIND,
            name=shared.name,
            entry=contents.TEST,
            target=request.engine.manifest.target,
            precision=request.engine.manifest.precision,
            details={"engine": request.engine.sha256, "pictures": len(test.cases)},
            provenance=provenance("seal", shared, (request.engine,), "numpy"),
        )
    shown = sealed.replay(request.engine, artifact)
    if not shown.holds:
        raise ArtifactError(
            f"{shared.name}: the engine does not hold its own sealed test ({shown.reason})",
            hint="its answers change from one run to the next: look for random numbers in the "
            "model, or for a fault of its runtime",
        )
    return SealedTest(
        state="sealed",
        artifact=artifact,
        pictures=shown.pictures,
        photos=shown.photos,
        notes=shown.notes,
        replay_s=shown.elapsed_s,
        elapsed_s=time.perf_counter() - begun,
    )


def _pictures(request: SealRequest, store: LocalStore) -> Iterator[SealedPicture]:
    """What is asked: the photos that were named, else pictures that are made."""
    if request.photos is None:
        for image in pictures.generated(request.pictures, request.size):
            yield SealedPicture(image=image, photo=False)
        return
    folder = store.open(request.photos)
    for entry in request.photos.manifest.files:
        yield SealedPicture(image=read_image(folder / entry.path), photo=True)


STAGE = Stage("seal", seal, SealRequest, SealedTest, ("onnxruntime", "opencv-python-headless"))
