"""`detect`: finds objects in image files."""

from __future__ import annotations

import argparse
import collections
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import runtime
from engineworks.cli._engines import add_detector, open_detector
from engineworks.cli._images import counted, files_of, outputs_for, tell_failure
from engineworks.cli._numbers import add_max_pixels
from engineworks.cli._outputs import check
from engineworks.cli._recording import add_recording, recorder
from engineworks.cli._words import add
from engineworks.errors import DataError, StoreError
from engineworks.runtime.drawing import draw
from engineworks.runtime.metrics import name_of
from engineworks.runtime.outputs import temporary_name
from engineworks.runtime.pictures import DepthCheck, read_picture

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add this group's subcommand."""
    command = add(subparsers, "detect", _detect, "find objects in images", json_help="JSON Lines")
    add_detector(command)
    command.add_argument("images", nargs="+", metavar="IMG", help="image file, or folder of images")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write the images with boxes drawn there; of one image also the file itself",
    )
    add_max_pixels(command)
    add_recording(command)


def _detect(options: argparse.Namespace) -> int:
    """0: all images were read; 1: some were not, each is named."""
    files = list(files_of(options.images))
    outputs = outputs_for(options.output, files) if options.output is not None else []
    check(options, outputs, files)
    failed, depth = 0, DepthCheck()
    with recorder(options) as recorded, open_detector(options) as detector:
        record = recorded.of(name_of(detector.session.manifest))
        for number, path in enumerate(files):
            try:
                picture = read_picture(path, max_pixels=options.max_pixels)
            except DataError as error:
                failed += 1
                record.inference("images", {}, {}, "unreadable", frame=number, error=error)
                tell_failure(options, path, error)
                continue
            depth.see(picture)
            image = picture.image
            with counted(record, number):
                found = detector(image)
            times = detector.times
            stage_ms = {
                "preprocess": times.preprocess_ms,
                "infer": times.infer_ms,
                "postprocess": times.postprocess_ms,
            }
            counts = collections.Counter(map(detector.label, found.class_id.tolist()))
            record.inference("images", stage_ms, counts, frame=number, input_shape=image.shape)
            _tell(options, path, image, found, detector, stage_ms)
            if outputs:
                draw(image, found, detector.labels)
                write_image(outputs[number], image)
    if depth.warning:
        sys.stderr.write(f"warning: {depth.warning}\n")
    return 1 if failed else 0


def _tell(
    options: argparse.Namespace,
    path: Path,
    image: Any,
    found: runtime.Detections,
    detector: runtime.Detector,
    stage_ms: dict[str, float],
) -> None:
    height, width = image.shape[:2]
    objects = [
        {
            "label": detector.label(number),
            "class_id": number,
            "confidence": round(confidence, 4),
            "xyxy": [round(value, 2) for value in box],
        }
        for box, confidence, number in zip(
            found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist(), strict=True
        )
    ]
    if options.json:
        line = {
            "image": str(path),
            "height": height,
            "width": width,
            "detections": objects,
            "stage_ms": {stage: round(spent, 3) for stage, spent in stage_ms.items()},
        }
        sys.stdout.write(json.dumps(line) + "\n")
        return
    sys.stdout.write(f"{path}  {width}x{height}  {sum(stage_ms.values()):.1f} ms\n")
    for item in objects:
        corners = " ".join(f"{value:.0f}" for value in item["xyxy"])
        sys.stdout.write(f"  {item['label']:<16} {item['confidence']:.2f}  [{corners}]\n")


def write_image(path: Path, image: Any) -> None:
    """Write a picture whole or not at all, in the format of its ending.

    Raises:
        StoreError: The disk does not take it.
    """
    import cv2

    _, data = cv2.imencode(path.suffix, image)
    unfinished = temporary_name(path)
    try:
        unfinished.write_bytes(data.tobytes())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(
            f"{path} cannot be written ({error.strerror})",
            hint="free space there, or give another folder for -o",
        ) from error
