"""The agent: what is named comes, is tried, is switched to, is watched, and is gone back from."""

from __future__ import annotations

import errno
import shutil
import threading
from datetime import datetime, timedelta, timezone

import pytest

from engineworks import runtime
from engineworks.delivery import enrolment, looking, trial
from engineworks.delivery.cards import Slot, may_download
from engineworks.delivery.disk import Disk
from engineworks.delivery.slots import SlotState
from engineworks.delivery.status import Status
from engineworks.delivery.transport import Folder
from engineworks.delivery.trial import DeviceTrial
from engineworks.errors import DeliveryError
from tests.deliveries import MODEL, VARIANT, World, passes, running


@pytest.fixture()
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture()
def delivered(world):
    """A device that runs an engine."""
    engine, home = world.engine(2.0), world.device()
    world.put(engine)
    assert world.agent(home).once().slots[0].outcome == "switched"
    return world, home, engine


def fails(*_args, **_options):
    return DeviceTrial(ok=False, reason="it answers with values that are no numbers", check="trial")


def outcome(world, home, **parts):
    [found] = world.agent(home, **parts).once().slots
    return found


def test_what_is_named_is_brought_tried_and_linked(world):
    engine, home = world.engine(2.0), world.device()
    world.put(engine)

    status = world.agent(home, tries=trial.run).once()

    assert [(one.outcome, one.running) for one in status.slots] == [("switched", engine.name)]
    assert status.exit_code == 0
    session = runtime.open(home.current("main").resolve())
    assert session.manifest.sha256 == engine.name
    assert status.slots[0].p50_ms > 0
    assert outcome(world, home).outcome == "current"


class TestAnEngineThatFails:
    def test_a_trial_that_fails_changes_nothing_and_is_not_repeated(self, delivered):
        world, home, good = delivered
        world.put(world.engine(3.0))

        first, second = outcome(world, home, tries=fails), outcome(world, home)

        assert (first.outcome, first.check, running(home)) == ("failed", "trial", good.name)
        assert (second.outcome, second.check) == ("failed", "failed here")
        assert "no numbers" in second.reason

    def test_a_newer_generation_of_it_is_tried_again(self, delivered):
        world, home, _ = delivered
        bad = world.engine(3.0)
        world.put(bad)
        outcome(world, home, tries=fails)
        world.put(world.engine(4.0))
        world.put(bad)

        assert outcome(world, home).outcome == "switched"
        assert running(home) == bad.name

    def test_one_that_is_slower_than_promised_is_not_switched_to(self, delivered):
        world, home, good = delivered
        world.put(world.engine(3.0), p50_us=600)  # the trial says 1 ms, 1.5 times is 0.9

        found = outcome(world, home)

        assert (found.check, running(home)) == ("latency", good.name)
        assert "1 ms, more than 0.9 ms" in found.reason

    def test_a_device_of_another_kind_has_a_limit_of_its_own(self, world):
        slot = Slot(model=MODEL, variant=VARIANT, most_p50_ms=2.0)
        home = world.device(slots={"main": slot})
        world.put(world.engine(3.0), p50_us=600)
        assert outcome(world, home).outcome == "switched"

    def test_one_under_which_the_server_falls_ill_is_gone_back_from(self, world):
        home = world.device(server="http://127.0.0.1:1", watch_s=1.0)
        good, bad = world.engine(2.0), world.engine(3.0)
        parts = {"asks": lambda server: {}, "watches": lambda *a: ""}
        world.put(good)
        outcome(world, home, **parts)
        world.put(bad)

        found = outcome(world, home, **{**parts, "watches": lambda *a: "it is not ready"})

        assert (found.outcome, found.check, running(home)) == ("gone back", "health", good.name)
        assert outcome(world, home, **parts).check == "failed here"
        assert running(home) == good.name

    def test_no_engine_is_gone_back_to_that_the_newest_metadata_does_not_allow(self, world):
        home = world.device(server="http://127.0.0.1:1", watch_s=1.0)
        parts = {"asks": lambda server: {}, "watches": lambda *a: ""}
        world.put(world.engine(2.0))
        outcome(world, home, **parts)
        bad = world.engine(3.0)
        world.put(bad, allowed=())

        found = outcome(world, home, **{**parts, "watches": lambda *a: "it is not ready"})

        assert (found.outcome, running(home)) == ("failed", bad.name)
        assert "no other engine here that the metadata allows" in found.reason

    def test_no_engine_is_gone_back_to_that_failed_here_earlier(self, world):
        home = world.device(server="http://127.0.0.1:1", watch_s=1.0)
        parts = {"asks": lambda server: {}, "watches": lambda *a: ""}
        ill = {**parts, "watches": lambda *a: "ill"}
        good, worse, worst = (world.engine(2.0 + number) for number in range(3))
        world.put(good)
        outcome(world, home, **parts)
        world.put(worse)
        outcome(world, home, **ill)
        world.put(worst, allowed=(worse.name, good.name))

        assert outcome(world, home, **ill).outcome == "gone back"
        assert running(home) == good.name

    def test_one_that_takes_the_device_down_three_times_has_failed(self, delivered):
        world, home, good = delivered
        world.put(world.engine(3.0))

        def dies(*_args, **_options):
            raise KeyboardInterrupt

        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                world.agent(home, tries=dies).once()
        found = outcome(world, home)

        assert (found.outcome, found.check, running(home)) == ("failed", "trial", good.name)

    def test_a_watch_that_was_cut_short_is_ended_without_the_repository(self, world):
        home = world.device(server="http://127.0.0.1:1", watch_s=1.0)
        parts = {"asks": lambda server: {}, "watches": lambda *a: ""}
        good, bad = world.engine(2.0), world.engine(3.0)
        world.put(good)
        outcome(world, home, **parts)
        world.put(bad)

        def dies(*_args):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            world.agent(home, **{**parts, "watches": dies}).once()
        assert running(home) == bad.name
        away = Folder(world.folder / "nowhere")
        found = outcome(world, home, **{**parts, "source": away, "watches": lambda *a: "ill"})
        assert (found.outcome, running(home)) == ("gone back", good.name)

    def test_a_kill_between_failing_and_going_back_is_made_good_without_the_repository(self, world):
        home = world.device(server="http://127.0.0.1:1", watch_s=1.0)
        parts = {"asks": lambda server: {}, "watches": lambda *a: ""}
        good, bad = world.engine(2.0), world.engine(3.0)
        world.put(good)
        outcome(world, home, **parts)
        world.put(bad)

        class Dies(Disk):
            links = 0

            def symlink(self, path, leads_to):
                self.links += 1
                if self.links == 2:
                    raise KeyboardInterrupt
                super().symlink(path, leads_to)

        ill = {**parts, "watches": lambda *a: "ill"}
        with pytest.raises(KeyboardInterrupt):
            world.agent(home, disk=Dies(), **ill).once()
        assert running(home) == bad.name
        found = outcome(world, home, source=Folder(world.folder / "nowhere"), **parts)
        assert (found.outcome, running(home)) == ("gone back", good.name)


