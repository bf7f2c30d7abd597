"""Who asks, as the system of this machine knows them: no variable that anybody may set is read."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator

from flows.commands.outcome import WHO


def user() -> str:
    """The user that this process runs as, and the machine; `not told` where nobody knows."""
    try:
        import pwd

        return f"{pwd.getpwuid(os.getuid()).pw_name} on {platform.node()}"
    except (ImportError, KeyError):
        return "not told"


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Let flows of this process know who asks."""
    token = WHO.set(user())
    try:
        yield
    finally:
        WHO.reset(token)
