"""The commands of `deliver` that are about devices: accept, list, revoke, read their reports."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks.cli._numbers import number
from engineworks.cli._words import add, answer
from engineworks.errors import DeliveryError, EngineworksError

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers
    from engineworks.delivery.target import SignedTarget


def register(commands: Subparsers) -> None:
    """Add them."""
    accept = _command(commands, "accept", _accept, "take a device in, by its request")
    accept.add_argument("request", type=Path, help="request.json of the device's folder")
    _command(commands, "devices", _devices, "list devices, and codes that are not used yet")
    revoke = _command(commands, "revoke", _revoke, "take no report of a device any more")
    revoke.add_argument("name")
    reports = _command(commands, "reports", _reports, "verify and show what devices say")
    reports.add_argument("folder", type=Path, help="where they put their reports")


def widening(command: argparse.ArgumentParser) -> None:
    """The arguments of `widen`."""
    command.add_argument("model")
    command.add_argument("variant")
    command.add_argument("--percent", type=number(0, 100), required=True, help="of devices")
    command.add_argument("--book", type=Path, metavar="FILE", help="judge the present wave by it")
    command.add_argument("--reports", type=Path, metavar="DIR", help="where reports lie")
    command.add_argument(
        "--well", type=number(0, 100), default=100.0,
        help="percent of the present wave that must be well (default: 100)",
    )  # fmt: skip


def hold(options: argparse.Namespace, target: SignedTarget | None) -> None:
    """Refuse where the present wave is not well; without a book a person decides.

    Raises:
        DeliveryError: Says who is not.
    """
    from engineworks.delivery import waves

    if bool(options.book) != bool(options.reports):
        raise DeliveryError("a wave is judged by reports", hint="give both --book and --reports")
    if not options.book or target is None:
        return
    register, said = _register(options), {}
    for path in sorted(options.reports.glob("*.json")):
        with contextlib.suppress(EngineworksError, OSError, UnicodeDecodeError):  # says nothing
            _, report = register.take(path.read_text(encoding="utf-8"))
            said[report["device"]] = report.get("status", {})
    waves.hold(waves.judge(register.read(), said, target), options.well / 100)


def _command(
    commands: Subparsers, name: str, run: Any, description: str
) -> argparse.ArgumentParser:
    command = add(commands, name, run, description)
    command.add_argument("book", type=Path, metavar="BOOK", help="file of `deliver invite --book`")
    return command


def _register(options: argparse.Namespace) -> Any:
    from engineworks.delivery import keyring
    from engineworks.delivery.devices import Register

    keyring.needed()
    if not options.book.is_file():
        raise DeliveryError(f"{options.book} is no book", hint="engineworks deliver invite --book")
    return Register(options.book)


def _accept(options: argparse.Namespace) -> int:
    register = _register(options)
    try:
        text = options.request.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(
            f"{options.request} cannot be read ({error})", hint="it lies in the device's folder"
        ) from error
    device = register.accept(text)
    return answer(options, {"name": device.name}, f"{device.name} is one of yours now")


def _devices(options: argparse.Namespace) -> int:
    book = _register(options).read()
    rows = [
        {"name": device.name, "device": key, "accepted": device.accepted, "revoked": device.revoked}
        for key, device in book.devices.items()
    ]
    waiting = [invitation.name for invitation in book.codes.values() if not invitation.used_by]
    lines = [
        f"{row['name']:<20} {row['device'][:12]}...  "
        + (f"revoked {row['revoked']}" if row["revoked"] else f"since {row['accepted']}")
        for row in rows
    ]
    lines += [f"{name:<20} invited, has not answered" for name in waiting]
    return answer(options, {"devices": rows, "invited": waiting}, "\n".join(lines) or "none")


def _revoke(options: argparse.Namespace) -> int:
    _register(options).revoke(options.name)
    return answer(
        options, {"revoked": options.name}, f"no report of {options.name} counts any more"
    )


def _reports(options: argparse.Namespace) -> int:
    """0: all are genuine and well; 1: one is refused, or says that something is not well."""
    register = _register(options)
    rows, lines, bad = [], [], False
    for path in sorted(options.folder.glob("*.json")):
        try:
            device, said = register.take(path.read_text(encoding="utf-8"))
        except (EngineworksError, OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "message", str(error))
            rows.append(
                {"file": path.name, "refused": reason, "check": getattr(error, "check", "")}
            )
            lines.append(f"{path.name}: refused: {reason}")
            bad = True
            continue
        status = said.get("status", {})
        rows.append({"name": device.name, "status": status})
        for slot in status.get("slots", []):
            well = slot.get("outcome") in ("current", "switched", "not its turn")
            bad = bad or not well
            lines.append(
                f"{device.name:<20} {slot.get('slot')}: {slot.get('outcome')}, version "
                f"{slot.get('version') or '-'}, {str(slot.get('running'))[:12]}, at "
                f"{status.get('at')}" + ("" if well else f": {slot.get('reason')}")
            )
    return answer(options, rows, "\n".join(lines) or "none") or int(bad)
