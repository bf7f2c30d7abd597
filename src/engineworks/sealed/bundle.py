"""A bundle: a folder with an engine, its sealed test, and a statement that names both by digest.

The statement may be signed; the engine's identity does not change by that. `prove` says what holds
of a bundle, with nothing but the runtime. Knows folders and files, no store and no registry.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks import files
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError, EngineworksError, MissingDependency
from engineworks.manifest import MANIFEST_NAME, Manifest
from engineworks.sealed import contents, replaying, signing
from engineworks.sealed.replaying import Replay
from engineworks.store import explain_os_error, verify

#: Raised with every change that a reader could notice.
SCHEMA = 1

STATEMENT, SIGNATURE = "bundle.json", "bundle.sig.json"
ENGINE, TEST = "engine", "sealed"

_MOST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a bundle says of itself, and what a signature is of."""

    schema: int
    name: str
    """Of the model."""
    variant: str
    engine: str
    """sha256 of the engine, in the folder `engine`."""
    sealed: str
    """sha256 of the sealed test, in the folder `sealed`."""
    signer: str = ""
    """Who says that they sign it; only a key that is known from elsewhere proves it."""


@dataclass(frozen=True, kw_only=True)
class BundleCheck:
    """One thing that was looked at."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class BundleProof:
    """What holds of a bundle."""

    holds: bool
    signed: str
    """no, yes (by the key that the bundle itself names), trusted (by a key that was given)."""
    signer: str
    """Who it says has signed it."""
    key: str
    """Fingerprint of the key that signed; empty: none did."""
    words: str
    """What the proof amounts to, in a sentence."""
    checks: tuple[BundleCheck, ...]
    statement: Statement | None = None
    replay: Replay | None = None
    elapsed_s: float = 0.0


def write(
    engine: Path, test: Path, output: Path, *, key: Path | None = None, signer: str = ""
) -> Statement:
    """Write a bundle.

    Args:
        engine: Folder of an engine.
        test: Folder of its sealed test.
        output: A folder that does not exist yet; it appears whole or not at all.
        key: Private key (PEM); None: the bundle is not signed.
        signer: Who signs.

    Raises:
        ArtifactError: One of both is damaged, the test is another engine's, or `output` exists.
        StoreError: The disk is full or cannot be written.
    """
    of_engine, of_test = verify(engine), verify(test)
    parent = contents.parent_of(of_test)
    if parent != of_engine.sha256:
        raise ArtifactError(
            f"{test} is the sealed test of engine {parent[:16]}..., not of {engine}, which is "
            f"{of_engine.sha256[:16]}...",
            hint="give the test that was made of this engine (sealed.uri in summary.json)",
        )
    if output.exists():
        raise ArtifactError(f"{output} is there already", hint="give a new folder, or remove it")
    private = signing.load_private(key) if key is not None else None
    statement = Statement(
        schema=SCHEMA,
        name=of_engine.name,
        variant=f"{of_engine.target}/{of_engine.precision}",
        engine=of_engine.sha256,
        sealed=of_test.sha256,
        signer=signer if key is not None else "",
    )
    text = (json.dumps(to_json(statement), indent=1, sort_keys=True) + "\n").encode()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent) as work:
            folder = Path(work, "bundle")
            folder.mkdir()
            for source, manifest, name in ((engine, of_engine, ENGINE), (test, of_test, TEST)):
                _copy(source, manifest, folder / name)
            (folder / STATEMENT).write_bytes(text)
            if private is not None:
                signature = json.dumps(signing.sign(private, text), indent=1) + "\n"
                (folder / SIGNATURE).write_text(signature, encoding="utf-8")
            folder.rename(output)
    except OSError as error:
        raise explain_os_error(error, output) from error
    return statement


def _copy(source: Path, manifest: Manifest, target: Path) -> None:
    """The manifest and the files that it lists; nothing else that lies there."""
    for name in (MANIFEST_NAME, *(entry.path for entry in manifest.files)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def prove(bundle: Path, *, key: Path | None = None, threads: int = 0) -> BundleProof:
    """Say what holds of a bundle: digests, signature, every expectation of its sealed test.

    Args:
        bundle: Its folder.
        key: Public key (PEM) of the one who must have signed it; None: any key, or none.
        threads: CPU threads for inference; 0: all.

    Raises:
        ArtifactError: The folder is no bundle at all.
        MissingDependency: It is signed and `cryptography` is not here.
    """
    begun = time.perf_counter()
    raw, statement = _statement(bundle)
    checks: list[BundleCheck] = []
    signed, by = _signature(bundle, raw, key, checks)
    whole = _whole(bundle, statement, checks)
    replay = None
    if whole and all(check.holds for check in checks):  # nothing that was altered is opened
        replay = replaying.replay(
            bundle / ENGINE, contents.load(bundle / TEST, statement.sealed), threads=threads
        )
        checks.append(
            BundleCheck(
                name="sealed test", holds=replay.holds, detail=replay.reason or _held(replay)
            )
        )
    holds = whole and all(check.holds for check in checks)
    return BundleProof(
        holds=holds,
        signed=signed,
        signer=statement.signer,
        key=by,
        words=_in_words(holds=holds, signed=signed, by=by, signer=statement.signer),
        checks=tuple(checks),
        statement=statement,
        replay=replay,
        elapsed_s=time.perf_counter() - begun,
    )


def _statement(bundle: Path) -> tuple[bytes, Statement]:
    path = bundle / STATEMENT
    try:
        raw = files.read_bytes(path, _MOST_BYTES)
        data: Any = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{bundle} is no bundle: {path.name} cannot be read "
            f"({getattr(error, 'strerror', None) or error})",
            hint="give the folder that `engineworks bundle` has written",
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path} has schema {schema!r}; this version reads {SCHEMA}",
            hint="use the version of engineworks that wrote it",
        )
    return raw, from_json(Statement, data)


def _signature(
    bundle: Path, raw: bytes, key: Path | None, checks: list[BundleCheck]
) -> tuple[str, str]:
    """(signed, fingerprint); what was looked at goes into `checks`."""
    wanted = signing.load_public(key) if key is not None else None
    path = bundle / SIGNATURE
    if not path.exists():
        if wanted is not None:
            detail = f"not signed, but {signing.fingerprint(wanted)} must have signed it"
            checks.append(BundleCheck(name="signature", holds=False, detail=detail))
        return "no", ""
    try:
        text = files.read_bytes(path, _MOST_BYTES).decode("utf-8")
        public = signing.signed_by(raw, json.loads(text))
    except MissingDependency:
        raise
    except (OSError, ValueError, RecursionError, ArtifactError) as error:
        detail = getattr(error, "message", f"{type(error).__name__}: {error}")
        checks.append(BundleCheck(name="signature", holds=False, detail=detail))
        return "no", ""
    by = signing.fingerprint(public)
    if wanted is not None and public != wanted:
        detail = f"signed by {by}, not by {signing.fingerprint(wanted)}, whose key was given"
        checks.append(BundleCheck(name="signature", holds=False, detail=detail))
        return "yes", by
    checks.append(BundleCheck(name="signature", holds=True, detail=f"{signing.ALGORITHM}, by {by}"))
    return ("trusted" if wanted is not None else "yes"), by


def _whole(bundle: Path, statement: Statement, checks: list[BundleCheck]) -> bool:
    """Whether both artifacts are those that the statement names, and belong together."""
    manifests: dict[str, Manifest] = {}
    for name, sha256 in ((ENGINE, statement.engine), (TEST, statement.sealed)):
        try:
            manifests[name] = verify(bundle / name, sha256)
        except EngineworksError as error:
            checks.append(BundleCheck(name=f"digests of {name}", holds=False, detail=error.message))
            continue
        detail = f"{len(manifests[name].files)} files, sha256 {sha256}"
        checks.append(BundleCheck(name=f"digests of {name}", holds=True, detail=detail))
    if TEST not in manifests or ENGINE not in manifests:
        return False
    try:
        parent = contents.parent_of(manifests[TEST])
    except ArtifactError as error:
        checks.append(BundleCheck(name="parent", holds=False, detail=error.message))
        return False
    mine = parent == statement.engine
    detail = "the test was made of this engine" if mine else f"it is of engine {parent[:16]}..."
    checks.append(BundleCheck(name="parent", holds=mine, detail=detail))
    return mine


def _held(replay: Replay) -> str:
    closest = replay.closest
    sentence = f"{len(replay.expectations)} expectations on {replay.pictures} pictures hold"
    if closest is None or closest.deviation is None or closest.tolerance is None:
        return sentence
    return (
        f"{sentence}; the closest, {closest.name} on {closest.part} pictures, is off by "
        f"{closest.deviation:.3g}, allowed {closest.tolerance:.3g}"
    )


def _in_words(*, holds: bool, signed: str, by: str, signer: str) -> str:
    if not holds:
        return "does not hold: do not use this engine"
    if signed == "no":
        return (
            "self-consistent only: it answers as its own test says, but nobody has signed that "
            "this is the engine, or the test, that it should be"
        )
    who = f"{by}, who says to be {signer!r}" if signer else by
    if signed == "yes":
        return (
            f"holds, and is signed by {who}: whose key that is, the bundle cannot prove; compare "
            "the fingerprint, or give the key with --key"
        )
    return f"holds, and is signed by the key that was given, {who}"
