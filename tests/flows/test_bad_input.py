"""Bad input: a clear error with value, rule and next step; nothing half-made stays behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time

import cv2
import numpy as np
import psutil
import pytest

from flows.commands.ship import main
from tests.flows.conftest import ROOT, Outcome, Project

pytestmark = pytest.mark.flows

IMAGES = 6


@pytest.fixture
def project(fresh):
    """Nothing is there before, so that nothing may be there after."""
    return fresh


@pytest.fixture
def classified(project):
    """The tiny project with labelled images."""
    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        folder = project.folder / "images" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        image = generator.integers(0, 256, (40, 50, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
    project.edit(
        "targets:",
        "task: {kind: classification, labels: [cat, dog, bird, fish]}\n"
        "data: {images: images}\ntargets:",
    )
    return project


def refused(outcome, *words):
    assert outcome.code == 2, outcome.err
    for word in words:
        assert word in outcome.err
    assert "next: " in outcome.err
    assert "Traceback" not in outcome.err


def nothing_made(project):
    assert project.engines() == []
    assert not list((project.home / "store").glob(".tmp/*"))
    assert not (project.home / "mlflow.db").exists()
    assert not (project.home / "runs" / "latest").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p.folder / "weights.pt").unlink(), ["weights.pt does not exist"]),
        (lambda p: cut(p.folder / "weights.pt"), ["weights.pt", "cannot be read", "copy it again"]),
        (lambda p: p.edit("input:", "arguments: {classes: 5}\n  input:"), ["does not fit", "head"]),
        (lambda p: p.edit("  weights: weights.pt\n", "").__class__ and p.edit("build", "broken"),
         ["RuntimeError: the factory's own trouble"]),
        (lambda p: p.edit("model:build", "model:missing"), ["'missing'", "build"]),
        (lambda p: p.edit("model:build", "nowhere:build"), ["nowhere"]),
        (lambda p: (p.edit("  weights: weights.pt\n", ""), p.edit("build", "not_a_number")),
         ["NaN", "preprocess"]),
        (lambda p: (p.edit("  weights: weights.pt\n", ""), p.edit("build", "stubborn"),
                    p.edit("exporters: [legacy]", "exporters: [dynamo, legacy]")),
         ["no exporter", "dynamo", "legacy"]),
        (lambda p: p.edit("targets:", "targetz:"), ["targetz", "did you mean 'targets'"]),
    ],
)  # fmt: skip
def test_a_bad_model_or_recipe_is_refused(project, change, words):
    change(project)
    refused(project.ship(), *words)
    nothing_made(project)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.edit('"null"', "tensorrt9"), ["tensorrt9", "onnxruntime-cpu"]),
        (lambda p: p.recipe.write_text("name: [unclosed"), ["is not YAML"]),
        (lambda p: p.recipe.unlink(), ["does not exist"]),
    ],
)
def test_a_bad_recipe_is_refused_by_a_dry_run(tmp_path, monkeypatch, capsys, change, words):
    """The same look at the recipe as before a run, here without a process of its own."""
    project = Project(tmp_path, "")
    change(project)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the command writes settings there
    code = main([str(project.recipe), "--dry-run", "--home", str(project.home)])
    refused(Outcome(code, "", capsys.readouterr().err, project.home), *words)
    nothing_made(project)


def test_a_corrupt_onnx_file_is_refused(project):
    (project.folder / "net.onnx").write_bytes(b"\x08\x07 not a model")
    project.edit("  source: model:build\n  weights: weights.pt\n", "  source: net.onnx\n")
    refused(project.ship(), "net.onnx", "is not an ONNX file")
    nothing_made(project)


def test_an_image_folder_without_images_is_refused(classified):
    shutil.rmtree(classified.folder / "images")
    (classified.folder / "images").mkdir()
    refused(classified.ship(), "holds no image")
    nothing_made(classified)


def test_labels_that_do_not_fit_are_refused(classified):
    (classified.folder / "images" / "cat").rename(classified.folder / "images" / "cow")
    refused(classified.ship(), "'cow'", "labels")
    nothing_made(classified)


def test_labels_that_the_model_does_not_have_are_refused(classified):
    classified.edit("fish]", "fish, frog]")
    refused(classified.ship(), "4 classes", "names 5")
    nothing_made(classified)


def test_int8_without_calibration_is_refused_before_anything_runs(classified):
    classified.edit('"null"', "onnxruntime-cpu\n    precisions: [fp32, int8]")
    for words in (["--dry-run"], []):
        outcome = classified.ship(*words)
        refused(outcome, "calibration is missing", "onnxruntime-cpu/int8", "calibration.images")
        nothing_made(classified)
        assert not list((classified.home / "store").glob("??/*"))


def test_calibration_images_that_are_not_there_are_refused_before_anything_runs(classified):
    classified.edit('"null"', "onnxruntime-cpu\n    precisions: [int8]")
    classified.edit("targets:", "calibration: {images: nowhere}\ntargets:")
    refused(classified.ship(), "nowhere")
    nothing_made(classified)


def test_annotations_that_are_not_there_are_refused_before_anything_runs(classified):
    classified.edit('"null"', "onnxruntime-cpu\n    precisions: [int8]")
    classified.edit("targets:", "calibration: {images: images, annotations: gone.json}\ntargets:")
    refused(classified.ship(), "gone.json does not exist", "COCO JSON")
    nothing_made(classified)


def test_too_few_calibration_images_are_refused_with_their_number(classified):
    classified.edit('"null"', "onnxruntime-cpu\n    precisions: [int8]")
    shutil.copytree(classified.folder / "images" / "cat", classified.folder / "seen")
    classified.edit("targets:", "calibration: {images: seen}\ntargets:")
    refused(classified.ship(), "3 usable images", "at least 16", "calibration.minimum")
    nothing_made(classified)


def test_one_corrupt_photo_stops_or_is_skipped_and_named(classified):
    photo = classified.folder / "images" / "cat" / "1.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    refused(classified.ship(), "1.jpg", "on_bad_image: skip")
    nothing_made(classified)
    classified.edit("{images: images}", "{images: images, on_bad_image: skip}")
    classified.edit('"null"', "onnxruntime-cpu")
    outcome = classified.ship()
    assert outcome.code == 0, outcome.err
    assert [bad["file"] for bad in outcome.summary["data"]["bad"]] == ["cat/1.jpg"]
    assert outcome.summary["reference"]["images"] == IMAGES - 1
    assert "cat/1.jpg" in (classified.home / "runs" / "latest" / "report.html").read_text()


def start(project):
    return subprocess.Popen(
        project.command(),
        cwd=ROOT,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_hanging_build(project, process):
    """Until the build's child runs; (its process)."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        for folder in (project.home / "runs").glob("*/logs/build_null-fp32"):
            for child in psutil.Process(process.pid).children(recursive=True):
                if str(folder) in " ".join(child.cmdline()):
                    return child
        time.sleep(0.1)
    raise AssertionError("the build never began")


