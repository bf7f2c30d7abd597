"""`--follow DIR`: what the links `DIR/NAME/current` lead to is served under NAME.

Whoever delivers engines moves the links; here they are looked at, and what is whole and answers
takes the place of what served. A failure is tried again, later each time, and blocks no other name.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engineworks.errors import EngineworksError
from engineworks.server.settings import ServedEngine

_log = logging.getLogger(__name__)

#: Between two looks.
EVERY_S = 0.5

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def found(folder: Path) -> dict[str, ServedEngine]:
    """What the links lead to now, by name."""
    engines: dict[str, ServedEngine] = {}
    try:
        places = sorted(folder.iterdir())
    except OSError:
        return engines
    for place in places:
        link = place / "current"
        if not _NAME.fullmatch(place.name):
            continue
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            continue  # absent or broken: what serves goes on
        if (target / "manifest.json").is_file():
            engines[place.name] = ServedEngine(name=place.name, folder=str(target))
    return engines


@dataclass
class _Failed:
    folder: str
    wait_s: float
    again_s: float


class Follower:
    """Looks at the links and asks for changes.

    Args:
        folder: DIR.
        served: What is served now, by name; kept up by whoever changes it.
        change: Changes what is served.
    """

    def __init__(
        self,
        folder: Path,
        served: Mapping[str, ServedEngine],
        change: Callable[[str, ServedEngine | None], Awaitable[None]],
    ) -> None:
        self._folder, self._served, self._change = folder, served, change
        self._failed: dict[str, _Failed] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look()
            except Exception:  # whatever it is, the links after it must still be followed
                _log.exception("%s could not be looked at", self._folder)

    async def look(self) -> None:
        """Look once."""
        for name, wanted in found(self._folder).items():
            serving = self._served.get(name)
            if serving is not None and serving.folder == wanted.folder:
                self._failed.pop(name, None)
                continue
            failed = self._failed.get(name)
            now = time.monotonic()
            if failed is not None and failed.folder == wanted.folder and now < failed.again_s:
                continue
            try:
                await self._change(name, wanted)
            except EngineworksError as error:
                before = failed.wait_s if failed and failed.folder == wanted.folder else 0.5
                wait_s = min(60.0, before * 2)
                self._failed[name] = _Failed(wanted.folder, wait_s, now + wait_s)
                _log.error(
                    "%s: %s is not served, the one before stays (%s); tried again in %g s",
                    name, wanted.folder, error.message, wait_s,
                )  # fmt: skip
