"""Tracking: the same object keeps one number through a stream.

One small protocol, ByteTrack (arXiv:2110.06864) behind it by way of the package `pyxtrackers`.
Knows no images and no video; a tracker belongs to one stream and one thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from engineworks.errors import MissingDependency
from engineworks.runtime.detections import Array, Detections


class Tracker(Protocol):
    """Gives detections of consecutive frames their track ids."""

    def update(self, detections: Detections) -> Detections:
        """Take the next frame's detections.

        Args:
            detections: Of one frame. Weak ones (confidence from 0.1) help to hold a track.

        Returns:
            Those that belong to a track, in the given order, with `track_id` >= 1.
        """
        ...


#: Boxes of different classes are moved apart by this many pixels, so that they never overlap.
_CLASS_OFFSET_PX = 1e5

#: Makes equal scores differ, so that a score names its detection: far below the distance of
#: neighbouring float32 scores above 0.1 (7e-9) for 1000 detections.
_SCORE_STEP = 1e-12

#: Births after which a generation is replaced.
_GENERATION = 256


class ByteTrack:
    """ByteTrack for one stream: class-aware, bounded memory, ids mapped back to detections.

    The package tells neither which detection a track took nor its class, and keeps every track
    it ever dropped (its `removed_stracks`: memory and time per frame grow without end). So
    classes are moved apart, the score carries the detection's index through the tracker, and a
    tracker that has seen many births is replaced by a successor that first runs beside it, until
    both know the same objects.

    Args:
        fps: Frames per second, which scale how long a lost track is remembered.
        high: Confidence from which a box is associated first; a new track needs `high` + 0.1.
        lost_s: Seconds for which a lost track is remembered.
        match: Largest cost (1 - IoU * confidence) of the first association.
        first_id: Number of the first track, above 1 when a stream is resumed.

    Raises:
        MissingDependency: The package is not installed.
    """

    def __init__(
        self,
        *,
        fps: float = 30.0,
        high: float = 0.5,
        lost_s: float = 1.0,
        match: float = 0.8,
        first_id: int = 1,
    ) -> None:
        self._lost_frames = max(1, round(fps * lost_s))
        self._options = {
            "track_thresh": high,
            "match_thresh": match,
            "track_buffer": self._lost_frames,
            "frame_rate": 30,  # the package scales its buffer by frame_rate / 30
        }
        self._next_id = first_id
        self._current = self._tracker()
        self._successor: Any = None
        self._overlap = 0
        # The package's number -> ours, of the current tracker and of its successor.
        self._ids: dict[int, int] = {}
        self._later_ids: dict[int, int] = {}

    @property
    def next_id(self) -> int:
        """Number that the next new track will get."""
        return self._next_id

    def update(self, detections: Detections) -> Detections:
        """See `Tracker.update`."""
        rows = self._rows(detections)
        ids = {row: self._id(number) for row, number in _associate(self._current, rows).items()}
        if self._successor is not None or self._current.track_id_counter >= _GENERATION:
            self._renew(rows, ids)
        kept = sorted(ids)
        numbers = np.array([ids[row] for row in kept], np.int64)
        # As a rule all of them: then there is nothing to choose.
        chosen = detections if len(kept) == len(rows) else detections.select(np.array(kept, int))
        return Detections(
            xyxy=chosen.xyxy,
            confidence=chosen.confidence,
            class_id=chosen.class_id,
            track_id=numbers,
        )

    def _rows(self, detections: Detections) -> Array:
        """float64 (n, 5): x1, y1, x2, y2 with classes apart, and a score that names its row."""
        rows = np.empty((len(detections), 5))
        rows[:, :4] = detections.xyxy
        rows[:, 4] = detections.confidence
        # A box without area has no aspect ratio, which the Kalman filter divides by.
        size = rows[:, 2:4] - rows[:, :2]
        if not (size > 0).all() or not np.isfinite(size).all():
            rows[~((size > 0) & np.isfinite(size)).all(axis=1)] = (0, 0, 1, 1, 0)
        rows[:, 0:3:2] += (detections.class_id * _CLASS_OFFSET_PX)[:, None]
        rows[:, 4] += _steps(len(rows))
        return rows

    def _id(self, number: int) -> int:
        known = self._ids.get(number)
        if known is None:
            known = self._ids[number] = self._next_id
            self._next_id += 1
        return known

    def _renew(self, rows: Array, ids: dict[int, int]) -> None:
        if self._successor is None:
            self._successor, self._overlap, self._later_ids = self._tracker(), 0, {}
        for index, number in _associate(self._successor, rows).items():
            if index in ids:
                self._later_ids[number] = ids[index]
        self._overlap += 1
        # Whatever the old one still remembers was seen within this time, by both.
        if self._overlap > self._lost_frames + 1:
            latest = {ours: number for number, ours in self._later_ids.items()}
            self._ids = {number: ours for ours, number in latest.items()}
            self._current, self._successor = self._successor, None

    def _tracker(self) -> Any:
        try:
            from pyxtrackers.bytetrack.bytetrack import BYTETracker
        except ModuleNotFoundError as error:
            raise MissingDependency(
                "tracking needs the package 'pyxtrackers'", hint="pip install 'engineworks[video]'"
            ) from error
        return BYTETracker(**self._options)


@lru_cache(maxsize=1024)
def _steps(count: int) -> Array:
    return np.arange(count) * _SCORE_STEP


def _associate(tracker: Any, rows: Array) -> dict[int, int]:
    """Row index -> the package's track number, of the confirmed tracks seen in this frame."""
    tracker.update(rows)
    index = {score: row for row, score in enumerate(rows[:, 4].tolist())}
    return {
        index[track.score]: track.track_id
        for track in tracker.tracked_stracks
        if track.is_activated
    }
