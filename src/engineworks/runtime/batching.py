"""The queues between those who ask and one engine: of streams, and of a server's clients.

`FairQueue` hands out frames of streams in turns and bounds what is under way. `RequestQueue` merges
the rows of requests into batches, as far as that pays, within their deadlines. Knows neither images
nor engines; every method may be called from any thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass
class _Lane(Generic[Item]):
    """One stream's place in the queue."""

    live: bool
    depth: int
    waiting: deque[Item] = field(default_factory=deque)
    under_way: int = 0
    closing: bool = False


class FairQueue(Generic[Key, Item]):
    """Streams put, the engine takes: one item of each stream in turn.

    A full lane makes a file wait (back-pressure) and drops a live stream's oldest item. A stream
    with `depth` items taken and not yet `done` gets no turn, so a slow writer holds up its own
    stream alone.

    Args:
        depth: Items of one stream that may wait, and that may be under way.
    """

    def __init__(self, depth: int = 4) -> None:
        self._depth = depth
        self._lanes: dict[Key, _Lane[Item]] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def open(self, stream: Key, *, live: bool) -> None:
        """Add a stream."""
        with self._changed:
            self._lanes[stream] = _Lane(live=live, depth=self._depth)

    def narrow(self, stream: Key, depth: int) -> None:
        """Let fewer items of a stream wait and be under way: they are large; at least one."""
        with self._changed:
            self._lanes[stream].depth = max(1, min(depth, self._depth))
            self._changed.notify_all()

    def put(self, stream: Key, item: Item) -> int:
        """Add an item of a stream; returns how many older ones were dropped for it.

        Waits while a file's lane is full. After `stop` items are dropped.
        """
        with self._changed:
            lane = self._lanes[stream]
            while not lane.live and len(lane.waiting) >= lane.depth and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return 0
            dropped = 0
            while len(lane.waiting) >= lane.depth:
                lane.waiting.popleft()
                dropped += 1
            lane.waiting.append(item)
            self._changed.notify_all()
            return dropped

    def take(self, most: int, wait_s: float = 0.0, idle_s: float = 0.1) -> list[tuple[Key, Item]]:
        """The next batch: streams in turns, each stream's items in order.

        Args:
            most: Items at most.
            wait_s: Seconds to wait for more once there is one.
            idle_s: Seconds to wait for the first.

        Returns:
            (stream, item) pairs; empty when nothing came within `idle_s`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ready() > 0, idle_s)
            deadline = time.monotonic() + wait_s
            while 0 < self._ready() < min(most, self._possible()):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    break
            batch: list[tuple[Key, Item]] = []
            while len(batch) < most and (turn := self._next()) is not None:
                lane = self._lanes.pop(turn)
                self._lanes[turn] = lane  # to the end: the others come first next time
                lane.under_way += 1
                batch.append((turn, lane.waiting.popleft()))
            if batch:
                self._changed.notify_all()
            return batch

    def _ready(self) -> int:
        return sum(
            max(0, min(len(lane.waiting), lane.depth - lane.under_way))
            for lane in self._lanes.values()
        )

    def _possible(self) -> int:
        """Items that could be ready if all streams hurried."""
        return sum(
            len(lane.waiting) if lane.closing else max(0, lane.depth - lane.under_way)
            for lane in self._lanes.values()
        )

    def _next(self) -> Key | None:
        for stream, lane in self._lanes.items():
            if lane.waiting and lane.under_way < lane.depth:
                return stream
        return None

    def done(self, stream: Key) -> None:
        """An item that was taken has left the pipeline."""
        with self._changed:
            lane = self._lanes.get(stream)
            if lane is not None:  # after `stop` a stream may be gone before its last item
                lane.under_way -= 1
                self._changed.notify_all()

    def finish(self, stream: Key) -> None:
        """No more items come; waits until all of them are done, then removes the stream."""
        with self._changed:
            lane = self._lanes[stream]
            lane.closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped or not (lane.waiting or lane.under_way))
            del self._lanes[stream]
            self._changed.notify_all()

    def depth_of(self, stream: Key) -> int:
        """Items of a stream that wait."""
        with self._changed:
            return len(self._lanes[stream].waiting)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """Wake everybody; nothing is handed out or taken in any more."""
        with self._changed:
            self._stopped = True
            for lane in self._lanes.values():
                lane.waiting.clear()
            self._changed.notify_all()


class QueueFull(Exception):
    """No more is taken in now.

    Args:
        waiting: Rows that wait.
        retry_s: Seconds after which there should be room.
    """

    def __init__(self, waiting: int, retry_s: float) -> None:
        super().__init__(f"{waiting} rows wait already")
        self.waiting, self.retry_s = waiting, retry_s


class BatchTimes:
    """What an engine needed here for each size of batch, and so which size pays.

    Without figures, and wherever a larger batch does not make each row cheaper, it says 1: a small
    net on a CPU gains nothing from waiting for others.
    """

    #: A larger batch must make a row cheaper by this share, or it is not worth the waiting.
    GAIN = 0.05

    def __init__(self, ms: Mapping[int, float] | None = None) -> None:
        self.ms = dict(sorted((ms or {}).items()))

    def best(self, rows: int) -> int:
        """The size of batch to run when so many rows could run now."""
        chosen, cheapest = 1, self.ms.get(1, 0.0)
        for size, took_ms in self.ms.items():
            if 1 < size <= rows and took_ms / size < cheapest * (1 - self.GAIN):
                chosen, cheapest = size, took_ms / size
        return chosen


@dataclass(eq=False)
class Ticket(Generic[Item]):
    """One request's place in a `RequestQueue`."""

    item: Item
    rows: int
    kind: Hashable
    priority: int
    deadline_s: float
    arrived_s: float
    number: int


