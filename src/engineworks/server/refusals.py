"""What a client is told when it gets no answer: status, words, and how the refusal is counted.

Knows no framework.
"""

from __future__ import annotations

from engineworks.errors import EngineworksError


class Refusal(EngineworksError):
    """A request is not answered.

    Args:
        status: HTTP status.
        outcome: Word for the metrics; each refusal is counted under one.
        message: What is wrong, with the value and the rule.
        hint: What to send instead.
        retry_s: After how many seconds it may go well.
    """

    def __init__(
        self, status: int, outcome: str, message: str, *, hint: str, retry_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.outcome, self.retry_s = status, outcome, retry_s


def bad_request(message: str, *, hint: str) -> Refusal:
    """The request says something that means nothing here."""
    return Refusal(400, "bad_request", message, hint=hint)


def too_large(message: str, *, hint: str) -> Refusal:
    """More bytes, pixels or rows than are taken."""
    return Refusal(413, "too_large", message, hint=hint)


def busy(message: str, retry_s: float) -> Refusal:
    """The queue is full, or the deadline would pass in it."""
    return Refusal(
        503, "queue_full", message, hint="try again after Retry-After seconds", retry_s=retry_s
    )


def too_late(message: str, retry_s: float = 1.0) -> Refusal:
    """The deadline passed before the engine had its turn."""
    return Refusal(
        503,
        "too_late",
        message,
        hint="give a longer timeout_ms, or send less at once",
        retry_s=retry_s,
    )


def late() -> Refusal:
    """As `too_late`, of a request that waited for its engine."""
    return too_late("the request's time was over before the engine had answered it")
