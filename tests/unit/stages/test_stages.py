"""The stages one after the other on a tiny classifier: every arrow of the pipeline once."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engineworks import hosts
from engineworks.codec import digest
from engineworks.errors import ArtifactError
from engineworks.evaluate import datasets
from engineworks.manifest import Manifest
from engineworks.specs import BenchmarkSpec, DataSpec, ExportSpec, TaskSpec
from engineworks.stages import _kept as kept
from engineworks.stages.analyze import AnalyzeRequest
from engineworks.stages.benchmark import BenchmarkRequest, SizedEngine
from engineworks.stages.build import BuildRequest
from engineworks.stages.check import CheckRequest, _batches
from engineworks.stages.compare import CompareRequest, NamedEngine
from engineworks.stages.export import ExportRequest
from engineworks.stages.reference import ReferenceRequest
from engineworks.stages.simplify import SimplifyRequest
from engineworks.stages.validate import ValidateRequest
from engineworks.store import LocalStore
from tests.builders import example, picture, pinned, shared, tensor, through_json, write

SIZE = (16, 16)
LABELS = ("a", "b", "c", "d", "e")
HOST = hosts.probe()
TOOLS = {"onnxruntime": "1"}

MODEL = """
from tests.builders import tiny_module

def build():
    return tiny_module()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything that a run makes, from pictures to a comparison."""
    folder = tmp_path_factory.mktemp("stages")
    store = LocalStore(folder / "store")
    write(folder / "ewtest_stages_model.py", MODEL)
    for number, label in enumerate(LABELS * 2):
        picture(folder / "pics" / label / f"{number}.png", 20, 20, seed=number)
    common = shared(store, task=TaskSpec(kind="classification"), labels=LABELS)
    model = pinned(folder, "ewtest_stages_model:build", outputs=("scores",))
    spec = DataSpec(images=str(folder / "pics"))
    data = through_json("validate", ValidateRequest(shared=common, data=spec, bytes_sha256=""))
    reference = through_json(
        "reference",
        ReferenceRequest(shared=common, model=model, data=data, size=SIZE, score=True),
    )
    exported = through_json(
        "export",
        ExportRequest(
            shared=common, model=model, reference=reference.artifact, size=SIZE,
            spec=ExportSpec(exporters=("legacy",), opset=17),
        ),
    )  # fmt: skip
    simplify = SimplifyRequest(
        shared=common, onnx=exported.onnx, reference=reference.artifact, tolerance=1e-3,
        limit_s=300.0, folder=str(folder / "simplify"),
    )  # fmt: skip
    simplified = through_json("simplify", simplify)
    engines = {
        target: through_json(
            "build",
            BuildRequest(
                shared=common, onnx=simplified.onnx, reference=reference.artifact, target=target,
                precision="fp32", options={}, tools=TOOLS, host=HOST, builder=HOST,
            ),
        )
        for target in ("onnxruntime-cpu", "null")
    }  # fmt: skip
    yield {
        "folder": folder, "store": store, "shared": common, "data": data, "reference": reference,
        "exported": exported, "simplify": simplify, "simplified": simplified, "engines": engines,
    }  # fmt: skip
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]


def test_the_reference_scores_the_source_model(made):
    reference = made["reference"]
    assert (reference.metric, reference.images) == ("top1", 10)
    assert 0 <= reference.value <= 1
    assert reference.detail["top5"] == 1  # five classes
    assert reference.outputs == ("scores",)


def test_the_exported_graph_is_in_the_store_with_what_must_travel(made):
    onnx = made["exported"].onnx
    manifest = onnx.manifest
    assert made["store"].open(onnx)
    assert manifest.dynamic_batch
    assert [tensor.name for tensor in manifest.outputs] == ["scores"]
    assert manifest.preprocess == made["shared"].preprocess
    assert manifest.provenance.parents == (made["reference"].artifact.sha256,)


def test_simplification_keeps_or_undoes_and_says_why(made):
    simplified = made["simplified"]
    assert simplified.nodes_after <= simplified.nodes_before
    assert simplified.kept is (simplified.onnx.sha256 != made["exported"].onnx.sha256)
    assert simplified.reason


def test_a_simplification_that_fails_leaves_the_graph_as_it_was(made, tmp_path):
    request = dataclasses.replace(made["simplify"], limit_s=0.001, folder=str(tmp_path))
    found = through_json("simplify", request)
    assert not found.kept
    assert "onnxsim failed: onnxsim was stopped" in found.reason
    assert found.onnx == made["exported"].onnx


def test_the_analysis_asks_every_target(made):
    request = AnalyzeRequest(
        onnx=made["exported"].onnx, size=SIZE, targets=("null", "onnxruntime-cpu"), tools={},
        limit_s=60, folder=str(made["folder"] / "analyze"), store=str(made["store"].root),
    )  # fmt: skip
    found = through_json("analyze", request)
    assert found.parameters == 421
    assert found.unsupported_operators == {"null": (), "onnxruntime-cpu": ()}


def check(made, target, **changes):
    reference = made["reference"]
    request = CheckRequest(
        shared=made["shared"], engine=made["engines"][target].engine,
        reference=reference.artifact, metric=reference.metric, value=reference.value,
        data=made["data"], size=SIZE, largest_batch=3, float_predictions=None,
        folder=str(made["folder"]), code_sha256="", threads=1, tools={}, host=HOST,
    )  # fmt: skip
    return through_json("check", dataclasses.replace(request, **changes))


def test_a_true_engine_agrees_and_loses_nothing(made):
    found = check(made, "onnxruntime-cpu")
    assert found.parity.holds, found.parity.reason
    assert {row.batch for row in found.parity.rows} == {1, 3}
    assert (found.accuracy.drop, found.accuracy.images) == (0, 10)
    predictions = made["store"].entry(found.predictions)
    assert len(json.loads(predictions.read_text())) == 10


def test_an_engine_that_answers_zeros_on_new_pictures_loses(made):
    found = check(made, "null", value=1.0)
    assert found.parity.holds  # the recorded rows are replayed
    assert found.accuracy.drop > 0


def test_without_data_there_is_no_metric(made):
    found = check(made, "null", data=None, value=None)
    assert found.accuracy is None
    assert found.predictions is None


def test_without_labels_the_float_graph_tells_what_answers_mean(made):
    """The null engine answers zeros on pictures that it has not recorded."""
    onnx = made["exported"].onnx
    changes = {"data": None, "value": None, "float_onnx": onnx}
    sound = check(made, "onnxruntime-cpu", **changes)
    assert sound.parity.holds
    assert sound.meaning.holds
    assert (sound.meaning.images, sound.meaning.judged) == (4, False)  # four say too little
    changes["samples"] = kept.keep(made["shared"], made["data"], SIZE, 8, made["store"])
    sound = check(made, "onnxruntime-cpu", **changes)
    assert (sound.meaning.images, sound.meaning.holds) == (8, True)
    (reading,) = sound.meaning.readings
    assert (reading.kind, reading.sure) == ("classes", "given")
    assert reading.figures["distance"] < 1e-6
    broken = check(made, "null", **changes)
    assert broken.meaning.readings[0].figures["distance"] > 1e-3


def test_labels_leave_nothing_to_read(made):
    assert check(made, "onnxruntime-cpu", float_onnx=made["exported"].onnx).meaning is None


def test_an_altered_engine_is_not_checked(made):
    engine = made["engines"]["null"].engine
    path = Path(engine.uri, engine.manifest.entry)
    content = path.read_bytes()
    try:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(ArtifactError, match=engine.manifest.entry):
            check(made, "null")
    finally:
        path.write_bytes(content)


def test_every_batch_is_timed(made):
    engine = made["engines"]["onnxruntime-cpu"].engine
    request = BenchmarkRequest(
        engines=(SizedEngine(size=SIZE, engine=engine),),
        spec=BenchmarkSpec(batches=(1, 4), threads=1, seconds=0.01),
        tools=TOOLS, host=HOST, store=str(made["store"].root),
    )  # fmt: skip
    found = through_json("benchmark", request)
    rows = [(row.height, row.width, row.batch, row.threads) for row in found.rows]
    assert rows == [(16, 16, 1, 1), (16, 16, 4, 1)]
    for row in found.rows:
        assert row.throughput_per_s == pytest.approx(row.batch * 1e3 / row.mean_ms)
    assert found.environment["cpu"] == HOST.cpu


def test_shipped_engines_are_compared(made):
    named = tuple(
        NamedEngine(variant=f"{target}/fp32", engine=built.engine)
        for target, built in made["engines"].items()
    )
    request = CompareRequest(
        engines=named, size=SIZE, threads=1, tools={}, host=HOST, store=str(made["store"].root)
    )
    found = through_json("compare", request)
    assert {c.variant for c in found.contenders} == {"onnxruntime-cpu/fp32", "null/fp32"}
    assert found.recommended in {c.variant for c in found.contenders}
    assert found.contenders[0].ratio == min(c.ratio for c in found.contenders)


class TestKeys:
    """A request's digest is its cache key."""

    def request(self, made):
        return made["simplify"]

    def test_where_is_no_part_of_the_key(self, made):
        request = self.request(made)
        assert digest(dataclasses.replace(request, folder="/elsewhere")) == digest(request)

    def test_how_long_is_part_of_it_where_a_time_out_is_a_result(self, made):
        request = self.request(made)
        assert digest(dataclasses.replace(request, limit_s=1.0)) != digest(request)

    def test_another_store_or_recipe_is_no_part_of_the_key(self, made):
        request = self.request(made)
        moved = dataclasses.replace(request.shared, store="/elsewhere", recipe_sha256="0")
        assert digest(dataclasses.replace(request, shared=moved)) == digest(request)

    def test_another_graph_is(self, made):
        request = self.request(made)
        other = dataclasses.replace(request.onnx, sha256="0" * 64)
        assert digest(dataclasses.replace(request, onnx=other)) != digest(request)


