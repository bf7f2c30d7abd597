"""Tracking: the same object keeps one number through a stream.

One small protocol, and ByteTrack (arXiv:2110.06864) in numpy behind it. Knows no images and no
video; a tracker belongs to one stream and one thread.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from engineworks.runtime.assignment import assign
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


#: Pixels. No picture reaches so far.
FAR = 1e6

#: Weaker detections are not looked at.
WEAKEST = 0.1

#: Largest cost of the second association (weak boxes) and of the third (tracks of one frame).
WEAK_LIMIT, FRESH_LIMIT = 0.5, 0.7

#: Overlap from which a lost and a followed track are one object.
SAME = 0.85

#: Standard deviations of position and of speed, in heights of the box (arXiv:1703.07402), and those
#: of the aspect ratio, which are in no unit.
POSITION, SPEED = 1 / 20, 1 / 160
ASPECT, ASPECT_SPEED, ASPECT_MEASURED = 1e-2, 1e-5, 1e-1


@dataclass(kw_only=True)
class _Tracks:
    """All tracks, a row each.

    The filter's motion couples a coordinate with its own speed alone, and its noise couples
    nothing, so its covariance of 8 by 8 is four of 2 by 2: variance, covariance with the speed, and
    the speed's variance, of centre x, centre y, aspect (width / height) and height.
    """

    at: Array
    speed: Array
    variance: Array
    coupling: Array
    speed_variance: Array
    class_id: Array
    number: Array
    """0 until a second frame has confirmed it."""
    confirmed: Array
    lost: Array
    seen: Array
    started: Array

    def select(self, which: Array) -> _Tracks:
        return _Tracks(**{each.name: getattr(self, each.name)[which] for each in fields(self)})

    def joined(self, other: _Tracks) -> _Tracks:
        return _Tracks(
            **{
                each.name: np.concatenate([getattr(self, each.name), getattr(other, each.name)])
                for each in fields(self)
            }
        )

    def predict(self, which: Array) -> None:
        """One frame on, for some of them. The height of a lost one stays what it was."""
        self.speed[which & self.lost, 3] = 0
        steps = _noise(self.at[which, 3], POSITION, ASPECT)
        speeds = _noise(self.at[which, 3], SPEED, ASPECT_SPEED)
        self.at[which] += self.speed[which]
        coupling, speed_variance = self.coupling[which], self.speed_variance[which]
        self.variance[which] += 2 * coupling + speed_variance + steps
        self.coupling[which] = coupling + speed_variance
        self.speed_variance[which] = speed_variance + speeds

    def update(self, rows: Array, measured: Array, frame: int) -> None:
        """Boxes were found for some of them: rows (k,), measured (k, 4) as `at`."""
        variance, coupling = self.variance[rows], self.coupling[rows]
        spread = variance + _noise(self.at[rows, 3], POSITION, ASPECT_MEASURED)
        gain, speed_gain = variance / spread, coupling / spread
        surprise = measured - self.at[rows]
        self.at[rows] += gain * surprise
        self.speed[rows] += speed_gain * surprise
        self.variance[rows] = variance - gain * variance
        self.coupling[rows] = coupling - gain * coupling
        self.speed_variance[rows] -= speed_gain * coupling
        self.seen[rows], self.lost[rows], self.confirmed[rows] = frame, False, True

    @property
    def corners(self) -> Array:
        """(n, 4): left, top, right, bottom."""
        half = np.stack([self.at[:, 2] * self.at[:, 3], self.at[:, 3]], axis=1) / 2
        return np.concatenate([self.at[:, :2] - half, self.at[:, :2] + half], axis=1)


def _born(measured: Array, class_id: Array, frame: int, confirmed: bool) -> _Tracks:
    n = len(measured)
    return _Tracks(
        at=measured.copy(),
        speed=np.zeros((n, 4)),
        variance=_noise(measured[:, 3], 2 * POSITION, ASPECT),
        coupling=np.zeros((n, 4)),
        speed_variance=_noise(measured[:, 3], 10 * SPEED, ASPECT_SPEED),
        class_id=class_id.copy(),
        number=np.zeros(n, np.int64),
        confirmed=np.full(n, confirmed),
        lost=np.zeros(n, bool),
        seen=np.full(n, frame),
        started=np.full(n, frame),
    )


def _noise(height: Array, of_height: float, of_aspect: float) -> Array:
    """Variances (n, 4): of lengths by the box's height, of the aspect ratio by itself."""
    noise = np.repeat(((of_height * height) ** 2)[:, None], 4, axis=1)
    noise[:, 2] = of_aspect**2
    return noise


def _overlap(boxes: Array, other: Array) -> Array:
    """Intersection over union (n, m); sides count their last pixel, as ByteTrack's do."""
    left, top, right, bottom = boxes.T
    other_left, other_top, other_right, other_bottom = other.T
    width = np.minimum(right[:, None], other_right) - np.maximum(left[:, None], other_left) + 1
    height = np.minimum(bottom[:, None], other_bottom) - np.maximum(top[:, None], other_top) + 1
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area = (right - left + 1) * (bottom - top + 1)
    other_area = (other_right - other_left + 1) * (other_bottom - other_top + 1)
    return np.asarray(shared / np.maximum(area[:, None] + other_area - shared, 1e-9))


