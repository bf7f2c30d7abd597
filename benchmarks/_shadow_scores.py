"""Frame scores for `bench-shadow`: real engines on real photos, measured once.

YOLOX-Nano on the example's labelled photos, each also mirrored and darker. Engines: as it is, by
another runtime, with weights rounded to fp16, with a little noise in its weights, and with as much
as loses a point of AP.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from engineworks import runtime
from engineworks.evaluate import frame_scores, precision
from engineworks.evaluate.annotations.coco import read_coco
from engineworks.evaluate.frame_scores import Rows
from engineworks.runtime.predictor import Predictor
from engineworks.store import LocalStore
from tests import builders

Array = np.ndarray[Any, Any]

DATA = builders.EXAMPLES / "yolox_nano" / "data"
TASK = builders.yolox_task(0.01)
BOXES = frame_scores.of("detection")

#: AP that the worse candidate loses, and how near it must come to that.
LOSS, NEAR = 0.01, 0.001

#: Noise in units of each layer's standard deviation: what is tried.
_NOISE = (0.002, 0.003, 0.004, 0.006)
_SEEDS = (1, 2, 3)

#: Noise that hardly moves AP, and its seeds.
_LITTLE, _TWINS = 0.0001, (11, 12, 13, 14)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One engine's answers to all frames, held against one truth."""

    ap: float
    """COCO's, mean over classes, of all frames."""
    scores: Array
    """(frames,): of each frame by itself."""


class Pool:
    """Frames with their labels, and what engines answer to them.

    Args:
        home: Folder for engines.
    """

    def __init__(self, home: Path) -> None:
        self._store = LocalStore(home / "store")
        self._home = home
        self.base = home / "yolox.onnx"
        if not self.base.exists():
            builders.export_yolox(self.base)
        self.frames: list[Array] = []
        self.labels: list[Rows] = []
        for part in ("train2017", "val2017"):
            self._read(part)

    def _read(self, part: str) -> None:
        known = read_coco(DATA / f"{part}.json", tuple(TASK.labels))
        number = {category: index for index, category in enumerate(known.category_id)}
        for name, image in known.image_id.items():
            picture = runtime.read_image(DATA / part / name)
            rows = [
                {"category_id": number[row["category_id"]], "bbox": row["bbox"], "score": 1.0}
                for row in known.raw["annotations"]
                if row["image_id"] == image and not row["iscrowd"]
            ]
            for light in (1.0, 0.6):
                lit = np.clip(picture * light, 0, 255).astype(np.uint8)
                self.frames += [lit, np.ascontiguousarray(lit[:, ::-1])]
                self.labels += [rows, [_mirrored(row, picture.shape[1]) for row in rows]]

    def answers(self, graph: Path, name: str = "onnxruntime") -> list[Rows]:
        """Of one engine, frame by frame; what an earlier call has kept is taken."""
        kept = self._home / f"{graph.stem}-{name}.json"
        if not kept.exists():
            kept.write_text(json.dumps(self._answered(graph, name)), encoding="utf-8")
        answers: list[Rows] = json.loads(kept.read_text(encoding="utf-8"))
        return answers

    def _answered(self, graph: Path, name: str) -> list[Rows]:
        engine = builders.put_engine(self._store, graph, runtime=name, task=TASK)
        with runtime.open(engine.uri) as session:
            predictor: Predictor[Any] = Predictor(session)
            return [BOXES.rows(predictor(frame)) for frame in self.frames]

    def engine(self) -> str:
        """Where the engine of the graph as it is lies."""
        return str(builders.put_engine(self._store, self.base, task=TASK).uri)

    def rounded(self) -> Path:
        """The graph with its weights rounded to fp16."""
        return self._changed("fp16", lambda weights, _: weights.astype(np.float16))

    def noisy(self, size: float, seed: int) -> Path:
        """The graph with noise in the weights of its convolutions."""
        draw = np.random.default_rng(seed)

        def changed(weights: Array, name: str) -> Array:
            noise = draw.normal(0, 1, weights.shape)
            return weights + noise * size * weights.std() if weights.ndim == 4 else weights

        return self._changed(f"noise-{size:g}-{seed}", changed)

    def _changed(self, name: str, change: Any) -> Path:
        path, graph = self._home / f"{name}.onnx", onnx.load(self.base)
        for entry in graph.graph.initializer:
            weights = numpy_helper.to_array(entry)
            if weights.dtype == np.float32:
                new = np.asarray(change(weights, entry.name), np.float32)
                entry.CopyFrom(numpy_helper.from_array(new, entry.name))
        onnx.save(graph, path)
        return path


def judged(answers: Sequence[Rows], truths: Sequence[Rows]) -> Judged:
    """Hold answers against what is true."""
    held = precision.matches(
        [precision.side(rows) for rows in answers], [precision.side(rows) for rows in truths]
    )
    pairs = zip(answers, truths, strict=True)
    return Judged(
        ap=precision.average(held),
        scores=np.array([BOXES.score([rows], [truth]) for rows, truth in pairs]),
    )


def twin(pool: Pool, truths: Sequence[Rows], champion: Judged) -> tuple[str, Judged]:
    """Of some engines with a little noise the one whose AP is nearest to the champion's."""
    tried = []
    for seed in _TWINS:
        name = f"noise of {_LITTLE:g} standard deviations, seed {seed}"
        tried.append((name, judged(pool.answers(pool.noisy(_LITTLE, seed)), truths)))
    return min(tried, key=lambda entry: abs(entry[1].ap - champion.ap))


def worse(pool: Pool, truths: Sequence[Rows], champion: Judged) -> tuple[str, Judged]:
    """An engine that has lost a point of AP, with how it was made.

    Raises:
        RuntimeError: None of those that were tried has.
    """
    nearest: tuple[float, str, Judged] | None = None
    for seed in _SEEDS:
        low, high = 0.0, 0.0
        for size in _NOISE:
            found = judged(pool.answers(pool.noisy(size, seed)), truths)
            if champion.ap - found.ap > LOSS:
                high = size
                break
            low = size
        if not high:
            continue
        for _ in range(5):
            size = (low + high) / 2
            found = judged(pool.answers(pool.noisy(size, seed)), truths)
            off = champion.ap - found.ap - LOSS
            words = f"noise of {size:.3g} standard deviations, seed {seed}"
            print(f"{words}: {off + LOSS:+.4f}", file=sys.stderr)
            if nearest is None or abs(off) < nearest[0]:
                nearest = (abs(off), words, found)
            if abs(off) < NEAR:
                return words, found
            low, high = (low, size) if off > 0 else (size, high)
    raise RuntimeError(f"nothing lost {LOSS} of AP, nearest: {nearest[1] if nearest else ''}")


def _mirrored(row: dict[str, Any], width: int) -> dict[str, Any]:
    left, top, wide, high = row["bbox"]
    return {**row, "bbox": [width - left - wide, top, wide, high]}
