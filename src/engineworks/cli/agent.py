"""`agent`: what makes a device run what is delivered to it."""

from __future__ import annotations

import argparse
import logging
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from engineworks.cli._words import add, answer
from engineworks.errors import DeliveryError

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers
    from engineworks.delivery.home import Home
    from engineworks.delivery.status import Status

_HELP = "run on this device what is delivered to it"
_EPILOG = (
    "Exit codes of --once: 0 all is as wanted, 1 something was refused or failed, 2 refused "
    "before anything was asked, 3 the repository or the disk says no for now."
)

#: Environment variable of the folder.
HOME = "ENGINEWORKS_AGENT_HOME"


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    group = add(subparsers, "agent", _run, _HELP)
    group.epilog = _EPILOG
    _home(group, os.environ.get(HOME) or ".engineworks-agent")
    group.add_argument("--once", action="store_true", help="look once, then end")
    commands = group.add_subparsers(dest="action")
    enrol = add(commands, "enrol", _enrol, "make a folder this device's, by an invitation")
    _home(enrol, argparse.SUPPRESS)
    enrol.add_argument("invitation", type=Path, help="file of `engineworks deliver invite`")
    enrol.add_argument(
        "--run", dest="slots", action="append", default=[], type=_slot,
        metavar="NAME=MODEL:VARIANT",
        help="what it runs, and how its server calls it; may be given several times",
    )  # fmt: skip
    enrol.add_argument(
        "--reports", default="", metavar="PLACE", help="folder, or address, for signed reports"
    )
    enrol.add_argument("--server", default="", help="address of the server that follows DIR/served")
    status = add(commands, "status", _status, "what runs here, and what came of the last look")
    _home(status, argparse.SUPPRESS)
    retry = add(commands, "retry", _retry, "forget that a generation failed here")
    _home(retry, argparse.SUPPRESS)
    retry.add_argument("slot", help="its name")


def _home(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--home", type=Path, default=default, metavar="DIR",
        help=f"the device's folder (default: {HOME}, else .engineworks-agent)",
    )  # fmt: skip


def _slot(text: str) -> tuple[str, str, str]:
    name, equals, rest = text.partition("=")
    model, colon, variant = rest.partition(":")
    if not (name and equals and model and colon and variant):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=MODEL:VARIANT")
    return name, model, variant


def _place(options: argparse.Namespace) -> Home:
    from engineworks.delivery import keyring
    from engineworks.delivery.home import Home

    keyring.needed()
    return Home(Path(options.home).absolute())


def _enrol(options: argparse.Namespace) -> int:
    from engineworks.delivery import cards, enrolment
    from engineworks.delivery.cards import Card, Slot

    home = _place(options)
    slots = {name: Slot(model=model, variant=variant) for name, model, variant in options.slots}
    card = cards.checked(Card(slots=slots, server=options.server, reports=options.reports), "--run")
    done = enrolment.enrol(home, options.invitation, card)
    text = (
        f"device {done.device[:12]}... trusts {done.repository}\n{home.card} says what it runs "
        f"({len(slots)} slots)\nserve it: engineworks serve --follow {home.served}"
    )
    return answer(options, {"device": done.device, "repository": done.repository}, text)


def _run(options: argparse.Namespace) -> int:
    """See the epilog."""
    from engineworks.delivery import agent, cards, enrolment, looking, transport

    home = _place(options)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    enrolled = enrolment.read(home)
    device = agent.Agent(home, transport.source(enrolled.repository, enrolled.headers))
    if not options.once:
        card = cards.load(home)
        looking.loop(
            device, card.every_s, uniform=random.uniform, glance_s=card.glance_s,
            told=lambda status: looking.report(home, enrolled, status),
        )  # fmt: skip
        return 0
    status = device.once()
    looking.report(home, enrolled, status)
    answer(options, _data(status), _words(status))
    return status.exit_code


def _status(options: argparse.Namespace) -> int:
    """As --once, of the last look."""
    from engineworks.delivery import home as homes
    from engineworks.delivery.status import Status

    home = _place(options)
    status = homes.read(Status, home.status)
    if status is None:
        raise DeliveryError(
            f"{home.folder}: no agent has looked yet", hint="engineworks agent --once --home DIR"
        )
    answer(options, _data(status), _words(status))
    return status.exit_code


def _data(status: Status) -> object:
    from engineworks.codec import to_json

    return {**to_json(status), "exit_code": status.exit_code}


def _words(status: Status) -> str:
    lines = [f"looked at {status.at}"]
    if status.problem:
        lines.append(f"  {status.problem}")
    for slot in status.slots:
        runs = (
            f"{slot.running[:12]}... version {slot.version or '-'}" if slot.running else "nothing"
        )
        check = f" [{slot.check}]" if slot.check else ""
        lines.append(f"{slot.slot}: {slot.outcome}{check}, runs {runs}: {slot.reason}")
    return "\n".join(lines)


def _retry(options: argparse.Namespace) -> int:
    from engineworks.delivery import cards, enrolment
    from engineworks.delivery.disk import Disk
    from engineworks.delivery.slots import SlotState

    home = _place(options)
    names = cards.load(home).slots
    if options.slot not in names:
        raise DeliveryError(
            f"the card has no slot {options.slot!r}", hint=f"it has: {', '.join(names) or 'none'}"
        )
    with enrolment.alone(home):
        state = SlotState(home, Disk(), options.slot)
        failed = state.record.failed_generation
        state.note(
            failed_generation=0, failed="", failed_check="", failed_reason="", tries=0, bad=()
        )
    text = f"{options.slot}: generation {failed} is tried again" if failed else "nothing had failed"
    return answer(options, {"slot": options.slot, "generation": failed}, text)
