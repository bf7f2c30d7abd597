"""Which images a run looks at before it has a graph."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engineworks import recipe
from engineworks.facts.plan import Plan
from flows.steps import prepare as steps
from tasks._job import Job
from tests.builders import example, write

RECIPE = """
name: seen
model: {{source: net.onnx, input: {{size: [16, 16]}}}}
targets: [{{target: onnxruntime-cpu}}]
{more}
"""
DATA, CALIBRATION = "data: {images: photos}", "calibration: {images: others}"
MADE = "calibration: {images: 'module:make'}"


class _Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("more", "validated", "given"),
    [
        ("", [], (None, None)),
        (DATA, ["photos"], ("photos", None)),
        (CALIBRATION, ["others"], (None, "others")),
        (f"{DATA}\n{CALIBRATION}", ["photos"], ("photos", None)),
        (MADE, [], (None, None)),  # a function may need the model first
    ],
)
def test_parity_is_judged_on_the_users_images_where_there_are_any(
    tmp_path, tiny_onnx, store, monkeypatch, more, validated, given
):
    (tmp_path / "net.onnx").write_bytes(tiny_onnx.read_bytes())
    loaded = recipe.load(write(tmp_path / "recipe.yaml", RECIPE.format(more=more)))
    seen, asked = [], []

    def validate(job, shared, spec, part=""):
        seen.append(spec.images.rpartition("/")[2])
        return seen[-1]

    def reference(job, shared, pinned, data, size, samples):
        asked.append((data, samples))
        raise _Stopped

    monkeypatch.setattr(steps, "validate", validate)
    monkeypatch.setattr(steps, "reference", reference)
    job = Job(run=SimpleNamespace(store=store), loaded=loaded, host=None)
    with pytest.raises(_Stopped):
        steps.prepare(job, example(Plan))
    assert (seen, asked) == (validated, [given])
