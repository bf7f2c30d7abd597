"""Statistics of every activation in one pass over the samples, in memory that does not grow.

For each tensor: a histogram that widens by merging bins (no count is ever lost), the exact
extremes, and minimum, maximum and mean of every channel. Ranges of all methods
are derived from them later (`ranges.py`). Knows ONNX Runtime on the CPU and numpy; no target.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.calibrate.ranges import Histogram
from engineworks.errors import DataError, ModelError
from engineworks.qdq.graph import Graph

Array = np.ndarray[Any, Any]

#: Bins per tensor. Widening halves the ones in use, so at least 2,048 always are.
BINS = 4096

#: Values of one tensor and sample that are counted. Of larger tensors an even part is, at other
#: places in every sample; extremes are always those of all values.
COUNTED = 2**17

#: Bytes of activations that may be alive at once; a graph with more is run in several parts.
ALIVE_BYTES = 384 * 2**20


class TensorCounts:
    """What was seen of one tensor."""

    def __init__(self) -> None:
        self.first = 0
        self.width = 0.0
        self.counts = np.zeros(BINS, np.int64)
        self.minimum, self.maximum = math.inf, -math.inf
        self.channels: tuple[Array, Array, Array] | None = None
        self.samples = 0

    def add(self, array: Array) -> None:
        """Count one activation.

        Args:
            array: float32, (1, channels, height, width); other ranks: channels last.

        Raises:
            ModelError: It holds NaN or infinite values.
        """
        rows = array.reshape(array.shape[1], -1) if array.ndim == 4 else _channels_last(array)
        lows, highs = rows.min(axis=1), rows.max(axis=1)
        low, high = float(lows.min()), float(highs.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ModelError(
                "an activation is NaN or infinite",
                hint="check model and preprocessing: the float model overflows on this photo",
            )
        rows = _thinned(rows, self.samples)
        self._channels(lows, highs, rows.mean(axis=1).astype(np.float64))
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._widen()
        self._count(rows)
        self.samples += 1

    def _channels(self, lows: Array, highs: Array, means: Array) -> None:
        if self.channels is None:
            self.channels = (lows.copy(), highs.copy(), means)
            return
        np.minimum(self.channels[0], lows, out=self.channels[0])
        np.maximum(self.channels[1], highs, out=self.channels[1])
        self.channels[2][:] += means

    def _widen(self) -> None:
        """Make the bins reach from minimum to maximum, each twice as wide as often as needed."""
        # 0 is always inside: a constant far from it needs no finer bins than its own size.
        minimum, maximum = min(self.minimum, 0.0), max(self.maximum, 0.0)
        reach = max(maximum - minimum, 1e-30)
        width = self.width or 2.0 ** math.ceil(math.log2(reach / (BINS - 2)))
        first, counts = (self.first, self.counts) if self.width else (0, None)
        while math.floor(maximum / width) - math.floor(minimum / width) >= BINS:
            width *= 2
        wanted = math.floor(minimum / width)
        if counts is None:
            self.first, self.width = wanted, width
            return
        while self.width < width:
            # Bins 2k and 2k + 1 of the old width are bin k of the new one.
            padded = np.pad(counts, (first % 2, (len(counts) + first) % 2))
            counts, first = padded.reshape(-1, 2).sum(axis=1), first // 2
            self.width *= 2
        if wanted < first or math.floor(maximum / width) >= first + BINS:
            start = min(wanted, first)
            place = first - start
        else:
            start, place = first, 0
        filled = np.flatnonzero(counts)
        last = int(filled[-1]) + 1 if len(filled) else 0
        if math.floor(maximum / width) >= start + BINS:
            start = wanted
            place = first - start
        moved = np.zeros(BINS, np.int64)
        skip = max(0, -place)
        moved[max(place, 0) : max(place, 0) + last - skip] = counts[skip:last]
        self.first, self.counts = start, moved

    def _count(self, rows: Array) -> None:
        import cv2

        low = self.first * self.width
        bounds = [low, low + BINS * self.width]
        # Counts come back as float32, which is exact below 2**24.
        counted = cv2.calcHist([rows], [0], None, [BINS], bounds)
        self.counts += counted.ravel().astype(np.int64)

    @property
    def histogram(self) -> Histogram:
        """What `ranges.py` works on."""
        return Histogram(self.first, self.width, self.counts, self.minimum, self.maximum)


def _thinned(rows: Array, sample: int) -> Array:
    """An even part of all channels' values, contiguous; which one changes from sample to sample."""
    step = -(-rows.size // COUNTED)
    if step <= 1:
        return rows
    step |= 1  # odd: no power-of-two width puts it on the same columns of every row
    return np.ascontiguousarray(rows[:, sample % step :: step])


def _channels_last(array: Array) -> Array:
    last = array.shape[-1] if array.ndim > 1 else 1
    return np.ascontiguousarray(array.reshape(-1, last).T)


@dataclass(frozen=True)
class Statistics:
    """Everything known of a graph's activations.

    Attributes:
        tensors: Tensor name -> histogram.
        channels: Tensor name -> float64 (3, channels): minimum, maximum and mean.
        steps: Number of samples at each checkpoint.
        history: Tensor name -> float64 (checkpoints, 2): range that keeps 99.99 %.
        samples: Samples seen.
    """

    tensors: dict[str, Histogram]
    channels: dict[str, Array]
    steps: tuple[int, ...]
    history: dict[str, Array]
    samples: int


#: Of activations that nobody has to know.
NOTHING = Statistics(tensors={}, channels={}, steps=(), history={}, samples=0)


def collect(graph: Graph, samples: Iterable[Array], *, threads: int = 0) -> Statistics:
    """Run the float model over all samples once and count every observed tensor.

    Args:
        graph: The float graph.
        samples: float32 (1, channels, height, width) each, as the model takes them.
        threads: CPU threads; 0: all.

    Raises:
        DataError: There is no sample.
        ModelError: An activation is NaN or infinite; names sample and tensor.
    """
    from engineworks import hosts

    workers = threads or hosts.cores()
    runner = _Runner(graph, workers)
    counts = {name: TensorCounts() for name in graph.observed}
    steps: list[int] = []
    history: dict[str, list[tuple[float, float]]] = {name: [] for name in counts}
    number = 0
    with ThreadPoolExecutor(workers) as pool:
        for number, sample in enumerate(samples, start=1):
            # First: where a sample itself is not finite, nothing that follows is to blame.
            _count(counts, number, {graph.inputs[0]: sample})
            for arrays in runner.run(sample):
                shares = _shares(arrays, workers)
                del arrays
                list(pool.map(partial(_count, counts, number), shares))
            if number & (number - 1) == 0:
                _checkpoint(counts, history, steps, number)
    if number == 0:
        raise DataError("there is no calibration sample", hint="give calibration.images")
    if steps[-1] != number:
        _checkpoint(counts, history, steps, number)
    return Statistics(
        tensors={name: count.histogram for name, count in counts.items()},
        channels={name: _channel_table(count) for name, count in counts.items()},
        steps=tuple(steps),
        history={name: np.array(rows) for name, rows in history.items()},
        samples=number,
    )


def _shares(arrays: dict[str, Array], workers: int) -> list[dict[str, Array]]:
    """The tensors in as many groups of about equal size: one task each, not one per tensor."""
    shares: list[dict[str, Array]] = [{} for _ in range(workers)]
    sizes = [0] * workers
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].size):
        lightest = sizes.index(min(sizes))
        shares[lightest][name] = array
        sizes[lightest] += array.size
    return shares


