"""What a thief, a broken server or an old copy can put before a device: nothing of it is used."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from engineworks.delivery.keyring import Keyring
from engineworks.delivery.repository import Repository
from engineworks.delivery.transport import Folder, Web, slowed, source
from engineworks.errors import DeliveryError
from tests.deliveries import MODEL, VARIANT, World, running


@pytest.fixture()
def world(tmp_path):
    return World(tmp_path, models=(MODEL, "other"))


@pytest.fixture()
def delivered(world):
    engine, home = world.engine(2.0), world.device()
    world.put(engine)
    world.agent(home).once()
    return world, home, engine


def copy(world, name):
    return shutil.copytree(world.folder / "repository", world.folder / name)


def look(world, home, place=None):
    status = world.agent(home, **({"source": Folder(place)} if place else {})).once()
    [slot] = status.slots
    return status.check or slot.check, slot.outcome


def newest(place, role):
    found = (place / "metadata").glob(f"*.{role}.json")
    return max(found, key=lambda path: int(path.name.partition(".")[0]))


def test_an_older_copy_of_everything_is_refused(delivered):
    world, home, _ = delivered
    old = copy(world, "old")
    world.put(world.engine(3.0))
    look(world, home)
    assert look(world, home, old) == ("version", "refused")


def test_an_older_list_under_a_newer_timestamp_is_refused(delivered):
    world, home, good = delivered
    old = newest(world.folder / "repository", "snapshot").read_bytes()
    world.put(world.engine(3.0))
    place = copy(world, "mixed")
    newest(place, "snapshot").write_bytes(old)
    assert look(world, home, place) == ("digest", "refused")
    assert running(home) == good.name


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot", "model-yolox"])
def test_a_flipped_bit_of_metadata_is_refused(delivered, name):
    world, home, good = delivered
    world.put(world.engine(3.0))
    place = copy(world, "flipped")
    path = place / "metadata" / name if "." in name else newest(place, name)
    data = bytearray(path.read_bytes())
    where = re.search(rb'"version": ?\d', data).end() - 1
    data[where] ^= 1
    path.write_bytes(data)
    check, word = look(world, home, place)
    assert (check in ("signature", "digest"), word) == (True, "refused")
    assert running(home) == good.name


def test_a_flipped_bit_of_an_engine_is_refused(delivered):
    world, home, good = delivered
    bad = world.engine(3.0)
    world.put(bad)
    place = copy(world, "flipped")
    [entry] = json.loads((bad / "manifest.json").read_text())["files"]
    blob = place / "blobs" / entry["sha256"][:2] / entry["sha256"]
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    assert look(world, home, place) == ("content", "refused")
    assert running(home) == good.name
    blob.write_bytes(bytes(data) + b"more")
    assert look(world, home, place) == ("length", "refused")


def test_another_models_key_speaks_for_no_other_model(delivered):
    world, home, good = delivered
    repository = world.repository
    target = world.put(world.engine(3.0), model="other")
    role = repository.role("model-other")
    [file] = role.signed.targets.values()
    role.signed.targets["models/yolox/onnxruntime-fp32.json"] = file
    repository._release({"model-other": role})
    assert look(world, home) == ("", "current")  # nobody asks that role
    place = copy(world, "swapped")
    mine, theirs = newest(place, "model-yolox"), newest(place, "model-other")
    mine.write_bytes(theirs.read_bytes())
    home.trusted.unlink()  # or the device would not even ask for it
    assert look(world, home, place) in [("digest", "refused"), ("length", "refused")]
    assert running(home) == good.name != target.sha256


def test_a_manifest_that_its_own_key_has_signed_for_another_model_is_refused(delivered):
    world, home, good = delivered
    role = world.repository.role("model-yolox")
    [file] = role.signed.targets.values()
    file.custom["model"] = "other"
    world.repository._release({"model-yolox": role})
    assert look(world, home) == ("another model", "refused")
    assert running(home) == good.name


def test_too_few_signatures_of_root_are_refused(tmp_path):
    world = World(tmp_path, root=3)  # 2 of 3
    home, good = world.device(), world.engine(2.0)
    world.put(good)
    look(world, home)
    thief = World(tmp_path / "thief")
    root = world.repository.root
    for role in ("snapshot", "timestamp", "targets"):
        root.signed.add_key(thief.repository.root.signed.keys[_key_id(thief, role)], role)
    root.signed.version = 2
    root.signatures.clear()
    [one] = Keyring([tmp_path / "keys" / "root-1.pem"]).signers.values()
    root.sign(one)
    place = copy(world, "few")
    (place / "metadata" / "2.root.json").write_bytes(root.to_bytes())
    assert look(world, home, place) == ("signature", "refused")
    assert running(home) == good.name


def _key_id(world, role):
    return world.repository.root.signed.roles[role].keyids[0]


def test_keys_change_many_times_and_old_devices_walk_after_them(delivered):
    world, home, _ = delivered
    for number, role in enumerate(("timestamp", "snapshot", "targets", "root", "timestamp")):
        old = _key_id(world, role)
        public = world.key(f"{role}-new{number}")
        world.repository.rotate(role, [public], [old[:16]])
    engine = world.engine(3.0)
    world.put(engine)
    assert world.repository.root.signed.version == 6
    assert look(world, home) == ("", "switched")
    assert running(home) == engine.name
    assert look(world, world.device("later")) == ("", "switched")


def test_after_stolen_online_keys_numbers_begin_low_again(delivered):
    world, home, _ = delivered
    timestamp = world.repository.role("timestamp")
    place = copy(world, "thief")
    signed = timestamp.signed
    signed.version = 2**31
    timestamp.signatures.clear()
    [stolen] = Keyring([world.folder / "keys" / "timestamp-1.pem"]).signers.values()
    timestamp.sign(stolen)
    (place / "metadata" / "timestamp.json").write_bytes(timestamp.to_bytes())
    look(world, home, place)
    assert look(world, home) == ("version", "refused")  # what the thief has done
    world.repository.rotate("timestamp", [world.key("timestamp-2")], [_key_id(world, "timestamp")])
    engine = world.engine(3.0)
    world.put(engine)
    assert look(world, home) == ("", "switched")


class TestTheSideThatSigns:
    def test_without_the_models_key_nothing_is_published(self, world):
        (world.folder / "keys" / "model-yolox.pem").unlink()
        with pytest.raises(DeliveryError, match="model-yolox needs 1 of its 1 keys, here are 0"):
            world.put(world.engine(2.0))
        assert world.repository.target(MODEL, VARIANT) is None

    def test_a_generation_is_never_given_twice_and_never_goes_back(self, world):
        first = world.engine(2.0)
        world.put(first, generation=3)
        world.put(first, generation=3, version="3", allowed=())  # the same again is nothing new
        for generation in (3, 2):
            with pytest.raises(DeliveryError, match="a generation is never given twice"):
                world.put(world.engine(3.0), generation=generation)

    def test_what_is_signed_offline_is_published_where_the_online_keys_are(self, world):
        keys, stick = world.folder / "keys", world.folder / "stick"
        stick.mkdir()
        for path in (*keys.glob("targets-*"), *keys.glob("root-*")):
            path.rename(stick / path.name)
        public = world.key("model-third")
        offline = Repository(world.folder / "repository", Keyring([stick]))
        assert offline.delegate("third", [public]) is False
        assert world.repository.unsigned() == ["model-third"]
        world.repository.resign()
        assert world.repository.unsigned() == []
        world.put(world.engine(2.0), model="third")

    def test_the_life_of_each_role_is_told_and_renewed(self, world):
        short = Repository(
            world.folder / "repository", Keyring([world.folder / "keys"]),
            {"timestamp": 0.0001, "model": 0.0001},
        )  # fmt: skip
        short.resign()
        assert [one.role for one in world.repository.expiries() if one.soon] == ["timestamp"]
        assert world.repository.resign() == ["snapshot", "timestamp"]
        assert not [one.role for one in world.repository.expiries() if one.soon]

    def test_keys_are_readable_by_their_owner_alone_and_never_written_over(self, world):
        path = world.folder / "keys" / "root-1.pem"
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(DeliveryError, match="never written over"):
            world.key("root-1")

    def test_a_key_with_a_password_needs_it(self, world, monkeypatch):
        monkeypatch.setenv("ENGINEWORKS_KEY_PASSWORD", "secret")
        world.key("locked")
        assert b"ENCRYPTED" in (world.folder / "keys" / "locked.pem").read_bytes()
        Keyring([world.folder / "keys"])
        monkeypatch.setenv("ENGINEWORKS_KEY_PASSWORD", "wrong")
        with pytest.raises(DeliveryError, match="needs its password"):
            Keyring([world.folder / "keys"])

    def test_a_number_is_given_once_even_to_two_that_publish_at_once(self, world):
        errors = []

        def put(number):
            try:
                world.repository.put(
                    MODEL, VARIANT, engines[number],
                    _said(engines[number].name, number + 1),
                )  # fmt: skip
            except DeliveryError as error:
                errors.append(error)

        engines = [world.engine(2.0 + n) for n in range(4)]
        threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        published = world.repository.target(MODEL, VARIANT)
        assert published.generation == 4
        assert published.sha256 == engines[3].name
        assert [str(error) for error in errors if "given twice" not in error.hint] == []


def _said(sha256, generation):
    from engineworks.delivery.target import SignedTarget

    return SignedTarget(
        model=MODEL, variant=VARIANT, version="1", sha256=sha256, generation=generation
    )  # fmt: skip


class Server(BaseHTTPRequestHandler):
    """A web server of a folder with ranges, which breaks off after so many bytes."""

    def __init__(self, *arguments, folder, cut, asked):
        self.folder, self.cut, self.asked = folder, cut, asked
        super().__init__(*arguments)

    def do_GET(self):
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, start = path.read_bytes(), 0
        if "Range" in self.headers:
            start = int(self.headers["Range"].partition("=")[2].rstrip("-"))
        self.asked.append((self.path, start))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : start + self.cut] if "blobs" in self.path else data[start:])

    def log_message(self, *_):
        pass


def test_a_download_that_breaks_off_goes_on_where_it_was(world):
    big = bytes(range(256)) * 400
    engine, home = world.engine(2.0, extra={"more/labels.bin": big}), world.device()
    world.put(engine)
    asked = []
    handler = partial(Server, folder=world.folder / "repository", cut=60_000, asked=asked)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web = Web(f"http://127.0.0.1:{server.server_port}")
        first = world.agent(home, source=web).once()
        second = world.agent(home, source=web).once()
        server.shutdown()
    assert (first.exit_code, first.slots[0].outcome) == (3, "not reached")
    assert second.slots[0].outcome == "switched"
    starts = [start for path, start in asked if "blobs" in path]
    assert 60_000 in starts
    assert (home.engine(engine.name) / "more/labels.bin").read_bytes() == big


def test_a_web_server_without_ranges_is_read_from_where_it_was(world):
    (world.folder / "some.bin").write_bytes(bytes(range(256)) * 4000)
    handler = partial(SimpleHTTPRequestHandler, directory=str(world.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web = Web(f"http://127.0.0.1:{server.server_port}")
        found = b"".join(web.read("some.bin", 700_001))
        server.shutdown()
    assert found == (bytes(range(256)) * 4000)[700_001:]


class Dripping(BaseHTTPRequestHandler):
    """Gives a byte now and then, for ever."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.02)

    def log_message(self, *_):
        pass


