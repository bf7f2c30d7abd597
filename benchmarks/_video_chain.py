"""The whole video chain beside the bare engine, its own limits, and other people's loops.

The chain is decode, preprocess, infer, postprocess, track, draw and H.264 at 720p. The bare engine
has its inputs ready and does nothing else, with the same cores and engine threads: one session with
a thread for each core, or two with half of them, whichever does more in that round. (One session
alone would flatter us: beside other programs its threads wait for one another.) All take turns
within one process.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._rounds import ratio
from benchmarks._video_peers import KINDS, Peer
from benchmarks._yolov8n import export
from engineworks import hosts, runtime, targets
from engineworks.export.torch_onnx import signature
from engineworks.runtime.drawing import draw
from engineworks.runtime.pipeline import Pipeline
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.session import local_folder
from engineworks.runtime.sinks import VideoSink
from engineworks.runtime.sources import Frame, open_source
from engineworks.runtime.stream import StreamJob, StreamReport
from engineworks.runtime.tracking import ByteTrack
from engineworks.runtime.video_file import VideoFile
from engineworks.specs import Preprocess, TaskSpec
from engineworks.store import LocalStore
from engineworks.targets._base import BuildInput
from tests import builders

#: Candidates that pass the threshold of the random network, as many as a busy street has.
CANDIDATES = 330

#: The demo's variant whose integers the chain is measured with.
INT8 = "openvino/int8"


def engines(folder: Path) -> dict[str, Path]:
    """The example's trained YOLOX-Nano at 416, and a network of YOLOv8n's shape at 640."""
    store = LocalStore(folder / "store")
    nano = builders.put_engine(store, builders.export_yolox(folder / "nano.onnx"))
    labels = builders.yolox_task().labels
    export(folder / "shape.onnx")
    shape = builders.put_engine(
        store,
        folder / "shape.onnx",
        name="yolov8n-shape",
        preprocess=Preprocess(resize="letterbox"),
        task=TaskSpec(kind="detection", layout="yolov8", labels=labels, confidence=0.5),
    )
    return {"yolox-nano-416": Path(nano.uri), "yolov8n-shape-640": Path(shape.uri)}


def whole_numbers(folder: Path) -> Path:
    """The network of YOLOv8n's shape in INT8 by OpenVINO, all its layers: `engines` wrote it."""
    onnx, target = folder / "shape.onnx", targets.load("openvino")
    host, preprocess = hosts.probe(), Preprocess(resize="letterbox")
    prepare = Preprocessor(preprocess, (640, 640))
    rows = np.stack([prepare(runtime.read_image(photo))[0] for photo in builders.photos()[:8]])
    scheme = targets.int8_rules("openvino", host).scheme
    graph = builders.quantized(onnx, folder / "shape_int8.onnx", scheme, rows)
    inputs, outputs, _ = signature(graph)
    work = folder / "int8"
    work.mkdir()
    built = target.build(
        BuildInput(
            onnx=graph, inputs=inputs, outputs=outputs, precision="int8", options={}, host=host,
            work=work,
        )
    )  # fmt: skip
    assert built.delivered_precision.holds  # noqa: S101 - else the figure would be another precision's
    engine = LocalStore(folder / "store").put(
        built.files,
        kind="engine",
        name="yolov8n-shape",
        entry=built.entry,
        inputs=inputs,
        outputs=outputs,
        preprocess=preprocess,
        task=TaskSpec(
            kind="detection", layout="yolov8", labels=builders.yolox_task().labels, confidence=0.5
        ),
        target="openvino",
        precision="int8",
        requires=built.requires,
        details=built.details,
        provenance=builders.MADE_HERE,
    )
    return Path(engine.uri)


def int8_engine() -> Path | None:
    """The demo's, where it has been run here."""
    home = Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks")
    summary = home / "runs/latest/summary.json"
    if not summary.is_file():
        return None
    for variant in json.loads(summary.read_text(encoding="utf-8"))["variants"]:
        if variant["name"] == INT8 and variant.get("engine"):
            return local_folder(variant["engine"]["uri"])
    return None


