"""What the answers to the same frames say so far: scores, the test, what changed.

Knows no engine and no stream: answers in, figures out. Threads may share one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from engineworks.evaluate.frame_scores import FrameScores, Rows
from engineworks.evaluate.sequential import Decision, Interval, SequentialTest
from engineworks.facts.shadow import ShadowAgreement

#: Observations of a stream before which none decides: a stretch that is bad from its first frame to
#: its last has no neighbours that would show how alike they are.
FEWEST = 30

#: Frames that the metric of all of them is computed of: some 5 kB each.
POOLED = 1000


@dataclass(frozen=True, kw_only=True)
class AnsweredFrame:
    """One frame that champion and candidate have answered."""

    champion: Rows
    candidate: Rows
    truth: Rows | None
    """What is true of it; None: nobody knows."""
    timed: bool
    """Whether its neighbours are moments of one stream."""
    source: int
    """Number of the source that it came from."""
    time_s: float
    """By the clock of its source."""


class AnswerComparison:
    """Takes frames in their order, makes observations of them, and tests those.

    Args:
        scores: How answers of this task are scored.
        judged: Whether frames come with what is true of them.
        block_s: Frames of so many seconds of a stream are one observation; 0: each is its own.
        max_drop: See `SequentialTest`.
    """

    def __init__(
        self, scores: FrameScores, *, judged: bool, block_s: float, max_drop: float | None
    ) -> None:
        self.scores, self.judged, self.block_s = scores, judged, block_s
        self.max_drop = max_drop
        self.compared = 0
        self.decided_frame: int | None = None
        self._test = SequentialTest(max_drop)
        self._changes = SequentialTest()
        self._block: list[AnsweredFrame] = []
        self._place: tuple[int, int] | None = None
        self._totals = [0.0, 0.0]
        self._counts = dict.fromkeys(("frames", "matched", "lost", "gained", "moved"), 0)
        self._shift_sum = self._largest_shift = 0.0
        self._matches: list[tuple[Any, Any]] = []
        self._lock = threading.Lock()

    def add(self, frame: AnsweredFrame) -> None:
        """Take the next frame; what comes after a decision changes nothing."""
        with self._lock:
            if self.decided_frame is not None:
                return
            grouped = frame.timed and self.block_s > 0
            place = (frame.source, int(frame.time_s // self.block_s)) if grouped else None
            if self._block and (place is None or place != self._place):
                self._close()
            if self.decided_frame is not None:
                return
            self._place = place
            self._block.append(frame)
            self.compared += 1
            if place is None:
                self._close()

    def finish(self) -> None:
        """No frame follows: those that wait for their observation to be whole are one."""
        with self._lock:
            if self._block and self.decided_frame is None:
                self._close()

    def _close(self) -> None:
        block, self._block = self._block, []
        changes = [self.scores.change(frame.champion, frame.candidate) for frame in block]
        self._changes.add(sum(change.visible for change in changes) / len(changes))
        for change in changes:
            self._counts["frames"] += change.visible
            for name in ("matched", "lost", "gained", "moved"):
                self._counts[name] += getattr(change, name)
            self._shift_sum += sum(change.shifts)
            self._largest_shift = max(self._largest_shift, *map(abs, change.shifts), 0.0)
        if not self.judged:
            return
        truths = [frame.truth or [] for frame in block]
        champion = self.scores.score([frame.champion for frame in block], truths)
        candidate = self.scores.score([frame.candidate for frame in block], truths)
        self._totals[0] += champion
        self._totals[1] += candidate
        self._test.add(candidate - champion)
        if self.scores.pooled and len(self._matches) < POOLED:
            self._matches += [
                (
                    self.scores.match(frame.champion, frame.truth or []),
                    self.scores.match(frame.candidate, frame.truth or []),
                )
                for frame in block
            ]
        few = block[0].timed and self._test.count < FEWEST
        if self._test.decision and not few:
            self.decided_frame = self.compared

    @property
    def decision(self) -> Decision:
        """What has been decided; empty: nothing yet."""
        return self._test.decision if self.decided_frame is not None else ""

    @property
    def observations(self) -> int:
        """How many the test has seen."""
        return self._changes.count

    @property
    def correlation(self) -> float:
        """Of neighbouring observations, -1..1."""
        return (self._test if self.judged else self._changes).correlation

    @property
    def alike(self) -> bool:
        """Whether neighbours are too much alike for a decision."""
        return (self._test if self.judged else self._changes).alike

    @property
    def mean_scores(self) -> tuple[float, float] | None:
        """Of champion and candidate; None where nothing judges, or nothing came."""
        with self._lock:
            if not self.judged or not self._test.count:
                return None
            return self._totals[0] / self._test.count, self._totals[1] / self._test.count

    def pooled(self) -> tuple[float, float] | None:
        """The metric of all frames together, of champion and candidate; None: there is no other.

        Of the first POOLED frames.
        """
        with self._lock:
            if not self._matches:
                return None
            champion, candidate = zip(*self._matches, strict=True)
            return self.scores.pool(champion), self.scores.pool(candidate)

    def interval(self) -> Interval | None:
        """Of candidate - champion; None where nothing judges."""
        with self._lock:
            return self._test.interval() if self.judged else None

    def needed(self) -> int:
        """About how many more compared frames would bring a decision; see `SequentialTest`."""
        with self._lock:
            if not self.judged or not self._test.count or self._test.alike:
                return 0
            more = self._test.needed()
            if more and self._place is not None:
                more = max(more, FEWEST - self._test.count)
            return round(more * self.compared / self._test.count)

    def agreement(self) -> ShadowAgreement:
        """What the two see differently so far."""
        with self._lock:
            if not self._changes.count:
                return ShadowAgreement()
            interval, counts = self._changes.interval(), self._counts
            counted = self.compared - len(self._block)
            return ShadowAgreement(
                **counts,
                objects=self.scores.objects,
                share=counts["frames"] / counted,
                share_interval=(max(0.0, interval.low), interval.high),
                mean_shift=self._shift_sum / counts["matched"] if counts["matched"] else 0.0,
                largest_shift=self._largest_shift,
            )
