"""Who is a device of ours, and what it says: no code twice, no device speaks for another."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engineworks.cli import main
from engineworks.delivery import devices, enrolment, looking, statements, waves
from engineworks.delivery.cards import Card, Slot
from engineworks.delivery.devices import Register
from engineworks.delivery.home import Home
from engineworks.delivery.keyring import private_of
from engineworks.delivery.refusal import Refused
from engineworks.delivery.target import SignedTarget
from engineworks.errors import DeliveryError
from tests.deliveries import MODEL, VARIANT, World, running


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("devices"))
    world.put(world.engine(2.0))
    return world


@pytest.fixture()
def register(tmp_path):
    return Register(tmp_path / "book.json")


def enrolled(world, register, folder, name="box", **card):
    """A device by a code of its own; its folder."""
    invitation = folder / f"{name}.invite"
    root = world.repository.root.to_bytes()
    place = str(world.folder / "repository")
    invitation.write_text(enrolment.invite(place, root, code=register.code(name)))
    home = Home(folder / name)
    slots = {"main": Slot(model=MODEL, variant=VARIANT)}
    enrolment.enrol(home, invitation, Card(slots=slots, watch_s=0.0, margin_mib=1.0, **card))
    return home


def report(world, home):
    """What it says after a look."""
    status = world.agent(home).once()
    looking.report(home, enrolment.read(home), status)
    [path] = (home.folder.parent / "reports").glob(f"{enrolment.read(home).device}.json")
    return path.read_text()


def refused(register, text, *, take=True):
    with pytest.raises(Refused) as caught:
        (register.take if take else register.accept)(text)
    return caught.value.check


def test_a_code_is_good_for_one_device_and_a_week(world, register, tmp_path, monkeypatch):
    home = enrolled(world, register, tmp_path)
    request = home.request.read_text()
    assert home.request.stat().st_mode & 0o777 == 0o600
    code = statements.claimed(request, "request")["code"]
    assert code not in (tmp_path / "book.json").read_text()
    assert register.accept(request).name == "box"
    assert refused(register, request, take=False) == "identity"
    late = enrolled(world, register, tmp_path, "late")
    later = datetime.now(timezone.utc) + timedelta(days=8)
    monkeypatch.setattr(devices, "_now", lambda: later)
    assert refused(register, late.request.read_text(), take=False) == "expired"


def test_a_request_with_a_strange_code_or_another_devices_key_is_refused(world, register, tmp_path):
    one, two = (enrolled(world, register, tmp_path, name) for name in ("one", "two"))
    mine, theirs = (json.loads(home.request.read_text()) for home in (one, two))
    assert (
        refused(register, json.dumps({**mine, "body": theirs["body"]}), take=False) == "signature"
    )
    said = json.loads(mine["body"])
    key = private_of(one.key)
    for change in ({"code": "guessed"}, {"device": enrolment.read(two).device}):
        text = statements.sign("request", {**said, **change}, key)
        assert refused(register, text, take=False) == "identity"


def test_a_report_is_its_own_devices_and_never_an_older_one(world, register, tmp_path):
    place = str(tmp_path / "reports")
    one, two = (enrolled(world, register, tmp_path, n, reports=place) for n in ("one", "two"))
    for home in (one, two):
        register.accept(home.request.read_text())
    old = report(world, one)
    device, said = register.take(old)
    assert (device.name, said["status"]["slots"][0]["outcome"]) == ("one", "switched")
    new = report(world, one)
    register.take(new)
    assert refused(register, old) == "version"
    # two speaks for one, in three ways
    body = json.loads(json.loads(new)["body"])
    forged = statements.sign("report", {**body, "sequence": 2**40}, private_of(two.key))
    assert refused(register, forged) == "signature"
    assert refused(register, json.dumps({**json.loads(new), "body": "{}"})) == "identity"
    altered = json.loads(new)
    altered["body"] = altered["body"].replace('"current"', '"switched"')
    assert refused(register, json.dumps(altered)) == "signature"
    assert refused(register, two.request.read_text()) == "format"
    register.revoke("one")
    assert refused(register, new) == "identity"


def test_the_commands(world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repository = world.folder / "repository"
    invite = f"deliver invite {repository} --address {repository} --book book --name box -o i"
    assert main(invite.split()) == 0
    run = f"--run main={MODEL}:{VARIANT} --reports reports --home box"
    assert main(f"agent enrol i {run}".split()) == 0
    assert main(["deliver", "devices", "book"]) == 0
    assert "invited, has not answered" in capsys.readouterr().out
    assert main(["deliver", "accept", "book", "box/request.json"]) == 0
    monkeypatch.setattr("engineworks.delivery.agent.trial.run", lambda *a, **k: passes())
    assert main(["agent", "--once", "--home", "box"]) == 0
    capsys.readouterr()
    assert main(["deliver", "reports", "book", "reports"]) == 0
    assert "box                  main: switched, version 1" in capsys.readouterr().out
    assert main(["deliver", "revoke", "book", "box"]) == 0
    assert main(["deliver", "reports", "book", "reports"]) == 1
    assert "refused: device" in capsys.readouterr().out


def passes():
    from engineworks.delivery.trial import DeviceTrial

    return DeviceTrial(ok=True, reason="not tried", p50_ms=1.0)


def test_a_report_goes_to_a_web_address(world, register, tmp_path):
    came = {}

    class Takes(BaseHTTPRequestHandler):
        def do_PUT(self):
            came[self.path] = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/in"
        home = enrolled(world, register, tmp_path, reports=address)
        register.accept(home.request.read_text())
        looking.report(home, enrolment.read(home), world.agent(home).once())
        server.shutdown()
    [(path, text)] = came.items()
    assert path == f"/in/{enrolment.read(home).device}.json"
    assert register.take(text)[0].name == "box"


class TestWaves:
    def test_some_devices_take_it_first_and_the_others_when_they_are_well(
        self, world, register, tmp_path
    ):
        place = str(tmp_path / "reports")
        homes = [enrolled(world, register, tmp_path, f"d{n}", reports=place) for n in range(6)]
        for home in homes:
            register.accept(home.request.read_text())
            register.take(report(world, home))
        new = world.engine(5.0)
        target = world.put(new, permille=500)
        first = {h for h in homes if target.includes(enrolment.read(h).device)}

        said = {}
        for home in homes:
            _, found = register.take(report(world, home))
            said[enrolment.read(home).device] = found["status"]
            assert (running(home) == new.name) is (home in first)
        wave = waves.judge(register.read(), said, target)

        assert wave.well == tuple(sorted(home.folder.name for home in first))
        assert (wave.ill, wave.silent) == ((), ())
        world.repository.widen(MODEL, VARIANT, 1000)
        assert {h for h in homes if report(world, h) and running(h) == new.name} == set(homes)

    def test_a_wave_of_which_one_is_ill_or_silent_or_that_nobody_is_in_stops_the_next(self):
        book = devices.Book(
            devices={
                name: devices.EnrolledDevice(name=name, public="", accepted="") for name in "abcd"
            }
        )
        target = SignedTarget(model="m", variant="v", version="1", sha256="s" * 64, generation=3)

        def slot(**said):
            values = {"model": "m", "variant": "v", "generation": 3, "running": "s" * 64}
            return {"slots": [{**values, **said}]}

        said = {
            "a": slot(outcome="current"), "b": slot(outcome="gone back", running="t" * 64),
            "c": slot(outcome="current", generation=2), "d": {"slots": []},
        }  # fmt: skip
        wave = waves.judge(book, said, target)
        assert wave == waves.Wave(well=("a",), ill=("b",), silent=("c",))
        with pytest.raises(DeliveryError, match="1 of 3 devices of this wave are well"):
            waves.hold(wave, 0.9)
        waves.hold(wave, 0.3)
        with pytest.raises(DeliveryError, match="0 of 0"):
            waves.hold(waves.Wave(), 0.0)

    def test_each_device_has_one_place_and_a_tenth_is_a_tenth(self):
        def first(generation, permille):
            target = SignedTarget(
                model="m", variant="v", version="1", sha256="s" * 64, generation=generation,
                permille=permille,
            )  # fmt: skip
            return {n for n in range(2000) if target.includes(f"device {n}")}

        assert first(1, 0) == set()
        assert len(first(1, 1000)) == 2000
        assert 150 < len(first(1, 100)) < 250
        assert first(1, 100) < first(1, 500)
        assert first(1, 100) != first(2, 100)