def chain(engine: Path, clip: Path, out: Path, rounds: int, peers: bool = False) -> dict[str, Any]:
    """Rates of chain, bare engine and peers, as ratios of rounds.

    The bare engine is one session of all threads, and two sessions of half the threads side by
    side; the chain runs in both ways.
    """
    cores = hosts.cores()
    with (
        runtime.open(engine, threads=cores) as both,
        runtime.open(engine, threads=max(1, cores // 2)) as first,
        runtime.open(engine, threads=max(1, cores // 2)) as second,
    ):
        detector = runtime.Detector(both)
        frames = 0
        rows: list[Any] = []
        for frame in open_source(str(clip)):
            frames += 1
            if len(rows) < 40:  # enough that the engine never sees the same one twice in a row
                rows.append(detector.prepare(frame.pixels)[0].copy()[None])
        name = both.inputs[0].name
        least = _threshold(detector, rows[0])
        reports: list[StreamReport] = []

        def bare(session: runtime.Session, some: list[Any]) -> None:
            for number in range(frames * len(some) // len(rows)):
                session.infer({name: some[number % len(some)]})

        def bare_pair() -> None:
            half = threading.Thread(target=bare, args=(first, rows[::2]))
            half.start()
            bare(second, rows[1::2])
            half.join()

        def whole(sessions: list[runtime.Session]) -> None:
            job = StreamJob(
                name="clip",
                open=lambda stop: open_source(str(clip)),
                sinks=lambda source: [VideoSink(VideoFile(out / "out.mp4", fps=source.fps))],
                tracker=lambda fps: ByteTrack(fps=fps, high=0.3),
            )
            detectors = [runtime.Detector(each, confidence=least) for each in sessions]
            (report,) = Pipeline(detectors, depth=4).run([job])
            reports.append(report)

        contenders: dict[str, Callable[[], Any]] = {
            "bare": lambda: bare(both, rows),
            "bare, two sessions": bare_pair,
            "chain": lambda: whole([both]),
            "chain, two sessions": lambda: whole([first, second]),
        }
        others = _peers(engine, clip, out, least) if peers else {}
        contenders.update({KINDS[kind][0]: other.once for kind, other in others.items()})
        try:
            times, cpu, found = _alternate(contenders, rounds)
        finally:
            for other in others.values():
                other.close()
        alone = _alone(first, clip, out, least)
    titles = [KINDS[kind][0] for kind in others]
    return {
        **_figures(times, cpu, alone, titles, frames),
        "peer_detections": {title: found[title] for title in titles},
        "stages_ms": reports[-1].stages_ms,
        "detections": reports[-1].detections,
        "whole": all(report.frames == frames for report in reports),
        "rounds": rounds,
    }


def _figures(
    times: dict[str, Any], cpu: dict[str, Any], alone: dict[str, float], titles: list[str],
    frames: int,
) -> dict[str, Any]:  # fmt: skip
    """Shares and times of a frame, from the rounds of every contender."""
    pairs = [
        ("chain", "bare"),
        ("chain, two sessions", "bare"),
        ("chain, two sessions", "bare, two sessions"),
        *(("chain, two sessions", title) for title in titles),
    ]
    shares = {f"{one} / {other}": ratio(times[other], times[one]) for one, other in pairs}
    bare_ms = np.minimum(times["bare"], times["bare, two sessions"])
    share, interval = ratio(bare_ms, times["chain, two sessions"])
    frame_ms = {what: float(np.median(ms)) / frames for what, ms in times.items()}
    least_ms = (alone["infer"] + alone["decoding alone"] + alone["encoding alone"]) / hosts.cores()
    return {
        "share": share,
        "share_interval": interval,
        "shares": shares,
        "frame_ms": frame_ms,
        "frame_ms_best": {what: float(ms.min()) / frames for what, ms in times.items()},
        "frame_cpu_ms": {what: float(np.median(ms)) / frames for what, ms in cpu.items()},
        "shares_by_cpu": {
            f"{one} / {other}": ratio(cpu[other], cpu[one])[0] for one, other in pairs
        },
        "cpu_ms_one_after_another": alone,
        "share_if_only_decode_infer_encode": float(np.median(bare_ms)) / frames / least_ms,
        "ahead_of": {title: shares[f"chain, two sessions / {title}"][0] for title in titles},
        "frames": frames,
    }


def _peers(engine: Path, clip: Path, out: Path, least: float) -> dict[str, Peer]:
    """Those whose interpreter is named in the environment."""
    made = {}
    for kind, (title, variable) in KINDS.items():
        if os.environ.get(variable):
            made[kind] = Peer(kind, engine / "model.onnx", clip, out, least)
        else:
            print(f"{title}: not measured ({variable} names no interpreter)")
    return made


def _alternate(
    contenders: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Wall and CPU milliseconds of each in each round, and how many objects the peers found.

    Every other round goes in reverse order. One call is a block of a hundred frames or more, so no
    first call is left out.
    """
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, float] = {}
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            begin, cpu_begin = time.perf_counter(), time.process_time()
            told = contenders[name]()
            spent[name].append((time.perf_counter() - begin) * 1e3)
            if isinstance(told, dict):  # a peer's process, which counts for itself
                found[name] = told["detections"]
                cpu[name].append(told["cpu_ms"])
            else:
                cpu[name].append((time.process_time() - cpu_begin) * 1e3)
    return (
        {name: np.array(times) for name, times in spent.items()},
        {name: np.array(times) for name, times in cpu.items()},
        found,
    )


def _alone(session: runtime.Session, clip: Path, out: Path, least: float) -> dict[str, float]:
    """CPU milliseconds of every step for a frame, one after another, with half the engine threads.

    `decoding alone` and `encoding alone` do nothing else, in caches that nobody disturbs: what the
    clip itself costs.
    """
    detector, tracker = runtime.Detector(session, confidence=least), ByteTrack(high=0.3)
    file, clock = VideoFile(out / "alone.mp4", fps=25), time.process_time
    spent: dict[str, float] = dict.fromkeys(
        ("decode", "preprocess", "infer", "postprocess", "track", "draw", "encode"), 0.0
    )
    frames, source = 0, iter(open_source(str(clip)))
    drawn: list[Frame] = []
    while True:
        clocks = [clock()]
        frame = next(source, None)
        if frame is None:
            break
        clocks.append(clock())
        row, placement = detector.prepare(frame.pixels)
        clocks.append(clock())
        (outputs,) = detector.infer([row])
        clocks.append(clock())
        found = detector.finish(outputs, placement)
        clocks.append(clock())
        found = tracker.update(found)
        clocks.append(clock())
        draw(frame.pixels, found, detector.labels)
        clocks.append(clock())
        file.write(frame.pixels, frame.time_s)
        clocks.append(clock())
        for position, step in enumerate(spent):
            spent[step] += clocks[position + 1] - clocks[position]
        frames += 1
        if len(drawn) < 100:
            drawn.append(frame)
    file.close()
    begin = clock()
    for _ in open_source(str(clip)):
        pass
    spent["decoding alone"] = clock() - begin
    file, begin = VideoFile(out / "alone.mp4", fps=25), clock()
    for frame in drawn:
        file.write(frame.pixels, frame.time_s)
    file.close()
    spent["encoding alone"] = (clock() - begin) * frames / len(drawn)
    return {step: seconds / frames * 1e3 for step, seconds in spent.items()}


def _threshold(detector: runtime.Detector, row: Any) -> float:
    """The manifest's, or for random weights that which `CANDIDATES` pass."""
    if detector.task.layout != "yolov8":
        return 0.1
    (scores,) = detector.infer(row)[0].values()
    return float(np.sort(scores[4:].max(0))[-CANDIDATES])
