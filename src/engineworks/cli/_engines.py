"""How a command finds its engine and opens a detector on it.

By folder, by URI, or by the name of a variant of the latest run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engineworks import runtime, usercode
from engineworks.cli._numbers import number, whole
from engineworks.errors import ArtifactError
from engineworks.runtime.session import Session

CONFIDENCE = 0.3

#: Overlap above which the weaker box goes: recipes have what AP wants (0.65), a picture this.
IOU = 0.45

HELP = (
    "a folder with manifest.json, a file:// URI, or a variant of the latest run here, "
    "for example openvino/fp32"
)


def add_engine(command: argparse.ArgumentParser, words: str = HELP) -> None:
    """Add the argument ENGINE and the option --threads."""
    command.add_argument("engine", metavar="ENGINE", help=words)
    command.add_argument(
        "--threads", type=whole(0), default=0, help="CPU threads for inference (default: all)"
    )


def add_detector(command: argparse.ArgumentParser) -> None:
    """Add ENGINE, --threads, --confidence, --iou, --max-detections and --decoder-from."""
    add_engine(command)
    command.add_argument(
        "--confidence",
        type=_share,
        default=CONFIDENCE,
        help=f"leave out objects below this score (default: {CONFIDENCE})",
    )
    command.add_argument(
        "--iou",
        type=number(0, 1),
        default=IOU,
        help="leave out a box that overlaps a stronger one of its class by more than this "
        f"(default: {IOU}; average precision wants the recipe's, 0.65 as a rule)",
    )
    command.add_argument(
        "--max-detections",
        type=whole(1, 100_000),
        metavar="N",
        help="keep at most so many objects of an image, the strongest (default: the engine's)",
    )
    command.add_argument(
        "--decoder-from",
        type=Path,
        metavar="DIR",
        help="folder of the recipe whose own decoder the engine needs; its code is run",
    )


def open_session(options: argparse.Namespace) -> Session:
    """The engine that the options of `add_engine` ask for, of the identity that a run noted.

    Raises:
        ArtifactError: No engine, or another one than the latest run has built.
    """
    place, sha256 = recall(options.engine)
    return runtime.open(place, threads=options.threads, sha256=sha256)


#: What an engine of a task is for on the command line.
_COMMANDS = {
    "detection": "engineworks detect or engineworks video",
    "classification": "engineworks classify",
}
_RAW = "engineworks run (its raw outputs)"


def hold_to_task(session: Session, kind: str) -> None:
    """Refuse an engine that another command is for.

    Raises:
        ArtifactError: Names that command.
    """
    found = session.manifest.task.kind if session.manifest.task else "none"
    if found != kind:
        raise ArtifactError(
            f"{session.manifest.name} is an engine for the task {found}, not {kind}",
            hint=f"use {_COMMANDS.get(found, _RAW)} for this engine",
        )


@contextlib.contextmanager
def open_detector(
    options: argparse.Namespace, confidence: float | None = None
) -> Iterator[runtime.Detector]:
    """The detector that the options of `add_detector` ask for, open while the block runs.

    Args:
        options: The parsed command line.
        confidence: In place of --confidence.

    Raises:
        ArtifactError: No engine, no detector, or an engine with a layout of its own without
            --decoder-from.
        ModelError: That folder does not have the decoder.
    """
    with open_session(options) as session:
        hold_to_task(session, "detection")
        task, decode = session.manifest.task, None
        if task is not None and ":" in task.layout:
            if options.decoder_from is None:
                raise ArtifactError(
                    f"{session.manifest.name} has a layout of its own, {task.layout}, and an "
                    "engine holds no code",
                    hint="give --decoder-from DIR, the folder of its recipe",
                )
            decode = usercode.load(task.layout, options.decoder_from, "task.layout")
        least = options.confidence if confidence is None else confidence
        yield runtime.Detector(
            session,
            confidence=least,
            iou=options.iou,
            max_detections=options.max_detections,
            decoder=decode,
        )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no score from 0 to below 1")
    return value


def locate(engine: str) -> str:
    """The folder or URI that ENGINE means.

    Raises:
        ArtifactError: It is neither a folder nor a variant that the latest run has built.
    """
    return recall(engine)[0]


def recall(engine: str) -> tuple[str, str]:
    """The folder or URI that ENGINE means, and the identity that the latest run wrote down for it.

    Raises:
        ArtifactError: As `locate`.
    """
    if "://" in engine or (Path(engine) / "manifest.json").is_file():
        return engine, ""
    summary = (
        Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks") / "runs/latest/summary.json"
    )
    if Path(engine).exists() or engine.startswith(("/", ".", "~")):
        raise ArtifactError(
            f"{engine} holds no manifest.json, so it is no engine",
            hint="give the folder of an engine (engine.uri in summary.json)",
        )
    variants = _variants(engine, summary)
    variant = variants.get(engine)
    if variant is None:
        raise ArtifactError(
            f"{engine} is neither a folder nor a variant of the latest run",
            hint=f"that run ({summary}) has: {', '.join(variants)}",
        )
    built = variant.get("engine")
    if not built:
        raise ArtifactError(
            f"{engine} has no engine: {variant.get('verdict')} ({variant.get('reason')})",
            hint="choose another variant, or mend the cause and run the recipe again",
        )
    return str(built["uri"]), str(built.get("sha256", ""))


def _variants(engine: str, summary: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))["variants"]
        return {variant["name"]: variant for variant in found}
    except OSError:
        raise ArtifactError(
            f"{engine} is no folder, and there is no {summary} to look it up in",
            hint="give an engine's folder, run this where the recipe was run, or set "
            "ENGINEWORKS_HOME to that state folder",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{summary} is no summary of a run ({type(error).__name__}: {error})",
            hint="run the recipe again, or give an engine's folder",
        ) from error
