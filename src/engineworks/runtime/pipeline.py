"""Many streams through one engine: reads side by side, infers in fair turns, writes side by side.

Knows no kinds of sources or outputs; `stream.py` knows what one stream needs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from engineworks.errors import InferenceError
from engineworks.runtime.batching import FairQueue
from engineworks.runtime.metrics import Recorder
from engineworks.runtime.predictor import Predictor
from engineworks.runtime.stream import Stream, StreamJob, StreamReport, Work

#: Seconds between two looks at whether an engine hangs.
_LOOK_S = 0.5


class Pipeline:
    """Runs jobs through an engine.

    Frames of all streams share the engine's batches, one of each stream in turn. A file waits for
    the engine; a live source drops its oldest waiting frame, which is counted.

    Args:
        predictors: The engine, or several sessions of it that infer side by side. On a CPU two
            sessions of half the threads each do more frames per second than one of all threads,
            which wait for one another at every layer; each frame then takes longer.
        at_once: Jobs that run side by side; the others wait for their turn.
        batch: Images per inference; None: one of each stream that runs, as far as the engine
            allows.
        wait_s: How long a batch that is not full waits for more.
        depth: Frames of one stream that may wait for the engine, and that may be behind it.
        recorder: Takes note of every frame.
        refresh: Called over and over on the thread of `run`: window systems want the main thread.
        limit_s: How long one inference may take; an engine that hangs fails its streams then.
    """

    def __init__(
        self,
        predictors: Predictor[Any] | Sequence[Predictor[Any]],
        *,
        at_once: int = 1,
        batch: int | None = None,
        wait_s: float = 0.002,
        depth: int = 2,
        recorder: Recorder | None = None,
        refresh: Callable[[], None] | None = None,
        limit_s: float = 600.0,
    ) -> None:
        self._refresh = refresh
        self._predictors = [predictors] if isinstance(predictors, Predictor) else list(predictors)
        self._at_once = max(1, at_once)
        share = -(-self._at_once // len(self._predictors))
        self._batch = max(1, min(batch or share, self._predictors[0].batch))
        self._wait_s = wait_s
        self._recorder = recorder or Recorder()
        self._queue: FairQueue[Stream, Work] = FairQueue(depth)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._running: list[Stream] = []
        self._slots_left = 0
        self._stopping = False
        self._limit_s, self._stuck = limit_s, False
        self._begun: dict[int, float] = {}
        """Thread -> when the inference that it is at began."""
        self._ended = threading.Event()

    def stop(self) -> None:
        """Start nothing more, read nothing more; what was read is finished. From any thread."""
        # No lock: a signal handler may interrupt whoever holds it.
        self._stopping = True
        for stream in tuple(self._running):
            stream.stop()

    def progress(self) -> list[StreamReport]:
        """How the running streams go."""
        return [stream.report() for stream in tuple(self._running)]

    def run(self, jobs: Iterable[StreamJob]) -> list[StreamReport]:
        """Do all jobs; a report for each that was started, in the order of the jobs."""
        reports: dict[int, StreamReport] = {}
        numbered = enumerate(jobs)
        slots = [
            threading.Thread(target=self._slot, args=(numbered, reports), daemon=True)
            for _ in range(self._at_once)
        ]
        self._slots_left = len(slots)
        for slot in slots:
            slot.start()
        workers = [
            threading.Thread(target=self._work, args=(predictor, slots), daemon=True)
            for predictor in self._predictors
        ]
        for worker in workers:
            worker.start()
        try:
            while any(slot.is_alive() for slot in slots):
                self._end_if_stuck()
                if self._refresh is not None:
                    self._refresh()
                else:
                    self._ended.wait(_LOOK_S)
        finally:
            # Also after a second Ctrl-C: whoever called closes the engine now, and must not find
            # it in use, unless it hangs.
            self._stopping = True
            self._queue.stop()
            for worker in workers:
                worker.join(0.0 if self._stuck else self._limit_s)
        for slot in slots:
            slot.join()
        return [reports[number] for number in sorted(reports)]

    def _work(self, predictor: Predictor[Any], slots: Sequence[threading.Thread]) -> None:
        while not self._queue.stopped and any(slot.is_alive() for slot in slots):
            self._infer(predictor)

    def _give_up(self, error: Exception) -> None:
        self._stopping = True
        for stream in tuple(self._running):
            stream.fail(error)
        self._queue.stop()

    def _end_if_stuck(self) -> None:
        """Fail all streams when an inference has not come back for too long."""
        begun = min(self._begun.copy().values(), default=None)
        if self._stuck or begun is None or time.perf_counter() - begun < self._limit_s:
            return
        self._stuck = True
        error = InferenceError(
            f"the engine has not answered for {self._limit_s:.0f} s: it hangs",
            hint="end this process and start it again; what was inferred before is written",
        )
        self._give_up(error)

    def _slot(
        self, jobs: Iterator[tuple[int, StreamJob]], reports: dict[int, StreamReport]
    ) -> None:
        try:
            self._do(jobs, reports)
        finally:
            with self._lock:
                self._slots_left -= 1
                if not self._slots_left:
                    self._queue.stop()  # whoever waits for more need not wait out its time
                    self._ended.set()

    def _do(self, jobs: Iterator[tuple[int, StreamJob]], reports: dict[int, StreamReport]) -> None:
        while True:
            with self._lock:
                number, job = next(jobs, (-1, None))
                if job is None or self._stopping:
                    return
                stream = Stream(job, self._predictors[0], self._queue, self._recorder)
                self._running.append(stream)
            if self._stopping:  # asked between the two looks at it
                stream.stop()
            report = stream.run()
            with self._lock:
                reports[number] = report
                self._running.remove(stream)

    def _infer(self, predictor: Predictor[Any]) -> None:
        with self._turn:  # who takes first has the earlier frames
            batch = self._queue.take(self._batch, self._wait_s)
            for stream, item in batch:
                item.turn = next(stream.turns)
        if not batch:
            return
        begin = time.perf_counter()
        self._begun[threading.get_ident()] = begin
        try:
            answers = predictor.infer([item.row for _, item in batch])
        except Exception as error:
            self._give_up(error)
            return
        finally:
            del self._begun[threading.get_ident()]
        each_ms = (time.perf_counter() - begin) * 1e3 / len(batch)
        for (stream, item), outputs in zip(batch, answers, strict=True):
            stream.deliver(item, outputs, each_ms)
