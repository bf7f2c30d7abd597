"""Who may still come in: how many rows an engine has in work, and how fast they leave.

A request is let in only while its answer can be expected in time, so that nothing is decoded or run
for a client that gets it too late. Lives on the event loop; knows no HTTP and no engine.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

from engineworks.server.jobs import ImageJob
from engineworks.server.refusals import Refusal, busy

#: Departures over which the pace is taken: more than one large batch, and soon forgotten.
_DEPARTURES = 32

#: Of the time that is left, what the work ahead may be expected to take. The pace is a mean: with
#: all of it, half of those that came in last would be late, and run for nothing.
_SHARE = 0.75


class Admission:
    """The rows that one engine has in work.

    Args:
        name: The engine's, for words.
        most_rows: No more are let in.
        first_row_s: What a row took when the engine was warmed up; the pace before any is known.
        clock: Seconds, monotonic; tests give their own.
    """

    def __init__(
        self,
        name: str,
        most_rows: int,
        *,
        first_row_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._most_rows, self._first_row_s = name, most_rows, first_row_s
        self._clock = clock
        self._departures: deque[tuple[float, int]] = deque(maxlen=_DEPARTURES)
        self._since = 0.0
        self.open_rows = 0
        """Rows of requests that were let in and have not ended."""

    @property
    def row_s(self) -> float:
        """Seconds from one row's answer to the next while there is work; all of the way counts.

        Decoding, other engines and other programs on the cores make it longer than an inference.
        """
        rows = sum(rows for _, rows in self._departures)
        if not rows:
            return self._first_row_s
        return sum(seconds for seconds, _ in self._departures) / rows

    def refusal(self, rows: int, deadline_s: float | None) -> Refusal | None:
        """Why a request is not let in; None where it is.

        Where nothing is in work everybody is let in: there is no other way to learn the pace.

        Args:
            rows: How many it brings.
            deadline_s: On the clock; None where the request has not said it yet.
        """
        if not self.open_rows:
            return None
        row_s = self.row_s
        if self.open_rows + rows > self._most_rows:
            return busy(
                f"{self._name}: {self.open_rows} rows are in work, as many as may be",
                row_s * self.open_rows,
            )
        needs_s = row_s * (self.open_rows + rows)
        if deadline_s is not None and needs_s > _SHARE * (deadline_s - self._clock()):
            return busy(
                f"{self._name}: {self.open_rows} rows are in work, and the request's time would be "
                "over before its turn",
                row_s * self.open_rows,
            )
        return None

    @contextlib.contextmanager
    def inside(self, rows: int, deadline_s: float) -> Iterator[None]:
        """Count a request's rows while the block runs; it ends with an answer, or raises.

        Raises:
            Refusal: It is not let in.
        """
        refusal = self.refusal(rows, deadline_s)
        if refusal is not None:
            raise refusal
        if not self.open_rows:
            self._since = self._clock()
        self.open_rows += rows
        try:
            yield
            now = self._clock()
            self._departures.append((now - self._since, rows))
            self._since = now
        finally:
            self.open_rows -= rows


class DecodingQueue:
    """Images that wait to be decoded: no more are than the engine soon wants.

    A decoded row is some megabytes, and what is decoded for nobody is lost: an image whose client
    leaves, or whose time is over, has cost its bytes alone.

    Args:
        pool: Threads that decode.
        ahead: How many images may be decoded and not yet answered, now.
    """

    def __init__(self, pool: Executor, ahead: Callable[[], int]) -> None:
        self._pool, self._ahead = pool, ahead
        self._waiting: dict[int, ImageJob] = {}
        self._under_way: set[int] = set()
        self._number = 0

    @contextlib.contextmanager
    def inside(self, job: ImageJob) -> Iterator[None]:
        """Have an image decoded when it is its turn: higher priority first, then by arrival."""
        self._number += 1
        number = self._number
        self._waiting[number] = job
        self._fill()
        try:
            yield
        finally:
            self._waiting.pop(number, None)
            self._under_way.discard(number)
            self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._under_way) < self._ahead():
            number = min(self._waiting, key=lambda n: (-self._waiting[n].priority, n))
            self._under_way.add(number)
            self._pool.submit(self._waiting.pop(number).prepare)
