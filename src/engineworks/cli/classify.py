"""`classify`: names what image files show."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import runtime
from engineworks.cli._engines import add_engine, hold_to_task, open_session
from engineworks.cli._images import counted, files_of, tell_failure
from engineworks.cli._numbers import add_max_pixels, whole
from engineworks.cli._outputs import check
from engineworks.cli._recording import add_recording, recorder
from engineworks.cli._words import add
from engineworks.errors import DataError
from engineworks.runtime.metrics import name_of
from engineworks.runtime.pictures import DepthCheck, read_picture

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommand."""
    command = add(
        subparsers, "classify", _classify, "name what images show", json_help="JSON Lines"
    )
    add_engine(command)
    command.add_argument("images", nargs="+", metavar="IMG", help="image file, or folder of images")
    command.add_argument(
        "--top", type=whole(1, 100_000), default=5, metavar="K", help="classes named (default: 5)"
    )
    add_max_pixels(command)
    add_recording(command)
    command.set_defaults(decoder_from=None)


def _classify(options: argparse.Namespace) -> int:
    """0: all images were read; 1: some were not, each is named."""
    files = list(files_of(options.images))
    check(options, [], files)
    failed, depth = 0, DepthCheck()
    with (
        recorder(options) as recorded,
        open_session(options) as session,
    ):
        record = recorded.of(name_of(session.manifest))
        hold_to_task(session, "classification")
        classifier = runtime.Classifier(session, top=options.top)
        for number, path in enumerate(files):
            try:
                picture = read_picture(path, max_pixels=options.max_pixels)
            except DataError as error:
                failed += 1
                record.inference("images", {}, {}, "unreadable", frame=number, error=error)
                tell_failure(options, path, error)
                continue
            depth.see(picture)
            with counted(record, number):
                found = classifier(picture.image)
            stage_ms = {
                "preprocess": classifier.times.preprocess_ms,
                "infer": classifier.times.infer_ms,
                "postprocess": classifier.times.postprocess_ms,
            }
            record.inference(
                "images", stage_ms, {classifier.label(int(found.class_id[0])): 1},
                frame=number, input_shape=picture.image.shape,
            )  # fmt: skip
            _tell(options, path, picture.image, found, classifier, stage_ms)
    if depth.warning:
        sys.stderr.write(f"warning: {depth.warning}\n")
    return 1 if failed else 0


def _tell(
    options: argparse.Namespace,
    path: Path,
    image: Any,
    found: runtime.Classification,
    classifier: runtime.Classifier,
    stage_ms: dict[str, float],
) -> None:
    height, width = image.shape[:2]
    classes = [
        {"label": classifier.label(number), "class_id": number, "confidence": round(score, 4)}
        for number, score in zip(found.class_id.tolist(), found.confidence.tolist(), strict=True)
    ]
    if options.json:
        line = {
            "image": str(path), "height": height, "width": width, "classes": classes,
            "stage_ms": {stage: round(spent, 3) for stage, spent in stage_ms.items()},
        }  # fmt: skip
        sys.stdout.write(json.dumps(line) + "\n")
        return
    sys.stdout.write(f"{path}  {width}x{height}  {sum(stage_ms.values()):.1f} ms\n")
    for item in classes:
        sys.stdout.write(f"  {item['label']:<16} {item['confidence']:.4f}\n")
