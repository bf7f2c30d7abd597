"""A lock that another process holds is waited for with a word, and not for ever."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from engineworks import locks
from engineworks.errors import StoreError
from engineworks.store import alone

HOLD = """
import fcntl, sys
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_holds_it_is_said_and_the_wait_ends(holder, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(locks.log, "warning", lambda text, *words: told.append(text % words))
    monkeypatch.setattr(locks, "WAIT_S", 0.3)
    monkeypatch.setattr(locks, "_SAID_S", 0.1)
    with (
        pytest.raises(StoreError, match="lock is held by process") as caught,
        alone(tmp_path / "lock"),
    ):
        pass
    assert f"process {holder.pid} (" in caught.value.message
    assert "suspended" in str(caught.value.hint)
    (line,) = told
    assert str(tmp_path / "lock") in line


def test_it_is_had_once_the_other_lets_go(holder, tmp_path):
    with (tmp_path / "lock").open("w") as stream:
        assert not locks.attempt(stream)
        release = threading.Timer(0.1, holder.communicate, ["\n"])
        release.start()
        locks.wait(stream, tmp_path / "lock", limit_s=30)
        release.join()


def test_shared_ones_do_not_wait_for_one_another(tmp_path):
    with (tmp_path / "lock").open("w") as one, (tmp_path / "lock").open("w") as other:
        locks.wait(one, tmp_path / "lock", exclusive=False)
        locks.wait(other, tmp_path / "lock", exclusive=False, limit_s=0)
        with (tmp_path / "lock").open("w") as third:
            assert not locks.attempt(third)
