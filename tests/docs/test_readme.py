"""Every command that the README gives is run, in its order, in this checkout."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: Run by other means: this very test run, a test below, a benchmark of minutes.
SERVE = "engineworks serve onnxruntime-cpu/fp32"
ELSEWHERE = {"make test", "make ui", "make bench-spine", "make lint", SERVE}

pytestmark = pytest.mark.flows


def commands():
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [line for line in lines if line not in ELSEWHERE]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """As a reader has it: the environment active, a fresh state folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "PATH": path, "ENGINEWORKS_HOME": str(home)}
    environment["VIRTUAL_ENV"] = str(Path(sys.prefix))
    environment.pop("PREFECT_API_URL", None)
    return environment


def test_the_two_commands_open_the_readme():
    first = re.search(r"^```bash\n(.*?)^```", README, re.S | re.M)
    assert first is not None
    assert first[1].split("\n") == ["make demo", "make test", ""]
    assert README.index("```bash") < 400


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_works(command, environment):
    done = subprocess.run(
        command.split(), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    if command == "make demo":
        assert "onnxruntime-cpu/fp32" in done.stdout
        assert "shipped" in done.stdout
        assert (Path(environment["ENGINEWORKS_HOME"]) / "runs/latest/report.html").is_file()


def test_the_yaml_of_the_readme_is_a_recipe(tmp_path):
    from engineworks import recipe

    (text,) = re.findall(r"^```yaml\n(.*?)^```", README, re.S | re.M)
    (tmp_path / "recipe.yaml").write_text(text)
    assert recipe.load(tmp_path / "recipe.yaml").recipe.name == "my-model"


def demo_engine(environment):
    """The folder of the engine that the demo recommends."""
    home = Path(environment["ENGINEWORKS_HOME"])
    manifests = [
        json.loads(p.read_text()) | {"at": p.parent} for p in home.glob("store/??/*/manifest.json")
    ]
    return next(
        manifest["at"]
        for manifest in manifests
        if (manifest.get("target"), manifest.get("precision")) == ("onnxruntime-cpu", "fp32")
        and manifest["inputs"][0]["shape"][2:] == [416, 416]
    )


def test_the_python_of_the_readme_finds_objects(environment):
    """On the engine that the demo above recommends."""
    engine = demo_engine(environment)
    (text,) = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)
    photo = ROOT / "examples/yolox_nano/data/val2017/000000001000.jpg"
    scope = {"engine": engine, "photo": photo}
    exec(text, scope)  # noqa: S102 - the README's own text
    confident = scope["found"].confidence > 0.5
    assert confident.sum() >= 5
    assert (scope["found"].class_id[confident] == 0).sum() >= 5  # people playing tennis


def test_the_server_of_the_readme_finds_objects(environment):
    """With the engine of the demo, by its folder: by now the latest run is another model's."""
    assert SERVE in README
    process = subprocess.Popen(
        ["engineworks", "serve", str(demo_engine(environment)), "--port", "0", "--json"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        url = json.loads(process.stdout.readline())["url"]
        with urllib.request.urlopen(url, timeout=60) as page:
            assert b"Choose photos" in page.read()
        photo = ROOT / "examples/yolox_nano/data/val2017/000000001000.jpg"
        request = urllib.request.Request(f"{url}/detect?confidence=0.5", photo.read_bytes())
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["detections"]
        assert sum(entry["label"] == "person" for entry in found) >= 5  # people playing tennis
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_make_ui_serves_both_pages_and_runs_use_its_server(environment):
    """After the demo above, so that there is something to look at."""
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.ui", "--prefect-port", "0", "--mlflow-port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        urls = {}
        for line in process.stdout:
            if "Ctrl-C" in line:
                break
            name, url = line.split()
            urls[name] = url
        assert set(urls) == {"Prefect", "MLflow"}
        assert all(url.startswith("http://127.0.0.1:") for url in urls.values())
        with urllib.request.urlopen(f"{urls['Prefect']}/api/health", timeout=60) as answer:
            assert answer.read() == b"true"
        with urllib.request.urlopen(urls["MLflow"], timeout=60) as answer:
            assert b"MLflow" in answer.read()
        recipe = "examples/resnet20_cifar10/recipe.yaml"
        before = _runs(urls["Prefect"])
        done = subprocess.run(
            [sys.executable, "-m", "flows.ship", recipe, "--quiet"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert _runs(urls["Prefect"]) == before + 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    for url in urls.values():
        with pytest.raises(OSError):
            urllib.request.urlopen(url, timeout=2)


def _runs(url):
    request = urllib.request.Request(
        f"{url}/api/flow_runs/count", b"{}", {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.read())
