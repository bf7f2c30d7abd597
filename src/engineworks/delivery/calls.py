"""Whether a repository calls its devices to look at once, between two looks.

Asks for one small file and verifies nothing: a call only brings the next look forward, and that
verifies. Who lies here makes devices look more often, a few times for each lie.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from engineworks.delivery.target import calls_of
from engineworks.delivery.transport import RepositorySource, whole
from engineworks.errors import EngineworksError

_PATH = "metadata/timestamp.json"

#: A timestamp has 1 KB.
_MOST_BYTES = 2**16

#: One call brings so many looks forward, if none of them can verify it.
_MOST_LOOKS = 5

#: While the repository cannot be asked, pauses are doubled, up to this factor.
_MOST_PATIENCE = 64


class Calls:
    """What a device has heard of calls.

    Args:
        source: The repository.
        known: Gives the number of the newest call in what was verified.
        clock: Seconds.
    """

    def __init__(
        self, source: RepositorySource, known: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._source, self._known, self._clock = source, known, clock
        self._next_s, self._patience = 0.0, 1
        self._number, self._looks, self._pending = 0, 0, False

    def heard(self, every_s: float) -> bool:
        """Whether a look is called for; asks no more often than `every_s` (0: never)."""
        now_s = self._clock()
        if self._pending or every_s <= 0 or now_s < self._next_s:
            return self._pending
        try:
            number = self._ask()
            self._patience = 1
        except (EngineworksError, ValueError, RecursionError):
            number = 0
            self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._next_s = now_s + every_s * self._patience
        if number > self._known():
            self._looks = self._looks + 1 if number == self._number else 1
            self._number = number
            self._pending = self._looks <= _MOST_LOOKS
        return self._pending

    def answer(self) -> None:
        """A look begins: what was heard is answered by it."""
        self._pending = False

    def _ask(self) -> int:
        said = json.loads(whole(self._source, _PATH, _MOST_BYTES))
        return calls_of(said.get("signed") if isinstance(said, dict) else None)
