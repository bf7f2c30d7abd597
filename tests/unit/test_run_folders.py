"""Runs that begin at the same moment get a folder each, and none waits for another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from tasks import _run


def test_runs_of_one_millisecond_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path))
    looks = []

    class Still(datetime):
        """A clock that stands for four looks at a time."""

        @classmethod
        def now(cls, tz=None):
            looks.append(1)
            return datetime(2026, 1, 1, 0, 0, 0, 1000 * (len(looks) // 4), tzinfo=timezone.utc)

    monkeypatch.setattr(_run, "datetime", Still)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: _run.open_run("tiny"), range(8)))
    assert len({run.run_id for run in runs}) == 8
    assert all((run.folder / "logs").is_dir() for run in runs)
