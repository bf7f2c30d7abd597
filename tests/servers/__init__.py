"""Real servers for tests: `engineworks serve` in a process of its own, and small engines for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from engineworks.manifest import Requires, TensorSpec
from engineworks.specs import Preprocess, TaskSpec
from engineworks.store import LocalStore
from tests import builders, oracle


@dataclass
class Running:
    """A server that answers."""

    url: str
    process: subprocess.Popen[str]
    errors: Path
    models: list[dict[str, str]]

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in found]

    def said(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def address(self) -> tuple[str, int]:
        host, port = re.match(r"http://([\d.]+):(\d+)", self.url).groups()  # type: ignore[union-attr]
        return host, int(port)


class Held:
    """A request that the server has begun to read, and whose body is sent when the test wants.

    The server asks for the body (`100 Continue`) when it reads it: no sleep has to guess when.
    """

    def __init__(self, server: Running, path: str, body: bytes, **headers: str) -> None:
        self._body = body
        self._socket = socket.create_connection(server.address(), timeout=300)
        fields = {"Content-Length": str(len(body)), "Expect": "100-continue", **headers}
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        self._socket.sendall(head.encode())
        asked = b""
        while not asked.endswith(b"\r\n\r\n"):
            asked += self._socket.recv(1)
        assert asked.startswith(b"HTTP/1.1 100 "), asked

    def send(self) -> None:
        self._socket.sendall(self._body)

    def status(self) -> int:
        answer = http.client.HTTPResponse(self._socket)
        answer.begin()
        answer.read()
        return answer.status

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def serving(
    folder: Path, *arguments: str, port: bool = True, wait_s: float = 60
) -> Iterator[Running]:
    """`engineworks serve` with these arguments, on a free port, until the block ends."""
    errors = folder / f"serve-{time.monotonic_ns()}.log"
    environment = {**os.environ, "ENGINEWORKS_HOME": str(folder / "home")}
    with errors.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "engineworks.cli", "serve", "--json",
             *(["--port", "0"] if port else []), *arguments],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text(encoding="utf-8")
        told = json.loads(line)
        yield Running(told["url"], process, errors, told["models"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def refused(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`engineworks serve` that should not come up."""
    environment = {**os.environ, "ENGINEWORKS_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, "-m", "engineworks.cli", "serve", *arguments],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip


def oracle_engine(folder: Path, size: tuple[int, int] = (64, 64), name: str = "oracle") -> Path:
    """Finds the extents of pure colours."""
    folder.mkdir(parents=True, exist_ok=True)
    task = TaskSpec(kind="detection", layout="end2end", labels=oracle.LABELS, confidence=0.1)
    engine = builders.put_engine(
        LocalStore(folder / "store"), oracle.export(folder / f"{name}.onnx", size),
        name=name, preprocess=Preprocess(resize="stretch"), task=task,
    )  # fmt: skip
    return Path(engine.uri)


def constant_detector(
    folder: Path, box: Sequence[float], *, batch: int | str = "batch", busy: int = 0
) -> Path:
    """Finds one box of class 0, the same in every image.

    Args:
        folder: Where to write.
        box: Left, top, right, bottom in pixels of its 32x32 input.
        batch: Number, or a name for an open one.
        busy: Matrix products of 512x512 before it answers, some milliseconds each.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    folder.mkdir(parents=True, exist_ok=True)
    row = np.array([[*box, 0.9, 0.0]], np.float32)
    weights = [
        numpy_helper.from_array(row[None], "row"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
    ]
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0)]
    last = "mean"
    if busy:
        weights.append(numpy_helper.from_array(np.full((512, 512), 1 / 512, np.float32), "square"))
        nodes += [
            helper.make_node("Unsqueeze", ["mean", "axes"], ["column"]),
            helper.make_node("Tile", ["column", "times"], ["m0"]),
        ]
        weights += [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([1, 512, 512], np.int64), "times"),
        ]
        for step in range(busy):
            nodes.append(helper.make_node("MatMul", [f"m{step}", "square"], [f"m{step + 1}"]))
        nodes.append(
            helper.make_node("ReduceMean", [f"m{busy}"], ["done"], axes=[1, 2], keepdims=0)
        )
        last = "done"
    nodes += [
        helper.make_node("Mul", [last, "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "shape"], ["flat"]),
        helper.make_node("Add", ["flat", "row"], ["detections"]),
    ]
    weights.append(numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "shape"))
    graph = helper.make_graph(
        nodes, "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, [batch, 1, 6])],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model, full_check=True)
    path = folder / "constant.onnx"
    save(model, str(path))
    task = TaskSpec(kind="detection", layout="end2end", labels=("thing",), confidence=0.1)
    engine = builders.put_engine(
        LocalStore(folder / "store"), path, name="constant",
        preprocess=Preprocess(resize="stretch"), task=task,
    )  # fmt: skip
    return Path(engine.uri)


def total_engine(folder: Path) -> Path:
    """Gives a total over all rows beside each row's mean: its rows must not be merged."""
    from onnx import TensorProto, helper, save

    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["means"], axes=[1], keepdims=1),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "total",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("means", TensorProto.FLOAT, ["batch", 1]),
         helper.make_tensor_value_info("total", TensorProto.FLOAT, [])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "total.onnx"
    save(model, str(path))
    engine = builders.put_engine(
        LocalStore(folder / "store"), path, name="total", task=TaskSpec(kind="none")
    )
    return Path(engine.uri)


