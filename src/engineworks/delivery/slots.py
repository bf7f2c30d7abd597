"""One slot of a device: the link to its engine, and a record of what was tried, watched and good.

The link says what runs, the record says what is known of it, and is written first: whatever a kill
leaves between the two is told from them. Knows no network and no metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from engineworks.delivery import home as homes
from engineworks.delivery.disk import Disk
from engineworks.delivery.home import Home
from engineworks.errors import EngineworksError
from engineworks.store import is_identity

#: A trial or a watch that was begun so often without an end has failed: it may be what ended it.
MOST_TRIES = 3


#: Engines that are remembered as bad, or as proven.
_MOST_KEPT = 32


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a slot."""

    model: str = ""
    variant: str = ""
    signers: str = ""
    """Key ids that spoke for the model when this was written."""
    generation: int = 0
    """The newest that verified metadata has named."""
    sha256: str = ""
    """Its engine."""
    version: str = ""
    allowed: tuple[str, ...] = ()
    """Engines that may be gone back to, by the newest verified metadata."""
    phase: Literal["", "trying", "watching"] = ""
    tries: int = 0
    """Begun in a row without an end."""
    server: bool = False
    """Whether a server answered before the switch, so that it must answer after it."""
    good: str = ""
    """The engine that has last passed its trial and its watch."""
    good_version: str = ""
    good_generation: int = 0
    failed_generation: int = 0
    failed: str = ""
    """The engine that failed here; its generation is not tried again."""
    failed_check: str = ""
    failed_reason: str = ""
    bad: tuple[str, ...] = ()
    """Engines that failed here and did not pass since: none of them is gone back to."""
    proven: tuple[str, ...] = ()
    """Engines that passed their trial and their watch here and have not failed since, the latest
    last: what is to be now, and is one of them, is not tried again."""
    p50_ms: float = 0.0
    """Of the last trial that was passed."""


class SlotState:
    """A slot's link and record.

    Args:
        home: The device's folder.
        disk: How it is written.
        name: The slot's.
    """

    def __init__(self, home: Home, disk: Disk, name: str) -> None:
        self._home, self._disk, self.name = home, disk, name
        self._path = home.slots / f"{name}.json"
        self.record = self._read()

    def _read(self) -> Record:
        try:
            record = homes.read(Record, self._path)
        except EngineworksError:  # damaged: what runs is what was good
            record = None
        return record or Record(good=self.running)

    @property
    def running(self) -> str:
        """Identity of the engine that the link leads to; empty: there is none."""
        try:
            leads_to = self._home.current(self.name).readlink()
        except OSError:
            return ""
        return leads_to.name if is_identity(leads_to.name) else ""

    def note(self, **changes: object) -> None:
        """Change the record, on the disk first."""
        fresh = replace(self.record, **changes)  # type: ignore[arg-type]
        if fresh != self.record or not self._path.exists():
            homes.write(self._disk, self._path, fresh)
            self.record = fresh

    def point(self, sha256: str) -> None:
        """Let the link lead to an engine that lies whole on the disk."""
        if self.running == sha256:
            return
        self._disk.folder(self._home.current(self.name).parent)
        self._disk.point(self._home.current(self.name), f"../../engines/{sha256}")

    def fallback(self, whole: Callable[[str], bool]) -> str:
        """The engine to go back to: one that may run, lies whole here, and did not fail here.

        Args:
            whole: Whether an engine lies whole on the disk.

        Returns:
            Its identity; empty: there is none.
        """
        record = self.record
        may = [record.good] if record.good in record.allowed else []
        may += [sha256 for sha256 in record.allowed if sha256 not in may]
        return next((sha256 for sha256 in may if sha256 not in record.bad and whole(sha256)), "")

    def needed(self) -> set[str]:
        """Engines that must stay on the disk."""
        record = self.record
        back = [sha256 for sha256 in record.allowed if sha256 not in record.bad][:2]
        return {self.running, record.good, record.sha256, *back} - {""}

    def with_bad(self, sha256: str) -> dict[str, tuple[str, ...]]:
        """What the record says of engines when one has failed here."""
        record = self.record
        return {"bad": _last(record.bad, sha256), "proven": _without(record.proven, sha256)}

    def with_good(self, sha256: str) -> dict[str, tuple[str, ...]]:
        """What the record says of engines when one has passed its trial and its watch."""
        record = self.record
        return {"bad": _without(record.bad, sha256), "proven": _last(record.proven, sha256)}


def _without(engines: tuple[str, ...], sha256: str) -> tuple[str, ...]:
    return tuple(one for one in engines if one != sha256)


def _last(engines: tuple[str, ...], sha256: str) -> tuple[str, ...]:
    return (*_without(engines, sha256), sha256)[-_MOST_KEPT:]