class TestWhatIsNamed:
    def test_a_wanted_rollback_is_a_newer_generation_that_names_the_older_engine(self, delivered):
        world, home, good = delivered
        bad = world.engine(3.0)
        world.put(bad)
        outcome(world, home)
        world.put(good, allowed=())
        assert outcome(world, home).outcome == "switched"
        assert running(home) == good.name

    @pytest.mark.parametrize("generation", [1, 4])
    def test_a_generation_that_was_seen_is_never_given_to_another_engine(self, world, generation):
        home, first = world.device(), world.engine(2.0)
        world.put(first, generation=4)
        outcome(world, home)
        role = world.repository.role("model-yolox")
        [file] = role.signed.targets.values()
        file.custom["generation"] = generation
        file.custom["sha256"] = world.engine(3.0).name
        world.repository._release({"model-yolox": role})  # as a thief of the model's key would

        found = outcome(world, home)

        assert (found.outcome, found.check, running(home)) == ("refused", "generation", first.name)

    def test_other_keys_of_the_model_begin_to_count_anew(self, world):
        home, engine = world.device(), world.engine(2.0)
        world.put(world.engine(3.0), generation=2**31)
        outcome(world, home)
        public = world.key("model-yolox-2")
        (world.folder / "keys" / "model-yolox.pem").unlink()
        world.repository.delegate(MODEL, [public])
        world.repository.drop(MODEL, VARIANT)
        world.put(engine, generation=5)
        assert outcome(world, home).outcome == "switched"
        assert running(home) == engine.name

    def test_where_nothing_is_named_any_more_what_runs_stays(self, delivered):
        world, home, good = delivered
        world.repository.drop(MODEL, VARIANT)
        assert outcome(world, home).outcome == "nothing named"
        assert running(home) == good.name

    def test_a_slot_that_left_the_card_keeps_what_its_link_leads_to(self, delivered):
        world, home, good = delivered
        home.card.write_text(home.card.read_text().replace('"main"', '"other"'))
        world.put(world.engine(3.0))
        assert outcome(world, home).outcome == "switched"
        assert running(home) == good.name
        assert runtime.open(home.current("main").resolve())

    def test_one_slot_that_is_refused_stops_no_other(self, tmp_path):
        world = World(tmp_path, models=(MODEL, "other"))
        slots = {
            "a": Slot(model="nobody", variant=VARIANT),
            "b": Slot(model=MODEL, variant=VARIANT),
            "c": Slot(model="other", variant=VARIANT),
        }
        home, engine = world.device(slots=slots), world.engine(2.0)
        world.put(engine)
        world.put(world.engine(3.0), model="other")
        found = [one.outcome for one in world.agent(home).once().slots]
        assert found == ["nothing named", "switched", "switched"]
        assert running(home, "b") == engine.name


