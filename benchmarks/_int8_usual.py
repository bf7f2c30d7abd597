"""What the usual tools make of a graph, judged as our own: ONNX Runtime's quantizer and NNCF.

Each runs in a process of its own (`python -m benchmarks._int8_usual TOOL REQUEST.json`), NNCF's
in the interpreter that has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from engineworks import hosts, targets
from engineworks.bench import compare, protocol
from engineworks.codec import from_json
from engineworks.evaluate import judge
from engineworks.facts.data import PinnedData
from engineworks.manifest import TensorSpec
from engineworks.runtime.pictures import read_image
from engineworks.runtime.preprocess import Preprocessor
from engineworks.search.trial import ScoringSet, Workshop
from engineworks.specs import Preprocess, TaskSpec

Array = np.ndarray[Any, Any]

#: Tool -> (title, runtimes its result is for).
TOOLS = {
    "ort": ("ONNX Runtime, defaults", ("onnxruntime-cpu",)),
    "ort-per-channel": ("ONNX Runtime, QUInt8, per channel", ("onnxruntime-cpu",)),
    "nncf": ("NNCF, defaults", ("openvino", "onnxruntime-cpu")),
    "nncf-accuracy": ("NNCF, accuracy control 0.01", ("openvino", "onnxruntime-cpu")),
}

ALLOWED_DROP = 0.01
LIMIT_S = 120


def measure(home: Path, summary: dict[str, Any], nncf_python: str) -> list[dict[str, Any]]:
    """One row per tool and runtime: metric, drop, speed-up over float, seconds, peak memory."""
    request = _request(home, summary)
    rows = []
    for tool, (title, runtimes) in TOOLS.items():
        python = nncf_python if tool.startswith("nncf") else sys.executable
        if not python:
            continue
        made = home / f"{tool}.onnx"
        started = time.perf_counter()
        try:
            done = subprocess.run(
                [python, "-m", "benchmarks._int8_usual", tool, str(request), str(made)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(("src", "."))},
                stdout=subprocess.PIPE, check=False, timeout=LIMIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"{title}: not finished after {LIMIT_S} s")
            continue
        if done.returncode != 0:
            print(f"{title}: failed")
            continue
        elapsed_s = time.perf_counter() - started
        peak_mib = json.loads(done.stdout.splitlines()[-1])["peak_mib"]
        for runtime in runtimes:
            row = _judge(home, json.loads(request.read_text()), runtime, made)
            row |= {"tool": title, "runtime": runtime, "elapsed_s": elapsed_s}
            rows.append({**row, "peak_mib": peak_mib})
    return rows


def _request(home: Path, summary: dict[str, Any]) -> Path:
    exported = summary["simplified"] or summary["exported"]
    engine = next(v["engine"] for v in summary["variants"] if v["engine"])
    manifest = json.loads((Path(engine["uri"]) / "manifest.json").read_text(encoding="utf-8"))
    first = next((home / "state/runs").glob(f"*{summary['name']}/recipe.resolved.json"))
    recipe = json.loads(first.read_text(encoding="utf-8"))
    path = home / "usual.json"
    path.write_text(
        json.dumps(
            {
                "onnx": str(Path(exported["onnx"]["uri"]) / "model.onnx"),
                "data": summary["data"],
                "task": {**recipe["task"], "labels": manifest["task"]["labels"]},
                "preprocess": recipe["preprocess"],
                "size": summary["size"],
                "inputs": manifest["inputs"],
                "outputs": manifest["outputs"],
                "calibration": recipe["calibration"]["images"],
            }
        ),
        encoding="utf-8",
    )
    return path


def _samples(request: dict[str, Any]) -> list[Array]:
    prepare = Preprocessor(from_json(Preprocess, request["preprocess"]), tuple(request["size"]))
    paths = sorted(Path(request["calibration"]).glob("*.jpg"))
    return [prepare(read_image(path))[0][None].copy() for path in paths]


def _workshop(request: dict[str, Any], runtime: str) -> Workshop:
    task = from_json(TaskSpec, request["task"])
    return Workshop(
        target=targets.load(runtime),
        options={},
        host=hosts.probe(),
        inputs=tuple(from_json(TensorSpec, spec) for spec in request["inputs"]),
        outputs=tuple(from_json(TensorSpec, spec) for spec in request["outputs"]),
        threads=0,
        precision="int8",
        scoring_set=ScoringSet(
            data=from_json(PinnedData, request["data"]),
            task=task,
            labels=tuple(task.labels),
            preprocess=from_json(Preprocess, request["preprocess"]),
            size=tuple(request["size"]),
            decode=None,
            inputs=_samples(request)[0],
            wanted={},
        ),
    )


def _judge(home: Path, request: dict[str, Any], runtime: str, made: Path) -> dict[str, Any]:
    workshop = _workshop(request, runtime)
    engines = {
        "float": workshop.build(Path(request["onnx"]), "fp32", home / "usual"),
        "int8": workshop.build(made, "int8", home / "usual"),
    }
    with workshop.open(engines["float"]) as one, workshop.open(engines["int8"]) as other:
        reference, answers = workshop.answers(one), workshop.answers(other)
        calls = {"float": workshop.call(one), "int8": workshop.call(other)}
        for call in calls.values():
            protocol.warm_up(call, limit_s=2.0)
        medians = compare.alternate(calls, compare.ROUNDS)
    ratio, interval = compare.ratio(medians["float"], medians["int8"])
    assert reference.metric is not None  # noqa: S101
    assert answers.metric is not None  # noqa: S101
    drop = reference.metric - answers.metric
    return {
        "metric": answers.metric,
        "drop": drop,
        "speedup": ratio,
        "ci95": interval,
        "accurate": drop <= ALLOWED_DROP,
        "faster": interval[0] > 1,
    }


def _make(tool: str, request: dict[str, Any], path: Path) -> None:
    """The child's part: quantize with one tool."""
    samples = _samples(request)
    if tool.startswith("ort"):
        _ort(tool, request["onnx"], samples, path)
    else:
        _nncf(tool, request, samples, path)