def test_a_server_that_drips_is_given_up_for_now(world, monkeypatch):
    monkeypatch.setattr("engineworks.delivery.transport.PATIENCE_S", 0.3)
    world.put(world.engine(2.0))
    home = world.device()
    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status = world.agent(home, source=Web(f"http://127.0.0.1:{server.server_port}")).once()
        server.shutdown()
    assert (status.exit_code, status.check) == (3, "")
    assert "bytes a second" in status.problem


def test_a_download_whose_beginning_was_lost_is_begun_anew(world):
    engine, home = world.engine(2.0, extra={"labels.bin": bytes(range(256)) * 400}), world.device()
    world.put(engine)
    part = home.incoming / engine.name / ".parts"
    part.mkdir(parents=True)
    for entry in json.loads((engine / "manifest.json").read_text())["files"]:
        (part / entry["sha256"]).write_bytes(bytes(50))  # what a power cut may leave
    assert look(world, home) == ("", "switched")


def test_downloads_keep_to_their_limit():
    now = [0.0]
    blocks = slowed(
        iter([b"x" * 1000] * 10), 500.0, sleep=lambda s: now.__setitem__(0, now[0] + s),
        clock=lambda: now[0],
    )  # fmt: skip
    assert sum(map(len, blocks)) == 10_000
    assert now[0] == pytest.approx(20.0)


def test_an_address_of_another_kind_is_refused():
    with pytest.raises(DeliveryError, match="over http, https or from a folder"):
        source("s3://bucket/key")
