"""Where an interrupted run stopped, read from its outputs themselves.

The video goes on in a new part (`out.part2.mp4`), text in the same file. Of what was written last
only that is kept which all outputs hold, so no frame is missing in any; the new part may repeat
up to a second of the old one's end after a crash. Knows no engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engineworks.errors import DataError
from engineworks.runtime.outputs import temporary_name
from engineworks.runtime.video_file import last_time_s

#: Half a frame at 1000 frames per second: two clocks that differ by less mean the same frame.
_SAME_S = 0.0005


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files of one stream."""

    video: Path | None = None
    jsonl: Path | None = None
    mot: Path | None = None

    def existing(self) -> list[Path]:
        """Those that are there already."""
        return [path for path in self._all() if path.exists()]

    def begun(self) -> bool:
        """Whether an earlier run has left anything to go on from."""
        return any(path.exists() or temporary_name(path).exists() for path in self._all())

    def written(self, *, resume: bool) -> list[Path]:
        """Every file that a run reads as its own, makes or replaces."""
        files, number = self._all(), 2
        while resume and self.video is not None:
            part = part_name(self.video, number)
            files.append(part)
            if not (part.exists() or temporary_name(part).exists()):
                break
            number += 1
        return files

    def _all(self) -> list[Path]:
        return [path for path in (self.video, self.jsonl, self.mot) if path is not None]


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What an earlier run has done."""

    after_s: float
    """Source time of the last frame that all outputs hold."""
    next_track: int
    """First track number that was not given."""
    video: Path | None
    """File for the next part of the video."""


def part_name(path: Path, number: int) -> Path:
    """The file of the n-th part of a video; the first is the output itself."""
    return path if number == 1 else path.with_name(f"{path.stem}.part{number}{path.suffix}")


def look_back(outputs: Outputs) -> Begun:
    """Find the place, and cut text that goes beyond it.

    Raises:
        DataError: There is nothing to go on from.
    """
    if outputs.mot and not outputs.jsonl:
        raise DataError(
            f"{outputs.mot} holds no times, so it does not say where it ends",
            hint="--resume with --mot needs the --jsonl of the same run",
        )
    parts = _parts(outputs.video) if outputs.video else []
    jsonl = _named(outputs.jsonl) if outputs.jsonl else None
    ends = []
    if outputs.video is not None:
        end_s = last_time_s(parts[-1]) if parts else None
        ends.append(-1.0 if end_s is None else end_s)
    if outputs.jsonl is not None:
        rows = _rows(jsonl) if jsonl else iter(())
        ends.append(max((time_s for time_s, _, _, _ in rows), default=-1.0))
    if not ends or min(ends) < 0:
        wanted = outputs.video or outputs.jsonl
        raise DataError(
            f"{wanted or 'no output'} holds nothing to go on from",
            hint="--resume needs the -o or --jsonl of a run that was interrupted; "
            "without it, run the same command again",
        )
    after_s = min(ends)
    last_frame, tracks = -1, [0]
    if jsonl is not None:
        kept = [row for row in _rows(jsonl) if row[0] <= after_s + _SAME_S]
        last_frame = max((number for _, number, _, _ in kept), default=-1)
        tracks += [track for _, _, _, track in kept]
        _truncate(jsonl, max((end for _, _, end, _ in kept), default=0))
    mot = _named(outputs.mot) if outputs.mot else None
    if mot is not None:
        tracks.append(_cut_mot(mot, last_frame))
    video = part_name(outputs.video, len(parts) + 1) if outputs.video else None
    return Begun(after_s=after_s, next_track=max(tracks) + 1, video=video)


def _parts(video: Path) -> list[Path]:
    """The parts that play, in order."""
    parts: list[Path] = []
    while (part := _named(part_name(video, len(parts) + 1))) is not None:
        if last_time_s(part) is None:
            break
        parts.append(part)
    return parts


def _named(path: Path) -> Path | None:
    """A file, also one that a killed process left under its temporary name."""
    left = temporary_name(path)
    if not path.exists() and left.exists():
        left.replace(path)
    return path if path.exists() else None


def _rows(jsonl: Path) -> Iterator[tuple[float, int, int, int]]:
    """(time in s, frame, end of the line in bytes, highest track) of every whole line."""
    end = 0
    with jsonl.open("rb") as file:
        for line in file:
            end += len(line)
            try:
                row = json.loads(line)
                tracks = [detection.get("track_id", 0) for detection in row["detections"]]
                yield float(row["time_s"]), int(row["frame"]), end, max(tracks, default=0)
            except (ValueError, KeyError, TypeError):
                return  # the line that was being written


def _cut_mot(mot: Path, last_frame: int) -> int:
    """Cut rows after a frame (numbered from 0) and a row half written; highest track kept."""
    end, highest = 0, 0
    with mot.open("rb") as file:
        for line in file:
            fields = line.split(b",")
            if not line.endswith(b"\n") or len(fields) != 10:
                break
            if int(fields[0]) - 1 > last_frame:
                break
            end += len(line)
            highest = max(highest, int(fields[1]))
    _truncate(mot, end)
    return highest


def _truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)
