"""Who is let in, and what is decoded when: on a clock and a pool of the test's own."""

from __future__ import annotations

import contextlib
import math
import random
from collections import deque

import pytest

from engineworks.server.admission import Admission, DecodingQueue
from engineworks.server.refusals import Refusal


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def enter(stack, admission, deadline_s, rows=1):
    stack.enter_context(admission.inside(rows, deadline_s))


def leave_each(admission, clock, times, after_s, rows=1):
    """So many answers one after another, one in work at a time."""
    for _ in range(times):
        with admission.inside(rows, 1e9):
            clock.now += after_s


def test_pace_is_the_whole_way_not_the_warm_up(clock):
    admission = Admission("net", 64, first_row_s=0.01, clock=clock)
    assert admission.row_s == 0.01
    leave_each(admission, clock, 3, 0.2)
    assert admission.row_s == pytest.approx(0.2)
    clock.now += 1000  # nobody asked: that is no slowness
    leave_each(admission, clock, 1, 0.2)
    assert admission.row_s == pytest.approx(0.2)
    leave_each(admission, clock, 40, 0.1)
    assert admission.row_s == pytest.approx(0.1)  # what was long ago is forgotten


def test_rows_leave_together_and_are_counted_alone(clock):
    admission = Admission("net", 64, clock=clock)
    leave_each(admission, clock, 2, 0.8, rows=4)
    assert admission.row_s == pytest.approx(0.2)


def test_only_what_can_be_expected_in_time_is_let_in(clock):
    admission = Admission("net", 64, first_row_s=0.1, clock=clock)
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            enter(stack, admission, clock() + 1.0)
        # The eighth would be ready after 0.8 s, and of 1 s only three quarters are counted on.
        refusal = admission.refusal(1, clock() + 1.0)
        assert refusal is not None
        assert (refusal.status, refusal.outcome) == (503, "queue_full")
        assert refusal.retry_s == pytest.approx(0.7)
        assert admission.refusal(1, clock() + 1.2) is None
        assert admission.refusal(1, None) is None
        with pytest.raises(Refusal):
            enter(stack, admission, clock() + 0.1)
        assert admission.open_rows == 7
    assert admission.open_rows == 0


def test_no_more_rows_than_allowed_and_one_in_any_case(clock):
    admission = Admission("net", 4, first_row_s=0.1, clock=clock)
    assert admission.refusal(8, clock() + 1e-9) is None
    with admission.inside(3, clock() + 60):
        assert admission.refusal(1, clock() + 60) is None
        assert admission.refusal(2, clock() + 60).outcome == "queue_full"


def test_who_leaves_without_an_answer_sets_no_pace(clock):
    admission = Admission("net", 4, first_row_s=0.1, clock=clock)
    with pytest.raises(ValueError, match="broken"), admission.inside(1, clock() + 60):
        clock.now += 5
        raise ValueError("broken")
    assert admission.row_s == 0.1
    assert admission.open_rows == 0


class Job:
    def __init__(self, name, priority=0):
        self.name, self.priority = name, priority

    def prepare(self):
        raise AssertionError("the pool of this test runs nothing")


class Pool:
    def __init__(self):
        self.begun = []

    def submit(self, function):
        self.begun.append(function.__self__.name)


def test_images_are_decoded_as_they_are_wanted():
    pool, ends = Pool(), {}
    queue = DecodingQueue(pool, lambda: 2)
    for name, priority in (("a", 0), ("b", 0), ("c", -1), ("d", 0), ("e", 1), ("f", 0)):
        ends[name] = contextlib.ExitStack()
        ends[name].enter_context(queue.inside(Job(name, priority)))
    assert pool.begun == ["a", "b"]
    ends["d"].close()  # its client has left: it never is
    ends["a"].close()
    ends["b"].close()
    assert pool.begun == ["a", "b", "e", "f"]
    ends["e"].close()
    assert pool.begun == ["a", "b", "e", "f", "c"]


@pytest.mark.parametrize("slower_later", [1.0, 4.0])
def test_at_three_times_the_load_nearly_all_that_can_be_answered_is_in_time(clock, slower_later):
    """One engine of 20 ms, on a clock of its own: arrivals and durations are drawn, none is timed.

    Args:
        slower_later: Other programs come halfway, and everything takes so many times as long.
    """
    source = random.Random(11)
    admission = Admission("net", 64, first_row_s=0.02, clock=clock)
    begun, waiting, answered, late, idle_s = clock.now, deque(), 0, 0, 0.0
    arrival, free_s = clock.now, clock.now
    while clock.now < begun + 60:
        takes_s = source.uniform(0.01, 0.03) * (slower_later if clock.now > begun + 30 else 1)
        done_s = free_s + takes_s if waiting else math.inf
        while arrival < done_s:  # whoever comes while the first of those that wait is run
            clock.now = arrival
            deadline_s = arrival + 0.5
            entered = contextlib.ExitStack()
            with contextlib.suppress(Refusal):
                entered.enter_context(admission.inside(1, deadline_s))
                if not waiting:
                    idle_s += max(0.0, arrival - free_s)
                    free_s = max(free_s, arrival)
                    done_s = free_s + takes_s
                waiting.append((deadline_s, entered))
            arrival += source.expovariate(3 / 0.02)
        clock.now = free_s = done_s
        deadline_s, entered = waiting.popleft()
        entered.close()
        answered += clock.now <= deadline_s
        late += clock.now > deadline_s
    assert idle_s < 1
    assert late <= 0.02 * (answered + late)
