"""Promotion on one machine: both versions really run again, on photos and in a race."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from tests.flows.conftest import ROOT

pytestmark = pytest.mark.flows

LABELS = ("blue", "green", "red")
PHOTOS = 60


def weights(path, gains):
    """A net that answers with the brightest channel, each weighed."""
    state = {
        "conv.weight": torch.zeros(8, 3, 3, 3), "conv.bias": torch.zeros(8),
        "head.weight": torch.zeros(3, 8), "head.bias": torch.zeros(3),
    }  # fmt: skip
    for channel in range(3):
        state["conv.weight"][channel, channel, 1, 1] = 1.0
        state["head.weight"][2 - channel, channel] = gains[2 - channel]  # photos are read as RGB
    torch.save(state, path)


@pytest.fixture
def colours(project):
    """A classifier of coloured photos, a third of each class dim."""
    for number in range(PHOTOS):
        label = number % 3
        image = np.full((32, 32, 3), 60, np.uint8)
        image[:, :, label] = 90 if number % 9 < 3 else 200
        folder = project.folder / "photos" / LABELS[label]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    project.edit("  source: model:build\n", "  source: model:build\n  arguments: {classes: 3}\n")
    project.edit(
        'targets:\n  - target: "null"\n',
        "task: {kind: classification, labels: [blue, green, red]}\n"
        "data: {images: photos}\nsealed: {pictures: 4}\ntargets:\n  - target: onnxruntime-cpu\n",
    )
    return project


def promote(project, *words):
    done = subprocess.run(
        [sys.executable, "-m", "flows.promote", "tiny", "--json", *words], cwd=ROOT,
        capture_output=True, env=project.environment(), text=True, timeout=300,
    )  # fmt: skip
    (one,) = json.loads(done.stdout)
    return done.returncode, one, {gate["name"]: gate for gate in one["gates"]}


def test_both_run_again_and_a_worse_one_stays_out(colours):
    weights(colours.folder / "weights.pt", (1.0, 1.0, 1.0))
    first = colours.ship()
    assert first.code == 0, first.err
    assert first.variant("onnxruntime-cpu/fp32")["accuracy"]["value"] == 1
    sealed = first.variant("onnxruntime-cpu/fp32")["sealed"]
    assert (sealed["state"], sealed["pictures"]) == ("sealed", 4), sealed["reason"]
    code, one, _ = promote(colours)
    assert (code, one["outcome"], one["version"]) == (0, "promoted", "1")

    weights(colours.folder / "weights.pt", (1.0, 1.0, 0.6))  # dim reds are no longer red
    second = colours.ship()
    assert second.code == 0, second.err
    easy = ("--slower-than", "1000", "--max-drop", "0.05")
    code, one, gates = promote(colours, *easy)
    dim = sum(1 for n in range(PHOTOS) if n % 3 == 2 and n % 9 < 3)
    assert (code, one["outcome"]) == (1, "refused")
    assert [name for name, gate in gates.items() if gate["outcome"] != "passed"] == ["accuracy"]
    right = (PHOTOS - dim) / PHOTOS
    assert f"top1 {right:.4f}, the champion 1.0000 on the same 60 photos" in one["reason"]
    assert "in a race on" in gates["latency"]["reason"]
    assert 0.01 < gates["latency"]["number"] < 100
    assert gates["accuracy"]["number"] == pytest.approx(
        -dim / (PHOTOS + 2) - 1.645 * ((dim + 1 - dim**2 / (PHOTOS + 2)) ** 0.5) / (PHOTOS + 2)
    )

    (colours.folder / "photos").rename(colours.folder / "gone")
    code, one, gates = promote(colours, *easy)
    assert code == 1 and "are not on this machine" in gates["accuracy"]["reason"]
