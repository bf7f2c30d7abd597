"""Calibrate, quantize and requantize on a tiny classifier, for every target that runs here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from engineworks import hosts, targets
from engineworks.bench import compare, protocol
from engineworks.calibrate import collect
from engineworks.errors import BuildError, DataError
from engineworks.evaluate import parity
from engineworks.export.torch_onnx import runner
from engineworks.qdq import accept
from engineworks.qdq.graph import Graph
from engineworks.search import measure
from engineworks.search.trial import Workshop
from engineworks.specs import DataSpec, Int8Spec, TaskSpec
from engineworks.stages.build import BuildRequest, build
from engineworks.stages.calibrate import CalibrateRequest
from engineworks.stages.quantize import QuantizeRequest
from engineworks.stages.requantize import RequantizeRequest
from engineworks.stages.simplify import SimplifyRequest
from engineworks.stages.validate import ValidateRequest
from engineworks.store import LocalStore, verify
from tests.builders import (
    coco,
    conv_net,
    picture,
    put_onnx,
    put_reference,
    quantized,
    samples,
    shared,
    through_json,
)

SIZE = (16, 16)
LABELS = ("a", "b", "c", "d", "e")
HOST = hosts.probe()
INTEGER = [
    name
    for name in targets.names()
    if "int8" in targets.load(name).precisions and not targets.load(name).missing_requirements(HOST)
]
EACH = pytest.mark.parametrize("target", INTEGER)
METHODS = ("minmax", "mse")
X = samples(3)


@pytest.fixture(scope="module", autouse=True)
def short_blocks():
    """Nothing here depends on times, so a few calls of each engine are enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ROUNDS", 2)
        patch.setattr(measure, "FINAL_ROUNDS", 2)
        patch.setattr(compare, "BLOCK_S", 0.002)
        patch.setattr(compare, "SETTLE_S", 0.0)
        patch.setattr(protocol, "STABLE", 1e9)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A float graph, its answers, and its calibration, in a store."""
    folder = tmp_path_factory.mktemp("int8")
    store = LocalStore(folder / "store")
    path = conv_net(folder / "net.onnx")
    for number, label in enumerate(LABELS * 2):
        picture(folder / "pics" / label / f"{number}.png", 20, 20, seed=number)
    for number in range(16):
        picture(folder / "seen" / f"{number}.png", 20, 24, seed=100 + number)
    common = shared(store, task=TaskSpec(kind="classification"), labels=LABELS)
    plain = shared(store)

    def validate(which, **changes):
        spec = DataSpec(images=str(folder / which), **changes)
        part = common if which == "pics" else plain
        request = ValidateRequest(shared=part, data=spec, bytes_sha256=which)
        return through_json("validate", request)

    onnx_artifact = put_onnx(store, path)
    request = CalibrateRequest(
        shared=common, onnx=onnx_artifact, data=validate("seen"), size=SIZE, minimum=16
    )
    return {
        "folder": folder, "store": store, "path": path, "shared": common, "onnx": onnx_artifact,
        "reference": put_reference(store, folder, X, dict(runner(path)(X))),
        "data": validate("pics"), "calibrate": request,
        "calibration": through_json("calibrate", request),
    }  # fmt: skip


def quantize(made, target, tmp_path, spec=None, **changes):
    request = QuantizeRequest(
        shared=made["shared"], onnx=made["onnx"], calibration=made["calibration"].artifact,
        reference=made["reference"], target=target, options={},
        spec=spec or Int8Spec(methods=METHODS, limit_s=300.0, images=10), max_drop=1.0,
        data=made["data"], size=SIZE, threads=1, tools={}, host=HOST,
        folder=str(made["folder"]), code_sha256="", journals=str(tmp_path / "searches"),
    )  # fmt: skip
    return through_json("quantize", dataclasses.replace(request, **changes))


def journal(tmp_path):
    """Keys in the journal of the only search, in the order they were measured."""
    (path,) = (tmp_path / "searches").iterdir()
    return [json.loads(line)["key"] for line in path.read_text().splitlines()]


def scores(keys):
    return [key for key in keys if key.startswith("score ")]


class TestCalibrate:
    def test_it_counts_every_image_once(self, made):
        found = made["calibration"]
        assert found.coverage.samples == 16
        assert found.coverage.steps == (1, 2, 4, 8, 16)
        assert found.coverage.classes == {}
        statistics = collect.load(made["store"].entry(found.artifact))
        assert statistics.samples == 16
        assert statistics.tensors["images"].total == 16 * 3 * 16 * 16
        assert set(statistics.tensors) == set(Graph(made["path"]).observed)

    def test_colours_that_the_model_likes_better_swapped_are_told(self, made, monkeypatch):
        from engineworks.calibrate import color

        assert not any("swapped" in words for words in made["calibration"].coverage.warnings)
        seen = []

        def told(images, mean_confidence):
            seen.extend(mean_confidence(image) for image in images)
            return "swapped"

        monkeypatch.setattr(color, "warning", told)
        found = through_json("calibrate", made["calibrate"])
        assert found.coverage.warnings[-1] == "swapped"
        assert len(seen) == 16
        assert all(1 / 5 <= sure <= 1 for sure in seen)  # of five classes

    def test_images_that_judge_too_are_told(self, made):
        found = through_json("calibrate", dataclasses.replace(made["calibrate"], judged_too=5))
        assert found.coverage.warnings[-1].startswith("5 of 16 calibration images also judge")

    def test_the_artifact_says_what_it_was_made_of(self, made):
        artifact = made["calibration"].artifact
        manifest = verify(made["store"].open(artifact))
        assert manifest.kind == "calibration"
        assert manifest.preprocess == made["shared"].preprocess
        assert manifest.provenance.parents == (made["onnx"].sha256,)
        assert manifest.details == {
            "onnx": made["onnx"].sha256, "samples": made["calibrate"].data.sha256,
        }  # fmt: skip
        assert {file.path for file in manifest.files} == {"statistics.npz", "coverage.json"}

    def test_the_same_images_give_the_same_counts(self, made):
        again = through_json("calibrate", made["calibrate"])
        assert again.coverage == made["calibration"].coverage
        one, other = (
            collect.load(made["store"].entry(value.artifact))
            for value in (made["calibration"], again)
        )
        for name, histogram in one.tensors.items():
            np.testing.assert_array_equal(other.tensors[name].counts, histogram.counts)

    def test_too_few_images_are_refused(self, made):
        request = dataclasses.replace(made["calibrate"], minimum=17)
        with pytest.raises(DataError, match="16 usable images, at least 17") as caught:
            through_json("calibrate", request)
        assert "calibration.minimum" in caught.value.hint

    def test_labelled_objects_are_counted_by_class(self, made):
        folder = made["folder"]
        files = {f"{number}.png": (20, 24) for number in range(16)}
        boxes = [("3.png", "a", [1, 2, 3, 4]), ("9.png", "a", [1, 2, 3, 4])]
        names = {name: number for number, name in enumerate(LABELS, start=1)}
        path = coco(folder / "seen.json", files, boxes, names)
        data = made["calibrate"].data
        data = dataclasses.replace(data, spec=dataclasses.replace(data.spec, annotations=str(path)))
        found = through_json("calibrate", dataclasses.replace(made["calibrate"], data=data))
        assert found.coverage.classes == {"a": 2, "b": 0, "c": 0, "d": 0, "e": 0}
        assert any("4 of 5 classes" in warning for warning in found.coverage.warnings)


@EACH
class TestQuantize:
    @pytest.fixture
    def found(self, made, target, tmp_path_factory, searched):
        """What a search found up to the first placements, each target searched once."""
        if target not in searched:
            spec = Int8Spec(methods=METHODS, limit_s=300.0, images=10, evaluations=4)
            searched[target] = quantize(made, target, tmp_path_factory.mktemp(target), spec)
        return searched[target]

    @pytest.fixture(scope="class")
    def searched(self):
        return {}

    def test_the_graph_has_what_the_search_says(self, made, target, found):
        graph = Graph(made["path"])
        model = onnx.load(made["store"].entry(found.onnx))
        onnx.checker.check_model(model)
        scheme = targets.int8_rules(target, HOST).scheme
        assert accept.refusals(model, scheme) == ()
        assert accept.integer_layers(model) == found.chosen.integer_layers > 0
        assert found.chosen.layers == len(graph.computing)
        assert [name for name in graph.nodes if name in found.nodes] == list(found.nodes)
        integers = [name for name in graph.computing if name in found.nodes]
        assert len(integers) == found.chosen.integer_layers
        assert set(integers) | set(found.float_layers) == set(graph.computing)
        assert set(integers) & set(found.float_layers) == set()

    def test_every_step_is_recorded(self, target, found):
        assert found.trials[0].step == "usual"
        assert found.trials[0].method == "minmax"
        assert {trial.method for trial in found.trials} == set(METHODS)
        assert found.chosen in found.trials
        assert len({trial.label for trial in found.trials}) == len(found.trials)
        steps = {trial.step for trial in found.trials}
        if targets.load(target).cannot_run(HOST):  # nothing to time: the sweep is all
            assert steps == {"usual", "calibrator"}
            assert (found.stopped, found.evaluations) == ("", 3)
            assert {trial.ratio for trial in found.trials} == {None}
        else:
            assert {"usual", "calibrator", "placement"} <= steps
            assert found.stopped == "the limit of 4 evaluations was reached"
            assert found.evaluations == 4
        for trial in found.trials:
            assert 0 <= trial.integer_layers <= trial.layers == 5
            if trial.agreement is not None:
                assert 0 <= trial.agreement <= 1
                assert trial.drop == pytest.approx(found.reference - trial.metric)
            if trial.ratio is not None:
                assert trial.ratio > 0

    def test_the_budget_is_held(self, target, found):
        assert found.holds is found.chosen.holds is True
        assert (found.metric, found.images) == ("top1", 10)
        assert found.chosen.metric is not None
        simulated = bool(targets.load(target).cannot_run(HOST))
        assert (found.chosen.ratio is None) is simulated
        assert ("simulated with onnxruntime-cpu" in found.reason) is simulated
        assert f"{found.chosen.integer_layers} of 5 layers in integers" in found.reason

    def test_the_artifact_is_a_graph_like_any_other(self, made, target, found):
        manifest = verify(made["store"].open(found.onnx))
        assert (manifest.kind, manifest.precision) == ("onnx", "int8")
        assert manifest.inputs == made["onnx"].manifest.inputs
        assert manifest.outputs == made["onnx"].manifest.outputs
        parents = (made["onnx"].sha256, made["calibration"].artifact.sha256)
        assert manifest.provenance.parents == parents
        assert manifest.details["int8"]["method"] == found.chosen.method

    def test_it_answers_like_the_float_graph(self, made, target, found):
        got = runner(made["store"].entry(found.onnx))(X)["scores"]
        assert parity.difference(got, runner(made["path"])(X)["scores"])[2] > 15

    def test_its_engine_computes_in_integers(self, made, target, found):
        request = BuildRequest(
            shared=made["shared"], onnx=found.onnx, reference=None, target=target,
            precision="int8", options={}, tools={}, host=HOST, builder=HOST,
        )  # fmt: skip
        truth = build(request).delivered_precision
        assert truth.holds, truth
        assert truth.computed_nodes["int8"] >= found.chosen.integer_layers

    def test_a_stopped_search_goes_on_where_it_was(self, made, target, tmp_path):
        methods = ("minmax", "percentile-99.9", "mse")
        few = Int8Spec(methods=methods, limit_s=300.0, images=4, evaluations=2)
        first = quantize(made, target, tmp_path, few)
        before = journal(tmp_path)
        assert len(before) == len(scores(before)) == 2
        assert first.stopped == "the limit of 2 evaluations was reached"
        assert (first.evaluations, len(first.trials)) == (2, 2)
        # Two more: what was measured costs nothing, and a longer search is the same search.
        second = quantize(made, target, tmp_path, dataclasses.replace(few, limit_s=200.0))
        after = journal(tmp_path)
        assert after[:2] == before
        assert len(after) == len(set(after)) == 4
        assert (second.evaluations, len(second.trials)) == (2, 4)
        assert second.trials[:2] == first.trials


@pytest.mark.parametrize("target", INTEGER[:1])
class TestSearch:
    """What does not depend on the target, tried with the first."""

    def test_a_whole_search_is_not_repeated(self, made, target, tmp_path):
        spec = Int8Spec(methods=("minmax",), limit_s=300.0, images=4)
        first = quantize(made, target, tmp_path, spec)
        before = journal(tmp_path)
        again = quantize(made, target, tmp_path, spec)
        assert first.stopped == again.stopped == ""
        assert scores(journal(tmp_path)) == scores(before)
        assert again.evaluations <= 1  # the last few are timed once more
        assert {trial.label for trial in again.trials} == {trial.label for trial in first.trials}

    def test_a_crash_in_the_middle_costs_one_measurement(self, made, target, tmp_path):
        few = Int8Spec(methods=METHODS, limit_s=300.0, images=4, evaluations=3)
        quantize(made, target, tmp_path, few)
        (path,) = (tmp_path / "searches").iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[:-5])
        found = quantize(made, target, tmp_path, dataclasses.replace(few, evaluations=1))
        assert found.evaluations == 1
        keys = [json.loads(line)["key"] for line in whole.splitlines()]
        assert journal(tmp_path)[:3] == keys

    def test_a_search_out_of_time_gives_the_best_so_far(self, made, target, tmp_path):
        spec = Int8Spec(methods=METHODS, limit_s=300.0, images=4, evaluations=1)
        found = quantize(made, target, tmp_path, spec)
        assert (found.evaluations, found.chosen.step) == (1, "usual")
        assert len(found.trials) == 1

    def test_a_budget_that_nothing_meets_is_said_with_the_way_out(self, made, target, tmp_path):
        spec = Int8Spec(methods=("minmax",), limit_s=300.0, images=4, evaluations=12)
        found = quantize(made, target, tmp_path, spec, max_drop=-2.0)
        assert not found.holds
        assert "(QAT)" in found.reason
        assert "drops " in found.reason
        assert "allowed -2.0000" in found.reason
        assert not any(trial.holds for trial in found.trials)
        assert verify(made["store"].open(found.onnx)).precision == "int8"

    def test_parts_are_tried_in_float_when_the_budget_does_not_hold(self, made, target, tmp_path):
        spec = Int8Spec(methods=("minmax",), limit_s=300.0, images=4, goal="size")
        found = quantize(made, target, tmp_path, spec, max_drop=-2.0)
        assert [part.part for part in sorted(found.sensitivity, key=lambda p: p.part)] == [
            "deep", "mixed", "stem",
        ]  # fmt: skip
        gains = [part.gain for part in found.sensitivity]
        assert gains == sorted(gains, reverse=True)
        assert sum(part.layers for part in found.sensitivity) == 5
        assert "sensitivity" in {trial.step for trial in found.trials}

    def test_without_data_the_outputs_judge(self, made, target, tmp_path):
        spec = Int8Spec(methods=METHODS, limit_s=300.0, images=4, goal="size", evaluations=8)
        found = quantize(made, target, tmp_path, spec, data=None, shared=shared(made["store"]))
        assert (found.reference, found.images, found.chosen.metric) == (None, 0, None)
        assert found.chosen.agreement > 0.8
        assert found.chosen.drop is None

    def test_a_search_that_was_cut_short_says_so_before_it_advises_training(
        self, made, target, tmp_path
    ):
        spec = Int8Spec(methods=METHODS, limit_s=300.0, images=4, evaluations=2)
        cut = "the search was cut short (the limit of 2 evaluations was reached): raise int8.eval"
        found = quantize(made, target, tmp_path, spec)
        assert cut in found.reason
        assert "QAT" not in found.reason
        missed = quantize(made, target, tmp_path / "missed", spec, max_drop=-2.0)
        assert missed.reason.index(cut) < missed.reason.index("(QAT)")

    def test_where_size_is_the_goal_the_smallest_is_taken(self, made, target, tmp_path):
        spec = Int8Spec(methods=METHODS, limit_s=300.0, images=4, goal="size", evaluations=12)
        found = quantize(made, target, tmp_path, spec)
        held = [trial for trial in found.trials if trial.holds and trial.size_bytes]
        assert found.chosen.size_bytes == min(trial.size_bytes for trial in held)

    @pytest.mark.parametrize("max_drop", [1.0, -2.0])
    def test_weights_alone_need_no_calibration(
        self, made, target, tmp_path, max_drop, monkeypatch
    ):  # fmt: skip
        if "w8a16" not in targets.load(target).precisions:
            pytest.skip(f"{target} packs no weights")
        built, build = set(), Workshop.build

        def spy(workshop, onnx, precision, folder):
            built.add(precision)
            return build(workshop, onnx, precision, folder)

        monkeypatch.setattr(Workshop, "build", spy)
        spec = Int8Spec(limit_s=300.0, images=4)
        found = quantize(
            made, target, tmp_path, spec, precision="w8a16", calibration=None, max_drop=max_drop
        )
        steps = {trial.step for trial in found.trials}
        model = onnx.load(str(made["store"].entry(found.onnx)))
        kinds = [node.op_type for node in model.graph.node]
        assert "QuantizeLinear" not in kinds
        assert kinds.count("DequantizeLinear") == found.chosen.integer_layers == len(found.nodes)
        assert found.onnx.manifest.precision == "w8a16"
        assert built == {"fp32", "w8a16"}
        assert found.holds is (max_drop > 0)
        assert "layers have their weights in 8 bits" in found.reason
        if max_drop > 0:
            assert (steps, found.chosen.integer_layers, found.float_layers) == ({"usual"}, 5, ())
        else:
            assert {"usual", "sensitivity"} <= steps

    def test_a_graph_without_arithmetic_is_refused(self, made, target, tmp_path):
        ends = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", 3, 16, 16])
            for name in ("images", "scores")
        ]
        node = onnx.helper.make_node("Relu", ["images"], ["scores"])
        graph = onnx.helper.make_graph([node], "none", ends[:1], ends[1:])
        opsets = [onnx.helper.make_opsetid("", 17)]
        path = tmp_path / "none.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
        with pytest.raises(BuildError, match="nothing to quantize") as caught:
            quantize(made, target, tmp_path, onnx=put_onnx(made["store"], path))
        assert "remove int8" in caught.value.hint


@pytest.fixture(scope="module", params=INTEGER)
def given(request, made, tmp_path_factory):
    """(target, a model that was quantized elsewhere by the same rules)."""
    path = tmp_path_factory.mktemp("given") / "qdq.onnx"
    scheme = targets.int8_rules(request.param, HOST).scheme
    return request.param, put_onnx(made["store"], quantized(made["path"], path, scheme, X))


class TestGiven:
    def test_a_quantized_model_is_taken_as_it_is(self, made, given, tmp_path):
        target, model = given
        found = quantize(made, target, tmp_path, onnx=model, calibration=model)
        assert found.onnx == model
        assert (found.holds, found.evaluations, found.nodes) == (True, 0, ())
        assert found.chosen.step == "given"
        assert "as it is" in found.reason
        assert not (tmp_path / "searches").exists()

    def test_it_is_not_simplified(self, made, given, tmp_path):
        _, model = given
        request = SimplifyRequest(
            shared=made["shared"], onnx=model, reference=made["reference"], tolerance=1e-3,
            limit_s=300.0, folder=str(tmp_path / "simplify"),
        )  # fmt: skip
        found = through_json("simplify", request)
        assert (found.kept, found.onnx) == (False, model)
        assert found.reason == "a Q/DQ graph is left as it is"
        assert found.nodes_after == found.nodes_before
        assert not Path(request.folder).exists()

    def test_another_size_of_it_needs_no_ranges(self, made, given):
        target, model = given
        request = RequantizeRequest(
            shared=made["shared"], onnx=model, calibration=model, target=target,
            method="given", nodes=(), host=HOST,
        )  # fmt: skip
        assert through_json("requantize", request).onnx == model


class TestRequantize:
    def request(self, made, target, path, **changes):
        request = RequantizeRequest(
            shared=made["shared"], onnx=put_onnx(made["store"], path),
            calibration=made["calibration"].artifact, target=target, method="mse",
            nodes=("stem", "deep", "leaky"), host=HOST,
        )  # fmt: skip
        return dataclasses.replace(request, **changes)

    @EACH
    def test_another_size_gets_the_same_integers(self, made, target, tmp_path):
        path = conv_net(tmp_path / "large.onnx", size=(24, 32))
        found = through_json("requantize", self.request(made, target, path))
        model = onnx.load(made["store"].entry(found.onnx))
        onnx.checker.check_model(model)
        assert accept.integer_layers(model) == 2
        manifest = verify(made["store"].open(found.onnx))
        assert manifest.precision == "int8"
        assert manifest.inputs[0].shape == ("batch", 3, 24, 32)
        feed = samples(2, (24, 32))
        got = runner(made["store"].entry(found.onnx))(feed)["scores"]
        assert parity.difference(got, runner(path)(feed)["scores"])[2] > 15

    @EACH
    def test_scales_are_those_of_the_calibration(self, made, target, tmp_path):
        paths = [conv_net(tmp_path / f"{size[0]}.onnx", size=size) for size in ((16, 16), (24, 32))]
        models = [
            onnx.load(
                made["store"].entry(
                    through_json("requantize", self.request(made, target, path)).onnx
                )
            )
            for path in paths
        ]
        small, large = (
            {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
            for model in models
        )
        assert set(small) == set(large)
        for name in small:
            np.testing.assert_array_equal(small[name], large[name])

    def test_another_graph_is_refused_by_the_layer_that_is_missing(self, made, tiny_onnx):
        with pytest.raises(BuildError, match="'stem' is not in both") as caught:
            through_json("requantize", self.request(made, INTEGER[0], tiny_onnx))
        assert "benchmark.sizes" in caught.value.hint
