"""`--now`: devices hear of it between two looks, take it without a watch, and lies cost little."""

from __future__ import annotations

import itertools
import json

import pytest

from engineworks import store
from engineworks.delivery import cards, looking
from engineworks.delivery.calls import Calls
from engineworks.delivery.cards import Card
from engineworks.delivery.refusal import Unreachable
from engineworks.delivery.status import Status
from engineworks.delivery.target import blob_path
from engineworks.delivery.transport import Folder
from engineworks.delivery.trial import DeviceTrial
from engineworks.errors import DeliveryError
from tests.deliveries import MODEL, VARIANT, World, running


@pytest.fixture()
def fleet(tmp_path):
    """A device that ran `first` and runs `second`, which nobody is happy with."""
    world = World(tmp_path)
    first, second = world.engine(2.0), world.engine(3.0)
    home = world.device(server="http://127.0.0.1:1", watch_s=60.0, glance_s=0.5)
    world.put(first)
    world.agent(home, asks=lambda server: None).once()
    world.put(second)
    return world, home, first, second


def ready(sha256):
    return {"ready": True, "models": {"main": {"digest": sha256}}}


def test_what_is_to_be_now_is_neither_watched_nor_timed(fleet):
    world, home, first, second = fleet
    slow = DeviceTrial(ok=True, reason="", p50_ms=9.0)
    parts = {"asks": ready, "watches": lambda *_: "", "tries": lambda *_, **__: slow}
    assert world.agent(home, **parts).once().slots[0].running == second.name
    world.put(first, p50_us=1000)
    assert world.agent(home, **parts).once().slots[0].check == "latency"

    world.put(first, p50_us=1000, now=True)
    parts["watches"] = lambda *_: pytest.fail("it is watched")
    [slot] = world.agent(home, **parts).once().slots

    assert (slot.outcome, slot.running) == ("switched", first.name)
    assert "without a watch" in slot.reason
    parts["tries"] = lambda *_, **__: DeviceTrial(ok=False, reason="it crashes", check="trial")
    world.put(world.engine(4.0), now=True)
    [slot] = world.agent(home, **parts).once().slots
    assert (slot.outcome, running(home)) == ("failed", first.name)  # it is tried all the same
    world.put(second, now=True)  # which was well here before
    assert world.agent(home, **parts).once().slots[0].running == second.name
    world.put(first)
    assert world.agent(home, **parts).once().slots[0].outcome == "failed"
    world.put(first, now=True)
    assert world.agent(home, **parts).once().slots[0].outcome == "failed"  # no more


def test_a_watch_is_broken_off_by_a_call(fleet, monkeypatch):
    """The engine that is being watched is the one that is called back."""
    world, home, first, second = fleet
    asked = itertools.count()

    def ask(server):
        if next(asked) == 2:
            world.put(first, now=True)
        return ready(second.name)

    monkeypatch.setattr("engineworks.delivery.agent.time.sleep", lambda seconds: None)
    agent = world.agent(home, asks=ask)
    clock = itertools.count(0, 1000)
    agent._calls._clock = lambda: next(clock)
    [slot] = agent.once().slots
    assert (slot.outcome, running(home)) == ("not reached", second.name)
    assert agent.called()
    [slot] = agent.once().slots
    assert (slot.outcome, running(home)) == ("switched", first.name)
    assert not agent.called()


def test_between_two_looks_only_a_call_is_heard(fleet):
    world, home, first, second = fleet
    heard = Calls(Folder(world.folder / "repository"), lambda: 0, itertools.count(0, 10).__next__)
    world.put(first)
    world.repository.resign()
    assert not heard.heard(5.0) and not heard.heard(0.0)
    world.put(second, now=True)
    assert heard.heard(5.0)
    world.repository.resign()
    agent = world.agent(home, asks=lambda server: None)
    agent.once()
    assert agent._trust.calls() == 1 and not agent.called()


def test_lies_and_silence_cost_little():
    class Source:
        answers = itertools.repeat(json.dumps({"signed": {"x-engineworks-calls": 9}}).encode())
        asked = 0

        def read(self, path, start=0):
            self.asked += 1
            answer = next(self.answers)
            if answer is None:
                raise Unreachable("away", hint="")
            yield answer

    source, now = Source(), itertools.count(0, 3)
    heard, calls = 0, Calls(source, lambda: 0, lambda: next(now))
    for _ in range(50):
        heard += calls.heard(3.0)
        calls.answer()
    assert (heard, source.asked) == (5, 50)
    source.answers, source.asked = itertools.repeat(None), 0
    assert not any(calls.heard(3.0) for _ in range(1000))
    assert source.asked <= 22  # after 3, 6, ... s, then each 192 s
    wrong = (
        b'{"signed": {"x-engineworks-calls": "9"}}',
        b'{"signed": {"x-engineworks-calls": -1}}',
    )
    for raw in (b"", b"[]", b"{}", b'{"signed": 3}', *wrong, b"[" * 60_000, b"x" * 70_000):
        source.answers = iter([raw])
        assert not Calls(source, lambda: 0).heard(3.0), raw[:40]


def test_a_call_ends_the_pause():
    waits, heard = [], iter([False, False, True, False, False])

    class Agent:
        def once(self):
            return Status(at="", device="")

        def called(self):
            return next(heard)

    looking.loop(Agent(), 4.0, sleep=waits.append, uniform=lambda a, b: 1.0, rounds=3, glance_s=3.0)
    assert waits == [3.0, 1.0, 3.0, 1.0]


def test_glances_are_no_hammer():
    for glance_s, fine in ((0.0, True), (0.5, True), (0.1, False), (-1.0, False)):
        try:
            cards.checked(Card(glance_s=glance_s), "card")
        except DeliveryError:
            assert not fine, glance_s
        else:
            assert fine, glance_s


def test_what_is_repeated_was_signed_by_the_models_keys_and_lies_whole(fleet):
    world, _, first, second = fleet
    repository, role = world.repository, f"model-{MODEL}"

    def repeat(version):
        head, number = "a" * 64, world.repository.target(MODEL, VARIANT).generation + 1
        return repository.repeat(MODEL, VARIANT, version, generation=number, head=head)

    genuine = repeat("1")
    assert (genuine.sha256, genuine.generation, genuine.now) == (first.name, 3, True)
    assert repeat("7") is None
    forged = repository.role(role)  # whoever may write into the folder has no key
    [file] = forged.signed.targets.values()
    file.custom["version"], file.custom["sha256"] = "7", second.name
    forged.signed.version = 9
    (world.folder / f"repository/metadata/9.{role}.json").write_bytes(forged.to_bytes())
    assert repeat("7") is None and repeat("2").sha256 == second.name
    digest = store.file_sha256(first / "model.onnx")
    blob = world.folder / "repository" / blob_path(digest)
    blob.unlink()
    assert repeat("1") is None
    with pytest.raises(DeliveryError, match="generation 4"):
        repository.repeat(MODEL, VARIANT, "2", generation=4, head="b" * 64)
