"""`shadow`: a candidate beside the champion on the same frames, until one is known to be better."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks.cli._engines import HELP, recall
from engineworks.cli._idle import given, refuse_idle
from engineworks.cli._numbers import add_max_pixels, number, size, whole
from engineworks.cli._outputs import check
from engineworks.cli._words import add
from engineworks.errors import DataError

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers
    from engineworks.facts.shadow import ShadowEngine, ShadowRecord
    from engineworks.shadow.material import Material
    from engineworks.shadow.run import ShadowRun
    from engineworks.shadow.side import ShadowSide

#: Share of the CPU beside a live source, and growth of the champion's median that is allowed there.
_LIVE_SHARE, _LIVE_DELAY = 0.25, 0.1

#: Seconds of a stream that are one observation.
_BLOCK_S = 2.0

_CODES = {"worse": 1, "failed": 1, "not decided": 4}


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommand."""
    command = add(
        subparsers, "shadow", _shadow,
        "run a candidate beside the champion on the same frames, until it is decided which is "
        "better", json_help="the record as JSON",
    )  # fmt: skip
    command.add_argument("champion", metavar="CHAMPION", help=f"the engine in use: {HELP}")
    command.add_argument("candidate", metavar="CANDIDATE", help="the engine that may replace it")
    command.add_argument(
        "sources", nargs="+", metavar="SRC",
        help="picture, folder of pictures, video, rtsp:// or http:// address, or camera number",
    )  # fmt: skip
    judge = command.add_mutually_exclusive_group()
    judge.add_argument(
        "--labels", metavar="FILE",
        help="COCO JSON of the pictures in SRC, or the word folders: each lies in the folder of "
        "its class",
    )  # fmt: skip
    judge.add_argument(
        "--reference", metavar="ENGINE",
        help="a stronger engine or ONNX file whose answers count as true",
    )  # fmt: skip
    which = command.add_mutually_exclusive_group()
    which.add_argument("--every", type=whole(1, 10**6), default=1, metavar="N",
                       help="compare every Nth frame (default: 1)")  # fmt: skip
    which.add_argument("--sample", type=number(0, 1), default=1.0, metavar="P",
                       help="compare each frame with this chance")  # fmt: skip
    command.add_argument(
        "--cpu-share", type=number(0, 1), metavar="P",
        help="of all cores for candidate and reference; frames beyond it are left out and counted "
        f"(default: {_LIVE_SHARE} where a source is live, else 1)",
    )  # fmt: skip
    command.add_argument(
        "--max-delay", type=number(0, 100), metavar="P",
        help="let the candidate rest when the champion's median latency beside it has grown by "
        f"this share (default: {_LIVE_DELAY} where a source is live, else any)",
    )  # fmt: skip
    command.add_argument("--frames", type=whole(1, 10**9), metavar="N",
                         help="end after N compared frames")  # fmt: skip
    command.add_argument(
        "--max-drop", type=number(0, 0.999), default=0.01, metavar="D",
        help="largest loss of the score that is allowed (default: 0.01)",
    )  # fmt: skip
    command.add_argument(
        "--block-s", type=number(0, 86400), metavar="S",
        help=f"seconds of a stream that are one observation (default: {_BLOCK_S:g}; pictures are "
        "one each)",
    )  # fmt: skip
    command.add_argument("-o", "--output", type=Path, metavar="JSON", help="write the record")
    command.add_argument("--overwrite", action="store_true", help="replace a record that exists")
    _add_reading(command)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=whole(0), default=0,
                         help="CPU threads of the champion (default: all)")  # fmt: skip
    command.add_argument(
        "--decoder-from", type=Path, metavar="DIR",
        help="folder of the recipe whose own decoder the engines need; its code is run",
    )  # fmt: skip
    command.add_argument(
        "--fps", type=number(0, 1000), metavar="N",
        help="of a folder whose pictures are the frames of a video, and of raw frames",
    )  # fmt: skip
    command.add_argument("--raw-size", type=size, metavar="WxH", help="size of raw frames (SRC -)")
    command.add_argument("--hardware", help="decode by auto, none, or a device kind such as cuda")
    command.add_argument(
        "--give-up", type=number(0, 1e9), dest="give_up_s", metavar="S",
        help="end a live source that sent nothing for so many seconds (default: 60)",
    )  # fmt: skip
    add_max_pixels(command)
    command.set_defaults(video_height=None, overlay=False, log=None)


