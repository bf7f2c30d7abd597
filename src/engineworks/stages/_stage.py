"""What a stage is: a request in, a value out, run in a child process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Stage(Generic[Request, Value]):
    """A stage's function, the type of its request and of its value.

    A request's digest (everything but the fields made by `place`) is its stage's cache key, so a
    field belongs to the key exactly when another value of it would give another result.
    """

    name: str
    run: Callable[[Request], Value]
    request: type[Request]
    value: type[Value]
    packages: tuple[str, ...] = ()
    """Distributions whose versions are part of the cache key."""
