"""A fair queue between many streams and one engine.

Holds what waits, hands out batches in turns, and bounds what is under way. Knows neither images
nor engines; every method may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable
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