def _shadow(options: argparse.Namespace) -> int:
    """0: better, not worse, or nothing to judge by; 1: worse; 4: not decided; 2: refused."""
    from engineworks.shadow import record as records

    _refuse(options)
    started = datetime.now(timezone.utc)
    with _running(options) as (run, terms):
        sys.stderr.write(
            f"{_named(run.lane.candidate)} beside {_named(run.champion.engine)}, judged by "
            f"{terms.judged_by}\n"
        )
        try:
            with _shown(run):
                run.run()
        except KeyboardInterrupt:
            _tell(options, records.record(run, terms, started))
            raise
        outcome = records.record(run, terms, started)
    _tell(options, outcome)
    return _CODES.get(outcome.decision, 0)


def _named(engine: ShadowEngine) -> str:
    return f"{engine.name} {engine.target}/{engine.precision} {engine.sha256[:12]}"


def _refuse(options: argparse.Namespace) -> None:
    """What can be refused before an engine is opened."""
    from engineworks.runtime import sources
    from engineworks.shadow.material import FOLDERS

    options.engine = options.champion
    refuse_idle(options, options.sources, drawn=False)
    read = [path for address in options.sources for path in _files(address, sources)]
    read += [Path(name) for name in (options.labels, options.reference) if name != FOLDERS and name]
    place, _ = recall(options.candidate)
    if "://" not in place:
        read += list(Path(place).rglob("*"))
    output = [options.output] if options.output is not None else []
    if output and options.output.is_file() and not options.overwrite:
        raise DataError(
            f"{options.output} exists already", hint="add --overwrite to replace it, or another -o"
        )
    check(options, output, [path for path in read if isinstance(path, int) or path.is_file()])


def _files(address: str, sources: Any) -> list[Path | int]:
    return [Path(address)] if Path(address).is_file() else list(sources.files(address))


@contextlib.contextmanager
def _running(options: argparse.Namespace) -> Iterator[tuple[ShadowRun, Any]]:
    """The engines open, and a run that has not begun."""
    from engineworks import hosts
    from engineworks.shadow.comparison import AnswerComparison
    from engineworks.shadow.lane import Lane
    from engineworks.shadow.record import ShadowTerms
    from engineworks.shadow.run import Sampling, ShadowRun
    from engineworks.shadow.side import ShadowSide

    with contextlib.closing(ShadowSide(_choice(options, options.champion))) as champion:
        material = _material(options, champion)
        live, cores = material.live, hosts.cores()
        share = options.cpu_share or (_LIVE_SHARE if live else 1.0)
        delay = (
            options.max_delay if options.max_delay is not None else _LIVE_DELAY if live else None
        )
        threads = max(1, round(share * cores))
        reference = options.reference
        judged_by: Any = "labels" if options.labels else "reference" if reference else "nothing"
        comparison = AnswerComparison(
            champion.scores,
            judged=judged_by != "nothing",
            block_s=_block_s(options, material),
            max_drop=options.max_drop,
        )
        run = ShadowRun(
            champion,
            material,
            Sampling(
                every=options.every, share=options.sample, frames=options.frames, max_delay=delay
            ),
            lambda take: Lane(
                champion.session.manifest,
                _choice(options, options.candidate, threads),
                _choice(options, reference, threads) if reference else None,
                share=share, cores=cores, yields=delay is not None, answered=take,
            ),
            comparison,
        )  # fmt: skip
        with contextlib.closing(run):
            yield run, ShadowTerms(
                sources=_spoken(options.sources), judged_by=judged_by, cpu_share=share,
                labels_sha256=_digest(options.labels), max_delay=delay,
            )  # fmt: skip


def _choice(options: argparse.Namespace, engine: str, threads: int | None = None) -> Any:
    from engineworks.shadow.side import EngineChoice

    bare = Path(engine).suffix == ".onnx" and Path(engine).is_file()
    place, sha256 = (engine, "") if bare else recall(engine)
    folder = str(options.decoder_from) if options.decoder_from is not None else ""
    return EngineChoice(
        place=place, sha256=sha256, decoder_from=folder,
        threads=options.threads if threads is None else threads,
    )  # fmt: skip