def _ort(tool: str, onnx: str, samples: list[Array], path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            sample = next(self._samples, None)
            return None if sample is None else {"images": sample}

    advice = {"per_channel": True, "activation_type": QuantType.QUInt8} if tool != "ort" else {}
    quantize_static(onnx, str(path), Reader(), **advice)


def _nncf(tool: str, request: dict[str, Any], samples: list[Array], path: Path) -> None:
    import nncf
    import onnx
    import onnxruntime as ort

    model = onnx.load(request["onnx"])
    data = nncf.Dataset(samples, lambda sample: {"images": sample})
    if tool == "nncf":
        onnx.save(nncf.quantize(model, data, subset_size=len(samples)), str(path))
        return
    scoring = _workshop(request, "onnxruntime-cpu").scoring_set
    photos = scoring.data
    assert photos is not None  # noqa: S101 - the request names them

    def validate(candidate: Any, _: Any) -> float:
        session = ort.InferenceSession(
            candidate.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        name = session.get_outputs()[0].name
        metrics, _answers = judge.judge(
            lambda batch: {name: session.run([name], {"images": batch})[0]},
            photos, scoring.task, scoring.labels, scoring.preprocess, scoring.size, None,
        )  # fmt: skip
        return metrics["AP"]

    made = nncf.quantize_with_accuracy_control(
        model, calibration_dataset=data, validation_dataset=data, validation_fn=validate,
        max_drop=ALLOWED_DROP, subset_size=len(samples),
    )  # fmt: skip
    onnx.save(made, str(path))


def main() -> None:
    """Run one tool and print its peak memory as JSON."""
    from benchmarks._int8_collect import peak_mib

    tool, request, path = sys.argv[1:]
    _make(tool, json.loads(Path(request).read_text(encoding="utf-8")), Path(path))
    print(json.dumps({"peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