@pytest.mark.parametrize("embedded", [False, True], ids=["beside a server", "embedded"])
def test_ctrl_c_keeps_finished_stages_and_the_next_run_goes_on_there(project, embedded):
    if embedded:
        project.api = ""
    project.edit('  - target: "null"', '  - target: "null"\n    options: {act: hang}')
    process = start(project)
    child = wait_for_hanging_build(project, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Finished stages are kept" in err
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    nothing_made(project)
    project.edit("{act: hang}", "{act: ship}")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    assert outcome.executed == {"build", "check", "benchmark", "compare", "log"}


def test_a_killed_run_leaves_no_process_behind(project):
    project.edit('  - target: "null"', '  - target: "null"\n    options: {act: hang}')
    process = start(project)
    child = wait_for_hanging_build(project, process)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs([child], timeout=120)
    assert not alive
    project.edit("{act: hang}", "{act: ship}")
    outcome = project.ship()
    assert outcome.code == 0, outcome.err
    assert outcome.executed == {"build", "check", "benchmark", "compare", "log"}


@pytest.fixture
def small_disk(project):
    """Puts the project's state on a disk of 150 MiB: (function that fills it)."""
    small = project.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    project.home = small / "state"

    def fill():
        with contextlib.suppress(OSError), (small / "fill").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"\0" * 4096)

    yield fill
    subprocess.run(["umount", "-l", str(small)], check=False)


def test_a_prefect_server_that_does_not_answer_is_named_without_its_password(project):
    project.api = "http://user:secret@127.0.0.1:9/api"
    outcome = project.ship()
    assert outcome.code == 3, outcome.err
    assert "Prefect's server at http://127.0.0.1:9/api does not answer" in outcome.err
    assert "next: start it" in outcome.err and "secret" not in outcome.err
    assert "unexpected" not in outcome.err


def test_a_nearly_full_disk_is_refused_at_once(project, small_disk):
    project.home.mkdir()
    small_disk()
    outcome = project.ship()
    assert outcome.code == 3, outcome.err
    assert "full" in outcome.err and "ENGINEWORKS_HOME" in outcome.err
    assert project.engines() == []


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing_half_made(project, small_disk):
    project.edit(
        '  - target: "null"',
        '  - target: "null"\n    options: {act: hang}\n  - target: onnxruntime-cpu',
    )
    project.recipe.write_text(project.recipe.read_text() + "limits: {build_s: 12}\n")
    process = start(project)
    wait_for_hanging_build(project, process)
    small_disk()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    assert "is full" in err and "ENGINEWORKS_HOME" in err
    nothing_made(project)
