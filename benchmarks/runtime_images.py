"""Images in, detections out: preprocessing and postprocessing against the code that guides print.

One thread each, on a photo of the example at 1080p and on outputs of a YOLOv8 head at 640x640 that
hold a known number of candidates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks._bars import Bar
from benchmarks._rounds import interleave, ratio
from engineworks.runtime.heads.detection import DetectionPostprocessor
from engineworks.runtime.pictures import read_image
from engineworks.runtime.preprocess import Preprocessor
from engineworks.specs import Preprocess, TaskSpec

Array = np.ndarray[Any, Any]

SIZE = (640, 640)
PHOTO = Path(__file__).parent.parent / "examples/yolox_nano/data/val2017/000000008021.jpg"
CONFIDENCE, IOU, MAX_DETECTIONS = 0.25, 0.65, 300


def guide_preprocess(image: Array) -> Array:
    """The five lines of most deployment guides."""
    picture = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    picture = cv2.resize(picture, SIZE[::-1])
    scaled = picture.astype(np.float32) / 255
    return np.expand_dims(scaled.transpose(2, 0, 1), 0)


def guide_postprocess(raw: Array) -> list[tuple[float, ...]]:
    """Row by row in Python, then greedy suppression class by class."""
    found = []
    for row in raw.T:
        scores = row[4:]
        best = int(np.argmax(scores))
        if scores[best] > CONFIDENCE:
            x, y, w, h = row[:4]
            corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            found.append((*map(float, corners), float(scores[best]), best))
    kept: list[tuple[float, ...]] = []
    for box in sorted(found, key=lambda item: -item[4]):
        if all(box[5] != other[5] or _overlap(box, other) <= IOU for other in kept):
            kept.append(box)
    return kept


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def torch_postprocess(raw: torch.Tensor) -> torch.Tensor:
    """The steps of Ultralytics' `non_max_suppression` in torch, written from their description.

    That package is AGPL and not installed here. Steps: rows that any class passes, corners, best
    class, sort, boxes moved apart by class, greedy suppression with torch operators (its way
    without torchvision).
    """
    rows = raw.T[raw[4:].amax(0) > CONFIDENCE]
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    corners = torch.cat((centre - half, centre + half), 1)
    score, kind = rows[:, 4:].max(1)
    table = torch.cat((corners, score[:, None], kind[:, None].float()), 1)
    table = table[table[:, 4].argsort(descending=True)]
    boxes = table[:, :4] + table[:, 5:6] * 7680
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = torch.arange(len(boxes))
    kept: list[int] = []
    while len(order) and len(kept) < MAX_DETECTIONS:
        first, order = order[0], order[1:]
        kept.append(int(first))
        low = torch.maximum(boxes[order, :2], boxes[first, :2])
        high = torch.minimum(boxes[order, 2:], boxes[first, 2:])
        shared = (high - low).clamp_(min=0).prod(1)
        order = order[shared / (area[order] + area[first] - shared) <= IOU]
    return table[kept]


def head_output(objects: int, each: int) -> Array:
    """Raw (84, 8400) in which every object has `each` overlapping candidates above the limit."""
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(objects), each)
    centre = rng.uniform(60, 580, (objects, 2))[which] + rng.normal(0, 3, (len(which), 2))
    sides = rng.uniform(20, 120, (objects, 2))[which] * rng.uniform(0.9, 1.1, (len(which), 2))
    raw = np.zeros((84, 8400), np.float32)
    raw[4:] = rng.uniform(0, 0.02, (80, 8400))
    columns = rng.permutation(8400)[: len(which)]
    raw[:4, columns] = np.hstack([centre, sides]).T
    raw[4 + rng.integers(0, 80, objects)[which], columns] = rng.uniform(0.3, 0.95, len(which))
    return raw


def measure() -> tuple[list[Bar], dict[str, Any]]:
    """The bars, and the milliseconds behind them."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    before_bars, before = _preprocess()
    after_bars, after = _postprocess()
    return before_bars + after_bars, {"milliseconds": before | after}


def _preprocess() -> tuple[list[Bar], dict[str, float]]:
    image = cv2.resize(read_image(PHOTO), (1920, 1080))
    spec = Preprocess(resize="letterbox")
    floats, pixels = Preprocessor(spec, SIZE), Preprocessor(spec, SIZE, uint8=True)
    row, raw_row = (np.empty(p.shape, p.dtype) for p in (floats, pixels))
    times = interleave(
        {
            "guide preprocess": lambda: guide_preprocess(image),
            "guide preprocess again": lambda: guide_preprocess(image),
            "letterbox": lambda: floats(image, row),
            "letterbox, new row": lambda: floats(image),
            "letterbox uint8": lambda: pixels(image, raw_row),
        }
    )
    guide = times["guide preprocess"]
    return [
        _at_least("preprocess_letterbox_vs_guide", guide, times["letterbox"], 2.5),
        _at_least("preprocess_uint8_vs_guide", guide, times["letterbox uint8"], 4.5),
        _same("preprocess_guide_vs_itself", guide, times["guide preprocess again"]),
    ], _medians(times)


def _postprocess() -> tuple[list[Bar], dict[str, float]]:
    task = TaskSpec(
        kind="detection", layout="yolov8", confidence=CONFIDENCE, iou=IOU,
        max_detections=MAX_DETECTIONS,
    )  # fmt: skip
    finish = DetectionPostprocessor(task, SIZE)
    _, placement = Preprocessor(Preprocess(resize="letterbox"), SIZE)(
        np.zeros((1080, 1920, 3), np.uint8)
    )
    few, many = head_output(30, 14), head_output(150, 14)
    tensor = torch.from_numpy(few)
    kept = [len(finish({"out": few}, placement)), len(guide_postprocess(few))]
    if len({*kept, len(torch_postprocess(tensor))}) != 1:
        raise SystemExit(f"the contenders do not keep the same boxes: {kept}")
    times = interleave(
        {
            "python loop, 420": lambda: guide_postprocess(few),
            "torch steps, 420": lambda: torch_postprocess(tensor),
            "decode and suppress, 420": lambda: finish({"out": few}, placement),
            "decode and suppress, 2100": lambda: finish({"out": many}, placement),
        }
    )
    ours = times["decode and suppress, 420"]
    slow = times["decode and suppress, 2100"]
    return [
        _at_least("postprocess_420_vs_python_loop", times["python loop, 420"], ours, 25),
        _at_least("postprocess_420_vs_torch_steps", times["torch steps, 420"], ours, 4),
        Bar("postprocess_2100", float(np.median(slow)), "ms", 2),
    ], _medians(times)


def _at_least(name: str, slow: Array, fast: Array, limit: float) -> Bar:
    value, (low, high) = ratio(slow, fast)
    return Bar(name, value, f"x [{low:.2f}, {high:.2f}]", limit, at_least=True)


def _same(name: str, one: Array, other: Array) -> Bar:
    """How far the method is off when both sides are the same code."""
    return Bar(name, abs(ratio(one, other)[0] - 1) * 100, "%", 3)


def _medians(times: dict[str, Array]) -> dict[str, float]:
    return {name: round(float(np.median(values)), 4) for name, values in times.items()}
