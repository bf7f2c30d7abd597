"""`deliver`: the side that signs what devices run: keys, engines, renewal, rotation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks.cli import _devices
from engineworks.cli._engines import recall
from engineworks.cli._numbers import number, whole
from engineworks.cli._words import add, answer
from engineworks.errors import DeliveryError

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers
    from engineworks.delivery.repository import Repository

_HELP = "sign what devices run: keys, engines, renewal, rotation"
_EPILOG = (
    "Exit codes: 0 done, 1 something expires soon or waits for a key (status), 2 refused. "
    "A password for keys is read from ENGINEWORKS_KEY_PASSWORD."
)


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    group = subparsers.add_parser("deliver", help=_HELP, description=_HELP, epilog=_EPILOG)
    group.set_defaults(run=_nothing)
    commands = group.add_subparsers(dest="action")
    init = _command(commands, "init", _init, "begin a repository, with keys for its four roles")
    init.add_argument("--root-keys", type=whole(1, 16), default=3, help="default: 3")
    init.add_argument(
        "--root-threshold", type=whole(1, 16), default=2, help="of them must sign (default: 2)"
    )
    key = add(commands, "key", _key, "make a key; its public half is written beside it")
    key.add_argument("file", type=Path, metavar="FILE.pem")
    delegate = _command(commands, "delegate", _delegate, "let a key speak for a model")
    delegate.add_argument("model")
    _public(delegate, "--public", required=True)
    delegate.add_argument("--threshold", type=whole(1, 16), default=1, help="default: 1")
    _engine(_command(commands, "add", _add, "publish the engine that a variant is to run"))
    _devices.widening(_command(commands, "widen", _widen, "let more devices take it"))
    drop = _command(commands, "drop", _drop, "publish nothing more for a variant")
    drop.add_argument("model")
    drop.add_argument("variant")
    _command(commands, "resign", _resign, "sign anew what would expire, and publish what waits")
    rotate = _command(commands, "rotate", _rotate, "give root, targets, snapshot, timestamp keys")
    rotate.add_argument("role", choices=("root", "targets", "snapshot", "timestamp"))
    _public(rotate, "--add")
    rotate.add_argument(
        "--remove", action="append", default=[], metavar="KEYID", help="its beginning is enough"
    )
    rotate.add_argument("--threshold", type=whole(1, 16), default=0, help="default: as before")
    _command(commands, "status", _status, "what is published, and when it expires", keys=False)
    invite = _command(commands, "invite", _invite, "write what a device is enrolled by", keys=False)
    invite.add_argument("--address", required=True, help="of the repository, as devices see it")
    invite.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    invite.add_argument(
        "--book", type=Path, metavar="FILE", help="book of devices: puts a one-time code in"
    )
    invite.add_argument("--name", default="", help="of the device, in the book")
    invite.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")

    _devices.register(commands)


def _nothing(options: argparse.Namespace) -> int:
    raise DeliveryError("deliver what?", hint="engineworks deliver --help lists what it does")


def _command(
    commands: Subparsers, name: str, run: Any, description: str, *, keys: bool = True
) -> argparse.ArgumentParser:
    command = add(commands, name, run, description)
    command.add_argument("repository", type=Path, metavar="REPOSITORY", help="its folder")
    if keys:
        command.add_argument(
            "--keys", type=Path, action="append", default=[], metavar="DIR",
            help="folder of keys, or one key; may be given several times", required=True,
        )  # fmt: skip
    return command


def _public(command: argparse.ArgumentParser, name: str, *, required: bool = False) -> None:
    command.add_argument(
        name, type=Path, action="append", default=[], metavar="FILE.pub", required=required,
        help="public half of a key",
    )  # fmt: skip


def _engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("engine", metavar="ENGINE", help="folder, or variant of the latest run")
    command.add_argument("--model", required=True, help="as it was delegated")
    command.add_argument("--variant", default="", help="default: the manifest's target/precision")
    command.add_argument("--version", default="", help="of the registered model")
    command.add_argument(
        "--generation", type=whole(1, 2**31), default=0, help="default: the next one"
    )
    command.add_argument(
        "--p50-ms", type=number(-1e-9, 1e7), default=0.0, help="promised median latency, batch 1"
    )
    command.add_argument("--machine", default="", help="where that was measured")
    command.add_argument("--threads", type=whole(0, 4096), default=0, help="with so many threads")
    command.add_argument(
        "--percent", type=number(0, 100), default=100.0, help="of devices that take it at first"
    )
    command.add_argument(
        "--now", action="store_true",
        help="devices take it as soon as they hear of it, and do not watch it",
    )  # fmt: skip
    command.add_argument("--sealed", type=Path, metavar="DIR", help="the engine's sealed test")
    command.add_argument(
        "--withdraw", action="store_true",
        help="devices may not go back to the engine that is published now",
    )  # fmt: skip


def _repository(options: argparse.Namespace) -> Repository:
    from engineworks.delivery import keyring
    from engineworks.delivery.repository import Repository

    keyring.needed()
    places = getattr(options, "keys", [])
    return Repository(options.repository, keyring.Keyring(places))


def _init(options: argparse.Namespace) -> int:
    from engineworks.delivery import keyring
    from engineworks.delivery.metadata import TOP
    from engineworks.delivery.repository import Repository

    keyring.needed()
    if options.root_threshold > options.root_keys:
        raise DeliveryError(
            f"{options.root_threshold} of {options.root_keys} keys cannot sign",
            hint="give more --root-keys",
        )
    place = options.keys[0]
    if (options.repository / "metadata").exists():
        raise DeliveryError(f"{options.repository} exists already", hint="choose another folder")
    role_keys = {}
    for role in TOP:
        count = options.root_keys if role == "root" else 1
        folder = place / ("online" if role in ("snapshot", "timestamp") else "offline")
        role_keys[role] = [keyring.make(folder / f"{role}-{n}.pem") for n in range(1, count + 1)]
    repository = Repository(options.repository, keyring.Keyring(options.keys))
    repository.create(role_keys, {"root": options.root_threshold})
    text = (
        f"{options.repository} is ready. Take {place / 'offline'} off this machine, each root key "
        f"on a medium of its own; {place / 'online'} stays where `deliver resign` runs."
    )
    data = {role: [key.keyid for key in keys] for role, keys in role_keys.items()}
    return answer(options, {"keys": data}, text)


def _key(options: argparse.Namespace) -> int:
    from engineworks.delivery import keyring

    keyring.needed()
    public = keyring.make(options.file)
    data = keyring.public_json(public)
    place = options.file.with_suffix(".pub")
    place.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return answer(options, data, f"{public.keyid}\n{place}: take this one to who signs targets")


def _delegate(options: argparse.Namespace) -> int:
    from engineworks.delivery import keyring

    repository = _repository(options)
    public = [keyring.read_public(path) for path in options.public]
    done = repository.delegate(options.model, public, options.threshold)
    return _said(options, done, f"{len(public)} keys speak for {options.model}")


def _rotate(options: argparse.Namespace) -> int:
    from engineworks.delivery import keyring

    repository = _repository(options)
    public = [keyring.read_public(path) for path in options.add]
    done = repository.rotate(options.role, public, options.remove, options.threshold)
    return _said(options, done, f"root {repository.root.signed.version}: {options.role} changed")


def _said(options: argparse.Namespace, done: bool, text: str) -> int:
    later = "; what waits for keys that are not here: `deliver resign` or `add` where they are"
    return answer(options, {"published": done}, text + ("" if done else later))


def _add(options: argparse.Namespace) -> int:
    from engineworks import manifest as manifests
    from engineworks.delivery import target as targets
    from engineworks.delivery.target import SignedTarget
    from engineworks.runtime.session import local_folder

    repository = _repository(options)
    place, _ = recall(options.engine)
    folder = local_folder(place).resolve()
    manifest = manifests.load(folder / manifests.MANIFEST_NAME)
    variant = options.variant or f"{manifest.target}/{manifest.precision}"
    before = repository.target(options.model, variant)
    said = SignedTarget(
        model=options.model, variant=variant, version=options.version, sha256=manifest.sha256,
        generation=options.generation or (before.generation if before else 0) + 1,
        permille=round(options.percent * 10), p50_us=round(options.p50_ms * 1e3),
        machine=options.machine, threads=options.threads, now=options.now,
        allowed=targets.ways_back(before, manifest.sha256, withdraw=options.withdraw),
    )  # fmt: skip
    done = repository.put(options.model, variant, folder, said, options.sealed)
    text = f"{options.model}: {variant}: generation {done.generation} is {done.sha256[:12]}..."
    return answer(options, targets.to_custom(done), text)


def _widen(options: argparse.Namespace) -> int:
    repository = _repository(options)
    _devices.hold(options, repository.target(options.model, options.variant))
    permille = round(options.percent * 10)
    said = repository.widen(options.model, options.variant, permille)
    text = f"{options.model}: {options.variant}: {options.percent:g} % of devices take it"
    return answer(options, {"generation": said.generation, "permille": permille}, text)


def _drop(options: argparse.Namespace) -> int:
    _repository(options).drop(options.model, options.variant)
    text = f"nothing more is published for {options.model}: {options.variant}"
    return answer(options, {"dropped": True}, text)


def _resign(options: argparse.Namespace) -> int:
    repository = _repository(options)
    done = repository.resign()
    lines = [f"signed: {', '.join(done)}", *_warnings(repository)]
    return answer(options, {"signed": done, "warnings": lines[1:]}, "\n".join(lines))


def _warnings(repository: Repository) -> list[str]:
    notes = [
        f"{held.role} expires on {held.expires:%Y-%m-%d} ({held.left_days:.1f} days): sign it anew "
        "with its own key"
        for held in repository.expiries()
        if held.soon
    ]
    waiting = [f"{role} waits for its own key: deliver resign" for role in repository.unsigned()]
    return notes + waiting


def _status(options: argparse.Namespace) -> int:
    """0: all well; 1: something expires soon, or waits for a key."""
    repository = _repository(options)
    lines, rows = [], []
    for held in repository.expiries():
        mark = "  soon" if held.soon else ""
        lines.append(
            f"{held.role:<24} version {held.version:<5} until {held.expires:%Y-%m-%d %H:%M} UTC, "
            f"{held.left_days:.1f} days{mark}"
        )
        rows.append({"role": held.role, "version": held.version, "left_days": held.left_days,
                     "expires": held.expires.isoformat(), "soon": held.soon})  # fmt: skip
    published = repository.targets()
    for said in published:
        lines.append(
            f"{said.model}: {said.variant}: generation {said.generation}, version "
            f"{said.version or '-'}, {said.sha256[:12]}..., back to {len(said.allowed)}"
        )
    warnings = _warnings(repository)
    for line in warnings:
        sys.stderr.write(f"{line}\n")
    from engineworks.delivery.target import to_custom

    data = {
        "roles": rows,
        "targets": [to_custom(target) for target in published],
        "warnings": warnings,
    }
    return answer(options, data, "\n".join(lines)) or int(bool(warnings))


def _invite(options: argparse.Namespace) -> int:
    from engineworks.delivery import enrolment, metadata
    from engineworks.delivery.devices import Register

    repository = _repository(options)
    headers = {}
    for text in options.header:
        name, colon, value = text.partition(":")
        if not colon:
            raise DeliveryError(f"--header {text!r}", hint="give it as 'Name: value'")
        headers[name.strip()] = value.strip()
    if bool(options.book) != bool(options.name):
        raise DeliveryError("a code needs a book and a name", hint="give both --book and --name")
    code = Register(options.book).code(options.name) if options.book else ""
    text = enrolment.invite(options.address, repository.root.to_bytes(), headers, code)
    metadata.write_file(options.output, text.encode(), once=False)
    message = f"{options.output}: for `engineworks agent enrol`; whoever alters it owns the device"
    return answer(options, {"written": str(options.output)}, message)
