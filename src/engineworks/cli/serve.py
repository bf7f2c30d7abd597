"""`serve`: engines behind HTTP; `serve-key`: a key for those who may ask."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import loglevels
from engineworks.cli._numbers import add_max_pixels, number, whole
from engineworks.cli._words import add, answer
from engineworks.errors import DataError, MissingDependency

if TYPE_CHECKING:
    import socket

    from engineworks.cli._words import Subparsers
    from engineworks.server.settings import ServedEngine, ServerLimits, Settings

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_NAMED = re.compile(rf"({_NAME.pattern})=(.+)", re.ASCII)
_PACKAGES = ("fastapi", "uvicorn", "httptools", "prometheus_client")


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    command = add(subparsers, "serve", _serve, "serve engines over HTTP")
    command.add_argument(
        "engines", nargs="*", metavar="[NAME=]ENGINE",
        help="folder or variant of the latest run; NAME is the manifest's unless given",
    )  # fmt: skip
    command.add_argument(
        "--follow", type=Path, metavar="DIR",
        help="serve what the links DIR/NAME/current lead to, and change when they do",
    )  # fmt: skip
    command.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    command.add_argument("--port", type=whole(0, 65535), default=8000, help="default: 8000")
    command.add_argument("--uds", metavar="PATH", default="", help="a unix socket instead")
    command.add_argument("--workers", type=whole(1, 64), default=1, help="processes (default: 1)")
    command.add_argument(
        "--instances", type=whole(1, 64), default=1, help="sessions of each engine in each worker"
    )
    command.add_argument(
        "--threads", type=whole(0), default=0,
        help="CPU threads of one session (default: the cores, divided among all sessions)",
    )  # fmt: skip
    command.add_argument(
        "--devices", type=_devices, default=(), metavar="0,1", help="GPUs for the instances"
    )
    command.add_argument("--confidence", type=number(-1e-9, 1), help="where a request says none")
    command.add_argument("--iou", type=number(0, 1), help="where a request says none")
    command.add_argument("--decoder-from", metavar="DIR", default="", help="as for detect")
    _add_limits(command)
    _add_safety(command)
    key = add(subparsers, "serve-key", _serve_key, "make a key for a server")
    key.add_argument("name", help="whose it is")
    key.add_argument("--keys", type=Path, required=True, metavar="FILE", help="file of digests")
    key.add_argument(
        "--rights", default="infer", help="of infer, metrics, admin, with commas (default: infer)"
    )
    key.add_argument(
        "--per-second", type=number(0, 1e6), default=0.0, metavar="N", help="requests at most"
    )


def _add_limits(command: argparse.ArgumentParser) -> None:
    add_max_pixels(command)
    command.add_argument(
        "--max-body", type=whole(1024, 2**31), default=20 * 2**20, metavar="BYTES",
        help="largest body of a request (default: 20 MiB)",
    )  # fmt: skip
    command.add_argument(
        "--max-video", type=whole(0, 2**34), default=100 * 2**20, metavar="BYTES",
        help="largest video (default: 100 MiB; 0: none is taken)",
    )  # fmt: skip
    command.add_argument(
        "--max-video-s", type=number(0, 86_400), default=120.0, metavar="S",
        help="longest video in seconds (default: 120)",
    )  # fmt: skip
    command.add_argument(
        "--max-batch", type=whole(1, 4096), default=8, help="rows of one inference"
    )
    command.add_argument(
        "--queue", type=whole(1, 100_000), default=64,
        help="rows in work for one engine of a worker; more get 503 (default: 64)",
    )  # fmt: skip
    command.add_argument(
        "--wait-ms", type=number(-1e-9, 10_000), default=2.0,
        help="a request waits so long for others, where merging pays (default: 2)",
    )  # fmt: skip
    command.add_argument(
        "--timeout-ms", type=number(0, 3.6e6), default=5000.0,
        help="a request may take so long where it does not say (default: 5000)",
    )  # fmt: skip
    command.add_argument(
        "--drain-s", type=number(0, 3600), default=30.0,
        help="requests under way may take so long at the end (default: 30)",
    )  # fmt: skip
    command.add_argument(
        "--head-s", type=number(0, 3600), default=10.0,
        help="the head of a request may take so long to arrive (default: 10)",
    )  # fmt: skip
    command.add_argument(
        "--body-s", type=number(0, 3600), default=30.0, help="and its body (default: 30)"
    )
    command.add_argument("--connections", type=whole(1, 65536), default=512, help="of one worker")


def _add_safety(command: argparse.ArgumentParser) -> None:
    command.add_argument("--keys", metavar="FILE", default="", help="file of engineworks serve-key")
    command.add_argument(
        "--no-auth", action="store_true", help="listen on any address without keys"
    )
    command.add_argument("--tls-cert", metavar="FILE", default="", help="certificate chain, PEM")
    command.add_argument("--tls-key", metavar="FILE", default="", help="its private key, PEM")
    command.add_argument(
        "--allow", action="append", default=[], metavar="DIR",
        help="an admin may name engines below DIR",
    )  # fmt: skip
    command.add_argument("--log", metavar="FILE", default="", help="JSON line a request; - stderr")


def _serve(options: argparse.Namespace) -> int:
    """0: ended as asked; 2: refused."""
    _hold_to_safety(options)
    _check_packages()
    from engineworks.server import supervisor

    loglevels.configure(loglevels.asked("info"))
    listener = supervisor.listen(options.host, options.port, options.uds)

    def tell(engines: Mapping[str, Any]) -> None:
        _tell(options, listener, engines)

    supervisor.serve(lambda: _settings(options), options.workers, listener, tell)
    return 0


def _tell(options: argparse.Namespace, listener: socket.socket, engines: Mapping[str, Any]) -> None:
    scheme = "https" if options.tls_cert else "http"
    if options.uds:
        url = f"unix:{options.uds}"
    else:
        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"{scheme}://{host}:{listener.getsockname()[1]}"
    if options.json:
        line = {"url": url, "pid": os.getpid(), "models": list(engines.values())}
        sys.stdout.write(json.dumps(line) + "\n")
    else:
        for name, about in engines.items():
            sys.stdout.write(f"{name}  {about['variant']}  {about['version']}\n")
        sys.stdout.write(f"serving on {url} (drop photos there; Ctrl-C ends)\n")
    sys.stdout.flush()


def _hold_to_safety(options: argparse.Namespace) -> None:
    open_to_others = not options.uds and options.host not in _LOOPBACK
    if open_to_others and not options.keys and not options.no_auth:
        raise DataError(
            f"--host {options.host} is open to other machines, and there are no keys",
            hint="make one: engineworks serve-key NAME --keys keys.json; then --keys keys.json "
            "(or --no-auth where something else guards the server)",
        )
    if bool(options.tls_cert) != bool(options.tls_key):
        raise DataError(
            "a certificate needs its key, and a key its certificate",
            hint="give both --tls-cert and --tls-key",
        )
    for path in filter(None, (options.tls_cert, options.tls_key, options.keys)):
        if not Path(path).is_file():
            raise DataError(f"{path} is no file", hint="check the path")
    if options.keys:
        from engineworks.server import keys

        keys.read(Path(options.keys))


def _check_packages() -> None:
    import importlib.util

    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"the server needs the package {package!r}",
                hint="pip install 'engineworks[server]'",
            )


def _settings(options: argparse.Namespace) -> Settings:
    from engineworks.server.settings import Settings

    loopback = not options.uds and options.host in _LOOPBACK and not options.keys
    home = Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks")
    return Settings(
        engines=_engines(options),
        limits=_limits(options),
        threads=options.threads,
        instances=max(options.instances, len(options.devices)),
        devices=options.devices,
        workers=options.workers,
        confidence=None if options.confidence is None else max(0.0, options.confidence),
        iou=options.iou,
        decoder_from=str(Path(options.decoder_from).resolve()) if options.decoder_from else "",
        keys_file=str(Path(options.keys).resolve()) if options.keys else "",
        # Without keys no other name may lead here: a page elsewhere could give one to 127.0.0.1.
        hosts=("127.0.0.1", "localhost", "[::1]") if loopback else (),
        roots=tuple(str(Path(folder).resolve()) for folder in options.allow),
        follows=str(options.follow.resolve()) if options.follow else "",
        tls_certificate=str(Path(options.tls_cert).resolve()) if options.tls_cert else "",
        tls_key=str(Path(options.tls_key).resolve()) if options.tls_key else "",
        log=options.log if options.log in ("", "-") else str(Path(options.log).resolve()),
        cache=str((home / "serve").resolve()),
    )


def _limits(options: argparse.Namespace) -> ServerLimits:
    from engineworks.server.settings import ServerLimits

    return ServerLimits(
        max_body=options.max_body,
        max_pixels=options.max_pixels,
        max_video=options.max_video,
        max_video_s=options.max_video_s,
        max_batch=options.max_batch,
        queue=options.queue,
        wait_ms=max(0.0, options.wait_ms),
        timeout_ms=options.timeout_ms,
        connections=options.connections,
        header_s=options.head_s,
        receive_s=options.body_s,
        drain_s=options.drain_s,
    )


def _engines(options: argparse.Namespace) -> tuple[ServedEngine, ...]:
    """What to serve; names are the manifest's where none is given.

    Raises:
        ArtifactError: One is no engine.
        DataError: There is none, or a name stands there twice.
    """
    from engineworks import manifest as manifests
    from engineworks.server import follow
    from engineworks.server.settings import ServedEngine

    chosen: list[ServedEngine] = []
    for text in options.engines:
        named = _NAMED.fullmatch(text)
        given, place = (named[1], named[2]) if named and not Path(text).exists() else ("", text)
        folder, sha256 = _found(place)
        manifest = manifests.load(folder / manifests.MANIFEST_NAME)
        name = (
            given or re.sub(r"[^A-Za-z0-9._-]", "-", manifest.name).lstrip("._-")[:64] or "engine"
        )
        chosen.append(ServedEngine(name=name, folder=str(folder), sha256=sha256))
    if options.follow is not None:
        chosen += follow.found(options.follow).values()
    names = [served.name for served in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"two engines are called {twice!r}", hint="give names: serve a=ENGINE b=ENGINE"
        )
    if not chosen and options.follow is None:
        raise DataError(
            "there is no engine to serve", hint="name one, or --follow DIR with NAME/current in it"
        )
    return tuple(chosen)


def _found(place: str) -> tuple[Path, str]:
    """The folder of an engine, and the identity that it must have; empty: whatever lies there."""
    if "://" not in place and (Path(place) / "manifest.json").is_file():
        return Path(place).resolve(), ""
    # Imports the runtime, which workers import meanwhile: a folder has no need of it.
    from engineworks.cli._engines import recall
    from engineworks.runtime.session import local_folder

    where, sha256 = recall(place)
    return local_folder(where).resolve(), sha256


def _serve_key(options: argparse.Namespace) -> int:
    """0: made; it is printed once."""
    from engineworks.server import keys

    rights = tuple(right.strip() for right in options.rights.split(","))
    secret = keys.add(options.keys, options.name, rights, options.per_second)
    text = f"{secret}\n(shown once; {options.keys} keeps its digest)"
    return answer(options, {"name": options.name, "key": secret, "rights": list(rights)}, text)


def _devices(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no list of GPUs such as 0,1")
    return tuple(map(int, parts))
