from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from benchmarks.hota import hota
from benchmarks.plain_bytetrack import PlainByteTrack
from engineworks.runtime.assignment import assign
from engineworks.runtime.detections import Detections
from engineworks.runtime.tracking import ByteTrack


def found(boxes, scores=0.9, classes=0):
    xyxy = np.asarray(boxes, np.float32).reshape(-1, 4)
    n = len(xyxy)
    return Detections(
        xyxy=xyxy,
        confidence=np.broadcast_to(np.asarray(scores, np.float32), n).copy(),
        class_id=np.broadcast_to(np.asarray(classes, np.int64), n).copy(),
    )


def walker(frame, speed=4.0, top=50.0):
    left = 20 + speed * frame
    return [left, top, left + 30, top + 80]


def test_an_object_keeps_its_number_and_its_own_box():
    tracker = ByteTrack()
    for frame in range(20):
        given = found([walker(frame), walker(frame, top=300)], [0.8, 0.9])
        tracked = tracker.update(given)
        np.testing.assert_array_equal(tracked.xyxy, given.xyxy)
        assert tracked.track_id.tolist() == [1, 2]


def test_detections_in_another_order_keep_their_numbers():
    tracker = ByteTrack()
    tracker.update(found([walker(0), walker(0, top=300)]))
    tracked = tracker.update(found([walker(1, top=300), walker(1)]))
    assert tracked.track_id.tolist() == [2, 1]


def test_equal_scores_do_not_confuse_who_is_who():
    rng = np.random.default_rng(0)
    home = rng.permutation([[100 * i, 0, 100 * i + 40, 80] for i in range(30)])
    tracker = ByteTrack()
    first = tracker.update(found(home))
    number = {tuple(box): track for box, track in zip(first.xyxy, first.track_id, strict=True)}
    for _ in range(10):
        tracked = tracker.update(found(rng.permutation(home)))
        assert len(tracked) == 30
        for box, track in zip(tracked.xyxy, tracked.track_id, strict=True):
            assert number[tuple(box)] == track


def test_a_weak_detection_holds_a_track_but_starts_none():
    tracker = ByteTrack(high=0.5)
    for frame in range(5):
        tracker.update(found([walker(frame)]))
    tracked = tracker.update(found([walker(5), walker(5, top=300)], [0.2, 0.2]))
    assert tracked.track_id.tolist() == [1]
    assert tracked.confidence.tolist() == pytest.approx([0.2])


def test_a_hidden_object_comes_back_under_its_number():
    tracker = ByteTrack(fps=25, lost_s=1.0)
    for frame in range(10):
        tracker.update(found([walker(frame, speed=1)]))
    for _ in range(12):
        assert len(tracker.update(Detections.empty())) == 0
    assert tracker.update(found([walker(22, speed=1)])).track_id.tolist() == [1]


def test_a_track_is_forgotten_after_the_time_it_may_be_lost():
    tracker = ByteTrack(fps=10, lost_s=0.5)
    for frame in range(5):
        tracker.update(found([walker(frame, speed=0)]))
    for _ in range(8):
        tracker.update(Detections.empty())
    tracker.update(found([walker(0, speed=0)]))
    assert tracker.update(found([walker(0, speed=0)])).track_id.tolist() == [2]


