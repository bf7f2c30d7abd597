from __future__ import annotations

import threading
import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engineworks.runtime.batching import FairQueue


def filled(lanes, depth=4, live=True):
    queue = FairQueue(depth)
    for stream, items in lanes.items():
        queue.open(stream, live=live)
        for item in items:
            queue.put(stream, item)
    return queue


def test_streams_take_turns_and_keep_their_order():
    queue = filled({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1]})
    assert queue.take(4) == [("a", 1), ("b", 1), ("c", 1), ("a", 2)]
    assert queue.take(4) == [("b", 2), ("a", 3), ("b", 3)]
    assert queue.take(4, idle_s=0) == []


def test_a_stream_with_much_under_way_waits_for_itself_alone():
    queue = filled({"slow": [1, 2, 3], "quick": [1, 2]}, depth=2, live=True)
    assert queue.depth_of("slow") == 2
    assert queue.take(9) == [("slow", 2), ("quick", 1), ("slow", 3), ("quick", 2)]
    queue.put("slow", 4)
    queue.put("quick", 3)
    queue.done("quick")
    assert queue.take(9) == [("quick", 3)]
    assert queue.take(9, idle_s=0) == []
    queue.done("slow")
    assert queue.take(9) == [("slow", 4)]


def test_a_stream_of_large_items_holds_fewer():
    queue = FairQueue(4)
    for stream in ("large", "small"):
        queue.open(stream, live=True)
    queue.narrow("large", 0)  # at least one waits, and one is under way
    assert [queue.put("large", item) for item in range(3)] == [0, 1, 1]
    assert [queue.put("small", item) for item in range(3)] == [0, 0, 0]
    assert queue.take(9) == [("large", 2), ("small", 0), ("small", 1), ("small", 2)]
    queue.put("large", 3)
    assert queue.take(9, idle_s=0) == []
    queue.done("large")
    assert queue.take(9) == [("large", 3)]


def test_a_live_stream_drops_its_oldest():
    queue = FairQueue(2)
    queue.open("camera", live=True)
    assert [queue.put("camera", item) for item in range(5)] == [0, 0, 1, 1, 1]
    assert queue.take(9) == [("camera", 3), ("camera", 4)]


def test_a_file_waits_until_there_is_room():
    queue = FairQueue(2)
    queue.open("file", live=False)
    put = []

    def read():
        for item in range(6):
            assert queue.put("file", item) == 0
            put.append(item)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deadline = time.monotonic() + 120
    while len(put) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert put == [0, 1]
    taken = []
    while len(taken) < 6 and time.monotonic() < deadline:
        for stream, item in queue.take(9):
            taken.append(item)
            queue.done(stream)
    assert taken == [0, 1, 2, 3, 4, 5]
    reader.join(120)


def test_a_batch_waits_for_more_but_not_for_what_cannot_come():
    queue = filled({"a": [1]}, depth=1)
    taken = []
    taker = threading.Thread(target=lambda: taken.extend(queue.take(8, wait_s=86_400)), daemon=True)
    taker.start()
    taker.join(120)
    assert taken == [("a", 1)], "one stream with one place cannot fill a batch of 8"
    queue.open("b", live=True)
    queue.done("a")
    queue.put("a", 2)
    threading.Timer(0.05, queue.put, ("b", 1)).start()
    assert sorted(queue.take(8, wait_s=300)) == [("a", 2), ("b", 1)]


def test_finish_waits_for_the_last_item():
    queue = filled({"a": [1]})
    gone = threading.Event()

    def end():
        queue.finish("a")
        gone.set()

    threading.Thread(target=end, daemon=True).start()
    assert queue.take(1) == [("a", 1)]
    assert not gone.wait(0.05)
    queue.done("a")
    assert gone.wait(120)


def test_stop_frees_whoever_waits():
    queue = filled({"a": [1, 2]}, depth=2, live=False)
    waiting = [
        threading.Thread(target=queue.put, args=("a", 3), daemon=True),
        threading.Thread(target=queue.finish, args=("a",), daemon=True),
    ]
    waiting[0].start()
    queue.stop()
    waiting[0].join(120)
    waiting[1].start()
    waiting[1].join(120)
    assert not any(thread.is_alive() for thread in waiting)
    queue.done("a")  # a straggler is no error


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 8), st.integers(1, 5))
def test_no_item_is_lost_and_no_stream_gets_ahead(counts, most, depth):
    queue = FairQueue(depth)
    for stream, _ in enumerate(counts):
        queue.open(stream, live=False)
    left, taken = dict(enumerate(counts)), Counter()
    while any(left.values()) or any(queue.depth_of(stream) for stream, _ in enumerate(counts)):
        for stream in left:
            while left[stream] and queue.depth_of(stream) < depth:
                queue.put(stream, counts[stream] - left[stream])
                left[stream] -= 1
        for stream, item in queue.take(most, idle_s=0):
            assert item == taken[stream]
            taken[stream] += 1
            queue.done(stream)
        busy = [taken[stream] for stream, n in enumerate(counts) if n > taken[stream]]
        if busy:
            assert max(busy) - min(busy) <= max(1, depth) or most >= len(counts)
    assert [taken[stream] for stream, _ in enumerate(counts)] == counts


def test_whoever_waits_for_an_item_need_not_when_it_is_over():
    queue = FairQueue(2)
    taken = []
    taker = threading.Thread(target=lambda: taken.append(queue.take(1, idle_s=600)), daemon=True)
    taker.start()
    queue.stop()
    taker.join(120)
    assert taken == [[]]
