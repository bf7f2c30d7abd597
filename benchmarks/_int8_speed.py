"""Speed and calibration parts of `make bench-int8`: a YOLOv8n-shaped net at 640x640.

Random weights: its answers mean nothing, its arithmetic is that of the real net.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _yolov8n
from benchmarks._bars import Bar
from benchmarks._int8_collect import SIZE, photos
from engineworks import hosts, targets
from engineworks.bench import compare, protocol
from engineworks.calibrate import collect
from engineworks.manifest import TensorSpec
from engineworks.qdq.graph import Graph
from engineworks.search import recover
from engineworks.search.journal import Journal
from engineworks.search.measure import Candidate
from engineworks.search.trial import ScoringSet, Workshop
from engineworks.specs import Int8Spec, Preprocess, TaskSpec

Array = np.ndarray[Any, Any]

RUNTIMES = ("onnxruntime-cpu", "openvino")
ROUNDS = 21


def net(home: Path) -> Path:
    """The exported and simplified net."""
    import onnx
    import onnxsim

    path = home / "yolov8n.onnx"
    if not path.exists():
        _yolov8n.export(home / "raw.onnx", SIZE)
        simplified, _ = onnxsim.simplify(onnx.load(str(home / "raw.onnx")))
        onnx.save(simplified, str(path))
    return path


def measure(home: Path) -> dict[str, Any]:
    """Search both targets for speed, then time float and INT8 side by side, 1 and 2 threads."""
    import onnxruntime as ort

    graph = Graph(net(home))
    statistics = collect.collect(graph, photos(16))
    inputs = np.concatenate(list(photos(2)))
    session = ort.InferenceSession(str(graph.path), providers=["CPUExecutionProvider"])
    wanted = {graph.outputs[0]: session.run(None, {graph.inputs[0]: inputs})[0]}
    found: dict[str, Any] = {}
    for threads in sorted({1, hosts.cores()}):
        for name in RUNTIMES:
            workshop = _workshop(name, graph, inputs, wanted, threads)
            search = recover.Search(
                graph=graph,
                statistics=statistics,
                rules=targets.int8_rules(name, workshop.host),
                workshop=workshop,
                spec=Int8Spec(limit_s=120, methods=("percentile-99.999", "mse")),
                max_drop=None,
                journal=Journal(home / f"{name}-{threads}.jsonl"),
            )
            started = time.perf_counter()
            outcome = search.run()
            row = _race(home, workshop, search, outcome.candidate)
            row["search_s"] = time.perf_counter() - started
            row["integer_layers"] = outcome.trial.integer_layers
            row["agreement"] = outcome.trial.agreement
            found[f"{name}, {threads} threads"] = row
    return found


def _workshop(
    name: str, graph: Graph, inputs: Array, wanted: dict[str, Array], threads: int
) -> Workshop:
    size = (SIZE, SIZE)
    shape = ("batch", *wanted[graph.outputs[0]].shape[1:])
    return Workshop(
        target=targets.load(name),
        options={},
        host=hosts.probe(),
        inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3, *size)),),
        outputs=(TensorSpec(name=graph.outputs[0], dtype="float32", shape=shape),),
        threads=threads,
        precision="int8",
        scoring_set=ScoringSet(
            data=None, task=TaskSpec(), labels=(), preprocess=Preprocess(), size=size,
            decode=None, inputs=inputs, wanted=wanted,
        ),
    )  # fmt: skip


def _race(
    home: Path, workshop: Workshop, search: recover.Search, candidate: Candidate
) -> dict[str, Any]:
    import onnx

    path = home / "chosen.onnx"
    onnx.save(search.model(candidate), str(path))
    engines = {
        "float": workshop.build(search.graph.path, "fp32", home / "race"),
        "int8": workshop.build(path, "int8", home / "race"),
    }
    with workshop.open(engines["float"]) as one, workshop.open(engines["int8"]) as other:
        calls = {"float": workshop.call(one), "int8": workshop.call(other)}
        for call in calls.values():
            protocol.warm_up(call, limit_s=2.0)
        medians = compare.alternate(calls, ROUNDS)
    ratio, interval = compare.ratio(medians["float"], medians["int8"])
    return {
        "float_ms": float(np.median(medians["float"])),
        "int8_ms": float(np.median(medians["int8"])),
        "speedup": ratio,
        "ci95": interval,
    }


def collecting(home: Path) -> dict[str, Any]:
    """Calibration in processes of their own: memory for 32 and 512 images, time against ORT's."""
    path = net(home)

    def child(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks._int8_collect", str(path), *words],
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return {
        "ours_32": child("ours", "32"),
        "ours_512": child("ours", "512"),
        "ours_64": child("ours", "64"),
        "ort_minmax_64": child("ort", "64"),
    }


def bars(speed: dict[str, Any], memory: dict[str, Any]) -> list[Bar]:
    """The limits of the speed and calibration parts; speed-ups as their reciprocals."""
    wanted = {"onnxruntime-cpu": 1.9, "openvino": 2.0}
    found = []
    for name, row in speed.items():
        runtime, _, threads = name.partition(", ")
        label = f"yolov8n-shape_{runtime}_{threads.replace(' ', '_')}_int8"
        found.append(Bar(f"{label}_latency", 1 / row["speedup"], "of fp32", 1 / wanted[runtime]))
    few, many = memory["ours_32"], memory["ours_512"]
    apart = abs(many["above_model_mib"] / few["above_model_mib"] - 1)
    found.append(Bar("calibration_memory_512_against_32_images", 100 * apart, "% apart", 10))
    found.append(Bar("calibration_memory_above_model", many["above_model_mib"], "MiB", 1024))
    ratio = memory["ours_64"]["elapsed_s"] / memory["ort_minmax_64"]["elapsed_s"]
    found.append(Bar("calibration_time_64_images", ratio, "of ORT's MinMax", 1.5))
    return found


def tables(speed: dict[str, Any], memory: dict[str, Any]) -> None:
    """Print both parts."""
    print("\na net of YOLOv8n's shape at 640x640, batch 1, random weights")
    print(f"{'runtime':<30}{'fp32 ms':>9}{'int8 ms':>9}{'speed-up':>10}{'95 %':>15}{'layers':>8}")
    for name, row in speed.items():
        low, high = row["ci95"]
        print(
            f"{name:<30}{row['float_ms']:>9.1f}{row['int8_ms']:>9.1f}{row['speedup']:>10.2f}"
            f"{f'{low:.2f}-{high:.2f}':>15}{row['integer_layers']:>8}"
        )
    print("\ncalibration of that net (all methods; ORT: MinMax only)")
    for name, row in memory.items():
        print(
            f"{name:<16}{row['elapsed_s']:>8.1f} s"
            f"{row['above_model_mib']:>8.0f} MiB above the model"
        )
