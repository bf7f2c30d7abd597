"""A web server on loopback that sends a video stream and cuts the line, as bad networks do."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class CuttingServer:
    """Sends bytes to each connection, but only the first part of them, then hangs up.

    Args:
        data: A stream, MPEG-TS for example.
        keep: Share of the data that each connection gets.
        connections: After so many it no longer answers.
        length: Whether to say how long it is, as a server of files does.
    """

    def __init__(
        self, data: bytes, *, keep: float, connections: int = 10**9, length: bool = False
    ) -> None:
        self._data, self._keep, self._most, self._length = data, keep, connections, length
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}/live"
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> CuttingServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while self.connections < self._most:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()
        self._listener.close()

    def _answer(self, line: socket.socket) -> None:
        with line:
            try:
                request = line.recv(65536).decode("latin-1")
                start = 0
                for header in request.split("\r\n"):
                    if header.lower().startswith("range: bytes=") and self._length:
                        start = int(header.split("=")[1].split("-")[0])
                total = len(self._data)
                head = "HTTP/1.1 206 Partial Content" if start else "HTTP/1.1 200 OK"
                if self._length:
                    head += f"\r\nAccept-Ranges: bytes\r\nContent-Length: {total - start}"
                if start:
                    head += f"\r\nContent-Range: bytes {start}-{total - 1}/{total}"
                line.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
                line.sendall(self._data[start : int(total * self._keep)])
            except OSError:
                pass