@dataclass(frozen=True)
class Turn(Generic[Item]):
    """What leaves a `RequestQueue` together."""

    batch: list[Ticket[Item]]
    late: list[Ticket[Item]]
    """Those whose deadline has passed, or would before they had run; they are not run."""

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return sum(ticket.rows for ticket in self.batch)


class RequestQueue(Generic[Item]):
    """Requests of clients wait here, and leave in batches of rows.

    Those of one kind (tensor names, types, row shapes) may share a batch; kind None shares with
    nobody. Higher priority first, then by arrival. A request waits for others at most `wait_s`,
    only where `times` says that more rows pay, and only while some are on their way (`expect`).
    Rows are counted, never requests.

    Args:
        most_rows: Rows of one batch.
        most_waiting: Rows that may wait.
        wait_s: Seconds that a request may wait for others.
        times: What each batch took.
        clock: Seconds, monotonic; tests give their own.
    """

    def __init__(
        self,
        *,
        most_rows: int,
        most_waiting: int,
        wait_s: float = 0.0,
        times: BatchTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_rows, self.most_waiting, self.wait_s = most_rows, most_waiting, wait_s
        self.times = times or BatchTimes()
        self._clock = clock
        self._waiting: dict[int, Ticket[Item]] = {}
        self._rows = self._number = self._expected = 0
        self._row_s = 0.0
        self._changed = threading.Condition()
        self._closed = False

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._rows

    @property
    def expected(self) -> int:
        """Requests that are on their way."""
        return self._expected

    def expect(self, requests: int) -> None:
        """So many more requests are on their way; below 0: so many have come, or will not."""
        with self._changed:
            self._expected += requests
            if requests < 0 and self._waiting:
                self._changed.notify()

    @property
    def row_s(self) -> float:
        """Seconds a row took lately; 0 before the first."""
        return self._row_s

    def put(
        self,
        item: Item,
        *,
        rows: int = 1,
        kind: Hashable = None,
        priority: int = 0,
        deadline_s: float = math.inf,
    ) -> Ticket[Item]:
        """Add a request.

        Args:
            item: What `take` gives back.
            rows: How many rows it brings, at least 1.
            kind: Those of equal kind may be merged.
            priority: Larger goes first.
            deadline_s: On the queue's clock; it is not run afterwards.

        Raises:
            QueueFull: Too many rows wait, or as many as to let its deadline pass.
        """
        with self._changed:
            now = self._clock()
            ahead_s = self._row_s * self._rows
            full = self._rows > 0 and self._rows + rows > self.most_waiting
            if self._closed or full or (self._rows > 0 and now + ahead_s > deadline_s):
                raise QueueFull(self._rows, max(ahead_s, self._row_s))
            self._number += 1
            ticket = Ticket(item, rows, kind, priority, deadline_s, now, self._number)
            self._waiting[self._number] = ticket
            self._rows += rows
            self._changed.notify()
            return ticket

    def cancel(self, ticket: Ticket[Item]) -> bool:
        """Take a request out; whether it still waited."""
        with self._changed:
            if self._waiting.pop(ticket.number, None) is None:
                return False
            self._rows -= ticket.rows
            return True

    def ran(self, rows: int, took_s: float) -> None:
        """Say what a batch took; later estimates follow it."""
        per_row = took_s / max(1, rows)
        self._row_s = per_row if not self._row_s else 0.8 * self._row_s + 0.2 * per_row

    def turn(self) -> tuple[Turn[Item], float | None]:
        """Whose turn it is now, taken out of the queue; and when to look again if it is nobody's.

        Returns:
            The turn, and the seconds from now at which waiting ends: None where nothing waits.
        """
        with self._changed:
            return self._turn()

    def _turn(self) -> tuple[Turn[Item], float | None]:
        now = self._clock()
        late = [
            ticket
            for ticket in self._waiting.values()
            if ticket.deadline_s <= now + self._row_s * ticket.rows
        ]
        self._remove(late)
        if not self._waiting:
            return Turn([], late), None
        order = sorted(self._waiting.values(), key=lambda t: (-t.priority, t.number))
        first = order[0]
        batch, rows = [first], first.rows
        if first.kind is not None and rows < self.most_rows:
            same = [ticket for ticket in order[1:] if ticket.kind == first.kind]
            could = rows
            for ticket in same:
                if could + ticket.rows > self.most_rows:
                    break
                could += ticket.rows
            worth = self.times.best(could)
            for ticket in same:
                if rows + ticket.rows > worth:
                    break
                batch.append(ticket)
                rows += ticket.rows
            # Twice what it takes: once it could not be in time any more it is not run at all.
            latest_s = first.deadline_s - 2 * self._row_s * rows
            wait_until = min(first.arrived_s + self.wait_s, latest_s)
            pays = self.times.best(self.most_rows) > could
            if pays and self._expected and now < wait_until and not self._closed:
                return Turn([], late), wait_until - now
        self._remove(batch)
        return Turn(batch, late), None

    def _remove(self, tickets: Iterable[Ticket[Item]]) -> None:
        for ticket in tickets:
            del self._waiting[ticket.number]
            self._rows -= ticket.rows

    def take(self, idle_s: float) -> Turn[Item]:
        """Wait for the next turn; an empty one after `idle_s` seconds without."""
        until = time.monotonic() + idle_s
        with self._changed:
            while True:
                turn, again_s = self._turn()
                left_s = until - time.monotonic()
                if turn.batch or turn.late or (again_s is None and (left_s <= 0 or self._closed)):
                    return turn
                self._changed.wait(left_s if again_s is None else again_s)

    def close(self) -> None:
        """Take nothing in any more; what waits still leaves, at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
