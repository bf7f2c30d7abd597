"""One calibration in a process of its own: `python -m benchmarks._int8_collect MODEL WHOSE N`.

WHOSE: ours (all methods) or ort (ONNX Runtime's MinMax collection). Prints seconds and memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 640


def photos(count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Photo-like inputs, float32 (1, 3, 640, 640) in 0..1, each another one."""
    import cv2

    for number in range(count):
        generator = np.random.default_rng(number)
        rough = generator.integers(0, 256, (SIZE // 16, SIZE // 16, 3), np.uint8)
        picture = cv2.resize(rough, (SIZE, SIZE)).astype(np.float32) / 255
        yield np.ascontiguousarray(picture.transpose(2, 0, 1)[None])


def peak_mib() -> float:
    """Largest memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return float(line.split()[1]) / 1024


def ours(model: Path, count: int) -> None:
    """Statistics in one pass, then the ranges of every method, both kinds."""
    from engineworks.calibrate import collect, ranges
    from engineworks.qdq.graph import Graph

    statistics = collect.collect(Graph(model), photos(count))
    for choose in ranges.METHODS.values():
        for histogram in statistics.tensors.values():
            choose(histogram, False)
            choose(histogram, True)


def theirs(model: Path, count: int) -> None:
    """ONNX Runtime's own calibrator."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = photos(count)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image}

    calibrator = create_calibrator(
        str(model), None, calibrate_method=CalibrationMethod.MinMax,
        augmented_model_path=str(model.with_name("augmented.onnx")),
    )  # fmt: skip
    calibrator.collect_data(Reader())
    calibrator.compute_data()


def main() -> None:
    """Run one and print JSON."""
    import onnxruntime as ort

    from engineworks.calibrate import collect, ranges
    from engineworks.qdq.graph import Graph

    model, whose, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    # The model alone, run once: what calibration adds is counted from here.
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    session.run(None, {"images": next(photos(1))})
    del collect, ranges, Graph, session
    before = peak_mib()
    started = time.perf_counter()
    (ours if whose == "ours" else theirs)(model, count)
    print(
        json.dumps(
            {"elapsed_s": time.perf_counter() - started, "above_model_mib": peak_mib() - before}
        )
    )


if __name__ == "__main__":
    main()
