"""One engine behind the server: open, warm, with its queue, its threads and its name.

Requests come in on the event loop and leave there; inference runs on the engine's own threads, one
for each session. Knows no HTTP and no other engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue as queues
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from engineworks import hosts, runtime
from engineworks.errors import EngineworksError
from engineworks.runtime import Session
from engineworks.runtime.batching import BatchTimes, QueueFull, RequestQueue
from engineworks.runtime.metrics import Recorder, name_of
from engineworks.server.admission import Admission, DecodingQueue
from engineworks.server.heads import Model, answering
from engineworks.server.jobs import Arrays, Coming, ImageJob, Pixels, ServerJob, own, padded
from engineworks.server.refusals import bad_request, busy, late, too_large
from engineworks.server.settings import ServedEngine, Settings
from engineworks.server.trials import BatchTrial, Kept, may_merge, repeated, row

_log = logging.getLogger(__name__)


class OpenEngine:
    """An engine that answers.

    Opening it runs it: what does not answer a warm-up raises here, before anybody depends on it.

    Args:
        served: Its folder, identity and name.
        settings: The server's.
        pool: Threads that decode.
        record: Takes note of everything.
        threads: Of one session.
        measures: Whether this process times its batches while idle.

    Raises:
        EngineworksError: It cannot be opened, or fails on its first rows.
    """

    _retired: asyncio.Future[None] | None

    def __init__(
        self,
        served: ServedEngine,
        settings: Settings,
        pool: ThreadPoolExecutor,
        record: Recorder,
        *,
        threads: int,
        measures: bool = True,
    ) -> None:
        self.served, self._settings = served, settings
        limits = settings.limits
        self._sessions: list[Session] = []
        try:
            first = self._open(threads)
            self.manifest = first.manifest
            self.head = answering(first, settings)
            fixed = first.inputs[0].shape[0] if first.inputs[0].shape else 1
            self.fixed = fixed if isinstance(fixed, int) else 0
            bounds = self.manifest.batches(limits.max_batch)
            self.least, self.most = (self.fixed, self.fixed) if self.fixed else bounds
            self.merges = not self.fixed and self.least == 1 and may_merge(first, self.most)
            warm_row_s = self._warm()
        except BaseException:
            self._close_sessions()
            raise
        name = name_of(self.manifest, served.name)
        self.name, self.version, self.variant = served.name, name.version, name.variant
        self.about = {"name": self.name, "version": self.version, "variant": self.variant}
        self.about["digest"] = self.manifest.sha256
        self.record = record.of(name)
        self._kept = Kept(settings.cache, self.manifest, threads, self._devices[0])
        self._trial = BatchTrial(first, self.most) if self.merges and measures else None
        self.queue: RequestQueue[ServerJob] = RequestQueue(
            most_rows=self.most,
            most_waiting=limits.queue,
            wait_s=limits.wait_ms / 1e3,
            times=BatchTimes(self._kept.read() if self.merges else None),
        )
        self._finishing = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._free: queues.SimpleQueue[Session] = queues.SimpleQueue()
        for session in self._sessions:
            self._free.put(session)
        self.admission = Admission(self.name, limits.queue, first_row_s=warm_row_s)
        self._decoding = DecodingQueue(pool, self._images_ahead)
        self._users, self._retired = 0, None
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number == 0,), name=f"engine-{number}")
            for number in range(len(self._sessions))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def _devices(self) -> tuple[int, ...]:
        return self._settings.devices or (0,)

    def _open(self, threads: int) -> Session:
        """Open every instance; the first of them."""
        folder, sha256 = self.served.folder, self.served.sha256
        for number in range(self._settings.instances):
            device = self._devices[number % len(self._devices)]
            opened = runtime.open(folder, threads=threads, device=device, sha256=sha256)
            self._sessions.append(opened)
        return self._sessions[0]

    def _warm(self) -> float:
        """Run every session; the seconds that a row took at last, 0 where none can be made up."""
        sample = row(self._sessions[0])
        if sample is None:
            return 0.0
        rows, took_s = max(1, self.least), 0.0
        for number, session in enumerate(self._sessions):
            for _ in range(1 if number == 0 and self.merges else 2):  # `may_merge` has run it
                begun = time.perf_counter()
                session.infer(repeated(sample, rows))
                took_s = time.perf_counter() - begun
        if self.head is not None:
            grey = np.full((48, 64, 3), 114, np.uint8)
            self.head.model(grey)
        return took_s / rows / len(self._sessions)

    def _images_ahead(self) -> int:
        """How many images may be decoded and not answered: what runs, what runs next, and a few."""
        return 2 * len(self._sessions) * self.queue.times.best(self.most) + hosts.cores()

    async def image(
        self, picture: bytes | Pixels, model: Model, *, coming: Coming, deadline_s: float,
        priority: int = 0,
    ) -> bytes:  # fmt: skip
        """The answer for one image as JSON; cancelling it takes it out of the queue.

        Args:
            picture: The image file, or pixels.
            model: Of `head.asked`.
            coming: Of `used`.
            deadline_s: On `time.monotonic`.
            priority: Larger goes first.

        Raises:
            Refusal: The image cannot be read, the queue is full, or the deadline has passed.
            EngineworksError: The engine failed.
        """
        job = ImageJob(
            model,
            picture,
            max_pixels=self._settings.limits.max_pixels,
            ready=self._run_or_enqueue,
            about=self.about,
            deadline_s=deadline_s,
            priority=priority,
        )
        job.coming = coming
        answer: bytes = await self._through(job, lambda: self._decoding.inside(job))
        self.record.inference("requests", job.stage_ms, job.counts)
        return answer

    async def tensors(
        self, feeds: Arrays, rows: int, *, coming: Coming, deadline_s: float, priority: int = 0
    ) -> Arrays:
        """The engine's outputs for a request's own tensors.

        Args:
            feeds: Input name -> array, as the engine declares them.
            rows: How many rows they have.
            coming: Of `used`.
            deadline_s: On `time.monotonic`.
            priority: Larger goes first.

        Raises:
            Refusal: As `image`; or more rows than can be run.
            EngineworksError: The engine failed.
        """
        if rows > self.most and not self.merges:
            raise too_large(
                f"{rows} rows, and {self.name} takes {self.most} at once and cannot be split",
                hint=f"send at most {self.most}",
            )
        if rows < self.least:
            raise bad_request(
                f"{rows} rows, and {self.name} takes no fewer than {self.least}",
                hint=f"send {self.least}",
            )
        if rows > self._settings.limits.queue:
            raise too_large(
                f"{rows} rows, more than the queue's {self._settings.limits.queue}",
                hint="send fewer rows in a request",
            )
        job = ServerJob(feeds, rows=rows, deadline_s=deadline_s, priority=priority)
        job.coming = coming
        outputs: Arrays = await self._through(job, lambda: self._enqueued(job))
        self.record.inference("requests", job.stage_ms, {})
        return outputs

    async def _through(
        self, job: ServerJob, begun: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> Any:
        """Take a job in, wait for its end, and let nothing of it behind."""
        try:
            with self.admission.inside(job.rows, job.deadline_s), begun():
                left_s = job.deadline_s - time.monotonic()
                timer = job.future.get_loop().call_later(max(0.0, left_s), job.expire, late())
                try:
                    return await job.future
                finally:
                    timer.cancel()
        except QueueFull as full:
            raise busy(f"{self.name}: {full}", full.retry_s) from None
        finally:
            job.cancelled = True
            if job.ticket is not None:
                self.queue.cancel(job.ticket)

    @contextlib.contextmanager
    def used(self) -> Iterator[Coming]:
        """Keep it open while the block runs, though another may take its place.

        Gives what `image` and `tensors` want, so that others can wait for this request.
        """
        self._users += 1
        coming = Coming(self.queue.expect)
        try:
            yield coming
        finally:
            coming.here()
            self._users -= 1
            if not self._users and self._retired and not self._retired.done():
                self._retired.set_result(None)

    async def retire(self) -> None:
        """Wait until nobody uses it any more, then close it."""
        if self._users:
            self._retired = asyncio.get_running_loop().create_future()
            await self._retired
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def _enqueue(self, job: ServerJob) -> None:
        """Let a job wait for its turn."""
        if job.coming is not None:
            job.coming.here()
        job.ticket = self.queue.put(
            job,
            rows=job.rows,
            kind=job.kind() if self.merges else None,
            priority=job.priority,
            deadline_s=job.deadline_s,
        )

    @contextlib.contextmanager
    def _enqueued(self, job: ServerJob) -> Iterator[None]:
        self._enqueue(job)
        yield

    def _run_or_enqueue(self, job: ServerJob) -> None:
        """Run a job on the thread that prepared it, where nobody waits and nobody is waited for.

        Handing it from thread to thread costs more than a small net's own postprocessing.
        """
        if job.coming is not None:
            job.coming.here()
        others = self.queue.expected and self.queue.times.best(self.most) > 1
        if self.queue.rows or others or self._closing.is_set():
            self._enqueue(job)
            return
        try:
            session = self._free.get_nowait()
        except queues.Empty:
            self._enqueue(job)
            return
        try:
            self._run(session, [job])
        finally:
            self._free.put(session)

    def _work(self, first: bool) -> None:
        """Run what comes until the engine is closed."""
        told = 0
        while True:
            turn = self.queue.take(0.25)
            waiting = self.queue.rows
            if waiting != told:
                told = waiting
                self.record.queue("requests", waiting)
            for ticket in turn.late:
                ticket.item.fail(late())
            if turn.batch:
                session = self._free.get()
                try:
                    self._run(session, [ticket.item for ticket in turn.batch])
                finally:
                    self._free.put(session)
            elif self._closing.is_set():
                return
            elif first and not self.admission.open_rows:
                self._idle()

    def _idle(self) -> None:
        """Learn what batches take, one at a time."""
        if not self.merges or self.queue.times.ms:
            return
        known = self._kept.read()
        if known is None and self._trial is not None:
            while known is None and not self.admission.open_rows and not self._closing.is_set():
                session = self._free.get()
                try:
                    known = self._trial.step(session)
                finally:
                    self._free.put(session)
            if known:
                self._kept.write(known)
        if known:
            self.queue.times = BatchTimes(known)
            _log.info("%s: ms by batch %s", self.name, known)

    def _run(self, session: Session, jobs: list[ServerJob]) -> None:
        jobs = [job for job in jobs if not job.cancelled]
        if not jobs:
            return
        begun = time.perf_counter()
        try:
            answers = self._infer(session, jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
                return
            for job in jobs:  # one of them is at fault: the others must not pay
                self._run(session, [job])
            return
        took_s = time.perf_counter() - begun
        rows = sum(job.rows for job in jobs)
        self.queue.ran(rows, took_s)
        self.record.batch(rows)
        # Another thread reads the answers where the engine is wanted meanwhile.
        later = self._finishing.submit if self.queue.rows or len(jobs) > 1 else _now
        for job, outputs in zip(jobs, answers, strict=True):
            job.ran(outputs, took_s * 1e3, later)

    def _infer(self, session: Session, jobs: list[ServerJob]) -> list[Arrays]:
        """Each job's own outputs."""
        feeds = {
            name: np.concatenate([job.feeds[name] for job in jobs])  # type: ignore[index]
            if len(jobs) > 1
            else array
            for name, array in (jobs[0].feeds or {}).items()
        }
        rows = sum(job.rows for job in jobs)
        if not self.merges:
            return [own(session, padded(feeds, self.least - rows))]
        parts = [
            own(session, {n: a[at : at + self.most] for n, a in feeds.items()})
            for at in range(0, rows, self.most)
        ]
        outputs = (
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if len(parts) > 1
            else parts[0]
        )
        answers: list[Arrays] = []
        at = 0
        for job in jobs:
            answers.append({name: array[at : at + job.rows] for name, array in outputs.items()})
            at += job.rows
        return answers

    def close(self) -> None:
        """End its threads and free it; what still waits is run before."""
        self._closing.set()
        self.queue.close()
        for thread in self._threads:
            thread.join()
        self._finishing.shutdown()
        self._close_sessions()

    def _close_sessions(self) -> None:
        for session in self._sessions:
            try:
                session.close()
            except EngineworksError:
                _log.exception("an engine could not be closed")


def _now(function: Any, *arguments: Any) -> None:
    function(*arguments)
