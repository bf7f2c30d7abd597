"""Work over several sessions: every answer, in order, and nothing left running."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engineworks import runtime
from engineworks.errors import ArtifactError, InferenceError
from engineworks.runtime import session_pool
from engineworks.runtime.session import open_engine
from engineworks.runtime.session_pool import SessionPool
from tests.builders import put_engine, samples

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(params=RUNTIMES)
def engine(request, store, tiny_onnx):
    pytest.importorskip(request.param)
    return put_engine(store, tiny_onnx, runtime=request.param).uri


def feeds(count, batch=2):
    for number in range(count):
        rng = np.random.default_rng(number)
        yield {"images": rng.random((batch, 3, 16, 16), np.float32)}


def test_answers_come_in_the_order_of_the_batches(engine):
    with open_engine(engine, threads=1) as session:
        wanted = [np.array(session.infer(one)["scores"]) for one in feeds(40)]
    with SessionPool(engine, [0, 0, 0], threads=1) as pool:
        found = list(pool.map(feeds(40)))
        shares = pool.shares()
    assert len(found) == 40
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got["scores"], want, rtol=1e-5, atol=1e-6)
    assert sum(share.calls for share in shares) == 40
    assert sum(share.rows for share in shares) == 80
    assert all(share.busy_s > 0 for share in shares if share.calls)


def test_batches_are_drawn_no_faster_than_they_are_worked_off(engine):
    drawn = []

    def endless():
        for one in feeds(1000):
            drawn.append(1)
            yield one

    with SessionPool(engine, [0, 0], threads=1) as pool:
        answers = pool.map(endless())
        for _ in range(3):
            next(answers)
        assert len(drawn) <= 3 + 2 * 2 + 1
        answers.close()


def test_a_batch_that_does_not_fit_is_told_and_the_others_go_on(engine):
    with SessionPool(engine, [0, 0], threads=1) as pool:
        wrong = pool.submit({"images": np.zeros((1, 3, 5, 16), np.float32)})
        right = pool.submit({"images": samples(1)})
        with pytest.raises(ValueError, match="'images' must be float32"):
            wrong.result()
        assert right.result()["scores"].shape == (1, 5)
        assert sum(share.calls for share in pool.shares()) == 1
        with pytest.raises(ValueError, match="missing"):
            list(pool.map([{"images": samples(1)}, {}]))
        pool.reset()
        assert all(share.calls == share.rows == 0 for share in pool.shares())


def test_what_was_handed_in_is_finished_before_it_closes(engine):
    with SessionPool(engine, [0, 0], threads=1) as pool:
        answers = [pool.submit(one) for one in feeds(20)]
    assert all(answer.done() for answer in answers)
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        pool.submit({"images": samples(1)})


def test_what_is_handed_in_while_it_closes_is_answered_or_refused(engine):
    (batch,) = feeds(1)
    pool = SessionPool(engine, [0], threads=1)
    closing = threading.Thread(target=pool.close)

    class ClosedMeanwhile:
        """The moment between the look whether it is closed and the handing in."""

        get = pool.jobs.get

        def put(self, job, put=pool.jobs.put):
            if job is not None and not closing.ident:
                closing.start()
                closing.join(0.3)
            put(job)

    pool.jobs = ClosedMeanwhile()
    assert pool.submit(batch).result(30)["scores"].shape[0] == 2
    closing.join(30)
    assert not closing.is_alive()


def test_no_thread_stays_when_one_session_cannot_be_opened(engine, monkeypatch):
    closed = []

    def one_of_them(path, *, threads, device):
        if device:
            raise ArtifactError("no GPU 1", hint="use 0")
        session = open_engine(path, threads=threads)
        monkeypatch.setattr(session, "close", lambda: closed.append(device))
        return session

    monkeypatch.setattr(session_pool, "open_engine", one_of_them)
    before = threading.active_count()
    with pytest.raises(ArtifactError, match="no GPU 1"):
        SessionPool(engine, [0, 1, 0])
    assert closed == [0, 0]
    assert threading.active_count() == before


@pytest.mark.parametrize(("devices", "words"), [([], "no device"), ([0, 1], "no device 1")])
def test_devices_that_are_not_there_are_refused(engine, devices, words):
    with pytest.raises(ArtifactError, match=words):
        runtime.SessionPool(engine, devices)


def test_a_session_that_fails_to_close_leaves_no_other_open(engine, monkeypatch):
    def stubborn(path, *, threads, device):
        session = open_engine(path, threads=threads)
        close = session.close

        def fail():
            close()
            raise OSError("the device is gone")

        monkeypatch.setattr(session, "close", fail)
        return session

    monkeypatch.setattr(session_pool, "open_engine", stubborn)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    before = threading.active_count()
    with SessionPool(engine, [0, 0, 0], threads=1) as pool:
        assert len(list(pool.map(feeds(6)))) == 6
    assert threading.active_count() == before


def test_a_session_that_hangs_is_not_waited_for_without_end(engine):
    released = threading.Event()
    sessions = [open_engine(engine, threads=1) for _ in range(2)]
    for session in sessions:
        session.infer = lambda feeds: released.wait(120) and {}
    try:
        pool = SessionPool(lambda device, threads: sessions.pop(), [0, 0], threads=1, limit_s=0.3)
        with pytest.raises(InferenceError, match="not answered in time"):
            list(pool.map(feeds(3)))
        pool.close()  # comes back, too
    finally:
        released.set()


def test_a_session_that_never_opens_is_given_up():
    released = threading.Event()
    try:
        with pytest.raises(InferenceError, match="not answered in time"):
            SessionPool(lambda device, threads: released.wait(120), [0], threads=1, limit_s=0.3)
    finally:
        released.set()
