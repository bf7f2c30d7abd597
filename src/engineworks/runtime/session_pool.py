"""One engine open several times, and work spread over the sessions.

On a machine with several GPUs each gets a session; on a CPU two sessions of half the threads often
give more throughput than one of all. Every session lives in a thread of its own (a CUDA context
belongs to a thread) and takes the next batch when it is free, so a faster device does more.
Over several GPUs it has not been run yet. Knows sessions, no images.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from engineworks import hosts
from engineworks.errors import ArtifactError, FeedError, InferenceError
from engineworks.runtime.session import Session, Tensors, open_engine

log = logging.getLogger(__name__)

#: Seconds in which a session must have been opened, or have answered; larger models need minutes.
LIMIT_S = 600.0

Feeds = Mapping[str, np.ndarray[Any, Any]]

Value = TypeVar("Value")

Opener = Callable[[int, int], Session]
"""(number of the device, CPU threads) -> a session there, opened by the thread that will use it."""


def opener(engine: Path | str) -> Opener:
    """Opens an engine's folder, as `open_engine`."""
    return lambda device, threads: open_engine(engine, threads=threads, device=device)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one session has done since it was opened, or since `SessionPool.reset`."""

    device: int
    calls: int
    rows: int
    """Images: the sum of the batches."""
    busy_s: float
    """Time inside `infer`."""


class _Worker:
    """A thread with a session."""

    def __init__(self, pool: SessionPool, device: int) -> None:
        self.device = device
        self.share = Share(device=device, calls=0, rows=0, busy_s=0.0)
        self.opened: Future[Session] = Future()
        self._pool = pool
        self._thread = threading.Thread(target=self._run, name=f"engine on {device}", daemon=True)
        self._thread.start()

    def join(self, limit_s: float) -> bool:
        """Wait for its end; whether it came."""
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            session = self._pool.open(self.device, self._pool.threads)
        except BaseException as error:
            self.opened.set_exception(error)
            return
        try:
            with session:
                self.opened.set_result(session)
                while (job := self._pool.jobs.get()) is not None:
                    self._work(session, *job)
        finally:
            self._pool.jobs.put(None)  # for the next one that waits

    def _work(self, session: Session, feeds: Feeds, answer: Future[Tensors]) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        started = time.perf_counter()
        try:
            outputs = session.infer(feeds)
            if session.reuses_outputs:
                outputs = {name: np.array(value) for name, value in outputs.items()}
        except BaseException as error:
            answer.set_exception(error)
            return
        old = self.share
        self.share = Share(
            device=self.device,
            calls=old.calls + 1,
            rows=old.rows + len(next(iter(feeds.values()))),
            busy_s=old.busy_s + time.perf_counter() - started,
        )
        answer.set_result(outputs)


class SessionPool:
    """Several sessions of one engine. Use it as a context manager; any thread may call it.

    Args:
        engine: The engine's folder, or what opens a session of something else.
        devices: Number of the GPU of each session; for engines of a CPU any number of zeros.
        threads: CPU threads of each session; 0: all, shared out evenly.
        limit_s: How long a session may take to be opened, and to answer. One that hangs cannot be
            ended; nobody waits for it any longer.

    Raises:
        ArtifactError: As `open_engine`, from whichever session could not be opened; the others
            are closed then.
        InferenceError: One was not open in time.
    """

    def __init__(
        self,
        engine: Path | str | Opener,
        devices: Sequence[int],
        *,
        threads: int = 0,
        limit_s: float = LIMIT_S,
    ) -> None:
        if not devices:
            raise ArtifactError("no device is named", hint="name at least one, for example [0]")
        self.open = engine if callable(engine) else opener(engine)
        self.threads = threads or max(1, hosts.cores() // len(devices))
        self.jobs: queue.SimpleQueue[tuple[Feeds, Future[Tensors]] | None] = queue.SimpleQueue()
        self._closed, self._handing_in = False, threading.Lock()
        self._limit_s = limit_s
        self._workers = [_Worker(self, device) for device in devices]
        try:
            self.session, *_ = [self._within(worker.opened) for worker in self._workers]
        except BaseException:
            self.close()
            raise

    def submit(self, feeds: Feeds) -> Future[Tensors]:
        """Hand in one batch; its answer comes from whichever session is free next.

        The arrays must stay as they are until the answer is there. What `Session.infer` raises
        comes out of the future.

        Raises:
            FeedError: It is closed.
        """
        answer: Future[Tensors] = Future()
        with self._handing_in:
            if self._closed:
                raise FeedError("the sessions are closed", hint="open them anew")
            self.jobs.put((feeds, answer))
        return answer

    def answer(self, waited_for: Future[Tensors]) -> Tensors:
        """What `submit` promised.

        Raises:
            InferenceError: No session has answered in time.
        """
        return self._within(waited_for)

    def _within(self, waited_for: Future[Value]) -> Value:
        try:
            return waited_for.result(self._limit_s)
        except OutOfTime:
            if waited_for.done():
                raise  # it is the answer's own
            self._limit_s = 0.0
            raise InferenceError(
                "a session has not answered in time: it hangs, or the machine is far too slow",
                hint="end this process and start it again; raise limit_s where it is slow",
            ) from None

    def map(self, batches: Iterable[Feeds]) -> Iterator[Tensors]:
        """Answers in the order of the batches, which are drawn only as fast as they are worked off.

        Raises:
            FeedError: A batch does not fit; those after it that had begun are finished unread.
            InferenceError: A session has not answered in time.
        """
        waiting: deque[Future[Tensors]] = deque()
        try:
            for feeds in batches:
                waiting.append(self.submit(feeds))
                if len(waiting) > 2 * len(self._workers):
                    yield self.answer(waiting.popleft())
            while waiting:
                yield self.answer(waiting.popleft())
        finally:
            for answer in waiting:
                answer.cancel()

    def shares(self) -> tuple[Share, ...]:
        """What every session has done."""
        return tuple(worker.share for worker in self._workers)

    def reset(self) -> None:
        """Count from zero again; for a moment when nothing is under way."""
        for worker in self._workers:
            worker.share = Share(device=worker.device, calls=0, rows=0, busy_s=0.0)

    def close(self) -> None:
        """Finish what was handed in, then close the sessions; a second call does nothing."""
        with self._handing_in:  # what was handed in lies before the end
            self._closed = True
            self.jobs.put(None)
        for worker in self._workers:
            if not worker.join(self._limit_s):
                log.error("the session on device %d hangs and stays open", worker.device)

    def __enter__(self) -> SessionPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
