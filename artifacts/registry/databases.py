"""Addresses of the embedded databases, made of their parts: a path may hold `?`, `#` or `%41`.

Knows how SQLAlchemy reads such an address, and nothing of who keeps what there.
"""

from __future__ import annotations

import re
from pathlib import Path

from engineworks.errors import StoreError

#: What means itself in an address, whichever version of SQLAlchemy reads it.
_PLAIN = re.compile(r"[\w./ -]+", re.ASCII)


def plain(path: Path) -> bool:
    """Whether a path can be written into an address as it is."""
    return _PLAIN.fullmatch(str(path)) is not None


def sqlite_url(path: Path, driver: str = "pysqlite") -> str:
    """The address of a SQLite file.

    Args:
        path: Absolute.
        driver: `pysqlite` or `aiosqlite`.

    Raises:
        StoreError: The SQLAlchemy that is installed cannot carry this path.
    """
    if plain(path):
        return f"sqlite:///{path}" if driver == "pysqlite" else f"sqlite+{driver}:///{path}"
    from sqlalchemy import URL, make_url

    # With the driver named, too: MLflow makes the folder of what it takes for a bare path.
    url = URL.create(f"sqlite+{driver}", database=str(path)).render_as_string(hide_password=False)
    if make_url(url).database != str(path):  # before SQLAlchemy 2.1
        raise StoreError(
            f"the state folder's path cannot be part of an address: {path.parent}",
            hint="set ENGINEWORKS_HOME to a path without ?, % and #, or "
            "pip install 'sqlalchemy>=2.1'",
        )
    return url


def embedded(url: str) -> bool:
    """Whether an address is that of a file on this machine."""
    return url.startswith(("sqlite:", "sqlite+"))
