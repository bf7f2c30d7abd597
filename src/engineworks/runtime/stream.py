"""One stream on its way through a shared engine: read and prepare, track and draw, write.

Each of the three has a thread; inference is the pipeline's. Whatever fails, frames that were
inferred before are written and every output is finished. Knows no other stream.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np

from engineworks.errors import EngineworksError
from engineworks.runtime.batching import FairQueue
from engineworks.runtime.detections import Array, Detections
from engineworks.runtime.metrics import Recorder
from engineworks.runtime.predictor import Predictor
from engineworks.runtime.preprocess import Placement
from engineworks.runtime.session import Tensors
from engineworks.runtime.sinks import Closed, Sink
from engineworks.runtime.sources import Frame, Source
from engineworks.runtime.tracking import Tracker

log = logging.getLogger(__name__)

#: whole: read to its end. stopped: somebody asked for it. lost: the source broke off. failed: it
#: could not be opened or read, an output could not be written, or the engine failed.
Outcome = Literal["whole", "stopped", "lost", "failed"]

#: A file that ends before this share of the frames its header tells of has been cut.
_CUT = 0.9


@dataclass(frozen=True, kw_only=True)
class StreamJob:
    """What is to be done with one source. Everything is opened when its turn comes."""

    name: str
    open: Callable[[threading.Event], Source]
    """Opens the source; the event, once set, ends its waits."""
    sinks: Callable[[Source], Sequence[Sink]]
    """Opens the outputs."""
    source: str = ""
    """Its address, without a password; for the report."""
    outputs: tuple[str, ...] = ()
    """The files that are written; for the report."""
    tracker: Callable[[float], Tracker] | None = None
    """Makes the tracker, given the source's frames per second."""
    overlay: bool = False
    """Draw the rate of frames, and each name with its track's number and its confidence."""
    resumed: bool = False
    """It goes on where an earlier run stopped, so that nothing may be left to do."""


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """How a stream went."""

    name: str
    outcome: Outcome
    reason: str
    """Why it did not end whole; empty when it did."""
    frames: int
    """Frames that went through to every output."""
    expected_frames: int | None
    dropped: int
    """Frames of a live source that were left out for newer ones."""
    damaged: int
    """Packets or images that could not be decoded."""
    reconnects: int
    detections: int
    tracks: int
    source_s: float
    """Source time from the first to the last frame."""
    elapsed_s: float
    fps: float
    """Frames through the pipeline per second of wall time."""
    stages_ms: dict[str, float]
    """Mean time of each stage for one frame; stages run side by side."""
    notes: tuple[str, ...] = ()
    source: str = ""
    """Address that was read."""
    outputs: tuple[str, ...] = ()
    """Files that were written, or would have been."""


#: Of the frames of one stream that wait or are under way; smaller ones are held back by their
#: number long before.
_MOST_BYTES = 2**28

#: Takes the place of a row that the engine has seen: rows are large, and no longer needed.
_NO_ROW = np.zeros(0, np.float32)


@dataclass(kw_only=True)
class Work:
    """A frame on its way."""

    frame: Frame
    row: Array
    placement: Placement
    ms: dict[str, float]
    turn: int = 0
    """Place among the stream's frames that the engine took: workers may finish out of order."""
    outputs: Tensors = field(default_factory=dict)
    answer: Any = None
    """What the task's head makes of the outputs."""


