"""A progress line on a terminal while a pipeline runs; silent elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from engineworks.runtime.pipeline import Pipeline
from engineworks.runtime.stream import StreamReport

_BAR = 20


@contextlib.contextmanager
def shown(pipeline: Pipeline) -> Iterator[None]:
    """Show how the pipeline goes, twice a second, as long as the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()

    def show() -> None:
        while not over.wait(0.5):
            sys.stderr.write("\r\x1b[2K" + line(pipeline.progress())[:160])
            sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sys.stderr.write("\r\x1b[2K")


def line(running: list[StreamReport]) -> str:
    """One line for all running streams.

    `clip.mp4 [#####...............] 200/795  57.1 fps  0:10 left  decode 2 infer 17 write 5 ms`
    """
    if not running:
        return "starting"
    first, frames = running[0], sum(report.frames for report in running)
    fps = sum(report.fps for report in running)
    name = first.name if len(running) == 1 else f"{len(running)} streams"
    text = f"{name} "
    wanted = [report.expected_frames for report in running]
    total = sum(n for n in wanted if n is not None)
    if total and None not in wanted:
        done = min(1.0, frames / total)
        text += f"[{'#' * round(_BAR * done):.<{_BAR}}] {frames}/{total}  {fps:.1f} fps"
        left_s = round((total - frames) / fps) if fps else 0
        text += f"  {left_s // 60}:{left_s % 60:02d} left"
    else:
        text += f"{frames} frames  {fps:.1f} fps"
    dropped = sum(report.dropped for report in running)
    if dropped:
        text += f"  {dropped} dropped"
    stages = " ".join(f"{stage} {ms:.0f}" for stage, ms in first.stages_ms.items())
    return f"{text}  {stages} ms" if stages else text
