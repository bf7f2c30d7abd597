"""ByteTrack written plainly from its paper (arXiv:2110.06864), to measure the runtime's against.

One object per track, an 8-state Kalman filter (centre, aspect, height and their speeds) in full
matrices, SciPy's assignment. One class. Knows nothing of the runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

MOTION = np.eye(8) + np.eye(8, k=4)
SEEN = np.eye(4, 8)
#: Standard deviations in units of the box's height, as DeepSORT set them (arXiv:1703.07402).
POSITION, SPEED = 1 / 20, 1 / 160


class Track:
    """One object: its filter, its number, when it was last seen and as which box of that frame."""

    def __init__(self, box: Any, score: float, number: int, frame: int, row: int) -> None:
        self.row = row
        self.number, self.score, self.seen, self.started = number, score, frame, frame
        self.confirmed, self.lost = frame == 1, False
        self.mean = np.concatenate([_measure(box), np.zeros(4)])
        h = self.mean[3]
        std = [2 * POSITION * h] * 2 + [1e-2, 2 * POSITION * h]
        std += [10 * SPEED * h] * 2 + [1e-5, 10 * SPEED * h]
        self.covariance = np.diag(np.square(std))

    def predict(self) -> None:
        """One frame on."""
        if self.lost:
            self.mean[7] = 0
        h = self.mean[3]
        std = [POSITION * h] * 2 + [1e-2, POSITION * h] + [SPEED * h] * 2 + [1e-5, SPEED * h]
        self.mean = MOTION @ self.mean
        self.covariance = MOTION @ self.covariance @ MOTION.T + np.diag(np.square(std))

    def update(self, box: Any, score: float, frame: int) -> None:
        """A box was found for it."""
        h = self.mean[3]
        noise = np.diag(np.square([POSITION * h, POSITION * h, 1e-1, POSITION * h]))
        innovation = SEEN @ self.covariance @ SEEN.T + noise
        gain = np.linalg.solve(innovation, SEEN @ self.covariance).T
        self.mean = self.mean + gain @ (_measure(box) - SEEN @ self.mean)
        self.covariance = self.covariance - gain @ innovation @ gain.T
        self.score, self.seen, self.confirmed, self.lost = score, frame, True, False

    @property
    def box(self) -> Any:
        """Left, top, right, bottom."""
        x, y, aspect, h = self.mean[:4]
        return np.array([x - aspect * h / 2, y - h / 2, x + aspect * h / 2, y + h / 2])


class PlainByteTrack:
    """The two association stages of the paper; `update` gives ids (n,) and boxes (n, 4)."""

    def __init__(self, *, high: float = 0.6, match: float = 0.8, lost_frames: int = 30) -> None:
        self.high, self.match, self.lost_frames = high, match, lost_frames
        self.tracks: list[Track] = []
        self.frame = self.count = 0

    def update(self, boxes: Any, scores: Any) -> tuple[Any, Any]:
        """Take one frame's boxes (n, 4) and scores (n,)."""
        self.frame += 1
        strong = np.flatnonzero(scores > self.high)
        weak = np.flatnonzero((scores > 0.1) & (scores <= self.high))
        pool = [track for track in self.tracks if track.confirmed]
        fresh = [track for track in self.tracks if not track.confirmed]
        for track in pool:
            track.predict()
        left, strong = self._pair(pool, boxes, scores, strong, self.match, fuse=True)
        left = [track for track in left if not track.lost]
        left, _ = self._pair(left, boxes, scores, weak, 0.5, fuse=False)
        for track in left:
            track.lost = True
        dropped, strong = self._pair(fresh, boxes, scores, strong, 0.7, fuse=True)
        for index in strong:
            if scores[index] >= self.high + 0.1:
                self.count += 1
                self.tracks.append(
                    Track(boxes[index], scores[index], self.count, self.frame, int(index))
                )
        self.tracks = [
            track for track in self.tracks
            if track not in dropped and self.frame - track.seen <= self.lost_frames
        ]  # fmt: skip
        self._merge()
        shown = [track for track in self.tracks if track.confirmed and not track.lost]
        ids = np.array([track.number for track in shown], int)
        return ids, np.array([track.box for track in shown]).reshape(-1, 4)

    def _pair(
        self, tracks: list[Track], boxes: Any, scores: Any, which: Any, limit: float, *, fuse: bool
    ) -> tuple[list[Track], Any]:
        if not tracks or not len(which):
            return tracks, which
        similarity = overlap(np.array([track.box for track in tracks]), boxes[which])
        if fuse:
            similarity = similarity * scores[which]
        cost = 1 - similarity
        # Above the limit a pair costs as much as staying alone.
        rows, columns = linear_sum_assignment(np.minimum(cost, limit + 1e-6))
        good = cost[rows, columns] <= limit
        for row, column in zip(rows[good], columns[good], strict=True):
            index = which[column]
            tracks[row].update(boxes[index], scores[index], self.frame)
            tracks[row].row = int(index)
        alone = set(range(len(tracks))) - set(rows[good].tolist())
        return [tracks[row] for row in sorted(alone)], np.delete(which, columns[good])

    def _merge(self) -> None:
        """Of a lost and a tracked one on the same place the longer lived stays."""
        lost = [track for track in self.tracks if track.lost]
        active = [track for track in self.tracks if not track.lost]
        if not lost or not active:
            return
        same = overlap(np.array([t.box for t in active]), np.array([t.box for t in lost])) > 0.85
        gone = set()
        for row, column in zip(*np.nonzero(same), strict=True):
            older = (
                active[row].seen - active[row].started > lost[column].seen - lost[column].started
            )
            gone.add(id(lost[column] if older else active[row]))
        self.tracks = [track for track in self.tracks if id(track) not in gone]


def overlap(one: Any, other: Any) -> Any:
    """Intersection over union (n, m); sides count their last pixel, as in the original."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.maximum(high - low + 1, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def _measure(box: Any) -> Any:
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + width / 2, box[1] + height / 2, width / height, height])