def _count(counts: dict[str, TensorCounts], number: int, arrays: dict[str, Array]) -> None:
    for name, array in arrays.items():
        try:
            counts[name].add(array)
        except ModelError as error:
            raise ModelError(
                f"tensor {name!r} is NaN or infinite on calibration sample {number}",
                hint=error.hint,
            ) from error


def _checkpoint(
    counts: dict[str, TensorCounts],
    history: dict[str, list[tuple[float, float]]],
    steps: list[int],
    number: int,
) -> None:
    from engineworks.calibrate.ranges import percentile

    steps.append(number)
    for name, count in counts.items():
        history[name].append(percentile(count.histogram, False, keep=0.9999))


def _channel_table(counts: TensorCounts) -> Array:
    assert counts.channels is not None  # noqa: S101 - every tensor was counted at least once
    low, high, mean = counts.channels
    return np.stack([low, high, mean / counts.samples]).astype(np.float64)


class _Runner:
    """The float graph with its activations as outputs, in parts that fit into memory."""

    def __init__(self, graph: Graph, threads: int) -> None:
        import onnx
        import onnxruntime as ort

        self._input = graph.inputs[0]
        self._parts = [[name for name in part if name != self._input] for part in _parts(graph)]
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        del model.graph.output[:]
        wanted = [name for part in self._parts for name in part]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in wanted
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Its threads would spin between samples, on the cores that count.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, sample: Array) -> Iterator[dict[str, Array]]:
        """Observed tensors of one sample, part by part, without the input itself."""
        for part in filter(None, self._parts):
            values = self._session.run(part, {self._input: sample})
            yield dict(zip(part, values, strict=True))


def _parts(graph: Graph) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    alive = 0
    for name in graph.observed:
        size = 4 * math.prod(n or 1 for n in graph.shape(name))
        if alive + size > ALIVE_BYTES and parts[-1]:
            parts.append([])
            alive = 0
        parts[-1].append(name)
        alive += size
    return parts


def save(statistics: Statistics, path: Path) -> None:
    """Write as one .npz file; names and numbers only, nothing pickled."""
    names = list(statistics.tensors)
    arrays: dict[str, Array] = {
        "meta": np.array(
            json.dumps(
                {
                    "names": names,
                    "steps": statistics.steps,
                    "samples": statistics.samples,
                    "bins": [
                        (h.first, h.width, h.minimum, h.maximum)
                        for h in statistics.tensors.values()
                    ],
                }
            )
        ),
        "counts": np.stack([h.counts for h in statistics.tensors.values()]),
        "history": np.stack([statistics.history[name] for name in names]),
    }
    for number, name in enumerate(names):
        arrays[f"channels{number}"] = statistics.channels[name]
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load(path: Path) -> Statistics:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta"]))
        counts, history = arrays["counts"], arrays["history"]
        channels = {name: arrays[f"channels{n}"] for n, name in enumerate(meta["names"])}
    tensors = {
        name: Histogram(int(first), width, counts[number], low, high)
        for number, (name, (first, width, low, high)) in enumerate(
            zip(meta["names"], meta["bins"], strict=True)
        )
    }
    return Statistics(
        tensors=tensors,
        channels=channels,
        steps=tuple(meta["steps"]),
        history=dict(zip(meta["names"], history, strict=True)),
        samples=meta["samples"],
    )
