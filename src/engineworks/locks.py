"""Advisory locks of files: waited for with a word of who holds them, and not for ever.

A lock ends with its process. One that was suspended, or hangs on a dead disk, keeps it. Where there
are none (Windows), everybody goes on. Knows no file's meaning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import IO, Any

from engineworks.errors import StoreError

log = logging.getLogger(__name__)

#: Seconds until it is said that somebody is waited for, between two looks, and until it is enough.
_SAID_S, _LOOK_S, WAIT_S = 2.0, 0.05, 600.0


def attempt(stream: IO[Any], *, exclusive: bool = True) -> bool:
    """Lock an open file if nobody else holds it; whether it is locked.

    Args:
        stream: The file; closing it lets the lock go.
        exclusive: Else it is shared with others that share it.
    """
    try:
        import fcntl
    except ImportError:
        return True
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait(
    stream: IO[Any], path: Path, *, exclusive: bool = True, limit_s: float | None = None
) -> None:
    """Lock an open file as soon as nobody else holds it.

    Args:
        stream: The file; closing it lets the lock go.
        path: Its name, for words.
        exclusive: Else it is shared with others that share it.
        limit_s: How long to wait; None: `WAIT_S`.

    Raises:
        StoreError: Somebody has held it for all that time.
    """
    limit = WAIT_S if limit_s is None else limit_s
    begun, said = time.monotonic(), False
    while not attempt(stream, exclusive=exclusive):
        waited_s = time.monotonic() - begun
        if waited_s >= limit:
            raise StoreError(
                f"{path} is held by {_holder(stream)}, for {waited_s:.0f} s by now",
                hint="let that program end, or go on (fg) where it was suspended; then run again",
            )
        if waited_s >= _SAID_S and not said:
            said = True
            log.warning("%s is held by %s: waiting for it", path, _holder(stream))
        time.sleep(_LOOK_S)


def _holder(stream: IO[Any]) -> str:
    """Who holds the lock of a file, by the kernel's own list where there is one."""
    place = os.fstat(stream.fileno())
    wanted = f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}:{place.st_ino}"
    with contextlib.suppress(OSError, IndexError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "->" not in fields and fields[5] == wanted:
                command = Path(f"/proc/{fields[4]}/cmdline").read_bytes().split(b"\0")
                words = b" ".join(command[:4]).decode("utf-8", "replace")
                return f"process {fields[4]} ({words.strip()})"
    return "another process"
