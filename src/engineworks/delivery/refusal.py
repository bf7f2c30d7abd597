"""Why something that came is not used: the check that said so, in one word, and its reason.

Knows the exceptions of `tuf`, no network and no device.
"""

from __future__ import annotations

from typing import Literal

from engineworks.errors import DeliveryError

Check = Literal[
    "root", "timestamp", "snapshot", "targets", "model role", "signature", "version", "digest",
    "length", "format", "expired", "clock", "another model", "another variant", "generation",
    "identity", "content", "unsigned", "failed here", "trial", "latency", "sealed test", "health",
]  # fmt: skip
"""What can refuse."""


class Refused(DeliveryError):
    """Metadata, or an engine, is not used.

    Args:
        message: What came, and the rule that it broke.
        hint: The next step.
        check: The check that refused it.
    """

    def __init__(self, message: str, *, hint: str, check: Check = "format") -> None:
        super().__init__(message, hint=hint)
        self.check: Check = check


class Unreachable(DeliveryError):
    """The repository does not answer, or breaks off. Not a refusal: asked again later."""


class NoRoom(DeliveryError):
    """The disk is full, or would be. What serves goes on; tried again later."""


def of_tuf(error: Exception) -> DeliveryError:
    """What the framework's client said, as an error of ours that names its check."""
    from tuf.api import exceptions as tuf

    message = str(error) or type(error).__name__
    hint = "nothing changes on this device; ask who signs for the repository"
    if isinstance(error, tuf.DownloadLengthMismatchError):
        return Refused(f"more came than was announced: {message}", hint=hint, check="length")
    if isinstance(error, tuf.DownloadError):
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return Unreachable(
            f"the repository does not give what it should: {message}{cause}",
            hint="check network and address; it is asked again later",
        )
    if isinstance(error, tuf.ExpiredMetadataError):
        return Refused(
            f"metadata has expired: {message}",
            hint="sign it anew: engineworks deliver resign; engines that serve go on",
            check="expired",
        )
    kinds: tuple[tuple[type[Exception], Check, str], ...] = (
        (tuf.UnsignedMetadataError, "signature", "too few valid signatures"),
        (tuf.BadVersionNumberError, "version", "older than what was seen before"),
        (tuf.LengthOrHashMismatchError, "digest", "not the file that the signed list names"),
    )
    for kind, check, reason in kinds:
        if isinstance(error, kind):
            return Refused(f"metadata is refused, {reason}: {message}", hint=hint, check=check)
    return Refused(f"metadata is refused: {message}", hint=hint, check="format")
