"""The errors a user can meet. Each names the value, the rule it broke and the next step.

Knows nothing of stages, terminals or Prefect: whoever shows an error decides how.
"""

from __future__ import annotations

import re


class EngineworksError(Exception):
    """Base of all expected errors: something outside this code is not as it must be.

    Args:
        message: What happened, with the value at fault and the rule it broke.
        hint: The next step for the person who reads it.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}"

    @property
    def line(self) -> str:
        """The error in a line, for a table, a log or a verdict's reason."""
        return f"{self.message.partition(chr(10))[0]}; next: {self.hint}"

    @property
    def block(self) -> str:
        """The error with its kind, for a terminal; ends its last line."""
        return f"{type(self).__name__}: {self}\n"

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling (Prefect stores exceptions): keyword arguments need help."""
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[EngineworksError], message: str, hint: str) -> EngineworksError:
    return kind(message, hint=hint)


#: Contents of tensors, which some libraries print in full: eight numbers or more in a row.
_NUMBERS = re.compile(r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?[,;\s]+){8,}", re.IGNORECASE)


def said(error: BaseException | str, most: int = 400) -> str:
    """What another program said, on one line: long words keep their beginning and their end.

    The place stands first in them, the reason often last.

    Args:
        error: An exception, or its words.
        most: Characters that are kept.
    """
    text = " ".join(_NUMBERS.sub("... ", str(error)).split())
    if not text:
        return "no reason given" if isinstance(error, str) else type(error).__name__
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head].rstrip()} ... {text[-(most - head - 5) :].lstrip()}"


class RecipeError(EngineworksError):
    """The recipe asks for something unknown, contradictory or impossible."""


class ModelError(EngineworksError):
    """The model source, its weights or its behaviour is not usable."""


class DataError(EngineworksError):
    """Images or labels are missing, unreadable or do not fit the model."""


class InputError(EngineworksError):
    """A file that the run was pinned on was replaced while the run went on."""


class ExportError(EngineworksError):
    """No exporter produced an ONNX graph that agrees with the source model."""


class ArtifactError(EngineworksError):
    """An artifact is missing, half-made, altered or meant for another machine."""


class StoreError(EngineworksError):
    """The store cannot take or give bytes (disk full, no permission)."""


class BuildError(EngineworksError):
    """A target's builder refused the model or did not deliver what was asked."""


class FeedError(EngineworksError, ValueError):
    """What an engine is given is not what it takes, or the engine is closed."""


class InferenceError(EngineworksError):
    """An open engine failed while it ran."""

    goes_on = False
    """Whether the session is known to be as good as before."""


class MissingDependency(EngineworksError):
    """A package that this step needs is not installed here."""


class DeliveryError(EngineworksError):
    """An engine cannot be delivered, or a device refuses what came."""


class StageError(EngineworksError):
    """A stage's child process crashed, ran out of time or was killed."""


#: Errors by class name, so that a child process can hand its error to the parent as JSON.
KINDS: dict[str, type[EngineworksError]] = {
    kind.__name__: kind
    for kind in (
        EngineworksError,
        RecipeError,
        ModelError,
        DataError,
        InputError,
        ExportError,
        ArtifactError,
        StoreError,
        BuildError,
        FeedError,
        InferenceError,
        MissingDependency,
        DeliveryError,
        StageError,
    )
}