def _material(options: argparse.Namespace, champion: ShadowSide) -> Material:
    from engineworks.runtime.sources import SourceOptions
    from engineworks.shadow.material import Material, labelled

    pictures = None
    if options.labels:
        pictures = labelled(options.sources, options.labels, champion.predictor.labels)
    reading = SourceOptions(max_pixels=options.max_pixels, **given(options))
    return Material(
        options.sources, reading, folders_are_video=options.fps is not None, pictures=pictures
    )


def _block_s(options: argparse.Namespace, material: Material) -> float:
    if not material.timed:
        if options.block_s is not None:
            raise DataError(
                "--block-s does nothing here: it is of streams, and pictures are one observation "
                "each",
                hint="leave it out; a folder that holds the frames of a video is read with --fps",
            )
        return 0.0
    return _BLOCK_S if options.block_s is None else float(options.block_s)


def _digest(labels: str | None) -> str:
    from engineworks.store import file_sha256

    return file_sha256(Path(labels)) if labels and Path(labels).is_file() else ""


def _spoken(addresses: list[str]) -> tuple[str, ...]:
    from engineworks.runtime.sources import spoken

    return tuple(map(spoken, addresses))


@contextlib.contextmanager
def _shown(run: ShadowRun) -> Iterator[None]:
    """A line on a terminal, once a second, while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()

    def show() -> None:
        while not over.wait(1.0):
            sys.stderr.write("\r\x1b[2K" + line(run)[:160])
            sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sys.stderr.write("\r\x1b[2K")


def line(run: ShadowRun) -> str:
    """How it goes: `1200 seen  300 compared  +0.0031 (-0.0100 to +0.0160)  2 changed  CPU 24 %`."""
    from engineworks.shadow.record import signed

    parts = [f"{run.counts['seen']} seen", f"{run.comparison.compared} compared"]
    scores, interval = run.comparison.mean_scores, run.comparison.interval()
    if scores is not None and interval is not None:
        parts.append(
            f"{signed(scores[1] - scores[0])} ({interval.low:+.4f} to {interval.high:+.4f})"
        )
    parts.append(f"{run.comparison.agreement().frames} changed")
    parts.append(f"CPU {100 * run.lane.used:.0f} %")
    left_out = sum(run.counts[name] for name in ("over_share", "busy", "held_back"))
    return "  ".join([*parts, f"{left_out} left out"] if left_out else parts)


def _tell(options: argparse.Namespace, outcome: ShadowRecord) -> None:
    from engineworks.codec import to_json
    from engineworks.shadow import record as records

    try:
        if options.output is not None:
            records.write(outcome, options.output)
    finally:  # also when the disk has not taken it
        if options.json:
            sys.stdout.write(json.dumps(to_json(outcome), indent=1) + "\n")
        else:
            _say(outcome)


def _say(outcome: ShadowRecord) -> None:
    from engineworks.shadow import record as records

    frames, spent = outcome.frames, outcome.latency
    out = sys.stdout
    out.write(f"{outcome.decision}: {outcome.reason}\n")
    left_out = {
        "over the CPU share": frames.over_share, "while it was busy": frames.busy,
        "to spare the champion": frames.held_back,
    }  # fmt: skip
    told = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
    out.write(
        f"  {frames.seen} frames seen, {frames.sampled} sampled, {frames.compared} compared"
        + (f"; left out: {told}" if told else "")
        + "\n"
    )
    if outcome.pooled is not None:
        out.write(
            f"  {outcome.pooled_metric} of all frames {outcome.pooled[1]:.4f}, the champion "
            f"{outcome.pooled[0]:.4f} (not what was tested)\n"
        )
    out.write(f"  {records.changed(outcome.agreement)}\n")
    grown = f", neighbours {spent.growth:.2f} times" if spent.growth is not None else ""
    out.write(
        f"  champion alone {spent.alone_p50_ms:.1f} ms, beside the candidate "
        f"{spent.beside_p50_ms:.1f} ms (medians{grown}); CPU "
        f"{100 * outcome.cpu_share_used:.0f} % of {100 * outcome.cpu_share:.0f} % allowed\n"
    )
    for note in outcome.notes:
        out.write(f"  note: {note}\n")
