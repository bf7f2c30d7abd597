"""Attacks on a delivery, of ten kinds, with honest deliveries in between.

Each attack is what one who holds the network, the bucket, an old copy or some of the keys can do.
It counts as refused when the device names a check that this kind must meet, and runs what it ran.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from engineworks.delivery import enrolment, keyring, statements, trial
from engineworks.delivery.cards import Card
from engineworks.delivery.devices import Register
from engineworks.delivery.disk import Disk
from engineworks.delivery.home import Home
from engineworks.delivery.keyring import Keyring
from engineworks.delivery.refusal import Refused
from engineworks.delivery.repository import Repository
from engineworks.delivery.slots import SlotState
from engineworks.delivery.target import blob_path
from engineworks.delivery.transport import Folder
from tests.deliveries import MODEL, VARIANT, World, passes, running

OTHER = "other"
ROLE = f"model-{MODEL}"


@dataclass
class Attacks:
    """What was seen."""

    refused: int = 0
    changed: int = 0
    accepted: int = 0
    rotations: int = 0
    rollbacks: int = 0
    checks: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    missed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Attack:
    """What a device meets."""

    source: Path
    checks: frozenset[str]
    clock: Callable[[], datetime] | None = None


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Field:
    """The world in which all of this happens."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, models=(MODEL, OTHER), root=3)
        self.home: Home = self.world.device()
        self.chance = random.Random(200)  # noqa: S311 - attacks by chance
        self.published = folder / "repository"
        self.old: list[Path] = []
        """Copies that are all older than what the device has seen."""
        self.engines: list[Path] = []
        self.world.put(self.world.engine(0.5), model=OTHER, generation=1)
        self.world.generation = 0
        self.count = 0
        self.misnamed = False
        self.book: Register | None = None
        self.devices: list[Home] = []
        self.reports = 1

    def copy(self) -> Path:
        """The repository as a liar publishes it."""
        place = self.world.folder / "liar"
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(self.published, place))

    def put(self) -> Path:
        """Publish a new engine."""
        self.count += 1
        engine = self.world.engine(float(self.count))
        if self.misnamed:  # as a person would who has found the error
            self.world.repository.drop(MODEL, VARIANT)
            self.misnamed = False
        self.world.put(engine)
        return engine

    def newest(self, place: Path, role: str) -> Path:
        """The newest list of a role."""
        found = (place / "metadata").glob(f"*.{role}.json")
        return max(found, key=lambda path: int(path.name.partition(".")[0]))

    def manifest(self, place: Path, model: str = MODEL) -> Path:
        """The manifest that is published for a model."""
        file = json.loads(self.newest(place, f"model-{model}").read_text())["signed"]["targets"]
        [(path, entry)] = file.items()
        folder, _, name = path.rpartition("/")
        return place / "targets" / str(folder) / f"{entry['hashes']['sha256']}.{name}"

    def blob(self, place: Path, model: str = MODEL) -> Path:
        """The engine's file that is published for a model."""
        [entry] = json.loads(self.manifest(place, model).read_text())["files"]
        return place / blob_path(str(entry["sha256"]))

    # ---- the kinds

    def bit_flip(self, number: int) -> Attack:
        """One bit of a file that the device has to read."""
        self.put()
        place = self.copy()
        paths = (
            place / "metadata" / "timestamp.json", self.newest(place, "snapshot"),
            self.newest(place, ROLE), self.manifest(place), self.blob(place),
        )  # fmt: skip
        path = paths[number % len(paths)]
        data = bytearray(path.read_bytes())
        begin = data.index(b'"signed"') if path.suffix == ".json" and number % 5 < 3 else 0
        data[self.chance.randrange(begin, len(data))] ^= 1 << self.chance.randrange(8)
        path.write_bytes(data)
        return Attack(place, frozenset({"signature", "digest", "format", "content", "expired"}))

    def replay(self, number: int) -> Attack:
        """A whole repository as it was earlier."""
        return Attack(self.chance.choice(self.old), frozenset({"version", "signature", "expired"}))

    def freeze(self, number: int) -> Attack:
        """The present repository, for ever."""
        later = _now() + timedelta(days=self.chance.uniform(3.1, 13))
        return Attack(self.copy(), frozenset({"expired"}), lambda: later)

    def mix_and_match(self, number: int) -> Attack:
        """Older lists under a newer timestamp."""
        before = self.copy()
        kept = {role: self.newest(before, role).read_bytes() for role in ("snapshot", ROLE)}
        self.put()
        place, role = self.copy(), ("snapshot", ROLE)[number % 2]
        self.newest(place, role).write_bytes(kept[role])
        return Attack(place, frozenset({"digest", "length"}))

    def another_model(self, number: int) -> Attack:
        """What the other model's key has signed, in the place of this model's."""
        self.put()
        if number % 4 == 0:  # by its own key, in error
            role = self.world.repository.role(ROLE)
            [file] = role.signed.targets.values()
            file.custom["model"] = OTHER
            self.world.repository._release({ROLE: role})
            self.misnamed = True
            return Attack(self.published, frozenset({"another model"}))
        place = self.copy()
        pairs = (
            (self.newest(place, f"model-{OTHER}"), self.newest(place, ROLE)),
            (self.manifest(place, OTHER), self.manifest(place)),
            (self.blob(place, OTHER), self.blob(place)),
        )
        theirs, mine = pairs[number % 4 - 1]
        mine.write_bytes(theirs.read_bytes())
        return Attack(place, frozenset({"digest", "length", "content"}))

    def expired(self, number: int) -> Attack:
        """Lists that were signed rightly and hold no more."""
        self.put()
        role = ("timestamp", "snapshot", "model")[number % 3]
        keys = Keyring([self.world.folder / "keys"])
        lapsed = Repository(self.published, keys, {role: -1.0 / 24})
        lapsed.resign()
        if role == "model":
            lapsed._release({ROLE: lapsed.role(ROLE)})
        return Attack(self.published, frozenset({"expired"}))

    def threshold(self, number: int) -> Attack:
        """Too few of the right signatures, or strange ones."""
        self.put()
        place = self.copy()
        root, timestamp = self.world.repository.root, self.world.repository.role("timestamp")
        keys = self.world.folder / "keys"
        thief = World(self.world.folder / f"thief-{number}", models=())
        stranger = Keyring([thief.folder / "keys" / "root-1.pem"])
        [strange] = stranger.signers.values()
        if number % 3 == 0:
            timestamp.signed.version += 1
            timestamp.signatures.clear()
            timestamp.sign(strange)
            (place / "metadata" / "timestamp.json").write_bytes(timestamp.to_bytes())
            return Attack(place, frozenset({"signature"}))
        root.signed.version += 1
        root.signed.add_key(strange.public_key, "timestamp")
        root.signatures.clear()
        mine = Keyring([keys]).of(root.signed.roles["root"].keyids)
        root.sign(mine[0])
        if number % 3 == 1:
            root.sign(strange, append=True)
        data = json.loads(root.to_bytes())
        if number % 3 == 2:  # the one signature twice
            data["signatures"] *= 2
        name = f"{root.signed.version}.root.json"
        (place / "metadata" / name).write_text(json.dumps(data))
        return Attack(place, frozenset({"signature", "format"}))

    def older_generation(self, number: int) -> Attack:
        """An older generation, or the same with another engine, signed by the model's own key."""
        role = self.world.repository.role(ROLE)
        [file] = role.signed.targets.values()
        engine = self.world.engine(1000.0 + number).name
        seen = SlotState(self.home, Disk(), "main").record.generation
        file.custom["generation"] = seen - number % 2
        file.custom["sha256"] = engine
        self.world.repository._release({ROLE: role})
        return Attack(self.published, frozenset({"generation"}))

    def set_back_clock(self, number: int) -> Attack:
        """The device's clock is set back, so that what has expired seems to hold."""
        back = (timedelta(hours=1), timedelta(days=30), timedelta(days=365 * 56))[number % 3]
        at = _now() - back
        place = self.old[0] if number % 2 else self.copy()
        return Attack(place, frozenset({"clock"}), lambda: at)

    def forged_report(self, number: int) -> str:
        """A report in another device's name, or altered, or an old one; the check that met it."""
        if self.book is None:
            self.book = Register(self.world.folder / "book.json")
            for name in ("one", "two"):
                self.devices.append(_accepted(self.world, self.book, name))
            self.book.take(_report(self.devices[0], 1))
        one, two = self.devices
        self.reports += 2
        body = json.loads(json.loads(_report(one, self.reports))["body"])
        if number % 4 == 0:
            text = statements.sign("report", body, keyring.private_of(two.key))
        elif number % 4 == 1:
            text = _report(one, self.reports).replace("well", "ill!")
        elif number % 4 == 2:
            self.book.take(_report(one, self.reports))
            text = _report(one, self.reports - 1)
        else:
            stranger = _enrolled(self.world, f"stranger-{number}", "")
            text = _report(stranger, self.reports)
        try:
            self.book.take(text)
        except Refused as refused:
            return refused.check
        return ""

    # ---- honest ones

    def rotate(self, number: int) -> None:
        """Give a role another key, and take the old one."""
        world, repository = self.world, self.world.repository
        role = ("timestamp", "snapshot", "targets", "root", ROLE)[number % 5]
        if role == ROLE:
            repository_keys = [world.key(f"{role}-r{number}")]
            world.repository.delegate(MODEL, repository_keys)
            return
        old = repository.root.signed.roles[role].keyids[0]
        public = world.key(f"{role}-r{number}")
        world.repository.rotate(role, [public], [old])

    def honest(self, number: int, seen: Attacks) -> None:
        """Something that must arrive."""
        if number % 3 == 0:
            place = self.world.folder / f"old-{number}"
            shutil.copytree(self.published / "metadata", place / "metadata")
            self.old.append(place)
        if number % 5 == 4:
            self.rotate(number // 5)
            seen.rotations += 1
        if number % 7 == 6 and not self.misnamed:
            engine = self.engines[-2]
            self.world.put(engine, allowed=())
            seen.rollbacks += 1
        else:
            engine = self.put()
        status = self.world.agent(self.home, tries=trial.run).once()
        came = running(self.home) == engine.name and status.exit_code == 0
        seen.accepted += came
        if not came:
            seen.missed.append(f"honest {number}: {status}")
        self.engines.append(engine)


def _enrolled(world: World, name: str, code: str) -> Home:
    home, invitation = Home(world.folder / name), world.folder / f"{name}.invite"
    root = world.repository.root.to_bytes()
    invitation.write_text(enrolment.invite("nowhere", root, code=code))
    enrolment.enrol(home, invitation, Card())
    return home


def _accepted(world: World, book: Register, name: str) -> Home:
    home = _enrolled(world, name, book.code(name))
    book.accept(home.request.read_text())
    return home


def _report(home: Home, sequence: int) -> str:
    body = {"device": enrolment.read(home).device, "sequence": sequence, "status": "well"}
    return statements.sign("report", body, keyring.private_of(home.key))


KINDS = (
    "bit_flip", "replay", "freeze", "mix_and_match", "another_model", "expired", "threshold",
    "older_generation", "set_back_clock", "forged_report",
)  # fmt: skip


def run(folder: Path, attacks: int, honest: int, tell: Callable[[str], None]) -> Attacks:
    """Attack, and deliver in between."""
    scene, seen = Field(folder), Attacks()
    done = 0
    for number in range(honest):
        scene.honest(number, seen)
        while done < attacks * (number + 1) // honest:
            kind = KINDS[done % len(KINDS)]
            _attack(scene, kind, done // len(KINDS), seen)
            done += 1
        if number % 20 == 19:
            tell(f"{done} attacks, {seen.refused} refused; {number + 1} honest, {seen.accepted}")
    return seen


def _attack(scene: Field, kind: str, number: int, seen: Attacks) -> None:
    was = running(scene.home)
    if kind == "forged_report":
        found = scene.forged_report(number)
        seen.checks[kind][found or "taken"] += 1
        seen.refused += found in ("signature", "version", "identity")
        if not found:
            seen.missed.append(f"{kind} {number}: taken")
        return
    attack: Attack = getattr(scene, kind)(number)
    parts: dict[str, Any] = {"clock": attack.clock} if attack.clock else {}
    agent = scene.world.agent(scene.home, source=Folder(attack.source), tries=passes, **parts)
    status = agent.once()
    [slot] = status.slots
    check = status.check or (slot.check if slot.outcome == "refused" else "")
    seen.checks[kind][check or slot.outcome] += 1
    now = running(scene.home)
    seen.changed += now != was
    refused = check in attack.checks and now == was
    seen.refused += refused
    if not refused:
        seen.missed.append(f"{kind} {number}: {check or slot.outcome}: {slot.reason[:200]}")
