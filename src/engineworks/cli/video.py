"""`video` and `videos`: detect and track in one video or stream, or in many at once."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from engineworks import hosts, runtime
from engineworks.cli._engines import add_engine, add_settings, heads_by_command, open_predictor
from engineworks.cli._idle import given, refuse_idle
from engineworks.cli._numbers import MOST_ROWS, add_max_pixels, number, size, whole
from engineworks.cli._outputs import check, files_of
from engineworks.cli._progress import shown
from engineworks.cli._recording import add_recording, recorder
from engineworks.cli._videos import find, output_names
from engineworks.cli._words import add
from engineworks.errors import DataError
from engineworks.runtime.metrics import Recorder, name_of
from engineworks.runtime.outputs import make_folder, write_text
from engineworks.runtime.pipeline import Pipeline
from engineworks.runtime.resume import Outputs, look_back
from engineworks.runtime.sinks import JsonLines, MotText, Sink, VideoSink, Window
from engineworks.runtime.sources import (
    Source,
    SourceOptions,
    is_live,
    local_path,
    open_source,
    spoken,
)
from engineworks.runtime.stream import StreamJob, StreamReport
from engineworks.runtime.tracking import ByteTrack
from engineworks.runtime.video_file import VideoFile

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers

#: Detections from this confidence on help ByteTrack to hold a track (arXiv:2110.06864).
_WEAK = 0.1


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommands."""
    video = add(subparsers, "video", _video, "find and track objects in a video or stream")
    drawn = [head for group in heads_by_command().values() for head in group if head.draw]
    add_engine(video)
    add_settings(video, drawn)
    video.add_argument(
        "source",
        metavar="SRC",
        help="video file, folder of images, rtsp:// or http:// address, camera number, or - for "
        "raw BGR frames on standard input",
    )
    video.add_argument("-o", "--output", type=Path, metavar="MP4", help="write the drawn video")
    video.add_argument("--jsonl", metavar="FILE", help="write a JSON line per frame; - for stdout")
    video.add_argument("--mot", type=Path, metavar="FILE", help="write tracks as MOTChallenge text")
    video.add_argument("--show", action="store_true", help="show it in a window; q ends")
    video.add_argument(
        "--batch", type=whole(1), default=1, help="frames per inference (default: 1)"
    )
    video.add_argument("--raw-size", type=size, metavar="WxH", help="size of raw frames")
    _add_common(video)
    many = add(subparsers, "videos", _videos, "the same for many videos or streams at once")
    add_engine(many)
    add_settings(many, drawn)
    many.add_argument("sources", nargs="+", metavar="SRC", help="folder of videos, file or address")
    many.add_argument(
        "-o", "--output", type=Path, metavar="DIR", required=True, help="write everything there"
    )
    many.add_argument(
        "--at-once", type=whole(1), default=2, help="how many side by side (default: 2)"
    )
    many.add_argument("--no-video", action="store_true", help="write JSON Lines alone")
    _add_common(many)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--track", action="store_true", help="number the objects (ByteTrack)")
    command.add_argument(
        "--overlay", action="store_true",
        help="draw the rate of frames, and names with number and confidence: ID 7 person 0.83",
    )  # fmt: skip
    command.add_argument(
        "--workers", type=whole(1), default=0, metavar="N",
        help="sessions of the engine that share the threads: more frames per second, each of them "
        "later (default: 2; 1 where a source is live)",
    )  # fmt: skip
    command.add_argument(
        "--video-height", type=whole(2, MOST_ROWS), metavar="ROWS",
        help="of the written video, the width follows (default: as the source); half of it takes "
        "the encoder a third of the time",
    )  # fmt: skip
    command.add_argument("--resume", action="store_true", help="go on where a run was interrupted")
    command.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    command.add_argument(
        "--fps", type=number(0, 1000), metavar="N",
        help="of images and raw frames (default: 25)",
    )  # fmt: skip
    command.add_argument(
        "--hardware", help="decode by auto, none, or a device kind such as cuda (default: auto)"
    )
    command.add_argument(
        "--give-up", type=number(0, 1e9), dest="give_up_s", metavar="S",
        help="end a live source that sent nothing for so many seconds (default: 60)",
    )  # fmt: skip
    add_max_pixels(command)
    add_recording(command)