class ByteTrack:
    """ByteTrack for one stream, each class for itself; what it remembers is bounded.

    As in the original, a pair whose cost is above the limit takes no part in an association: it
    cannot push a better one aside.

    Args:
        fps: Frames per second, which scale how long a lost track is remembered.
        high: Confidence from which a box is associated first; a new track needs `high` + 0.1.
        lost_s: Seconds for which a lost track is remembered.
        match: Largest cost (1 - IoU * confidence) of the first association.
        first_id: Number of the first track, above 1 when a stream is resumed.
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
        self._high, self._match = high, match
        self._lost_frames = max(1, round(fps * lost_s))
        self._next_id = first_id
        self._frame = 0
        self._tracks = _born(np.zeros((0, 4)), np.zeros(0, np.int64), 0, confirmed=False)

    @property
    def next_id(self) -> int:
        """Number that the next new track will get."""
        return self._next_id

    def update(self, detections: Detections) -> Detections:
        """See `Tracker.update`."""
        self._frame += 1
        boxes = detections.xyxy.astype(np.float64)
        score = detections.confidence.astype(np.float64)
        sides = boxes[:, 2:] - boxes[:, :2]
        # A box without area has no aspect ratio; one beyond FAR is out of a broken engine.
        usable = (sides > 0).all(axis=1) & (np.abs(boxes) < FAR).all(axis=1) & np.isfinite(score)
        strong = np.flatnonzero(usable & (score > self._high))
        weak = np.flatnonzero(usable & (score > WEAKEST) & (score <= self._high))
        frame = _Frame(boxes, sides, score, detections.class_id, np.full(len(boxes), -1))
        tracks = self._tracks
        known, fresh = np.flatnonzero(tracks.confirmed), np.flatnonzero(~tracks.confirmed)
        tracks.predict(tracks.confirmed)
        left, strong = self._associate(frame, known, strong, self._match, fuse=True)
        left, _ = self._associate(frame, left[~tracks.lost[left]], weak, WEAK_LIMIT, fuse=False)
        tracks.lost[left] = True
        dropped, strong = self._associate(frame, fresh, strong, FRESH_LIMIT, fuse=True)
        self._begin(frame, strong[score[strong] >= self._high + 0.1])
        keep = self._frame - self._tracks.seen <= self._lost_frames
        keep[dropped] = False
        self._forget(frame, keep)
        return self._answer(detections, frame)

    def _associate(
        self, frame: _Frame, rows: Array, which: Array, limit: float, *, fuse: bool
    ) -> tuple[Array, Array]:
        """Tracks `rows` with boxes `which`, updated; those of either that stay alone."""
        if not len(rows) or not len(which):
            return rows, which
        tracks = self._tracks
        similar = _overlap(tracks.corners[rows], frame.boxes[which])
        if fuse:
            similar *= frame.score[which]
        gain = similar - (1 - limit)
        gain[tracks.class_id[rows][:, None] != frame.class_id[which][None]] = 0
        pairs = assign(gain)
        if not pairs:
            return rows, which
        taken, matched = np.array(pairs).T
        index = which[matched]
        measured = _measured(frame.boxes[index], frame.sides[index])
        tracks.update(rows[taken], measured, self._frame)
        frame.track[index] = rows[taken]
        return np.delete(rows, taken), np.delete(which, matched)

    def _begin(self, frame: _Frame, which: Array) -> None:
        """New tracks for boxes that belong to none."""
        if not len(which):
            return
        frame.track[which] = len(self._tracks.seen) + np.arange(len(which))
        measured = _measured(frame.boxes[which], frame.sides[which])
        first = self._frame == 1
        born = _born(measured, frame.class_id[which], self._frame, confirmed=first)
        self._tracks = self._tracks.joined(born)

    def _forget(self, frame: _Frame, keep: Array) -> None:
        """Drop tracks, among them the shorter lived of a lost and a followed one in one place."""
        tracks = self._tracks
        lost = np.flatnonzero(keep & tracks.lost)
        live = np.flatnonzero(keep & ~tracks.lost)
        if len(lost) and len(live):
            corners = tracks.corners
            same = _overlap(corners[live], corners[lost]) > SAME
            same &= tracks.class_id[live][:, None] == tracks.class_id[lost][None]
            age = tracks.seen - tracks.started
            for row, column in zip(*np.nonzero(same), strict=True):
                followed, other = live[row], lost[column]
                keep[other if age[followed] > age[other] else followed] = False
        if keep.all():
            return
        moved = np.where(keep, np.cumsum(keep) - 1, -1)
        tracked = frame.track >= 0
        frame.track[tracked] = moved[frame.track[tracked]]
        self._tracks = tracks.select(keep)

    def _answer(self, detections: Detections, frame: _Frame) -> Detections:
        tracks = self._tracks
        kept = np.flatnonzero(frame.track >= 0)
        kept = kept[tracks.confirmed[frame.track[kept]]]
        rows = frame.track[kept]
        for row in rows[tracks.number[rows] == 0]:
            tracks.number[row] = self._next_id
            self._next_id += 1
        chosen = detections if len(kept) == len(detections) else detections.select(kept)
        return replace(chosen, track_id=tracks.number[rows])


@dataclass(frozen=True)
class _Frame:
    """One frame's boxes (n, 4), their width and height, and the track of each, or -1."""

    boxes: Array
    sides: Array
    score: Array
    class_id: Array
    track: Array


def _measured(boxes: Array, sides: Array) -> Array:
    """Boxes as a track holds them: centre x, centre y, width / height, height."""
    aspect: Any = sides[:, :1] / sides[:, 1:]
    return np.concatenate([boxes[:, :2] + sides / 2, aspect, sides[:, 1:]], axis=1)
