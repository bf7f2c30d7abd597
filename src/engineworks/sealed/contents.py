"""What a sealed test consists of, and how it lies in its artifact: pictures, JSON and arrays.

Knows no engine that is open. Its parent stands in `details`, which are part of its identity.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engineworks import files
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError
from engineworks.manifest import Artifact, Manifest
from engineworks.sealed.answers import Fields
from engineworks.store import verify

Array = np.ndarray[Any, Any]

#: Kind of the artifact.
KIND = "sealed"

#: Raised with every change that a reader could notice.
SCHEMA = 1

TEST, ARRAYS = "test.json", "expected.npz"

#: Bytes that the arrays of one test may have unpacked.
_MOST_BYTES = 2**30

#: Bytes of its JSON.
_MOST_TEXT = 2**24

Origin = Literal["source", "engine"]
Part = Literal["exact", "resized"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture that is asked."""

    file: str
    """PNG inside the artifact."""
    photo: bool
    """Whether it is a photo, or was made here."""
    part: Part
    """exact: it has the model's input size and is not resampled; resized: it is on the way in."""


@dataclass(frozen=True, kw_only=True)
class TensorTest:
    """What one output must be on the cases of one part; its arrays lie beside it."""

    output: str
    part: Part
    origin: Origin
    """Whose answers are expected: the source model's, or this engine's own when it was sealed."""
    axis: int
    """Of a row's channels; -1: all of it is one channel."""
    shape: tuple[int, ...]
    """Of a row."""


@dataclass(frozen=True, kw_only=True)
class AnswerTest:
    """What must be found in the pictures of one part."""

    part: Part
    origin: Origin
    mean: float
    """Largest mean distance over the pictures, 0..1."""
    worst: float
    """Largest distance in one picture."""
    sealed: float
    """Mean distance of the engine itself when it was sealed."""


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """The test's JSON."""

    schema: int
    engine: str
    """sha256 of the engine that it was made of: its parent."""
    variant: str
    task: str
    labels: tuple[str, ...]
    """Names of classes, in index order."""
    cases: tuple[Case, ...]
    tensors: tuple[TensorTest, ...]
    answers: tuple[AnswerTest, ...]
    honest: tuple[str, ...]
    """The replays that tolerances were measured on, in words."""
    notes: tuple[str, ...]
    """Where the expected answers come from, and what this test says less of, a sentence each."""

    @property
    def photos(self) -> int:
        """How many of the pictures are photos."""
        return sum(case.photo for case in self.cases)

    def numbers(self, part: Part) -> list[int]:
        """Places of the cases of a part."""
        return [number for number, case in enumerate(self.cases) if case.part == part]


@dataclass(frozen=True, kw_only=True)
class SealedContents:
    """A test that was read, its bytes verified."""

    sealed: Sealed
    arrays: dict[str, Array]
    folder: Path
    sha256: str

    def of(self, number: int, name: str) -> Array:
        """An array of tensor test `number`.

        Raises:
            ArtifactError: The test lacks it.
        """
        return self._array(f"tensor/{number}/{name}")

    def answer(self, origin: Origin, case: int) -> Fields:
        """What is expected in a picture."""
        before = f"answer/{origin}/{case}/"
        return {
            key.removeprefix(before): array
            for key, array in self.arrays.items()
            if key.startswith(before)
        }

    def _array(self, key: str) -> Array:
        if key not in self.arrays:
            raise _damaged(self.folder, f"its arrays lack {key}")
        return self.arrays[key]


@dataclass
class Draft:
    """A test that is being made."""

    arrays: dict[str, Array] = field(default_factory=dict)
    tensors: list[TensorTest] = field(default_factory=list)
    answers: list[AnswerTest] = field(default_factory=list)

    def add_tensor(self, test: TensorTest, **arrays: Array) -> None:
        """Keep what is expected of an output."""
        for name, array in arrays.items():
            self.arrays[f"tensor/{len(self.tensors)}/{name}"] = array
        self.tensors.append(test)

    def add_answers(self, test: AnswerTest, expected: dict[int, Fields]) -> None:
        """Keep what is expected in pictures, by the place of the case."""
        for case, fields in expected.items():
            for name, array in fields.items():
                self.arrays[f"answer/{test.origin}/{case}/{name}"] = array
        self.answers.append(test)


def write(folder: Path, sealed: Sealed, arrays: dict[str, Array]) -> dict[str, Path]:
    """Write JSON and arrays; path inside the artifact -> file, with the pictures in `folder`."""
    path = folder / TEST
    path.write_text(json.dumps(to_json(sealed), indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **arrays)
    names = (TEST, ARRAYS, *(case.file for case in sealed.cases))
    return {name: folder / name for name in names}


def parent_of(manifest: Manifest) -> str:
    """sha256 of the engine that a sealed test is made of.

    Raises:
        ArtifactError: It is no sealed test.
    """
    parent = manifest.details.get("engine")
    if manifest.kind != KIND or not isinstance(parent, str):
        raise ArtifactError(
            f"{manifest.name} is a {manifest.kind}, not a sealed test",
            hint="give the folder of a sealed test (sealed.uri in summary.json)",
        )
    return parent


def load(test: Path | str | Artifact, sha256: str = "") -> SealedContents:
    """Read a sealed test.

    Args:
        test: Its folder, or the artifact, whose `uri` is one.
        sha256: Identity that it must have, where it is known.

    Raises:
        ArtifactError: It is none, another one, or its bytes were altered.
    """
    folder = Path(test.uri if isinstance(test, Artifact) else test)
    manifest = verify(folder, test.sha256 if isinstance(test, Artifact) else sha256)
    parent = parent_of(manifest)
    try:
        data = json.loads(files.read_bytes(folder / TEST, _MOST_TEXT).decode("utf-8"))
        arrays = _arrays(folder / ARRAYS)
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile, KeyError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        version = data.get("schema") if isinstance(data, dict) else None
        raise ArtifactError(
            f"{folder}: the sealed test has schema {version!r}; this version reads {SCHEMA}",
            hint="use the version of engineworks that made it, or seal the engine anew",
        )
    sealed = from_json(Sealed, data)
    listed = {entry.path for entry in manifest.files}
    strange = [case.file for case in sealed.cases if case.file not in listed]
    if strange or sealed.engine != parent or not sealed.cases:
        raise _damaged(folder, f"it names {strange[0] if strange else sealed.engine!r}")
    return SealedContents(sealed=sealed, arrays=arrays, folder=folder, sha256=manifest.sha256)


def _arrays(path: Path) -> dict[str, Array]:
    """All arrays of a file, none of them pickled."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes of arrays")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _damaged(folder: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{folder} holds no whole sealed test ({what})",
        hint="do not use it: fetch it again, or seal the engine anew",
    )
