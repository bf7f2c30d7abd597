"""An edge box: the wheel and what its extra brings, nothing else, runs a shipped engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
import venv
from importlib import metadata
from pathlib import Path

import pytest

from tests import builders


def closure(requirements):
    """Names of installed distributions that these requirements bring, and what those bring."""
    names, waiting = set(), list(requirements)
    while waiting:
        requirement = waiting.pop()
        if "extra ==" in requirement:
            continue
        name = re.split(r"[ <>=!~;\[(]", requirement)[0]
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in names:
            continue
        try:
            waiting += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform
        names.add(key)
    return names


def wanted_by(extras, installed):
    """Requirements of the wheel with these extras, as its metadata has them."""
    (path,) = installed.glob("*.dist-info")
    for requirement in metadata.PathDistribution(path).requires or []:
        spec, _, condition = requirement.partition(";")
        extra = re.search(r"extra == [\"'](.+?)[\"']", condition)
        if extra is None or extra[1] in extras:
            yield spec.strip()


@pytest.fixture(scope="session")
def edge(installed, tmp_path_factory):
    """Make a virtual environment that holds the wheel with some extras: gives its interpreter."""

    def make(*extras):
        folder = tmp_path_factory.mktemp("edge")
        venv.create(folder, with_pip=False, symlinks=True)
        (site,) = folder.glob("lib/python*/site-packages")
        for name in closure(wanted_by(extras, installed)):
            files = metadata.distribution(name).files or []
            for top in {file.parts[0] for file in files if file.parts[0] not in ("..", ".")}:
                source = Path(str(metadata.distribution(name).locate_file(top)))
                if source.exists() and not (site / top).exists():
                    (site / top).symlink_to(source)
        shutil.copytree(installed, site, dirs_exist_ok=True, symlinks=True)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def bare(edge):
    return edge("onnxruntime")


def run(python, folder, *arguments):
    return subprocess.run(
        [python, "-I", "-m", "engineworks.cli", *map(str, arguments)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_holds_nothing_else(bare):
    names = ["torch", "onnx", "prefect", "mlflow", "pydantic", "yaml", "pytest", "structlog"]
    code = f"""
import importlib.util, json, engineworks
print(json.dumps([[n for n in {names} if importlib.util.find_spec(n)], engineworks.__file__]))
"""
    done = subprocess.run(
        [bare, "-I", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    found, file = json.loads(done.stdout)
    assert found == []
    assert Path(file).is_relative_to(bare.parent.parent)


def test_it_detects_without_the_checkout(bare, yolox_engine, tmp_path):
    photo = shutil.copy(builders.photos()[0], tmp_path / "bear.jpg")
    done = run(bare, tmp_path, "detect", yolox_engine, photo, "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["detections"]
    assert found["label"] == "bear"
    assert (tmp_path / "out" / "bear.jpg").is_file()


def test_it_inspects_and_times(bare, yolox_engine, tmp_path):
    done = run(bare, tmp_path, "inspect", yolox_engine)
    assert (done.returncode, "opens on this machine" in done.stdout) == (0, True)
    done = run(bare, tmp_path, "bench", yolox_engine, "--seconds", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["p50_ms"] > 0


@pytest.mark.parametrize("option", [("--log", "-"), ("--metrics-port", "0")])
def test_what_its_extra_did_not_bring_is_named(bare, yolox_engine, tmp_path, option):
    done = run(bare, tmp_path, "detect", yolox_engine, builders.photos()[0], *option)
    assert done.returncode == 2
    assert "pip install 'engineworks[metrics]'" in done.stderr


def test_an_engine_of_a_runtime_that_is_not_installed_is_refused(bare, yolox_onnx, store, tmp_path):
    engine = builders.put_engine(store, yolox_onnx, runtime="openvino").uri
    done = run(bare, tmp_path, "detect", engine, builders.photos()[0])
    assert done.returncode == 2
    assert "pip install 'engineworks[openvino]'" in done.stderr


def test_metrics_and_logs_come_with_their_extra(edge, yolox_engine, tmp_path):
    python = edge("onnxruntime", "metrics")
    options = ("--log", "log.jsonl", "--metrics-port", "0")
    done = run(python, tmp_path, "detect", yolox_engine, builders.photos()[0], *options)
    assert done.returncode == 0, done.stderr
    assert "metrics: http://127.0.0.1:" in done.stderr
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["detections"] == {"bear": 1}


def test_the_least_python_is_the_documented_one(installed):
    (path,) = installed.glob("*.dist-info")
    least = metadata.PathDistribution(path).metadata["Requires-Python"].removeprefix(">=")
    page = (builders.ROOT / "docs" / "runtime.md").read_text(encoding="utf-8")
    assert f"Python {least} is the oldest" in page


@pytest.fixture(scope="session")
def serving_box(edge):
    return edge("onnxruntime", "server")


def test_without_its_extra_the_server_says_what_to_install(bare, yolox_engine, tmp_path):
    done = run(bare, tmp_path, "serve", yolox_engine, "--port", "0")
    assert done.returncode == 2
    assert "pip install 'engineworks[server]'" in done.stderr


def test_the_server_comes_with_its_extra(serving_box, yolox_engine, tmp_path):
    """In a folder whose files have the names of modules."""
    for name in ("json", "queue", "engineworks"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not for you')\n")
    process = subprocess.Popen(
        [serving_box, "-I", "-m", "engineworks.cli", "serve", yolox_engine, "--json",
         "--port", "0"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        photo = builders.photos()[0].read_bytes()
        with urllib.request.urlopen(urllib.request.Request(f"{url}/detect", photo)) as answer:
            (found,) = json.load(answer)["detections"]
        assert found["label"] == "bear"
        with urllib.request.urlopen(f"{url}/") as page:
            assert b"Choose photos" in page.read()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(120)