class Stream:
    """Runs one job. `run` belongs to the reading thread, `deliver` to the inferring one."""

    def __init__(
        self,
        job: StreamJob,
        predictor: Predictor[Any],
        queue: FairQueue[Stream, Work],
        recorder: Recorder,
    ) -> None:
        self.job = job
        self._predictor, self._queue, self._recorder = predictor, queue, recorder
        self.turns = itertools.count()
        """Numbers the frames that the engine takes; used by the pipeline."""
        self._halt = threading.Event()
        self._inferred: SimpleQueue[Work | None] = SimpleQueue()
        self._finished: SimpleQueue[Work | None] = SimpleQueue()
        self._tracker: Tracker | None = None
        self._sinks: Sequence[Sink] = ()
        self._source: Source | None = None
        self._error: BaseException | None = None
        self._outcome: Outcome = "whole"
        self._started = time.perf_counter()
        self._total_ms: Counter[str] = Counter()
        self._frames = self._dropped = self._detections = 0
        self._span_s: tuple[float, float] | None = None
        self._track_ids: tuple[int, int] | None = None
        self._drawn: deque[float] = deque(maxlen=30)

    def stop(self) -> None:
        """Read no more; what was read is still inferred and written."""
        if self._outcome == "whole":
            self._outcome = "stopped"
        self._halt.set()

    def fail(self, error: BaseException, outcome: Outcome = "failed") -> None:
        """Give up for this reason; the first one counts."""
        if self._error is None:
            self._error, self._outcome = error, outcome
            self._recorder.inference(
                self.job.name, {}, {}, "error", frame=self._frames, error=error
            )
            if not isinstance(error, EngineworksError):
                log.error("%s failed", self.job.name, exc_info=error)
        self._halt.set()

    def run(self) -> StreamReport:
        """Open, read to the end or until stopped, wait for the last frame, close."""
        self._started = time.perf_counter()
        try:
            self._source = self.job.open(self._halt)
            self._sinks = self.job.sinks(self._source)
        except Exception as error:
            self.fail(error)
        else:
            self._flow(self._source)
        if self._source is not None:
            self._source.close()
        return self.report()

    def _flow(self, source: Source) -> None:
        if self.job.tracker is not None:
            self._tracker = self.job.tracker(source.fps)
        self._queue.open(self, live=source.live)
        threads = [
            threading.Thread(target=target, name=f"{self.job.name}:{target.__name__}", daemon=True)
            for target in (self._follow, self._write)
        ]
        for thread in threads:
            thread.start()
        try:
            self._read(source)
        except Exception as error:
            self.fail(error, "lost" if self._frames or self._queue.depth_of(self) else "failed")
        self._queue.finish(self)
        self._inferred.put(None)
        for thread in threads:
            thread.join()
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:
                self.fail(error)

    def _read(self, source: Source) -> None:
        frames, largest = iter(source), 0
        while not self._halt.is_set():
            begin = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            if frame.pixels.nbytes > largest:
                largest = frame.pixels.nbytes
                # As many wait as are under way.
                self._queue.narrow(self, _MOST_BYTES // (2 * largest))
            read = time.perf_counter()
            row, placement = self._predictor.prepare(frame.pixels)
            prepared = time.perf_counter()
            ms = {"decode": (read - begin) * 1e3, "preprocess": (prepared - read) * 1e3}
            item = Work(frame=frame, row=row, placement=placement, ms=ms)
            dropped = self._queue.put(self, item)
            if dropped:
                self._dropped += dropped
                self._recorder.dropped(self.job.name, dropped)
            self._recorder.queue(self.job.name, self._queue.depth_of(self))

    def deliver(self, item: Work, outputs: Tensors, infer_ms: float) -> None:
        """A frame comes back from the engine."""
        item.outputs, item.row = outputs, _NO_ROW
        item.ms["infer"] = infer_ms
        self._inferred.put(item)

    def _follow(self) -> None:
        pictures = any(sink.pictures for sink in self._sinks)
        early: dict[int, Work] = {}
        turn = 0
        while (item := self._inferred.get()) is not None:
            early[item.turn] = item
            while (item := early.pop(turn, None)) is not None:
                turn += 1
                if self._error is None or self._outcome == "lost":
                    try:
                        self._answer(item, pictures)
                    except Exception as error:
                        self.fail(error)
                self._finished.put(item)
        self._finished.put(None)

    def _answer(self, item: Work, pictures: bool) -> None:
        clock = [time.perf_counter()]
        item.answer = self._predictor.finish(item.outputs, item.placement)
        clock.append(time.perf_counter())
        if self._tracker is not None and isinstance(item.answer, Detections):
            item.answer = self._tracker.update(item.answer)
        clock.append(time.perf_counter())
        if pictures:
            rate = self._rate() if self.job.overlay else None
            self._predictor.draw(item.frame.pixels, item.answer, rate)
        clock.append(time.perf_counter())
        for position, stage in enumerate(("postprocess", "track", "draw")):
            item.ms[stage] = (clock[position + 1] - clock[position]) * 1e3

    def _rate(self) -> str:
        """Frames a second, over the last ones that were drawn."""
        self._drawn.append(time.perf_counter())
        if len(self._drawn) < 2:
            return ""
        spent_s = self._drawn[-1] - self._drawn[0]
        return f"{(len(self._drawn) - 1) / max(spent_s, 1e-6):.1f} fps"

    def _write(self) -> None:
        while (item := self._finished.get()) is not None:
            try:
                if self._error is None or self._outcome == "lost":
                    self._deposit(item)
            except Closed:
                self.stop()
            except Exception as error:
                self.fail(error)
            finally:
                self._queue.done(self)

    def _deposit(self, item: Work) -> None:
        begin = time.perf_counter()
        for sink in self._sinks:
            sink.write(item.frame, item.answer)
        item.ms["write"] = (time.perf_counter() - begin) * 1e3
        self._frames += 1
        names = self._predictor.count(item.answer)
        self._detections += sum(names.values())
        self._total_ms.update(item.ms)
        time_s = item.frame.time_s
        self._span_s = (self._span_s[0] if self._span_s else time_s, time_s)
        tracks = item.answer.track_id if isinstance(item.answer, Detections) else None
        if tracks is not None and len(tracks):
            low, high = self._track_ids or (int(tracks.min()), 0)
            self._track_ids = (min(low, int(tracks.min())), max(high, int(tracks.max())))
        self._recorder.inference(
            self.job.name,
            item.ms,
            names,
            frame=item.frame.number,
            input_shape=(*item.frame.size, 3),
        )

    def report(self) -> StreamReport:
        """How it went, or how it goes."""
        outcome, reason = self._verdict()
        elapsed_s = time.perf_counter() - self._started
        source, frames = self._source, self._frames
        return StreamReport(
            name=self.job.name,
            outcome=outcome,
            reason=reason,
            frames=frames,
            expected_frames=source.frames if source else None,
            dropped=self._dropped,
            damaged=source.troubles.damaged if source else 0,
            reconnects=source.troubles.reconnects if source else 0,
            detections=self._detections,
            tracks=self._track_ids[1] - self._track_ids[0] + 1 if self._track_ids else 0,
            source_s=round(self._span_s[1] - self._span_s[0], 6) if self._span_s else 0.0,
            elapsed_s=round(elapsed_s, 3),
            fps=round(frames / elapsed_s, 2) if elapsed_s > 0 else 0.0,
            stages_ms={k: round(v / max(1, frames), 3) for k, v in self._total_ms.items()},
            notes=_notes(source, reason),
            source=self.job.source,
            outputs=self.job.outputs,
        )

    def _verdict(self) -> tuple[Outcome, str]:
        error, source = self._error, self._source
        if isinstance(error, EngineworksError):
            return self._outcome, f"{error.message} ({error.hint})"
        if error is not None:
            return self._outcome, f"{type(error).__name__}: {error}"
        if self._outcome != "whole" or source is None:
            ended = source is not None and source.live
            return self._outcome, "" if ended else "stopped before its end"
        damaged = source.troubles.damaged
        told = None if source.troubles.estimated else source.frames
        if self.job.resumed:
            return ("lost", source.troubles.cut) if source.troubles.cut else ("whole", "")
        if not self._frames:
            return "failed", f"no frame could be decoded ({damaged} damaged)"
        if source.troubles.cut and not 0 < source.troubles.counted <= self._frames + damaged:
            return "lost", source.troubles.cut
        if told and self._frames + damaged < _CUT * told:
            return "lost", f"it ends after {self._frames} of the {told} frames that it tells of"
        return "whole", ""


def _notes(source: Source | None, reason: str) -> tuple[str, ...]:
    """What was noted on the way; also that a file is cut of which all frames are there."""
    if source is None:
        return ()
    cut = source.troubles.cut
    return (*source.troubles.notes, *([cut] if cut and cut != reason else []))
