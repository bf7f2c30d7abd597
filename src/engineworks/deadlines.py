"""An end for calls that renew their own patience with every byte that drips in. Knows no call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call returns or raises, if it does in time.

    Args:
        seconds: How long it may take.
        call: Goes on by itself, on a thread that ends with the process, where it takes longer.

    Raises:
        TimeoutError: It has not ended.
    """
    values: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(call())
        except BaseException as error:  # it is the caller's
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not values:
        raise TimeoutError(f"no end after {seconds:g} s")
    return values[0]