def _video(options: argparse.Namespace) -> int:
    """0: read to its end, or closed and live; 1: a part of it is done; 2: refused.

    130 and 143: asked to end by a signal.
    """
    outputs = Outputs(
        video=options.output,
        jsonl=Path(options.jsonl) if options.jsonl not in (None, "-") else None,
        mot=options.mot,
    )
    if options.mot is not None and not options.track:
        raise DataError("--mot writes tracks, and none are made", hint="add --track")
    if not (options.show or options.jsonl or options.log or any(map(bool, vars(outputs).values()))):
        sys.stderr.write("nothing is kept: add -o out.mp4, --jsonl, --mot or --show\n")
    refuse_idle(options, [options.source], drawn=bool(options.output or options.show))
    resume = options.resume
    continued = [path for path in (outputs.jsonl, outputs.mot) if path is not None and resume]
    written = outputs.written(resume=resume)
    check(options, written, files_of([options.source]), goes_on=continued)
    window = Window(options.source) if options.show else None
    with _engine(options, [options.source]) as (predictors, record):
        job = _Plan(options, predictors[0], window).job(options.source, outputs)
        pipeline = Pipeline(
            predictors,
            batch=options.batch,
            depth=max(4, options.batch),
            recorder=record,
            refresh=window.refresh if window else None,
        )
        reports, asked = _run(pipeline, [job])
    if not reports:  # asked to end before it was opened
        return _stopped(asked)
    (report,) = reports
    if report.outcome == "failed" and not report.frames and not options.json:
        sys.stderr.write(f"{report.name}: {report.reason}\n")
        return _stopped(asked) if asked else 2
    # Standard output may hold JSON Lines; the summary goes beside them then.
    out = sys.stderr if options.jsonl == "-" else sys.stdout
    _tell(options, [report], out, asdict(report))
    if asked:
        return _stopped(asked)
    if report.outcome == "failed" and not report.frames:
        return 2
    live_ended = report.outcome == "stopped" and report.expected_frames is None
    return 0 if report.outcome == "whole" or live_ended else 1


def _videos(options: argparse.Namespace) -> int:
    """0: all were read to their end; 1: some were not, each is named."""
    listing = find(options.sources, options.output)
    sources, names = listing.sources, output_names(listing.sources)
    options.show, options.jsonl, options.raw_size = False, None, None
    refuse_idle(options, sources, drawn=not options.no_video)
    if listing.left_out:
        told = ", ".join(f"{count} {ending}" for ending, count in listing.left_out.items())
        sys.stderr.write(f"left out, since no video ends so: {told}\n")
    every = [
        Outputs(
            video=None if options.no_video else options.output / f"{name}.mp4",
            jsonl=options.output / f"{name}.jsonl",
        )
        for name in names
    ]
    summary_file = options.output / "summary.json"
    make_folder(options.output)
    written = [path for outputs in every for path in outputs.written(resume=options.resume)]
    continued = [outputs.jsonl for outputs in every if outputs.jsonl and options.resume]
    check(options, [*written, summary_file], files_of(sources), goes_on=continued)
    with _engine(options, sources) as (predictors, record):
        plan = _Plan(options, predictors[0])
        jobs = [plan.job(source, outputs) for source, outputs in zip(sources, every, strict=True)]
        pipeline = Pipeline(predictors, at_once=min(options.at_once, len(jobs)), recorder=record)
        reports, asked = _run(pipeline, jobs)
    counts = {
        word: sum(report.outcome == word for report in reports)
        for word in ("whole", "stopped", "lost", "failed")
    }
    counts["not started"] = len(jobs) - len(reports)
    summary = {
        "outcomes": counts,
        "left_out": listing.left_out,
        "videos": [asdict(report) for report in reports],
    }
    write_text(summary_file, json.dumps(summary, indent=1) + "\n")
    _tell(options, reports, sys.stdout, summary)
    if not options.json:
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        sys.stdout.write(f"{len(jobs)} videos: {told}\n")
    if asked:
        return _stopped(asked)
    return 0 if counts["whole"] == len(jobs) else 1


