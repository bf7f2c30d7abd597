"""What a candidate costs the champion beside a live source, for `bench-shadow`.

Frames come at a fixed rate, as from a camera; the engines are real, the candidate in its process.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from engineworks import hosts
from engineworks.runtime.sources import Frame
from engineworks.shadow.comparison import AnswerComparison
from engineworks.shadow.lane import Lane
from engineworks.shadow.material import ShadowFrame
from engineworks.shadow.run import Sampling, ShadowRun
from engineworks.shadow.side import EngineChoice, ShadowSide

#: Frames a second, how many, and what `engineworks shadow` allows beside a live source.
FPS, FRAMES, SHARE, DELAY = 10.0, 400, 0.25, 0.1


class Camera:
    """Pictures at a fixed rate; nothing waits for whoever is late."""

    live = timed = True
    notes: tuple[str, ...] = ()

    def __init__(self, pictures: Sequence[Any]) -> None:
        self._pictures, self.stop = pictures, threading.Event()

    def __iter__(self) -> Iterator[ShadowFrame]:
        begin = time.monotonic()
        for number in range(FRAMES):
            time.sleep(max(0.0, begin + number / FPS - time.monotonic()))
            picture = self._pictures[number % len(self._pictures)]
            frame = Frame(pixels=picture, number=number, time_s=number / FPS)
            yield ShadowFrame(frame=frame, source=1, timed=True)


def measure(engine: str, pictures: Sequence[Any]) -> dict[str, Any]:
    """The champion's medians alone and beside, and the share of the CPU that was used."""
    cores, load = hosts.cores(), os.getloadavg()[0]
    champion = ShadowSide(EngineChoice(place=engine))
    choice = EngineChoice(place=engine, threads=max(1, round(SHARE * cores)))
    camera: Any = Camera(pictures)
    run = ShadowRun(
        champion, camera, Sampling(every=3, max_delay=DELAY),
        lambda take: Lane(
            champion.session.manifest, choice, None, share=SHARE, cores=cores, yields=True,
            answered=take,
        ),
        AnswerComparison(champion.scores, judged=False, block_s=2.0, max_drop=None),
    )  # fmt: skip
    try:
        run.run()
        used = run.lane.used
    finally:
        run.close()
        champion.close()
    alone, beside = (statistics.median(ms) for ms in (run.alone_ms, run.beside_ms))
    return {
        "load before": load,
        "alone p50 ms": alone, "beside p50 ms": beside, "growth": run.growth(),
        "share used": used, "compared": run.comparison.compared, **run.counts,
    }  # fmt: skip
