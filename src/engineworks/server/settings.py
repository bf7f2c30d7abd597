"""What a server is told once, at its start: engines, limits, addresses.

Plain values that cross to the workers as JSON. Reads no file and opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from engineworks.specs import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class ServedEngine:
    """One engine under one name."""

    name: str
    folder: str
    sha256: str = ""
    """The identity that it must have; empty: whatever lies there."""


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What one request, one engine and one worker may take."""

    max_body: int = 20 * 2**20
    """Bytes of a request's body."""
    max_pixels: int = MAX_PIXELS
    max_video: int = 100 * 2**20
    """Bytes of a video; 0: videos are refused."""
    max_video_s: float = 120.0
    """Its length."""
    videos: int = 2
    """Videos that are in work in a worker; each client may have one."""
    max_batch: int = 8
    """Rows of one inference, where the engine's batch is open."""
    queue: int = 64
    """Rows that may be in a worker for one engine: being decoded, waiting, running."""
    wait_ms: float = 2.0
    """How long a request may wait for others, where merging pays."""
    timeout_ms: float = 5000.0
    """How long a request may take where it does not say so itself."""
    receive_s: float = 30.0
    """How long the whole body may take to arrive."""
    header_s: float = 10.0
    """How long a connection may take to send the head of a request."""
    connections: int = 512
    """Open connections of one worker."""
    drain_s: float = 30.0
    """How long requests under way may take once the server was asked to end."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a worker is told."""

    engines: tuple[ServedEngine, ...]
    limits: ServerLimits = ServerLimits()
    threads: int = 0
    """Threads of one session; 0: the cores that this machine has, divided among all sessions."""
    instances: int = 1
    """Sessions of each engine in each worker."""
    devices: tuple[int, ...] = ()
    """GPUs; instances are spread over them."""
    workers: int = 1
    confidence: float | None = None
    """Where a request does not say; None: as the engine's manifest says."""
    iou: float | None = None
    decoder_from: str = ""
    keys_file: str = ""
    hosts: tuple[str, ...] = ()
    """Names that a request may call this server by; empty: any."""
    roots: tuple[str, ...] = ()
    """Folders below which an admin may name engines."""
    follows: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    log: str = ""
    """File for one JSON line a request; `-`: standard error."""
    cache: str = ""
    """Folder that remembers what each batch took here."""
