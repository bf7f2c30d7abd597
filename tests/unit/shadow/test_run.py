"""Which frames the candidate gets, and when it rests so that the champion is not held up."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from engineworks.errors import ArtifactError, DataError
from engineworks.evaluate import frame_scores
from engineworks.runtime.sources import Frame, SourceOptions
from engineworks.shadow import material
from engineworks.shadow.comparison import AnswerComparison
from engineworks.shadow.material import Material, ShadowFrame, labelled
from engineworks.shadow.run import Sampling, ShadowRun
from tests import builders

CAT = [{"category_id": 0, "score": 0.9}]
PICTURE = np.zeros((2, 2, 3), np.uint8)


class Stream:
    """Frames of a live source, all of one class."""

    notes: tuple[str, ...] = ()

    def __init__(self, count, live=True):
        self.count, self.live, self.stop = count, live, threading.Event()

    def __iter__(self):
        for number in range(self.count):
            frame = Frame(pixels=PICTURE, number=number, time_s=number / 10)
            yield ShadowFrame(frame=frame, source=1, timed=True, truth=CAT)


class AtOnce:
    """A lane that is at a frame until the next one is offered."""

    broken, failure, used = "", None, 0.0

    def __init__(self, answered, said):
        self.answered, self.said, self.waits = answered, said, None

    @property
    def working(self):
        return self.waits is not None

    def offer(self, ticket, frame, *, wait):
        if self.working:
            return "busy"
        self.waits = ticket
        return "taken"

    def answer(self):
        if self.working:
            ticket, self.waits = self.waits, None
            try:
                self.answered(ticket, self.said)
            except ArtifactError as error:
                self.failure = error

    def finish(self):
        self.answer()


def run(count=300, slow_s=0.0, said=None, **sampling):
    """A champion that takes 1 ms, and more while the candidate is at work on every other frame."""
    scores = frame_scores.of("classification")
    champion = SimpleNamespace(scores=scores)
    lane = None

    def answer(pixels):
        beside = lane.working
        time.sleep(0.001 + beside * slow_s)
        lane.answer()
        return CAT

    class Champion:
        scores = champion.scores

        def __call__(self, pixels):
            return answer(pixels)

    def open_lane(answered):
        nonlocal lane
        lane = AtOnce(answered, said or {"candidate": CAT})
        return lane

    held = ShadowRun(
        Champion(), Stream(count), Sampling(**sampling), open_lane,
        AnswerComparison(scores, judged=True, block_s=2.0, max_drop=None),
    )  # fmt: skip
    held.run()
    return held


def test_a_candidate_that_slows_the_champion_rests_for_most_of_the_time():
    slow = run(slow_s=0.004, every=2, max_delay=0.5)
    assert slow.counts["held_back"] >= 50
    assert slow.comparison.compared + slow.counts["held_back"] == slow.counts["sampled"] == 150
    free = run(slow_s=0.004, every=2)
    assert free.counts["held_back"] == 0 and free.comparison.compared == 150
    assert run(every=2, max_delay=5.0).counts["held_back"] < 40  # to know the champion alone
    always = run(slow_s=0.004, max_delay=0.5)  # at work all the time: it is made to pause
    assert always.counts["held_back"] > 120 and len(always.alone_ms) > 150
    assert free.growth() > 2 and run(every=40).growth() is None


def test_frames_are_sampled_by_number_or_by_chance_and_counted():
    assert run(every=7).counts["sampled"] == 43
    by_chance = run(share=0.3)
    assert 60 <= by_chance.counts["sampled"] <= 120
    assert run(every=2, frames=10).comparison.compared == 10


def test_a_reference_that_answers_nothing_ends_it_and_one_frame_is_left_out():
    said = {"candidate": CAT, "reference": None, "reference_error": "no memory"}
    with pytest.raises(ArtifactError, match="the reference answers no frame: no memory"):
        run(said=said)
    few = run(count=5, said=said)
    assert (few.reference_errors, few.comparison.compared) == (5, 0)


def test_no_answer_is_one_without_an_object():
    found = run(count=4, said={"candidate": None, "candidate_error": "lost"})
    assert found.counts["unanswered"] == 4 and found.comparison.mean_scores == (1.0, 0.0)


def test_pictures_come_in_random_order_the_same_each_time_and_streams_as_they_are(tmp_path):
    for number in range(12):
        builders.picture(tmp_path / f"{number:02}.png", seed=number)

    def order(**options):
        pictures = Material([str(tmp_path)], SourceOptions(), **options)
        entries = list(pictures)
        assert {entry.timed for entry in entries} == {pictures.timed}
        return [int(entry.frame.image.sum()) for entry in entries]

    one = order()
    assert one == order() and one != order(seed=1) and sorted(one) == sorted(order(seed=1))
    assert order(folders_are_video=True) != one


def test_a_stream_that_is_lost_on_the_way_leaves_what_it_gave(monkeypatch):
    class Lost:
        troubles = SimpleNamespace(notes=["1 damaged"])

        def __iter__(self):
            yield from (Frame(pixels=PICTURE, number=0, time_s=0.0),) * self.frames
            raise DataError("tcp://x is lost", hint="check the camera")

        def close(self):
            pass

    monkeypatch.setattr(material, "open_source", lambda *given: Lost())
    Lost.frames = 3
    frames = Material(["tcp://x"], SourceOptions())
    assert len(list(frames)) == 3
    assert frames.notes == ["tcp://x: 1 damaged", "tcp://x is lost, after 3 frames"]
    Lost.frames = 0
    with pytest.raises(DataError, match="is lost"):
        list(Material(["tcp://x"], SourceOptions()))


def test_pictures_have_their_labels_and_one_that_does_not_fit_them_is_left_out(tmp_path):
    sizes = {"a.png": (24, 32), "b.png": (24, 31), "gone.png": (24, 32)}
    for name in ("a.png", "b.png"):
        builders.picture(tmp_path / name)
    boxes = [("a.png", "dog", [1, 2, 3, 4]), ("b.png", "cat", [1, 2, 3, 4])]
    known = builders.coco(tmp_path / "x.json", sizes, boxes, {"cat": 7, "dog": 3})
    pictures = labelled([str(tmp_path)], str(known), ["cat", "dog"])
    held = Material([str(tmp_path)], SourceOptions(), pictures=pictures)
    (entry,) = held
    assert entry.truth == [{"category_id": 1, "bbox": [1, 2, 3, 4], "score": 1.0}]
    assert held.notes == ["left out: b.png is 32x24, its labels are of 31x24"]


def test_a_folder_is_the_class_of_its_pictures(tmp_path):
    (tmp_path / "dog").mkdir()
    builders.picture(tmp_path / "dog" / "c.png")
    (picture,) = labelled([str(tmp_path)], "folders", ["cat", "dog"])
    assert picture.truth == [{"category_id": 1, "score": 1.0}]
    with pytest.raises(DataError, match="none of the 1 labels"):
        labelled([str(tmp_path)], "folders", ["cat"])
    with pytest.raises(DataError, match="pictures in one folder"):
        labelled([str(tmp_path), "clip.mp4"], "folders", ["cat"])
