"""Which videos a folder holds, and a name for the outputs of each source. Opens none of them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from engineworks import folders
from engineworks.errors import DataError
from engineworks.runtime.outputs import fitting_name
from engineworks.runtime.sources import local_path, spoken

#: What a folder of videos is searched for: containers, and streams without one.
SUFFIXES = frozenset(
    (
        *(".mp4", ".mov", ".m4v", ".qt", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv"),
        *(".f4v", ".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".m2v", ".vob", ".mod", ".3gp"),
        *(".3g2", ".ogv", ".ogm", ".mxf", ".dv", ".rm", ".rmvb", ".nut", ".gif", ".y4m", ".ivf"),
        *(".obu", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"),
    )
)


#: The longest that follows a stream's name in the names of its outputs.
_AFTER_NAME = ".part9999.jsonl"


@dataclass(frozen=True, kw_only=True)
class FoundVideos:
    """What is to be read."""

    sources: list[str]
    left_out: dict[str, int]
    """Ending -> files in the folders that are none of a video's, hidden ones uncounted."""


def find(given: Sequence[str], output: Path) -> FoundVideos:
    """Addresses as they are, and the videos in folders, but not those that were written there.

    Raises:
        DataError: A folder holds no video, or its outputs would lie beside what is read.
    """
    sources: list[str] = []
    left_out: Counter[str] = Counter()
    written, seen = output.resolve(), set[Path]()
    for text in given:
        folder = Path(text)
        if not folder.is_dir():
            sources.append(text)
            continue
        if folder.resolve().is_relative_to(written):
            raise DataError(
                f"-o {output} is or holds the folder to read, {folder}",
                hint="give a folder of its own for -o",
            )
        files = {path: Path(os.path.realpath(path)) for path in _walk(folder)}
        files = {path: real for path, real in files.items() if not real.is_relative_to(written)}
        inside = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not inside:
            raise DataError(
                f"{folder} holds no video ({' '.join(sorted(SUFFIXES))})",
                hint="give videos or their folder; for a folder of images use: engineworks video",
            )
        # What links lead to twice is read once.
        new = {real: path for path, real in reversed(files.items()) if real not in seen}
        seen.update(new)
        for path in reversed(new.values()):
            if path.suffix.lower() in SUFFIXES:
                sources.append(str(path))
            else:
                left_out[path.suffix.lower() or path.name] += 1
    return FoundVideos(sources=sources, left_out=dict(sorted(left_out.items())))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file in it and in what it links to, in the order of their names."""
    yield from (folder / name for name in folders.find(folder).files)


def output_names(sources: Sequence[str]) -> list[str]:
    """A name of its own for each source's outputs, on every disk, whatever it makes of case."""
    names: list[str] = []
    taken: set[str] = set()
    for source in sources:
        stem = _stem(source)
        name, count = fitting_name(stem, _AFTER_NAME).removesuffix(_AFTER_NAME), 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            count += 1
            number = f"-{count}"
            name = fitting_name(stem, number + _AFTER_NAME).removesuffix(_AFTER_NAME)
        taken.add(key)
        names.append(name)
    return names


def _stem(source: str) -> str:
    path = local_path(source)
    if path is not None:
        name = path.resolve().name if path.name in ("", ".", "..") else path.name
        stem = Path(name).stem
    else:
        parts = urlsplit(spoken(source))
        stem = Path(parts.path).stem or parts.hostname or "stream"
    # `name.part2` is what the second part of `name` is called.
    return stem.replace(".part", "-part") or "stream"
