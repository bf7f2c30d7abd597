"""The loop of a shadow run: every frame to the champion, sampled ones to the candidate, too.

Ends when a decision falls, when enough frames were compared, with the sources, or when it is
asked to; what it found is a `ShadowRecord` in any case. Knows no terminal and no file.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engineworks.errors import ArtifactError
from engineworks.evaluate.frame_scores import Rows
from engineworks.shadow.comparison import AnswerComparison, AnsweredFrame
from engineworks.shadow.lane import Lane
from engineworks.shadow.material import Material, ShadowFrame
from engineworks.shadow.side import ShadowSide

WhyEnded = Literal["decided", "frames", "source", "stopped", "failed"]

#: Frames beside the candidate after which the champion's delay is judged, and frames alone before
#: and after them that it is held against: what else slows the machine slows both.
_FEWEST, _ALONE = 20, 10

#: Frames for which the candidate rests when the champion has become slower than allowed.
_REST = 50

#: Frames up to which one alone is a neighbour.
_NEAR = 5

#: Milliseconds that are kept for the record, of each kind.
_KEPT = 5000


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames the candidate gets."""

    every: int = 1
    """Every so many frames one."""
    share: float = 1.0
    """Or each with this chance, by a generator of fixed seed."""
    frames: int | None = None
    """Compared frames after which it ends; None: when something else ends it."""
    max_delay: float | None = None
    """Share by which the champion's median may grow beside the candidate; None: any."""