def picky_engine(folder: Path) -> Path:
    """Gives each row's largest number's whole part, and fails for a batch that holds 1 or more."""
    from onnx import TensorProto, helper, numpy_helper, save

    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["most"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["y"], axis=0),
    ]
    graph = helper.make_graph(
        nodes, "picky",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.zeros((1, 1), np.float32), "table")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "picky.onnx"
    save(model, str(path))
    engine = builders.put_engine(
        LocalStore(folder / "store"), path, name="picky", task=TaskSpec(kind="none")
    )
    return Path(engine.uri)


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """Sum of the samples of that name whose labels are these."""
    from prometheus_client.parser import text_string_to_metric_families

    return sum(
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def until(true: Any, wait_s: float = 120.0) -> Any:
    """Ask until the answer is true."""
    end = time.monotonic() + wait_s
    while not (answer := true()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)
    return answer


def _one_node(folder: Path, name: str, node: Any, output: list[int | str], task: TaskSpec) -> Path:
    from onnx import TensorProto, helper, save

    folder.mkdir(parents=True, exist_ok=True)
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 64])
    wanted = helper.make_tensor_value_info("out", TensorProto.FLOAT, output)
    nodes, weights = node
    graph = helper.make_graph(nodes, name, [given], [wanted], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / f"{name}.onnx"
    save(model, str(path))
    engine = builders.put_engine(
        LocalStore(folder / "store"), path, name=name,
        preprocess=Preprocess(resize="stretch"), task=task,
    )  # fmt: skip
    return Path(engine.uri)


def color_map_engine(folder: Path) -> Path:
    """Segments by colour: the class of a pixel is its strongest of red, green, blue."""
    from onnx import helper

    nodes = [helper.make_node("Identity", ["images"], ["out"])]
    task = TaskSpec(kind="segmentation", layout="scores", labels=("red", "green", "blue"))
    return _one_node(folder, "colors", (nodes, []), ["batch", 3, 64, 64], task)


def pose_engine(folder: Path) -> Path:
    """Finds one object with two points, the same in every image of 64x64."""
    from onnx import helper, numpy_helper

    row = np.array([[[8, 16, 40, 48, 0.9, 0, 10, 20, 0.8, 30, 40, 0.7]]], np.float32)
    weights = [
        numpy_helper.from_array(row, "row"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "shape"], ["flat"]),
        helper.make_node("Add", ["flat", "row"], ["out"]),
    ]
    task = TaskSpec(
        kind="keypoints", layout="end2end_pose", labels=("thing",), confidence=0.1,
        options={"names": ["head", "foot"]},
    )  # fmt: skip
    return _one_node(folder, "pose", (nodes, weights), ["batch", 1, 12], task)


def null_engine(folder: Path) -> Path:
    """Runs no model: answers zeros for an image of 8x8, three classes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "answers.npz"
    np.savez(path, keys=np.array(["none"]), **{"output:scores": np.zeros((1, 3), np.float32)})
    engine = LocalStore(folder / "store").put(
        {"answers.npz": path},
        kind="engine", name="nothing", entry="answers.npz",
        inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3, 8, 8)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),),
        preprocess=Preprocess(resize="stretch"),
        task=TaskSpec(kind="classification", labels=("a", "b", "c"), scores="logits"),
        target="null", precision="fp32", requires=Requires(runtime="null"),
        provenance=builders.MADE_HERE,
    )  # fmt: skip
    return Path(engine.uri)


def picture(kind: str = ".png", color: int = 0, box: tuple[int, int, int, int] = (8, 16, 40, 48)):
    """A 64x64 picture, black but for a box of pure red (0), green (1) or blue (2), as bytes."""
    import cv2

    image = np.zeros((64, 64, 3), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right, 2 - color] = 255
    done, data = cv2.imencode(kind, image)
    assert done
    return data.tobytes()
