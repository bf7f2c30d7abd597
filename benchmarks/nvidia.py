"""`make bench-nvidia`: building for RTX GPUs here, and running on one where there is one.

YOLOX-Nano goes through the real command. Without a GPU the bars of running are not measured, and
are said not to be.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bars import Bar, finish
from benchmarks.int8 import ship
from engineworks import hosts, targets
from engineworks.facts.host import HostCard

ROUNDS, CALLS = 9, 200
#: Targets whose sessions are measured, the first that runs here.
RUNNABLE = ("tensorrt-rtx", "tensorrt")


def main() -> int:
    """Measure, print bars; 0 only if all that were measured hold."""
    host = hosts.probe()
    with tempfile.TemporaryDirectory() as folder:
        summary = ship(Path(folder), "yolox_nano", _only_rtx)
        bars = _building(summary)
        details: dict[str, Any] = {"building": _rows(summary)}
        print(json.dumps(details["building"]), file=sys.stderr)
        engine = _openable(summary, host)
        if engine is None:
            needs = [f"{name} needs {_needs(name, host)}" for name in RUNNABLE]
            details["running"] = f"not run: {'; '.join(needs)}"
            print(f"bars of running: {details['running']}")
        else:
            found, details["running"] = _running(engine)
            bars += found
    return finish("nvidia", bars, details)


def _needs(name: str, host: HostCard) -> str:
    """What this machine lacks to build and open a target's engines; "" when nothing."""
    target = targets.load(name)
    return target.missing_requirements(host).removeprefix("needs ") or target.cannot_run(host)


def _openable(summary: dict[str, Any], host: HostCard) -> str | None:
    """Folder of an fp16 engine that runs here."""
    for name in RUNNABLE:
        for variant in summary["variants"]:
            fits = variant["target"] == name and variant["precision"] == "fp16"
            if fits and variant["engine"] and not _needs(name, host):
                return str(variant["engine"]["uri"])
    return None


def _only_rtx(recipe: dict[str, Any]) -> None:
    recipe["targets"] = [
        {"target": "tensorrt-rtx", "precisions": ["fp32", "fp16", "int8"], "required": False},
        {"target": "tensorrt", "precisions": ["fp16"], "required": False},
    ]
    recipe["benchmark"] = {"batches": [1], "seconds": 1}
    folder = Path(__file__).parent.parent / "examples" / "yolox_nano"
    for key in ("images", "annotations"):
        recipe["calibration"][key] = str(folder / recipe["calibration"][key])


def _rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    built = {
        stage["variant"]: stage for stage in summary["stages"] if stage["name"] == "build"
    }  # fmt: skip
    return [
        {
            "variant": variant["name"],
            "verdict": variant["verdict"],
            "build_s": round(built[variant["name"]]["elapsed_s"], 2),
            "peak_mib": round(built[variant["name"]]["peak_mib"]),
            "size_mib": round(variant["engine"]["size_bytes"] / 2**20, 2),
            "stored_bytes": variant["delivered_precision"]["stored_bytes"],
            "computed_nodes": variant["delivered_precision"]["computed_nodes"],
            "reason": variant["reason"],
        }
        for variant in summary["variants"]
        if variant["name"] in built and variant["engine"]
    ]


def _building(summary: dict[str, Any]) -> list[Bar]:
    bars = []
    for row in _rows(summary):
        if not row["variant"].startswith("tensorrt-rtx/"):
            continue
        precision = row["variant"].rpartition("/")[2]
        if precision != "fp32":
            bars.append(Bar(f"RTX {precision} of YOLOX-Nano built in", row["build_s"], "s", 60))
        bars.append(Bar(f"peak of the {precision} builder's process", row["peak_mib"], "MiB", 4096))
    return bars


def _running(engine: str) -> tuple[list[Bar], dict[str, Any]]:
    """Our session beside the least that a loop can do with the same context and memory."""
    from engineworks.runtime.session import open_engine

    with open_engine(engine) as session:
        (spec,) = session.inputs
        image = np.zeros((1, *map(int, spec.shape[1:])), np.float32)
        device, context = session._device, session._context  # type: ignore[attr-defined]
        buffers = session._buffers  # type: ignore[attr-defined]
        staged = buffers[spec.name].view(spec, image.shape)
        session.infer({spec.name: image})
        answers = [
            (buffers[out.name].view(out, tuple(context.get_tensor_shape(out.name))),
             buffers[out.name].address)
            for out in session.outputs
        ]  # fmt: skip

        def least() -> None:
            staged[...] = image
            device.to_device(buffers[spec.name].address, staged)
            context.execute_async_v3(device.stream)
            for target, address in answers:
                device.to_host(target, address)
            device.wait()

        ours, theirs, overheads = [], [], []
        for _ in range(ROUNDS):
            theirs.append(_median_s(least))
            ours.append(_median_s(lambda: session.infer({spec.name: image})))
            times = session.times()  # type: ignore[attr-defined]
            on_gpu_s = (times.to_device_ms + times.compute_ms + times.to_host_ms) / 1000
            overheads.append(ours[-1] - on_gpu_s)
    ratio = float(np.median(np.array(theirs) / np.array(ours)))
    overhead_us = float(np.median(overheads)) * 1e6
    bars = [
        Bar("overhead of a call outside the GPU", overhead_us, "us", 60),
        Bar("throughput beside a minimal loop", ratio, "x", 0.95, at_least=True),
    ]
    return bars, {"ours_s": ours, "least_s": theirs, "overhead_s": overheads}


def _median_s(call: Callable[[], object]) -> float:
    samples = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        samples.append(time.perf_counter() - started)
    return float(np.median(samples))


if __name__ == "__main__":
    raise SystemExit(main())