def test_a_track_never_changes_its_class():
    tracker = ByteTrack()
    seen: dict[int, set[int]] = {}
    for frame in range(30):
        kind = (frame // 5) % 2  # the same place, told as another class every 5 frames
        tracked = tracker.update(found([walker(frame)], classes=kind))
        for track, name in zip(tracked.track_id, tracked.class_id, strict=True):
            seen.setdefault(int(track), set()).add(int(name))
    assert len(seen) >= 2
    assert all(len(names) == 1 for names in seen.values())


def test_two_streams_count_on_their_own():
    one, other = ByteTrack(), ByteTrack()
    for frame in range(3):
        assert one.update(found([walker(frame)])).track_id.tolist() == [1]
        assert other.update(found([walker(frame)])).track_id.tolist() == [1]


def test_a_resumed_stream_goes_on_counting():
    assert ByteTrack(first_id=8).update(found([walker(0)])).track_id.tolist() == [8]


def crowd(frames):
    """Ten walkers, and in every frame two detections of nothing."""
    rng = np.random.default_rng(5)
    for frame in range(frames):
        steady = [walker(frame % 200, speed=2, top=100.0 * row) for row in range(10)]
        noise = rng.random((2, 2)) * [1800, 900]
        boxes = np.concatenate([steady, np.concatenate([noise, noise + 40], axis=1)])
        yield found(boxes + rng.normal(0, 0.5, boxes.shape))


def partition(answers):
    """Frame -> the sets of rows that share a number with earlier frames, whatever the number."""
    names: dict[int, int] = {}
    return [[names.setdefault(int(number), len(names)) for number in ids] for ids in answers]


@pytest.mark.parametrize("seed", range(6))
def test_every_number_is_that_of_the_plain_bytetrack(seed):
    """Walkers who cross, hide and come back; SciPy's assignment and full matrices beside ours."""
    rng = np.random.default_rng(seed)
    at, speed = rng.random((14, 2)) * [500, 300], rng.normal(0, 4, (14, 2))
    size = rng.uniform([20, 50], [50, 120], (14, 2))
    ours, plain = ByteTrack(high=0.6), PlainByteTrack(high=0.6)
    answers, references = [], []
    for _ in range(120):
        at += speed
        speed[(at < 0) | (at > [500, 300])] *= -1
        boxes = np.concatenate([at, at + size], axis=1) + rng.normal(0, 1.5, (14, 4))
        boxes = boxes[rng.random(14) > 0.15]
        corner = rng.random((rng.poisson(1), 2)) * [500, 300]
        false = np.concatenate([corner, corner + np.array([30, 80])], axis=1)
        boxes = np.concatenate([boxes, false])
        boxes = boxes.astype(np.float32)
        scores = np.clip(rng.normal(0.75, 0.2, len(boxes)), 0.12, 0.99).astype(np.float32)
        answers.append(ours.update(found(boxes, scores)).track_id)
        plain.update(boxes.astype(float), scores.astype(float))
        shown = {t.row: t.number for t in plain.tracks if t.confirmed and not t.lost}
        references.append([shown[row] for row in sorted(shown)])
    assert partition(answers) == partition(references)
    assert len({int(number) for ids in answers for number in ids}) > 14  # some were lost


A, B = [100, 0, 200, 100], [140, 0, 240, 100]
#: a: A moved by 18 pixels; b: new, overlaps A by 0.17 and B not at all.
MOVED, NEWCOMER = [118, 0, 218, 100], [36, 0, 128, 100]


def test_a_newcomer_takes_nobodys_number():
    """First association: costs are A-a 0.37, B-a 0.42, A-b 0.85, B-b 1; the limit is 0.8.

    The cheapest sum over all pairs is B-a and A-b, of which A-b is then above the limit.
    """
    tracker = ByteTrack()
    for _ in range(5):
        assert tracker.update(found([A, B])).track_id.tolist() == [1, 2]
    tracked = tracker.update(found([MOVED, NEWCOMER]))
    assert tracked.track_id.tolist() == [1]
    np.testing.assert_array_equal(tracked.xyxy, [MOVED])


def test_a_weak_newcomer_takes_nobodys_number():
    """Second association: overlaps A-a 0.70, B-a 0.64, A-b 0.17, B-b 0; the limit is 0.5."""
    tracker = ByteTrack()
    for _ in range(5):
        tracker.update(found([A, B]))
    tracked = tracker.update(found([MOVED, NEWCOMER], 0.3))
    assert tracked.track_id.tolist() == [1]


def test_a_newcomer_does_not_confirm_the_wrong_track():
    """Third association: tracks of one frame; costs as in the first, the limit is 0.7."""
    tracker = ByteTrack()
    tracker.update(found([[900, 0, 950, 90]]))
    tracker.update(found([[900, 0, 950, 90], A, B]))  # A and B wait for a second frame
    tracked = tracker.update(found([[900, 0, 950, 90], MOVED, NEWCOMER]))
    assert tracked.track_id.tolist() == [1, 2]
    # It was A that was confirmed: where A goes on, the number stays; B's place gets a new one.
    again = tracker.update(found([MOVED, [140 + 30, 0, 240 + 30, 100]]))
    assert again.track_id.tolist()[0] == 2


def limited(gain):
    """The largest sum of gains by SciPy, over the matrix that lap.lapjv(cost_limit=) extends."""
    n, m = gain.shape
    whole = np.zeros((n + m, n + m))
    whole[:n, :m] = gain
    whole[:n, :m][gain <= 0] = -1e9
    rows, columns = linear_sum_assignment(whole, maximize=True)
    inside = (rows < n) & (columns < m)
    return whole[rows[inside], columns[inside]].sum()


@given(
    st.tuples(st.integers(0, 7), st.integers(0, 7)).flatmap(
        lambda shape: arrays(np.float64, shape, elements=st.floats(-1, 1))
    )
)
def test_the_assignment_has_the_largest_sum(gain):
    pairs = assign(gain)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(gain[i, j] > 0 for i, j in pairs)
    assert sum(gain[i, j] for i, j in pairs) == pytest.approx(limited(gain), abs=1e-9)


def test_a_crowd_in_one_place_is_assigned_in_time():
    gain = np.random.default_rng(0).random((200, 230))
    begin = time.process_time()
    pairs = assign(gain)
    assert time.process_time() - begin < 5
    assert sum(gain[i, j] for i, j in pairs) == pytest.approx(limited(gain))


def test_what_a_tracker_remembers_does_not_grow():
    tracker, most = ByteTrack(), 0
    for frame in crowd(1500):
        tracker.update(frame)
        most = max(most, len(tracker._tracks.seen))
    assert most < 150  # ten walkers, and what false boxes leave within a second


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.floats(-1e4, 1e4, width=32) | st.just(float("nan")),
                st.floats(-1e4, 1e4, width=32),
                st.floats(0, 2000, width=32),
                st.floats(0, 2000, width=32) | st.just(float("inf")),
                st.floats(0, 1, width=32),
                st.integers(0, 79),
            ),
            max_size=12,
        ),
        max_size=12,
    )
)
def test_whatever_comes_the_answer_is_a_part_of_it(frames):
    tracker = ByteTrack(fps=5)
    for rows in frames:
        table = np.array(rows, np.float32).reshape(-1, 6)
        boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
        given = found(boxes, table[:, 4], table[:, 5].astype(np.int64))
        tracked = tracker.update(given)
        rows_in = [tuple(row) for row in given.xyxy]
        assert all(tuple(row) in rows_in for row in tracked.xyxy)
        assert len(set(tracked.track_id.tolist())) == len(tracked)
        assert (tracked.track_id >= 1).all()