class ShadowRun:
    """Champion, lane and comparison, joined.

    Args:
        champion: The engine in use.
        material: The frames.
        sampling: Which of them are compared.
        open_lane: Starts the candidate's process, given who takes its answers.
        comparison: Takes them.
    """

    def __init__(
        self,
        champion: ShadowSide,
        material: Material,
        sampling: Sampling,
        open_lane: Callable[[Callable[[Any, dict[str, Any]], None]], Lane],
        comparison: AnswerComparison,
    ) -> None:
        self.champion, self.material, self.sampling = champion, material, sampling
        self.comparison = comparison
        self.counts = dict.fromkeys(
            ("seen", "sampled", "over_share", "busy", "held_back", "unanswered"), 0
        )
        self.alone_ms: deque[float] = deque(maxlen=_KEPT)
        self.beside_ms: deque[float] = deque(maxlen=_KEPT)
        self.reference_errors = 0
        self.last_error = ""
        """What the candidate said last when it did not answer."""
        self.why_ended: WhyEnded = "source"
        self.decided_at: float | None = None
        """Time of the decision, in seconds since the epoch."""
        self._rest = 0
        self._spent: deque[tuple[float, bool]] = deque(maxlen=_KEPT)
        self._before: deque[float] = deque(maxlen=_ALONE)
        self._burst: list[float] = []
        self._after: list[float] | None = None
        self._chance = random.Random(0)  # noqa: S311 - which frames, no secret
        self.lane = open_lane(self._take)

    def run(self) -> None:
        """Until it ends; `why_ended` says why. An interruption rises through it."""
        self.why_ended = "stopped"
        for entry in self.material:
            ended = self._step(entry)
            if ended:
                self.why_ended = ended
                break
        else:
            self.why_ended = "source"
        self.lane.finish()
        self._fail()
        if not self.lane.broken:
            self.comparison.finish()
            self._note_decision()
            if self.comparison.decision:
                self.why_ended = "decided"

    def _step(self, entry: ShadowFrame) -> WhyEnded | None:
        beside = self.lane.working
        begin = time.perf_counter()
        answer = self.champion(entry.frame.pixels)
        self._timed((time.perf_counter() - begin) * 1e3, beside or self.lane.working)
        self.counts["seen"] += 1
        if self._sampled():
            self._offer(entry, answer)
        self._fail()
        if self.lane.broken:
            return "failed"
        if self.comparison.decision:
            return "decided"
        limit = self.sampling.frames
        return "frames" if limit is not None and self.comparison.compared >= limit else None

    def _timed(self, spent_ms: float, beside: bool) -> None:
        (self.beside_ms if beside else self.alone_ms).append(spent_ms)
        self._spent.append((spent_ms, beside))
        if self.sampling.max_delay is not None:
            self._watch(spent_ms, beside)

    def _watch(self, spent_ms: float, beside: bool) -> None:
        """Frames alone, then beside, then alone again; then one knows what it costs."""
        if beside:
            self._burst.append(spent_ms)
            if len(self._burst) >= _FEWEST and self._after is None:
                self._after = []
        elif self._after is None:
            self._before.append(spent_ms)
        else:
            self._after.append(spent_ms)
            if len(self._after) >= _ALONE:
                self._judge(self.sampling.max_delay or 0.0, self._after)

    def _judge(self, most: float, after: list[float]) -> None:
        alone = statistics.median([*self._before, *after])
        if statistics.median(self._burst) > (1 + most) * alone:
            self._rest = _REST
        self._before.extend(after)
        self._burst, self._after = [], None

    @property
    def _resting(self) -> bool:
        if self.sampling.max_delay is None:
            return False
        return self._rest > 0 or self._after is not None or len(self._before) < _ALONE

    def _sampled(self) -> bool:
        if self.sampling.share < 1:
            return self._chance.random() < self.sampling.share
        return (self.counts["seen"] - 1) % self.sampling.every == 0

    def _offer(self, entry: ShadowFrame, answer: Rows) -> None:
        self.counts["sampled"] += 1
        if self._resting:
            self._rest = max(0, self._rest - 1)
            self.counts["held_back"] += 1
            return
        taken = self.lane.offer((entry, answer), entry.frame, wait=not self.material.live)
        if taken != "taken":
            self.counts[taken] += 1
        elif self.sampling.frames is not None and not self.material.live:
            self.lane.finish()  # not a frame more than was asked for

    def _take(self, ticket: tuple[ShadowFrame, Rows], said: dict[str, Any]) -> None:
        """On the lane's thread: what the candidate's process says of a frame."""
        entry, answer = ticket
        truth = entry.truth
        if "reference" in said:
            if said["reference"] is None:
                self.reference_errors += 1
                if self.reference_errors >= _FEWEST and not self.comparison.compared:
                    raise ArtifactError(
                        f"the reference answers no frame: {said['reference_error']}",
                        hint="give another engine or ONNX file for --reference",
                    )
                return
            truth = self.champion.scores.as_truth(said["reference"])
        if said["candidate"] is None:
            self.counts["unanswered"] += 1
            self.last_error = said["candidate_error"]
        self.comparison.add(
            AnsweredFrame(
                champion=answer, candidate=said["candidate"] or [], truth=truth,
                timed=entry.timed, source=entry.source, time_s=entry.frame.time_s,
            )
        )  # fmt: skip
        self._note_decision()

    def _note_decision(self) -> None:
        if self.comparison.decision and self.decided_at is None:
            self.decided_at = time.time()

    def _fail(self) -> None:
        if self.lane.failure is not None:
            raise self.lane.failure

    def growth(self) -> float | None:
        """How many times as long the champion takes beside the candidate; None: too few frames.

        The median over frames beside it, each against the nearest ones alone before and after: what
        else slows the machine for a while slows both.
        """
        spent = list(self._spent)
        before = _nearest_alone(spent)
        after = _nearest_alone(spent[::-1])[::-1]
        ratios = [
            2 * ms / (one + other)
            for (ms, beside), one, other in zip(spent, before, after, strict=True)
            if beside and one is not None and other is not None
        ]
        return statistics.median(ratios) if len(ratios) >= _FEWEST else None

    def close(self) -> None:
        """End the candidate's process."""
        self.material.stop.set()
        self.lane.close()


def _nearest_alone(spent: Sequence[tuple[float, bool]]) -> list[float | None]:
    """For each frame the time of the last one alone up to it, if it is near."""
    nearest: list[float | None] = []
    last, age = 0.0, _NEAR + 1
    for ms, beside in spent:
        last, age = (last, age + 1) if beside else (ms, 0)
        nearest.append(last if age <= _NEAR else None)
    return nearest
