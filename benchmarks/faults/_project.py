"""A small project that has every kind of input, and real runs of it as processes of their own."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.child import PARENT_VARIABLE

TOP = Path(__file__).resolve().parents[2]
LABELS = ("dark", "light")

#: A stage begins with this word in its own log.
BEGUN = b"begins"

MODEL = """
import torch

SCALE = {scale}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, images):
        return self.head(torch.relu(self.conv(images * SCALE)).mean((2, 3)))


def build():
    return Net()
"""

RECIPE = """
name: {name}
model: {{source: model:build, weights: weights.pt, input: {{size: [32, 32]}}}}
task: {{kind: classification, labels: [dark, light]}}
data: {{images: photos, accept: [near_zero]}}
calibration: {{images: calibration.txt, minimum: 4}}
int8: {{limit_s: 20, evaluations: 4}}
export: {{exporters: [legacy]}}
targets:
  - {{target: onnxruntime-cpu, precisions: [fp32]}}
  - {{target: onnxruntime-cpu, precisions: [int8], required: false}}
budget: {{max_drop: {drop}}}
benchmark: {{seconds: 0.1}}
"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    code: int
    words: str
    """Of its standard error."""
    summary: dict[str, Any] | None


@functools.cache
def inputs(seed: int, name: str = "faults") -> dict[str, bytes]:
    """Every file of the project by its name; two seeds give files of equal size.

    The network answers either class on half of the photos, so that scores differ between seeds.
    """
    import torch

    files: dict[str, bytes] = {}
    dice = np.random.default_rng(seed)
    calibration = []
    for number in range(8):
        for place in (f"photos/{LABELS[number % 2]}", "calibration"):
            file = f"{place}/{number}.bmp"
            files[file] = _picture(dice)
            calibration += [file] * (place == "calibration")
    files["model.py"] = MODEL.format(scale=f"1.{seed % 10}").encode()
    torch.manual_seed(seed)
    net = _network(files)
    leads = [float(answer[1] - answer[0]) for _, answer in _answers(net, files)]
    with torch.no_grad():
        net.head.bias[0] += float(np.median(leads))
    weights = io.BytesIO()
    torch.save(net.state_dict(), weights)
    files["weights.pt"] = weights.getvalue()
    order = calibration if seed % 2 else calibration[::-1]
    files["calibration.txt"] = "".join(f"{file}\n" for file in order).encode()
    files["recipe.yaml"] = RECIPE.format(name=name, drop=f"0.9{seed % 10}").encode()
    return files


def top1(files: dict[str, bytes]) -> float:
    """What the network of these files scores on their photos, by plain PyTorch and OpenCV."""
    import torch

    net = _network(files)
    net.load_state_dict(torch.load(io.BytesIO(files["weights.pt"]), weights_only=True))
    right = [
        name.split("/")[1] == LABELS[int(answer.argmax())] for name, answer in _answers(net, files)
    ]
    return sum(right) / len(right)


def _network(files: dict[str, bytes]) -> Any:
    scope: dict[str, Any] = {}
    exec(files["model.py"].decode(), scope)  # noqa: S102 - our own text above
    return scope["build"]().eval()


def _answers(net: Any, files: dict[str, bytes]) -> Iterator[tuple[str, Any]]:
    """Each photo's name and scores."""
    import cv2
    import torch

    for name, data in files.items():
        if name.startswith("photos/"):
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            pixels = cv2.cvtColor(cv2.resize(pixels, (32, 32)), cv2.COLOR_BGR2RGB)
            planes = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
            with torch.no_grad():
                yield name, net(planes)[0]


def _picture(dice: Any) -> bytes:
    import cv2

    return bytes(cv2.imencode(".bmp", dice.integers(0, 256, (40, 40, 3), np.uint8))[1])


def write(folder: Path, files: dict[str, bytes], *, keep_times: bool = False) -> None:
    """Put files under their names, each in one step; with the times of those they replace."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        times = path.stat() if keep_times and path.exists() else None
        fresh = path.with_name(f".{path.name}.part")
        fresh.write_bytes(data)
        if times is not None:
            os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
        fresh.replace(path)


def ship(folder: Path, home: Path, watch: Callable[[int], None] | None = None) -> Ended:
    """Run the recipe of a folder; `watch` gets its process id and returns when it has done."""
    environment = {**os.environ, "ENGINEWORKS_HOME": str(home), "DO_NOT_TRACK": "1"}
    environment.pop(PARENT_VARIABLE, None)
    command = [sys.executable, "-m", "flows.ship", str(folder / "recipe.yaml"), "--quiet", "--json"]
    # Files, not pipes: what a killed run leaves behind for a moment may hold a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        run = subprocess.Popen(
            command, cwd=TOP, env=environment, stdout=out, stderr=err, start_new_session=True
        )
        try:
            if watch is not None:
                watch(run.pid)
            run.wait(timeout=600)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    done = run.returncode in (0, 1) and texts[0].strip()
    return Ended(
        code=run.returncode, words=texts[1], summary=json.loads(texts[0]) if done else None
    )


def wait_for(found: Callable[[], bool], pid: int, limit_s: float = 300) -> bool:
    """Wait until something is there; False where the process has ended before."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if found():
            return True
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.005)
    return False


def stage_logs(home: Path, stage: str) -> list[Path]:
    """The logs of all tries of a stage, by its label, for example `build onnxruntime-cpu/fp32`."""
    label = stage.replace("/", "-").replace(" ", "_")
    return list((home / "runs").glob(f"2*/logs/{label}/log.txt"))


def begun(home: Path, stage: str) -> bool:
    """Whether a stage has begun in its own process, by its own log."""
    return any(BEGUN in path.read_bytes() for path in stage_logs(home, stage))


def facts(summary: dict[str, Any]) -> dict[str, Any]:
    """What a run found that does not depend on the clock."""
    rows = {row["name"]: row for row in summary["variants"]}
    exact = rows["onnxruntime-cpu/fp32"]
    return {
        "data": summary["data"]["sha256"],
        "reference": summary["reference"]["artifact"]["sha256"],
        "reference value": summary["reference"]["value"],
        "predictions": summary["reference"]["predictions"]["sha256"],
        "onnx": summary["exported"]["onnx"]["sha256"],
        "calibration": summary["calibration"]["artifact"]["sha256"],
        "fp32": (exact["accuracy"] or {}).get("value"),
        "fp32 predictions": (exact["predictions"] or {}).get("sha256"),
        "int8 reference": (rows["onnxruntime-cpu/int8"]["accuracy"] or {}).get("reference"),
    }


#: Every stage of that project's run in a process of its own.
STAGES = (
    "validate", "reference", "export", "simplify", "analyze", "validate calibration", "calibrate",
    "build onnxruntime-cpu/fp32", "check onnxruntime-cpu/fp32", "benchmark onnxruntime-cpu/fp32",
    "quantize onnxruntime-cpu/int8", "build onnxruntime-cpu/int8", "check onnxruntime-cpu/int8",
    "benchmark onnxruntime-cpu/int8", "compare onnxruntime-cpu/int8", "compare",
)  # fmt: skip
