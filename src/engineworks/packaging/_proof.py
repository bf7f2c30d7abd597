"""The proof of a package: a real server loads it and answers as the engine does.

Starts the server in its own environment, sends the photos through its real client, and compares
every answer with that of the engine, opened here. Knows no server; each package's file does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import runtime
from engineworks.errors import ArtifactError, EngineworksError, MissingDependency, said
from engineworks.facts.package import Check, Proof
from engineworks.manifest import Manifest
from engineworks.packaging._base import Answer, Package, Served, Site
from engineworks.packaging._process import COMMAND, LOG
from engineworks.runtime.detections import Detections
from engineworks.runtime.elsewhere import image_model
from engineworks.runtime.heads.classification import Classifier
from engineworks.runtime.heads.detection import Detector
from engineworks.runtime.session import Session, Tensors
from engineworks.store import verify

log = logging.getLogger(__name__)

#: Steps of float32 at the tensor's largest value that an fp32 answer may be off: another batch or
#: number of threads adds up in another order. Measured: 0 wherever both are equal.
TOLERANCE_ULP = 16

#: Pixels and confidence that an answer may be off where its tensors are off by rounding.
TOLERANCE_PX = 0.01
TOLERANCE_CONFIDENCE = 1e-4

#: Seconds until a server must be ready.
READY_LIMIT_S = 180.0


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One photo, with what the engine answers for it here."""

    path: Path
    data: bytes
    rows: np.ndarray[Any, Any]
    outputs: Tensors
    answer: Answer | None


def prove(
    name: str,
    package: Package,
    folder: Path,
    engine: Path,
    photos: Sequence[Path],
    *,
    home: Path,
    work: Path,
    limit_s: float = READY_LIMIT_S,
) -> Proof:
    """Prove a package.

    Args:
        name: Kind of package.
        package: That kind.
        folder: The package, an artifact's folder.
        engine: The engine that it was made of, an artifact's folder.
        photos: Pictures to send; at least one where the engine takes pictures.
        home: State folder, under which server environments lie.
        work: An empty folder of its own; log and command of the server stay here.
        limit_s: Seconds until the server must be ready.

    Returns:
        `pending` where no server can be started here, with what to do; `failed` with the server's
        or the comparison's words; `proven`.

    Raises:
        ArtifactError: The package or the engine is damaged, or it is of another engine.
    """
    began = time.monotonic()
    package_manifest, manifest = _manifests(folder, engine)
    unproven = package.unproven(package_manifest)

    def result(state: Any, reason: str, **fields: Any) -> Proof:
        return Proof(
            package=name, state=state, reason=reason, unproven=unproven,
            elapsed_s=time.monotonic() - began, **fields,
        )  # fmt: skip

    if waits := package.pending(package_manifest) or package.environment.missing(home):
        return result("pending", waits)
    work.mkdir(parents=True, exist_ok=True)
    site = Site(
        package=folder.absolute(), manifest=package_manifest, engine=manifest,
        environment=package.environment.folder(home).absolute(),
        work=work.absolute(), limit_s=limit_s,
    )  # fmt: skip
    try:
        checks, who = _served(package, site, engine, photos)
    except MissingDependency as error:
        return result("pending", f"{error.message}; {error.hint}")
    except EngineworksError as error:
        return result("failed", error.message, **_left(work))
    except Exception as error:  # of a client or a server: whatever it is, it is no proof
        log.debug("proof of %s", name, exc_info=True)
        return result("failed", f"{type(error).__name__}: {said(error)}", **_left(work))
    wrong = [f"not so: {check.name} ({check.detail})" for check in checks if not check.holds]
    facts = {"photos": len(photos), "checks": checks, **who, **_left(work)}
    return result("failed" if wrong else "proven", "; ".join(wrong), **facts)


def _manifests(folder: Path, engine: Path) -> tuple[Manifest, Manifest]:
    """Of a package and of the engine that it must have been made of; both are whole."""
    package_manifest, manifest = verify(folder), verify(engine)
    if package_manifest.details.get("engine_sha256") != manifest.sha256:
        raise ArtifactError(
            f"{folder} was made of another engine than {engine}",
            hint="make the package anew from this engine",
        )
    return package_manifest, manifest


def _served(
    package: Package, site: Site, engine: Path, photos: Sequence[Path]
) -> tuple[tuple[Check, ...], dict[str, str]]:
    """What the real server answers, held against the engine; and which server and client."""
    threads = int(site.manifest.details.get("numbers", {}).get("threads", 0))
    with runtime.open(engine, threads=threads) as session, package.serve(site) as served:
        cases = _cases(session, site.engine, photos)
        checks = (*_compare(served, site.engine, cases), *served.probes(cases[0].data))
        return checks, {"server": served.server, "client": served.client}


def _left(work: Path) -> dict[str, str]:
    """What the server has left behind."""
    command = work / COMMAND
    return {
        "command": command.read_text(encoding="utf-8").strip() if command.is_file() else "",
        "log": str(work / LOG),
    }


