"""A block on the event loop that something else may end: a timer, a client that leaves.

Cheaper than a task of its own for the block; the one who waits is interrupted where it waits.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from engineworks.server.refusals import Refusal


class Cut:
    """Ends its block with a refusal when `now` is called.

    Args:
        refusal: What the block raises then.
    """

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._task: asyncio.Task[Any] | None = None
        self._came = False

    def __enter__(self) -> Cut:
        self._task = asyncio.current_task()
        return self

    def now(self, *_: Any) -> None:
        """End the block, if it still runs."""
        if self._task is not None and not self._came:
            self._came = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._came and kind is asyncio.CancelledError:
            uncancel = getattr(task, "uncancel", None)  # from Python 3.11 on
            if uncancel is not None:
                uncancel()
            raise self._refusal from None
