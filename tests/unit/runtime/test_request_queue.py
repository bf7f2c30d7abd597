"""The queue of a server's requests, on a clock that only the tests move."""

from __future__ import annotations

import threading

import pytest

from engineworks.runtime.batching import BatchTimes, QueueFull, RequestQueue

#: Each row is cheaper in a larger batch, up to 4.
PAYS = BatchTimes({1: 10.0, 2: 12.0, 4: 16.0, 8: 40.0})
#: As a small net on a CPU.
DOES_NOT = BatchTimes({1: 5.0, 2: 10.4, 4: 21.0, 8: 45.0})


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def queue(clock, *, times=PAYS, most_rows=8, most_waiting=64, wait_s=0.5):
    q = RequestQueue(
        most_rows=most_rows, most_waiting=most_waiting, wait_s=wait_s, times=times, clock=clock
    )
    q.expect(100)  # somebody else is always on the way
    return q


def items(turn):
    return [ticket.item for ticket in turn.batch]


def drained(q):
    """The batches that leave while nothing is waited for."""
    out = []
    while True:
        turn, _ = q.turn()
        if not turn.batch:
            return out
        out.append(items(turn))


def test_without_figures_nothing_is_merged_or_waited_for(clock):
    q = queue(clock, times=BatchTimes())
    for n in range(3):
        q.put(n, kind="k")
    assert drained(q) == [[0], [1], [2]]


def test_where_a_larger_batch_makes_rows_no_cheaper_nothing_is_merged(clock):
    q = queue(clock, times=DOES_NOT)
    for n in range(5):
        q.put(n, kind="k")
    assert drained(q) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("rows", "best"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 4), (100, 4)]
)
def test_the_batch_is_the_one_whose_rows_are_cheapest(rows, best):
    assert PAYS.best(rows) == best
    assert DOES_NOT.best(rows) == 1


def test_a_request_waits_for_others_as_long_as_it_may_and_no_longer(clock):
    q = queue(clock)
    q.put("a", kind="k")
    turn, again_s = q.turn()
    assert not turn.batch
    assert again_s == pytest.approx(0.5)
    clock.now += 0.25
    q.put("b", kind="k")
    turn, again_s = q.turn()
    assert not turn.batch
    assert again_s == pytest.approx(0.25)
    clock.now += 0.25
    assert items(q.turn()[0]) == ["a", "b"]


def test_nobody_waits_for_those_who_are_not_on_their_way(clock):
    q = queue(clock)
    q.expect(-99)
    q.put("a", kind="k")
    assert not q.turn()[0].batch
    q.expect(-1)
    assert items(q.turn()[0]) == ["a"]


def test_a_taker_is_woken_when_the_last_of_those_expected_will_not_come():
    q = RequestQueue(most_rows=4, most_waiting=9, wait_s=60, times=PAYS)
    q.expect(1)
    q.put("a", kind="k")
    threading.Timer(0.1, q.expect, (-1,)).start()
    assert items(q.take(5)) == ["a"]


def test_a_full_batch_does_not_wait(clock):
    q = queue(clock)
    for n in range(5):
        q.put(n, kind="k")
    assert items(q.turn()[0]) == [0, 1, 2, 3]
    turn, again_s = q.turn()
    assert not turn.batch
    assert again_s == pytest.approx(0.5)


def test_rows_are_counted_and_not_requests(clock):
    q = queue(clock, most_rows=4, times=BatchTimes({1: 10.0, 2: 12.0, 3: 14.0, 4: 16.0}))
    q.put("three", rows=3, kind="k")
    q.put("two", rows=2, kind="k")
    q.put("one", rows=1, kind="k")
    clock.now += 1
    turn, _ = q.turn()
    assert items(turn) == ["three"]  # and two more would be five rows
    assert turn.rows == 3
    assert items(q.turn()[0]) == ["two", "one"]


def test_a_request_larger_than_a_batch_goes_alone(clock):
    q = queue(clock, most_rows=4)
    q.put("nine", rows=9, kind="k")
    q.put("one", kind="k")
    clock.now += 1
    assert drained(q) == [["nine"], ["one"]]