def mot(path):
    """Frame -> (ids, boxes) of a file in MOTChallenge form."""
    rows = np.loadtxt(path, delimiter=",", usecols=range(6))
    frames = {}
    for frame in np.unique(rows[:, 0]):
        part = rows[rows[:, 0] == frame]
        boxes = np.concatenate([part[:, 2:4], part[:, 2:4] + part[:, 4:6]], axis=1)
        frames[int(frame)] = (part[:, 1].astype(int), boxes)
    return frames


def detector(truth):
    """What a middling detector would say: a tenth missing, boxes 3 % off, false ones."""
    rng = np.random.default_rng(1)
    for frame in range(1, max(truth) + 1):
        boxes = truth.get(frame, (0, np.zeros((0, 4))))[1]
        boxes = boxes[rng.random(len(boxes)) > 0.1]
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        scores = np.clip(rng.normal(0.75, 0.2, len(boxes)), 0.12, 0.99)
        corner = rng.random((rng.poisson(0.5), 2)) * [500, 300]
        false = np.concatenate([corner, corner + np.array([60, 150])], axis=1)
        yield (
            frame,
            found(
                np.concatenate([boxes + rng.normal(0, 0.03, boxes.shape) * size, false]),
                np.concatenate([scores, rng.uniform(0.1, 0.7, len(false))]),
            ),
        )


@pytest.mark.parametrize("name", ["TUD-Campus", "TUD-Stadtmitte"])
def test_real_sequences_score_as_the_plain_bytetrack(name):
    spec = importlib.util.find_spec("motmetrics")
    truth = mot(Path(spec.origin).parent / "data" / name / "gt.txt")
    ours, plain = ByteTrack(high=0.6), PlainByteTrack(high=0.6)
    answers, references = {}, {}
    for frame, seen in detector(truth):
        tracked = ours.update(seen)
        answers[frame] = (tracked.track_id, tracked.xyxy.astype(float))
        references[frame] = plain.update(seen.xyxy.astype(float), seen.confidence)
    score = hota(truth, answers)
    assert score > 60
    assert score > hota(truth, references) - 1.5


def test_hota_of_the_truth_itself_is_full_and_a_switch_costs():
    boxes = np.array([[0.0, 0, 10, 20], [50, 0, 60, 20]])
    truth = {frame: (np.array([1, 2]), boxes) for frame in range(10)}
    assert hota(truth, truth) == pytest.approx(100)
    switched = {f: (np.array([1, 2]) if f < 5 else np.array([2, 1]), boxes) for f in range(10)}
    # Detection is perfect; each of 4 pairs holds 5 of 10 + 10 - 5 frames: sqrt(1/3).
    assert hota(truth, switched) == pytest.approx(100 / np.sqrt(3))
    assert hota(truth, {}) == 0
