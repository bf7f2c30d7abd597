"""The line between the supervisor and a worker: JSON objects, one a line, over a socket pair.

The supervisor tells what to do, a worker what happened, and asks for changes. Knows no engine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from engineworks import errors
from engineworks.errors import EngineworksError

#: Of one line.
_MOST_BYTES = 2**22


class Line:
    """One end of the line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, socket: Any) -> Line:
        """A line over a connected socket."""
        reader, writer = await asyncio.open_connection(sock=socket, limit=_MOST_BYTES)
        return cls(reader, writer)

    def say(self, **message: Any) -> None:
        """Send one message; where nobody listens any more it is lost."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None once the other end is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def as_words(error: BaseException) -> dict[str, str]:
    """An error as it crosses the line."""
    if isinstance(error, EngineworksError):
        return {"kind": type(error).__name__, "error": error.message, "hint": error.hint}
    return {
        "kind": "EngineworksError",
        "error": f"{type(error).__name__}: {errors.said(error)}",
        "hint": "see the server's log",
    }


def as_error(fields: dict[str, str]) -> EngineworksError:
    """The error that crossed the line."""
    kind = errors.KINDS.get(fields.get("kind", ""), EngineworksError)
    return kind(fields.get("error", "no reason given"), hint=fields.get("hint", "see the log"))


class Asker:
    """A worker's questions to the supervisor, each with its answer."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def ask(self, **question: Any) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            EngineworksError: It was refused.
        """
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        try:
            self._line.say(ask=number, **question)
            answer = await future
        finally:
            del self._open[number]
        if not answer.get("ok"):
            raise as_error(answer)
        return answer

    def answered(self, message: dict[str, Any]) -> None:
        """An answer has come."""
        future = self._open.get(message["answer"])
        if future is not None and not future.done():
            future.set_result(message)