def test_other_kinds_and_those_of_no_kind_are_never_mixed(clock):
    q = queue(clock)
    for item, kind in (("a", "x"), ("b", "y"), ("c", "x"), ("d", None), ("e", None), ("f", "y")):
        q.put(item, kind=kind)
    clock.now += 1
    assert drained(q) == [["a", "c"], ["b", "f"], ["d"], ["e"]]


def test_priority_goes_first_and_arrival_decides_among_equals(clock):
    q = queue(clock, times=BatchTimes())
    for item, priority in (("low", -1), ("a", 0), ("high", 1), ("b", 0)):
        q.put(item, priority=priority)
    assert drained(q) == [["high"], ["a"], ["b"], ["low"]]


def test_what_is_late_is_told_and_never_run(clock):
    q = queue(clock, times=BatchTimes())
    q.put("soon", deadline_s=clock.now + 1)
    q.put("later", deadline_s=clock.now + 3)
    clock.now += 1
    turn, _ = q.turn()
    assert [ticket.item for ticket in turn.late] == ["soon"]
    assert items(turn) == ["later"]


def test_a_deadline_ends_the_waiting_for_others_in_time_to_run(clock):
    q = queue(clock, wait_s=10.0)
    q.ran(1, 0.2)
    q.put("a", kind="k", deadline_s=clock.now + 1)
    turn, again_s = q.turn()
    assert not turn.batch
    assert again_s == pytest.approx(0.6)  # a second less twice the time that a row takes
    clock.now += 0.6
    assert items(q.turn()[0]) == ["a"]


def test_what_cannot_be_in_time_any_more_is_not_run(clock):
    q = queue(clock, times=BatchTimes())
    q.ran(1, 0.2)
    q.put("a", deadline_s=clock.now + 1)
    q.put("b", deadline_s=clock.now + 2)
    clock.now += 0.85
    turn, _ = q.turn()
    assert [ticket.item for ticket in turn.late] == ["a"]
    assert items(turn) == ["b"]


def test_a_full_queue_says_when_there_will_be_room(clock):
    q = queue(clock, most_waiting=4, times=BatchTimes())
    q.ran(2, 1.0)
    q.put("a", rows=3)
    with pytest.raises(QueueFull) as refused:
        q.put("b", rows=2)
    assert refused.value.retry_s == pytest.approx(1.5)
    q.put("c", rows=1)
    assert q.rows == 4


def test_the_smallest_limits_still_serve(clock):
    q = queue(clock, most_rows=1, most_waiting=1, wait_s=0.0, times=BatchTimes({1: 1.0}))
    q.put("nine", rows=9)  # an empty queue takes whatever comes
    with pytest.raises(QueueFull):
        q.put("b")
    assert drained(q) == [["nine"]]
    q.put("b")
    assert drained(q) == [["b"]]


def test_who_would_be_late_anyway_is_not_taken_in(clock):
    q = queue(clock, times=BatchTimes())
    q.ran(1, 1.0)
    for _ in range(3):
        q.put("a")
    with pytest.raises(QueueFull):
        q.put("b", deadline_s=clock.now + 2)
    q.put("b", deadline_s=clock.now + 4)


def test_what_is_cancelled_never_leaves_and_frees_its_rows(clock):
    q = queue(clock, most_waiting=2, times=BatchTimes())
    first, second = q.put("a"), q.put("b")
    assert q.cancel(first)
    assert not q.cancel(first)
    assert q.rows == 1
    assert drained(q) == [["b"]]
    assert not q.cancel(second)


def test_after_closing_nothing_comes_in_and_what_waits_leaves_at_once(clock):
    q = queue(clock)
    q.put("a", kind="k")
    q.close()
    with pytest.raises(QueueFull):
        q.put("b", kind="k")
    assert items(q.take(5)) == ["a"]
    assert q.take(5).batch == []  # and does not wait


def test_two_takers_get_every_request_once():
    q = RequestQueue(most_rows=4, most_waiting=10_000, times=PAYS)
    got: list[int] = []

    def taker():
        while (turn := q.take(0.5)).batch:
            got.extend(items(turn))

    takers = [threading.Thread(target=taker) for _ in range(2)]
    for thread in takers:
        thread.start()
    for n in range(2000):
        q.put(n, kind="k")
    q.close()
    for thread in takers:
        thread.join(120)
    assert sorted(got) == list(range(2000))
