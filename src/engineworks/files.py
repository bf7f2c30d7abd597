"""Files that users name, opened so that none of them can hold a program up.

A name may lead to a pipe that nobody writes to, to a device without an end, or to a hundred
gigabytes. Knows no formats; what is refused is an `OSError`, whose words fit behind the name.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

#: Largest text that is read whole: annotations of a million boxes have some 200 MB.
MOST_TEXT = 2**30

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: Path) -> BinaryIO:
    """Open an ordinary file, or a link to one, for reading bytes; never waits for a pipe.

    Raises:
        OSError: As `open`, and for everything that is no ordinary file.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "the name holds a zero byte", str(path))
    # Without O_NONBLOCK, opening a pipe waits for whoever writes to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "something else")
            raise OSError(errno.EINVAL, f"is {kind}, no ordinary file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int) -> bytes:
    """All bytes of an ordinary file.

    Raises:
        OSError: As `open_file`, and for one of more than `most` bytes, before it is read.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        # A number as large as `most` would be set aside before anything is read.
        data = file.read(size) if size <= most else b""
        if size <= most and (more := file.read(1)):  # it grows meanwhile
            data += more + file.read(most)
    if size > most or len(data) > most:
        raise OSError(
            errno.EFBIG, f"has {max(size, len(data)):,} bytes, more than {most:,}", str(path)
        )
    return data


def read_text(path: Path, encoding: str = "utf-8", most: int = MOST_TEXT) -> str:
    """An ordinary file's text, its line ends made one newline each.

    Raises:
        OSError: As `read_bytes`.
        UnicodeDecodeError: It is text of another encoding, or none.
    """
    text = read_bytes(path, most).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")