def _cases(session: Session, manifest: Manifest, photos: Sequence[Path]) -> list[_Case]:
    """Each photo with the engine's answer; noise where the engine takes no pictures."""
    try:
        model: Detector | Classifier | None = image_model(manifest, session)
    except ArtifactError:
        model = None
    if model is None or not photos:
        return [_noise(session, manifest)]
    cases = []
    batch = manifest.inputs[0].shape[0]
    for path in photos:
        row, placement = model.prepare(runtime.read_image(path))
        rows = np.zeros((batch if isinstance(batch, int) else 1, *row.shape), row.dtype)
        rows[0] = row
        outputs = _copied(session, {manifest.inputs[0].name: rows})
        answer = model.finish({key: array[0] for key, array in outputs.items()}, placement)
        cases.append(
            _Case(path=path, data=path.read_bytes(), rows=rows, outputs=outputs, answer=answer)
        )
    return cases


def _copied(session: Session, feeds: dict[str, Any]) -> Tensors:
    return {key: np.array(array) for key, array in session.infer(feeds).items()}


def _noise(session: Session, manifest: Manifest) -> _Case:
    spec = manifest.inputs[0]
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    rows = (np.random.default_rng(0).random(shape) * 255).astype(spec.dtype)
    outputs = _copied(session, {spec.name: rows})
    return _Case(path=Path("noise"), data=b"", rows=rows, outputs=outputs, answer=None)


def _compare(served: Served, manifest: Manifest, cases: Sequence[_Case]) -> list[Check]:
    """The server's answers against the engine's, over all photos."""
    checks = []
    spec = manifest.inputs[0].name
    off = [
        (_ulp(case.outputs, tensors), case.path.name)
        for case in cases
        if (tensors := served.tensors({spec: case.rows})) is not None
    ]
    if off:
        worst, where = max(off)
        exact = sum(ulp == 0 for ulp, _ in off)
        checks.append(
            Check(
                name=f"tensors are the engine's, within {TOLERANCE_ULP} ulp",
                holds=worst <= TOLERANCE_ULP,
                detail=f"{exact} of {len(off)} bit-equal, at most {worst:g} ulp off ({where})",
            )
        )
    pairs = [
        (case.path.name, case.answer, answered)
        for case in cases
        if case.answer is not None and (answered := served.photo(case.data)) is not None
    ]
    if pairs:
        checks.append(_answers_check(pairs))
    if not checks:
        checks.append(Check(name="it answers", holds=False, detail="nothing could be asked"))
    return checks


def _answers_check(pairs: Sequence[tuple[str, Answer, Answer]]) -> Check:
    differing = [
        (name, difference) for name, ours, theirs in pairs if (difference := differ(ours, theirs))
    ]
    objects = sum(len(ours.confidence) for _, ours, _ in pairs)
    detail = f"{len(pairs)} photos, {objects} answers"
    if differing:
        detail = f"{len(differing)} of {len(pairs)} photos differ, first {': '.join(differing[0])}"
    return Check(name="encoded photos get the engine's answers", holds=not differing, detail=detail)


def differ(ours: Answer, theirs: Answer) -> str:
    """How two answers differ, in words; "" where they are equal but for rounding."""
    if type(ours) is not type(theirs):
        return f"{type(theirs).__name__} instead of {type(ours).__name__}"
    if len(ours.confidence) != len(theirs.confidence):
        return f"{len(theirs.confidence)} answers instead of {len(ours.confidence)}"
    if not np.array_equal(ours.class_id, theirs.class_id):
        return f"classes {theirs.class_id[:8]} instead of {ours.class_id[:8]}"
    off = _furthest(ours.confidence, theirs.confidence)
    if off > TOLERANCE_CONFIDENCE:
        return f"a confidence is {off:g} off"
    if isinstance(ours, Detections) and isinstance(theirs, Detections):
        off = _furthest(ours.xyxy, theirs.xyxy)
        if off > TOLERANCE_PX:
            return f"a box is {off:g} pixels off"
    return ""


def _furthest(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    return float(np.abs(ours - theirs).max()) if ours.size else 0.0


def _ulp(ours: Tensors, theirs: Tensors) -> float:
    """Largest difference in steps of float at each tensor's largest value; inf: no comparison."""
    worst = 0.0
    for name, wanted in ours.items():
        got = theirs.get(name)
        if got is None or got.shape != wanted.shape or got.dtype != wanted.dtype:
            return float("inf")
        if np.array_equal(wanted, got, equal_nan=wanted.dtype.kind == "f"):
            continue
        if wanted.dtype.kind != "f" or not np.isfinite(got).all():
            return float("inf")
        step = float(np.spacing(np.abs(wanted).max()))
        difference = np.abs(wanted.astype(np.float64) - got.astype(np.float64)).max()
        worst = max(worst, float(difference) / step)
    return worst