class TestADiskThatIs:
    def test_nearly_full_is_asked_first(self, delivered):
        world, home, good = delivered
        world.put(world.engine(3.0))

        class Nearly(Disk):
            def free_bytes(self, folder):
                return 2**19

        status = world.agent(home, disk=Nearly()).once()
        assert (status.slots[0].outcome, status.exit_code) == ("not reached", 3)
        assert "the disk has 0 MiB free" in status.slots[0].reason
        assert running(home) == good.name
        assert outcome(world, home).outcome == "switched"

    def test_full_at_any_operation_leaves_an_engine_and_recovers(self, delivered):
        world, home, _ = delivered

        class Full(Disk):
            left = 0

            def _use(self, path):
                self.left -= 1
                if self.left < 0:
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))

            def mkdir(self, folder, mode=0o777):
                self._use(folder)
                super().mkdir(folder, mode)

            def create(self, path, data, mode=0o666):
                self._use(path)
                super().create(path, data, mode)

            def append(self, path, data):
                self._use(path)
                super().append(path, data)

            def symlink(self, path, leads_to):
                self._use(path)
                super().symlink(path, leads_to)

        outcomes = set()
        for room in (*range(0, 12, 2), 20):
            engine = world.engine(10.0 + room)
            world.put(engine)
            disk = Full()
            disk.left = room
            outcomes.add(outcome(world, home, disk=disk).outcome)
            assert runtime.open(home.current("main").resolve())
            assert outcome(world, home).outcome in ("switched", "current")
            assert running(home) == engine.name
        assert outcomes == {"not reached", "switched"}

    def test_damaged_is_repaired_in_place(self, delivered):
        world, home, good = delivered
        path = home.engine(good.name) / "model.onnx"
        path.write_bytes(b"\0" + path.read_bytes()[1:])
        assert "repaired" in outcome(world, home).reason
        assert runtime.open(home.current("main").resolve())

    def test_damaged_while_the_repository_is_away_means_another_good_engine(self, delivered):
        world, home, good = delivered
        new = world.engine(3.0)
        world.put(new)
        outcome(world, home)
        (home.engine(new.name) / "model.onnx").write_bytes(b"")
        found = outcome(world, home, source=Folder(world.folder / "nowhere"))
        assert (found.outcome, running(home)) == ("gone back", good.name)


def test_a_repository_that_is_away_changes_nothing(delivered):
    world, home, good = delivered
    status = world.agent(home, source=Folder(world.folder / "nowhere")).once()
    assert (status.exit_code, running(home)) == (3, good.name)
    assert "there is no such file" in status.problem