def test_pictures_of_noise_stand_in_when_there_is_no_data(made):
    request = ReferenceRequest(
        shared=made["shared"], data=None, size=SIZE, score=True,
        model=pinned(made["folder"], "ewtest_stages_model:build"),
    )  # fmt: skip
    found = through_json("reference", request)
    assert (found.value, found.images) == (None, 0)
    inputs = np.load(made["store"].entry(found.artifact))["inputs"]
    assert inputs.shape == (4, 3, 16, 16)
    assert len({row.tobytes() for row in inputs}) == 4


def test_images_like_those_in_use_stand_in_before_noise(made, tmp_path):
    """A model is compared on what it was made for: with calibration images where no data is."""
    for number in range(6):
        picture(tmp_path / "pics" / f"{number}.png", 16, 16, seed=50 + number)
    images = datasets.validate(DataSpec(images=str(tmp_path / "pics")), TaskSpec(), ())
    request = ReferenceRequest(
        shared=made["shared"], data=None, samples=images, size=SIZE, score=True,
        model=pinned(made["folder"], "ewtest_stages_model:build"),
    )  # fmt: skip
    found = through_json("reference", request)
    assert (found.value, found.images) == (None, 0)
    inputs = np.load(made["store"].entry(found.artifact))["inputs"]
    for number, row in enumerate(inputs):
        pixels = np.asarray(Image.open(tmp_path / "pics" / f"{number}.png"), np.float32)
        np.testing.assert_allclose(row, pixels.transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("profile", "batches"),
    [({}, [1, 8]), ({"images": [[1, 3], [1, 3], [4, 3]]}, [1, 4]),
     ({"images": [[2, 3], [2, 3], [2, 3]]}, [2]), ({"images": [[1, 3], [4, 3], [32, 3]]}, [1, 8])],
)  # fmt: skip
def test_parity_is_checked_at_batches_that_the_engine_has(profile, batches):

    manifest = dataclasses.replace(
        example(Manifest), inputs=(tensor("images"),), details={"profile": profile}
    )
    assert _batches(manifest, 8) == batches
