"""How a command finds its engine and opens it with the head of its task.

By folder, by URI, or by the name of a variant of the latest run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engineworks import runtime, usercode
from engineworks.cli._numbers import number, whole
from engineworks.errors import ArtifactError, DataError
from engineworks.runtime import heads
from engineworks.runtime.heads import Head
from engineworks.runtime.session import Session
from engineworks.specs import NO_TASK

HELP = (
    "a folder with manifest.json, a file:// URI, or a variant of the latest run here, "
    "for example openvino/fp32"
)


def add_engine(command: argparse.ArgumentParser, description: str = HELP) -> None:
    """Add the argument ENGINE and the option --threads."""
    command.add_argument("engine", metavar="ENGINE", help=description)
    command.add_argument(
        "--threads", type=whole(0), default=0, help="CPU threads for inference (default: all)"
    )


def heads_by_command() -> dict[str, list[Head]]:
    """Every head of this installation, by the word of its command."""
    commands: dict[str, list[Head]] = {}
    for kind in heads.names():
        with contextlib.suppress(ArtifactError):  # of a package that does not import
            head = heads.load(kind)
            commands.setdefault(head.command, []).append(head)
    return commands


def add_settings(command: argparse.ArgumentParser, wanted: Sequence[Head]) -> None:
    """Add the options of what these heads let a caller set, and --decoder-from."""
    for name, (flag, arguments) in _settings().items():
        defaults = [head.settings[name] for head in wanted if name in head.settings]
        if not defaults:
            continue
        shown = "" if defaults[0] is None else f" (default: {defaults[0]})"
        description = arguments.pop("help")
        command.add_argument(flag, dest=name, default=None, help=description + shown, **arguments)
    if any(head.own_decoder for head in wanted):
        command.add_argument(
            "--decoder-from",
            type=Path,
            metavar="DIR",
            help="folder of the recipe whose own decoder the engine needs; its code is run",
        )


def _settings() -> dict[str, tuple[str, dict[str, Any]]]:
    """Setting of a head -> its option on the command line."""
    return {
        "confidence": (
            "--confidence", {"type": _share, "help": "leave out objects below this score"},
        ),
        "iou": (
            "--iou",
            {
                "type": number(0, 1),
                "help": "leave out a box that overlaps a stronger one of its class by more than "
                "this; average precision wants the recipe's, 0.65 as a rule",
            },
        ),
        "max_detections": (
            "--max-detections",
            {
                "type": whole(1, 100_000),
                "metavar": "N",
                "help": "keep at most so many objects of an image, the strongest (default: the "
                "engine's)",
            },
        ),
        "top": ("--top", {"type": whole(1, 100_000), "metavar": "K", "help": "classes named"}),
    }  # fmt: skip


def open_session(options: argparse.Namespace) -> Session:
    """The engine that the options of `add_engine` ask for, of the identity that a run noted.

    Raises:
        ArtifactError: No engine, or another one than the latest run has built.
    """
    place, sha256 = recall(options.engine)
    return runtime.open(place, threads=options.threads, sha256=sha256)


_RAW = "engineworks run (its raw outputs)"


def _fitting(kind: str) -> str:
    """What an engine of a task is for on the command line."""
    if kind not in heads.names():
        return _RAW
    head = heads.load(kind)
    return f"engineworks {head.command}" + (" or engineworks video" if head.draw else "")


def _hold_to_command(session: Session, command: str) -> Head:
    """The head of an engine's task, where the command is for it.

    Raises:
        ArtifactError: Another command is for this engine; it is named.
    """
    kind = session.manifest.task.kind if session.manifest.task else NO_TASK
    fits = kind in heads.names()
    head = heads.load(kind) if fits else None
    if head is None or not (head.command == command or (command in _VIDEO and head.draw)):
        kinds = [kind for kind in heads.names() if heads.load(kind).command == command]
        raise ArtifactError(
            f"{session.manifest.name} is an engine for the task {kind}, not "
            f"{' or '.join(kinds) or 'one that is drawn'}",
            hint=f"use {_fitting(kind)} for this engine",
        )
    return head


#: Commands for any engine whose answers can be drawn.
_VIDEO = ("video", "videos")


@contextlib.contextmanager
def open_predictor(
    options: argparse.Namespace, least: float | None = None
) -> Iterator[runtime.Predictor[Any]]:
    """The engine that the options ask for, with its head, open while the block runs.

    Args:
        options: The parsed command line.
        least: Confidence from which objects are wanted, too, when it is below --confidence.

    Raises:
        ArtifactError: No engine, one that another command is for, or one with a layout of its own
            without --decoder-from.
        DataError: An option that this engine's task does not have.
        ModelError: That folder does not have the decoder.
    """
    with open_session(options) as session:
        head = _hold_to_command(session, options.command)
        task, decode = session.manifest.task, None
        if task is not None and head.own_decoder and ":" in task.layout:
            if getattr(options, "decoder_from", None) is None:
                raise ArtifactError(
                    f"{session.manifest.name} has a layout of its own, {task.layout}, and an "
                    "engine holds no code",
                    hint="give --decoder-from DIR, the folder of its recipe",
                )
            decode = usercode.load(task.layout, options.decoder_from, "task.layout")
        given = {name: getattr(options, name, None) for name in _settings()}
        for name, value in given.items():
            if value is not None and name not in head.settings:
                raise DataError(
                    f"--{name.replace('_', '-')} is nothing that an engine for the task "
                    f"{task.kind if task else NO_TASK} knows",
                    hint="leave it out",
                )
        settings: dict[str, Any] = {
            name: default if given.get(name) is None else given[name]
            for name, default in head.settings.items()
        }
        if least is not None and "confidence" in settings:
            settings["confidence"] = min(least, settings["confidence"])
        yield runtime.Predictor(session, decoder=decode, **settings)


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
        variants = json.loads(summary.read_text(encoding="utf-8"))["variants"]
        return {variant["name"]: variant for variant in variants}
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