class TestTime:
    def test_a_clock_that_is_unset_or_set_back_stops_updates_and_says_so(self, delivered):
        world, home, good = delivered
        world.put(world.engine(3.0))
        for clock in (datetime(1970, 1, 1, tzinfo=timezone.utc), now() - timedelta(days=2)):
            status = world.agent(home, clock=lambda clock=clock: clock).once()
            assert (status.check, status.exit_code, running(home)) == ("clock", 1, good.name)
            assert f"{clock:%Y-%m-%d}" in status.problem
        assert outcome(world, home).outcome == "switched"

    def test_a_clock_behind_what_was_signed_is_found_at_the_first_look(self, world):
        home = world.device()
        enrolled = home.enrolled.read_text()
        home.enrolled.write_text(enrolled.replace(enrolment.read(home).at, "2025-06-01T00:00:00Z"))
        world.put(world.engine(3.0))
        status = world.agent(home, clock=lambda: now() - timedelta(days=100)).once()
        assert status.check == "clock"
        assert "was signed on" in status.problem

    def test_what_has_expired_stops_updates_never_serving(self, delivered):
        world, home, good = delivered
        world.put(world.engine(3.0))
        status = world.agent(home, clock=lambda: now() + timedelta(days=4)).once()
        assert (status.check, running(home)) == ("expired", good.name)
        assert "timestamp has expired" in status.problem

    def test_time_that_was_verified_once_counts_though_the_clock_goes_back_later(self, delivered):
        world, home, _ = delivered
        world.agent(home, clock=lambda: now() + timedelta(days=2)).once()
        status = world.agent(home).once()
        assert status.check == "clock"

    @pytest.mark.parametrize(
        ("hours", "at", "may"),
        [("", 12, True), ("01:00-05:30", 5, True), ("01:00-05:30", 6, False),
         ("22:00-05:00", 23, True), ("22:00-05:00", 4, True), ("22:00-05:00", 12, False)],
    )  # fmt: skip
    def test_hours_for_downloads(self, hours, at, may):
        assert may_download(hours, datetime(2026, 3, 1, at, 0)) is may

    def test_outside_those_hours_nothing_is_downloaded(self, delivered):
        world, home, good = delivered
        card = home.card.read_text().replace('"hours": ""', '"hours": "03:00-03:01"')
        home.card.write_text(card)
        world.put(world.engine(3.0))
        at = now().replace(hour=12).astimezone()
        found = outcome(world, home, clock=lambda: max(now(), at))
        assert (found.outcome, running(home)) in [("not reached", good.name)]


def now():
    return datetime.now(timezone.utc)


def test_two_agents_of_one_device_are_one_too_many(delivered):
    world, home, _ = delivered
    with enrolment.alone(home), pytest.raises(DeliveryError, match="another agent"):
        world.agent(home).once()


@pytest.mark.parametrize("name", ["trusted.json", "slots/main.json", "status.json"])
@pytest.mark.parametrize("cut", [0, 1, 0.5])
def test_a_file_of_its_own_that_was_cut_needs_no_hand(delivered, name, cut):
    world, home, _ = delivered
    path = home.folder / name
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data)) if cut == 0.5 else cut])
    engine = world.engine(3.0)
    world.put(engine)
    assert outcome(world, home).outcome == "switched"
    assert running(home) == engine.name


def test_the_link_is_never_away_and_never_mixed(delivered):
    world, home, first = delivered
    second = world.engine(3.0)
    shutil.copytree(second, home.engine(second.name))
    state, seen, done = SlotState(home, Disk(), "main"), set(), threading.Event()

    def read():
        while not done.is_set():
            seen.add(running(home))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        state.point((first, second)[number % 2].name)
    done.set()
    reader.join()
    assert seen == {first.name, second.name}


def test_what_is_not_needed_goes_and_what_may_be_gone_back_to_stays(delivered):
    world, home, first = delivered
    engines = [first]
    for number in range(5):
        engines.append(world.engine(3.0 + number))
        world.put(engines[-1])
        outcome(world, home)
    kept = {path.name for path in home.engines.iterdir()}
    assert kept == {engine.name for engine in engines[-3:]}
    assert not list(home.folder.glob(".scratch*"))


def test_looks_are_spread_and_errors_slow_down():
    waits = []

    class Away:
        def once(self):
            return Status(at="", device="", problem="away")

    low = iter([0.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    looking.loop(Away(), 10.0, sleep=waits.append, uniform=lambda a, b: next(low), rounds=7)
    assert waits == [10.0, 60.0, 80.0, 160.0, 160.0, 160.0, 160.0]


def test_a_trial_in_a_child_finds_what_does_not_answer_rightly(world):
    nan = world.engine(float("nan"))
    found = trial.run(nan, None, threads=1, limit_s=60)
    assert (found.ok, found.check) == (False, "trial")
    assert "no numbers" in found.reason
    assert passes(nan, None, threads=1, limit_s=1).ok


def test_a_trial_that_does_not_end_is_ended(world):
    found = trial.run(world.engine(2.0), None, threads=1, limit_s=0.05)
    assert (found.ok, found.reason) == (False, "it did not answer within 0.05 s")