class _Plan:
    """Turns options into jobs; what can be refused is refused before the first frame."""

    def __init__(
        self,
        options: argparse.Namespace,
        predictor: runtime.Predictor[Any],
        window: Window | None = None,
    ) -> None:
        self._options, self._predictor, self._window = options, predictor, window
        if options.track and not predictor.head.objects:
            raise DataError(
                f"--track follows objects, and answers of the task {predictor.task.kind} are none",
                hint="leave --track out",
            )

    def job(self, source: str, outputs: Outputs) -> StreamJob:
        """The job for one source."""
        options, begun = self._options, None
        there = outputs.existing()
        if options.resume:
            begun = look_back(outputs) if outputs.begun() or options.command == "video" else None
        elif there and not options.overwrite:
            raise DataError(
                f"{', '.join(map(str, there))} exists already",
                hint="add --overwrite to replace it, or --resume to go on from where it stopped",
            )
        reading = SourceOptions(
            after_s=begun.after_s if begun else None,
            max_pixels=options.max_pixels,
            **given(options),
        )

        def sinks(opened: Source) -> list[Sink]:
            outlets: list[Sink] = []
            video = begun.video if begun else outputs.video
            if video is not None:
                outlets.append(
                    VideoSink(VideoFile(video, fps=opened.fps, height=options.video_height))
                )
            text = sys.stdout if options.jsonl == "-" else outputs.jsonl
            if text is not None:
                outlets.append(JsonLines(text, self._predictor.to_json, append=begun is not None))
            if outputs.mot is not None:
                outlets.append(MotText(outputs.mot, append=begun is not None))
            if self._window is not None:
                outlets.append(self._window)
            return outlets

        def tracker(fps: float) -> ByteTrack:
            first = begun.next_track if begun else 1
            high: float = self._predictor.head.settings["confidence"]
            if options.confidence is not None:
                high = options.confidence
            return ByteTrack(fps=fps, high=high, first_id=first)

        path = local_path(source)
        written = (begun.video if begun else outputs.video, outputs.jsonl, outputs.mot)
        return StreamJob(
            name=spoken(source) if path is None else path.name or source,
            source=spoken(source),
            outputs=tuple(str(output) for output in written if output is not None),
            open=lambda stop: open_source(source, reading, stop),
            sinks=sinks,
            tracker=tracker if options.track else None,
            overlay=options.overlay,
            resumed=begun is not None,
        )


@contextlib.contextmanager
def _engine(
    options: argparse.Namespace, sources: Sequence[str]
) -> Iterator[tuple[list[runtime.Predictor[Any]], Recorder]]:
    """The engine in one or more sessions that share the threads."""
    count = options.workers or (1 if any(map(is_live, sources)) else 2)
    threads = max(1, (options.threads or hosts.cores()) // count)
    each = argparse.Namespace(**{**vars(options), "threads": threads})
    least = _WEAK if options.track else None
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(recorder(options))
        predictors = [stack.enter_context(open_predictor(each, least)) for _ in range(count)]
        yield predictors, record.of(name_of(predictors[0].session.manifest))


def _run(pipeline: Pipeline, jobs: Sequence[StreamJob]) -> tuple[list[StreamReport], int]:
    """Run; the first Ctrl-C or SIGTERM finishes the outputs, a second one ends at once.

    Returns:
        (reports, the signal that asked to end or 0).
    """
    before: dict[int, Any] = {}
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        sys.stderr.write("\nstopping: the outputs are being finished\n")
        pipeline.stop()
        signal.signal(number, before[number])

    for chosen in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(chosen)
        if handler not in (signal.SIG_IGN, None):  # `nohup`, or the background of a script
            before[chosen] = handler
            signal.signal(chosen, stop)
    try:
        with shown(pipeline):
            return pipeline.run(jobs), next(iter(asked), 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(number: int) -> int:
    """The exit code after a signal, by the shell's rule, however much was done before it."""
    sys.stderr.write("stopped\n")
    return 128 + number


def _tell(
    options: argparse.Namespace, reports: Sequence[StreamReport], out: Any, data: Any
) -> None:
    if options.json:
        out.write(json.dumps(data, indent=1) + "\n")
        return
    for report in reports:
        out.write(
            f"{report.name}  {report.outcome}  {report.frames} frames in {report.elapsed_s:.1f} s, "
            f"{report.fps:.1f} fps"
            + (f", {report.tracks} track{'s' * (report.tracks != 1)}" if options.track else "")
            + (f", {report.dropped} dropped" if report.dropped else "")
            + (f", {report.damaged} damaged" if report.damaged else "")
            + (f", {report.reconnects} reconnections" if report.reconnects else "")
            + "\n"
        )
        if report.reason:
            out.write(f"  {report.reason}\n")
        for note in report.notes:
            out.write(f"  note: {note}\n")
        if report.stages_ms:
            stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in report.stages_ms.items())
            out.write(f"  ms per frame: {stages}\n")
