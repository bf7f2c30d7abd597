"""Bytes of a repository: from a web server, or from a folder. Every wait has a limit.

A web server may publish the repository's folder as it is; downloads go on where they broke off
(`Range`). Knows no metadata: whoever reads checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from engineworks.delivery.refusal import Unreachable
from engineworks.errors import DeliveryError

#: Bytes that are read at once.
BLOCK = 2**18

#: Seconds for a connection, and for each wait for the next bytes.
WAIT_S = 30.0

#: A body that comes slower than this over `PATIENCE_S` is given up for now.
SLOWEST_BYTES_PER_S = 256
PATIENCE_S = 120.0


class RepositorySource(Protocol):
    """Where a repository is."""

    def read(self, path: str, start: int = 0) -> Iterator[bytes]:
        """A file's bytes from an offset on.

        Raises:
            Absent: There is no such file.
            Unreachable: It does not answer, or breaks off.
        """
        ...


class Absent(Unreachable):
    """The repository answers, and has no such file."""


def source(address: str, headers: dict[str, str] | None = None) -> RepositorySource:
    """The source behind an address.

    Args:
        address: `http://...`, `https://...`, `file://...` or a folder.
        headers: Sent with every request, for example `Authorization`.

    Raises:
        DeliveryError: Of another kind.
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        return Web(address, headers)
    if parts.scheme in ("", "file"):
        return Folder(Path(unquote(parts.path)))
    raise DeliveryError(
        f"{address}: a repository is read over http, https or from a folder",
        hint="publish a bucket through its web address",
    )


class Folder:
    """A repository in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, start: int = 0) -> Iterator[bytes]:
        """See `RepositorySource`."""
        try:
            with (self._root / path).open("rb") as stream:
                stream.seek(start)
                while block := stream.read(BLOCK):
                    yield block
        except FileNotFoundError:
            raise _absent(str(self._root / path)) from None
        except OSError as error:
            raise _broken(str(self._root / path), error) from error


class Web:
    """A repository behind a web server.

    Args:
        address: Of the folder.
        headers: Sent with every request.
    """

    def __init__(self, address: str, headers: dict[str, str] | None = None) -> None:
        import urllib3

        self._base = address.rstrip("/")
        wait = urllib3.Timeout(connect=WAIT_S, read=WAIT_S)
        self._pool = urllib3.PoolManager(timeout=wait, retries=False, headers=headers or {})

    def read(self, path: str, start: int = 0) -> Iterator[bytes]:
        """See `RepositorySource`."""
        from urllib3.exceptions import HTTPError

        url = f"{self._base}/{quote(path)}"
        headers = {**self._pool.headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            answer = self._pool.request(
                "GET", url, headers=headers, preload_content=False, redirect=False
            )
            try:
                yield from self._body(answer, url, start)
            finally:
                answer.close()
        except (HTTPError, OSError) as error:
            raise _broken(url, error) from error

    @staticmethod
    def _body(answer: Any, url: str, start: int) -> Iterator[bytes]:
        if answer.status in (403, 404, 410):
            raise _absent(url)
        if answer.status == 416 and start:
            return  # nothing lies behind what is here already
        if answer.status not in (200, 206):
            raise Unreachable(
                f"{url} answers {answer.status}", hint="look at the server; asked again later"
            )
        skip = start if answer.status == 200 else 0  # it does not know ranges
        begun, received = time.monotonic(), 0
        # `read1` gives what is there: a server that drips would fill a whole block for days.
        while block := answer.read1(BLOCK, decode_content=False):
            received += len(block)
            took_s = time.monotonic() - begun
            if took_s > PATIENCE_S and received < SLOWEST_BYTES_PER_S * took_s:
                raise Unreachable(
                    f"{url} gives {received / took_s:.0f} bytes a second",
                    hint="it goes on where it was, later",
                )
            dropped, skip = min(skip, len(block)), max(0, skip - len(block))
            if len(block) > dropped:
                yield block[dropped:]
        announced = answer.headers.get("Content-Length", "")
        if announced.isdigit() and received < int(announced):
            raise Unreachable(
                f"{url} broke off after {received} of {announced} bytes",
                hint="it goes on where it was, later",
            )


def _absent(where: str) -> Absent:
    return Absent(f"{where}: there is no such file", hint="is the address that of a repository?")


def _broken(where: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"{where} cannot be read ({type(error).__name__}: {error})",
        hint="check network and address; it is asked again later",
    )


def slowed(
    blocks: Iterator[bytes],
    bytes_per_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Blocks, no faster than a limit on average; 0: as fast as they come."""
    begun, given = clock(), 0
    for block in blocks:
        yield block
        given += len(block)
        if bytes_per_s > 0:
            ahead_s = given / bytes_per_s - (clock() - begun)
            if ahead_s > 0:
                sleep(ahead_s)


def whole(source: RepositorySource, path: str, most: int) -> bytes:
    """A small file.

    Raises:
        Unreachable: It does not come.
        Refused: It is longer than `most`.
    """
    from engineworks.delivery.refusal import Refused

    data = bytearray()
    for block in source.read(path):
        data += block
        if len(data) > most:
            raise Refused(
                f"{path} has more than the {most} bytes that are signed",
                hint="nothing changes on this device; look at the repository", check="length",
            )  # fmt: skip
    return bytes(data)
