"""One command per head: puts image files to an engine and says, writes or draws its answers.

`detect`, `classify`, `segment`, `keypoints`, and those of installed packages: each head names its
command and its settings. Knows no kind of task.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engineworks import runtime
from engineworks.cli._engines import add_engine, add_settings, heads_by_command, open_predictor
from engineworks.cli._images import counted, enough_memory, files_of, outputs_for, tell_failure
from engineworks.cli._numbers import add_max_pixels
from engineworks.cli._outputs import check
from engineworks.cli._recording import add_recording, recorder
from engineworks.cli._words import add
from engineworks.errors import DataError, InferenceError, StoreError
from engineworks.runtime.metrics import Recorder, name_of
from engineworks.runtime.outputs import temporary_name
from engineworks.runtime.pictures import DepthCheck, read_picture

if TYPE_CHECKING:
    from engineworks.cli._words import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add a subcommand for each head."""
    for word, heads in heads_by_command().items():
        command = add(subparsers, word, _answer, heads[0].title, json_help="JSON Lines")
        add_engine(command)
        add_settings(command, heads)
        command.add_argument(
            "images", nargs="+", metavar="IMG", help="image file, or folder of images"
        )
        if any(head.draw is not None for head in heads):
            command.add_argument(
                "-o",
                "--output",
                type=Path,
                metavar="DIR",
                help="write the images with the answers drawn there; of one image also the file "
                "itself",
            )
        add_max_pixels(command)
        add_recording(command)
        if not any(head.own_decoder for head in heads):
            command.set_defaults(decoder_from=None)


def _answer(options: argparse.Namespace) -> int:
    """0: all images were read; 1: some were not, each is named."""
    files, failed = files_of(options, options.images)
    folder = getattr(options, "output", None)
    outputs = outputs_for(folder, files) if folder is not None else []
    check(options, outputs, files)
    depth = DepthCheck()
    with recorder(options) as recorded, open_predictor(options) as predictor:
        record = recorded.of(name_of(predictor.session.manifest))
        for number, path in enumerate(files):
            try:
                with enough_memory(path):
                    picture = read_picture(path, max_pixels=options.max_pixels)
            except DataError as error:
                failed += 1
                record.inference("images", {}, {}, "unreadable", frame=number, error=error)
                tell_failure(options, path, error)
                continue
            depth.see(picture)
            try:
                with enough_memory(path):
                    answer = _read(options, record, predictor, number, path, picture.image)
                    if outputs:
                        predictor.draw(picture.image, answer)
                        write_image(outputs[number], picture.image)
            except (DataError, InferenceError) as error:
                if isinstance(error, InferenceError) and not error.goes_on:
                    raise
                failed += 1
                tell_failure(options, path, error)
            del picture  # the next one may need its memory
    if depth.warning:
        sys.stderr.write(f"warning: {depth.warning}\n")
    return 1 if failed else 0


def _read(
    options: argparse.Namespace,
    record: Recorder,
    predictor: runtime.Predictor[Any],
    number: int,
    path: Path,
    image: Any,
) -> Any:
    """Have one image answered and told; the answer."""
    with counted(record, number):
        answer = predictor(image)
    times = predictor.times
    stage_ms = {
        "preprocess": times.preprocess_ms,
        "infer": times.infer_ms,
        "postprocess": times.postprocess_ms,
    }
    record.inference(
        "images", stage_ms, predictor.count(answer), frame=number, input_shape=image.shape
    )
    _tell(options, path, image, answer, predictor, stage_ms)
    return answer


def _tell(
    options: argparse.Namespace,
    path: Path,
    image: Any,
    answer: Any,
    predictor: runtime.Predictor[Any],
    stage_ms: dict[str, float],
) -> None:
    height, width = image.shape[:2]
    if options.json:
        line = {
            "image": str(path),
            "height": height,
            "width": width,
            **predictor.to_json(answer),
            "stage_ms": {stage: round(spent, 3) for stage, spent in stage_ms.items()},
        }
        sys.stdout.write(json.dumps(line) + "\n")
        return
    sys.stdout.write(f"{path}  {width}x{height}  {sum(stage_ms.values()):.1f} ms\n")
    for said in predictor.lines(answer):
        sys.stdout.write(f"  {said}\n")


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
