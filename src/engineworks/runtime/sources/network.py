"""A stream from the network: RTSP, HTTP and what else FFmpeg reads; comes back when it is cut.

After a cut it is opened again, waiting 0.5 s and twice as long each time, up to 30 s. Times go on
by this machine's clock, since a new connection starts the sender's clock anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from engineworks.errors import DataError
from engineworks.runtime.sources import Frame, Source, SourceOptions, Troubles, spoken
from engineworks.runtime.sources.decoder import Decoder
from engineworks.runtime.sources.file import FileSource

log = logging.getLogger(__name__)

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0

#: FFmpeg knows others, which name files, commands of its own, or parts of either.
_SCHEMES = frozenset(
    (
        *("rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtmpe", "http", "https", "tcp", "tls"),
        *("udp", "rtp", "srtp", "srt", "rist", "mms", "mmsh", "mmst", "ftp", "sftp", "unix"),
    )
)

LIVE = True
LOCAL = False
USES = ("hardware", "give_up_s")


def fits(address: str) -> bool:
    """`scheme://...`."""
    return "://" in address


def files(address: str) -> list[Path]:
    """None."""
    return []


class Connection(Protocol):
    """One connection: (`Frame.pixels`, seconds by the sender's clock) until it ends."""

    @property
    def fps(self) -> float:
        """Nominal frames per second."""
        ...

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel by its height."""
        ...

    def __iter__(self) -> Iterator[tuple[Any, float]]: ...

    def close(self) -> None:
        """Let go."""
        ...


class LiveSource:
    """A connection that is made anew when it ends.

    Args:
        name: For messages.
        first: The open connection.
        again: Opens another; raises DataError while that fails.
        give_up_s: Seconds without a frame after which it is over.
        stop: Ends the waits.
        troubles: Where reconnections are counted.
    """

    live = True
    frames: int | None = None

    def __init__(
        self,
        name: str,
        first: Connection,
        again: Callable[[], Connection],
        *,
        give_up_s: float,
        stop: threading.Event,
        troubles: Troubles,
    ) -> None:
        self._name, self._again, self._give_up_s, self._stop = name, again, give_up_s, stop
        self._connection: Connection | None = first
        self.fps = first.fps
        self.troubles = troubles

    def __iter__(self) -> Iterator[Frame]:
        """Frames until it is stopped.

        Raises:
            DataError: Nothing came for `give_up_s`.
        """
        started = last = time.monotonic()
        number, delay_s, latest_s = 0, _FIRST_DELAY_S, 0.0
        while not self._stop.is_set():
            reason = "it ended"
            try:
                connection = self._connection = self._connection or self._again()
                offset_s = None
                for pixels, sent_s in connection:
                    last, delay_s = time.monotonic(), _FIRST_DELAY_S
                    if offset_s is None:
                        begin_s = max(last - started, latest_s + 1 / self.fps) if number else 0.0
                        offset_s = begin_s - sent_s
                    latest_s = max(latest_s, sent_s + offset_s)
                    yield Frame(
                        pixels=pixels,
                        number=number,
                        time_s=latest_s,
                        pixel_aspect=connection.pixel_aspect,
                    )
                    number += 1
                    if self._stop.is_set():
                        return
            except DataError as error:
                reason = error.message.removeprefix(f"{self._name} ")
            self.close()
            silent_s = time.monotonic() - last
            if silent_s + delay_s > self._give_up_s:
                raise DataError(
                    f"{self._name} is lost: {reason}; no frame for {silent_s:.0f} s",
                    hint="check the camera, the network and the address, or raise --give-up",
                )
            log.warning("%s: %s; again in %.1f s", self._name, reason, delay_s)
            self.troubles.reconnects += 1
            self.troubles.note(reason)
            self._stop.wait(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    def close(self) -> None:
        """Close the connection that is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def open_source(address: str, options: SourceOptions, stop: threading.Event) -> Source:
    """Open a stream; a whole video at a web address is read as a file is.

    Raises:
        DataError: The first connection fails.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise DataError(
            f"{spoken(address)}: {scheme}:// is no kind of stream that is read",
            hint=f"give a path, or one of {', '.join(sorted(_SCHEMES))}",
        )
    troubles = Troubles()

    def connect() -> Decoder:
        rtsp = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
        return Decoder(
            address,
            hardware=options.hardware,
            troubles=troubles,
            timeout_s=options.timeout_s,
            options=rtsp,
            max_pixels=options.max_pixels,
        )

    first = connect()
    if first.duration_s and address.startswith("http"):
        return FileSource(first, options.after_s)
    return LiveSource(
        address, first, connect, give_up_s=options.give_up_s, stop=stop, troubles=troubles
    )
