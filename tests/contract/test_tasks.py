"""A kind of task that lives in an installed package elsewhere, and what every kind must hold."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from engineworks.evaluate import tasks
from engineworks.runtime import heads
from engineworks.specs import Preprocess, TaskSpec
from tests.builders import ROOT, write

KINDS = heads.names()
SERVERS = {"packaging"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_and_a_judge_have_one_name(kind):
    head, task = heads.load(kind), tasks.load(kind)
    assert re.fullmatch("[a-z]+", head.command)
    assert task.metric
    for layout in head.layouts or ("",):
        spec = TaskSpec(kind=kind, layout=layout or "yolox", labels=("a", "b"))
        tasks.check(spec, ("a", "b"), Preprocess())
        assert callable(head.open(spec, (32, 32), None))


def test_every_judge_has_a_head():
    assert tasks.names() == KINDS


def test_nothing_else_tests_for_a_kind():
    """A kind's name is compared nowhere but in its own two files.

    Packages for other servers are left out: their protocols have columns for boxes and classes,
    and tensors for every other kind.
    """
    names = "|".join(KINDS)
    pattern = re.compile(
        rf"""kind\s*[!=]=\s*["']({names})["']|["']({names})["']\s*[!=]=\s*\w*kind"""
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("src/engineworks", "flows", "tasks", "artifacts")
        for path in (ROOT / folder).rglob("*.py")
        if path.stem not in KINDS and not SERVERS & set(path.parts) and path.name != "remote.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert found == []


def blocks(language):
    text = (ROOT / "docs" / "add-a-task.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from engineworks import recipe, runtime
from engineworks.cli import main
from engineworks.evaluate import datasets, judge, suspects, tasks
from engineworks.evaluate.annotations import truth
from engineworks.recipe.pin import pin_model
from engineworks.runtime import heads

folder = Path(sys.argv[1])
loaded = recipe.load(folder / "recipe.yaml")
task, spec = loaded.recipe.task, loaded.recipe.data
kept = []
data = datasets.validate(spec, task, (), kept.append)
truth.write(kept[0], folder / "kept.json")

def infer(batch):
    return {"count": np.round(batch.sum(axis=(1, 2, 3)) / 48)[:, None].astype(np.float32)}

ask = (data, task, (), loaded.recipe.preprocess, (32, 32), None)
metrics, predictions = judge.judge(infer, *ask)
broken, others = judge.judge(lambda batch: {"count": infer(batch)["count"] * 0 + 2}, *ask)
print(json.dumps({
    "metric": tasks.metric(task), "sound": metrics, "broken": broken,
    "agreement": tasks.load(task.kind).agreement(predictions, others),
    "objects": data.objects, "module": heads.LISTING.modules[task.kind],
    "code": [code.reference for code in pin_model(loaded).code],
    "word": suspects.evidence(predictions, data, task, ()).word,
}))
"""

MODEL = """
import torch

class Count(torch.nn.Module):
    def forward(self, images):
        return images.sum(dim=(1, 2, 3), keepdim=True).flatten(1) / 48

def build():
    return Count()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package of docs/add-a-task.md, as pip leaves it, and photos with 0 to 4 white dots."""
    folder = tmp_path_factory.mktemp("acme")
    info = folder / "site" / "acme_counting-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: acme-counting\nVersion: 1.0\n")
    (toml,) = blocks("toml")
    groups = re.findall(r'\[project\.entry-points\."(.*?)"\]\ncounting = "(.*?)"', toml)
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\ncounting = {module}\n" for group, module in groups)
    )
    for code in blocks("python"):
        name = re.match(r"# acme_counting/(\w+\.py)\n", code)[1]
        write(folder / "site" / "acme_counting" / name, code)
    write(folder / "site" / "acme_counting" / "__init__.py", "")
    (recipe,) = blocks("yaml")
    write(folder / "recipe.yaml", recipe)
    write(folder / "model.py", MODEL)
    (folder / "photos").mkdir()
    counts = {}
    for number in range(5):
        image = np.zeros((32, 32, 3), np.uint8)
        for dot in range(number):
            image[4:8, 6 * dot + 1 : 6 * dot + 5] = 255
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), image)
        counts[f"{number}.png"] = number
    write(folder / "counts.json", json.dumps(counts))
    return folder


def run(folder, *command):
    path = os.pathsep.join((str(folder / "site"), str(ROOT / "src"), str(ROOT)))
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, "PYTHONPATH": path}, cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_task_of_an_installed_package_is_judged(installed):
    done = run(installed, "-c", SCRIPT, str(installed))
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["metric"] == "exact"
    assert said["sound"] == {"exact": 1.0}
    assert said["broken"] == {"exact": 0.2}
    assert said["agreement"] == 0.2
    assert said["objects"] == 10
    assert said["module"] == "acme_counting.head"
    # Other code of the task is another model, for every key of the cache.
    assert "acme_counting.task:TASK" in said["code"]
    assert said["word"] == "not judged"
    assert json.loads((installed / "kept.json").read_text())["3.png"] == 3


@pytest.mark.flows
def test_it_ships_and_its_command_answers(installed, tmp_path):
    """Through the whole flow: export, engine, accuracy, verdict, report; then on a device."""
    home = {"ENGINEWORKS_HOME": str(tmp_path / "home")}
    os.environ.update(home)
    try:
        done = run(installed, "-m", "flows.ship", "recipe.yaml")
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        summary = json.loads((tmp_path / "home/runs/latest/summary.json").read_text())
        (variant,) = summary["variants"]
        assert variant["verdict"] == "shipped"
        assert variant["accuracy"]["metric"] == "exact"
        assert variant["accuracy"]["value"] == 1.0
        engine = variant["engine"]["uri"]
        out = tmp_path / "drawn"
        done = run(
            installed, "-m", "engineworks.cli", "count", engine, "photos/3.png", "-o", str(out),
            "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["count"] == 3
        assert cv2.imread(str(out / "3.png"))[2, 2].tolist() == [0, 200, 0]
    finally:
        del os.environ["ENGINEWORKS_HOME"]
