"""Names of files that this process cannot write as text: refused before anything begins.

Reports, databases and requests to stages are UTF-8. A name of other bytes, or any accent where
Python was told that files have ASCII names, cannot stand in them. Knows no flow.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from engineworks.errors import StoreError


def refuse_unwritable(options: argparse.Namespace, home: Path) -> None:
    """Refuse options and a state folder whose full names are no text.

    Raises:
        StoreError: Names the first.
    """
    given = [value for value in vars(options).values() if isinstance(value, str | Path)]
    for name in (str(Path(value).absolute()) for value in (home, *given)):
        try:
            name.encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            raise StoreError(
                f"{os.fsencode(name)!r} is no name that can be written down: file names are "
                f"{encoding} here",
                hint="rename it to plain UTF-8"
                if encoding == "utf-8"
                else "start Python with UTF-8 names: export PYTHONUTF8=1 (or LC_ALL=C.UTF-8)",
            ) from None
