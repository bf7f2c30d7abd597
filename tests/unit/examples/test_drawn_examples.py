"""The drawn examples score as they say; INT8 in order ships, and damaged on purpose it does not."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import cv2
import numpy as np
import onnx
import pytest
import torch

from engineworks import hosts, recipe, runtime, targets, verdict
from engineworks.cli import main
from engineworks.evaluate import datasets, tasks
from engineworks.evaluate.annotations import truth
from engineworks.export.torch_onnx import runner
from engineworks.runtime.preprocess import Preprocessor
from engineworks.specs import BudgetSpec
from engineworks.stages._records import put_predictions
from engineworks.stages.build import BuildRequest, build
from engineworks.stages.check import CheckRequest, check
from engineworks.store import LocalStore
from tests.builders import EXAMPLES, put_onnx, put_reference, quantized, shared

HOST = hosts.probe()

#: Example -> least score of its weights on its data, and a word of what is drawn.
LEAST = {"shapes_segmentation": 0.8, "figures_keypoints": 0.45}


class Example:
    """An example's network, data and float graph, in a store."""

    def __init__(self, name, folder):
        self.loaded = recipe.load(EXAMPLES / name / "recipe.yaml")
        spec = self.loaded.recipe
        self.store = LocalStore(folder / "store")
        self.task = dataclasses.replace(spec.task, labels=self.loaded.labels)
        self.shared = shared(
            self.store, task=spec.task, labels=self.loaded.labels, preprocess=spec.preprocess
        )
        self.size = spec.model.input.size
        self.data = self._kept(datasets.validate(
            dataclasses.replace(spec.data, limit=16), spec.task, self.loaded.labels,
            lambda known: truth.write(known, folder / "annotations.json"),
        ), folder)  # fmt: skip
        prepare = Preprocessor(spec.preprocess, self.size)
        self.rows = np.stack([prepare(image)[0] for image in datasets.images(self.data)])
        self.path = folder / "model.onnx"
        _export(name, spec.model.weights, self.rows[:1], self.path)
        self.onnx = put_onnx(self.store, self.path)
        wanted = dict(runner(self.path)(self.rows[:4]))
        self.reference = put_reference(self.store, folder, self.rows[:4], wanted)
        self.folder = folder

    @staticmethod
    def _kept(data, folder):
        """What later stages see: the answers as they were understood."""
        spec = dataclasses.replace(data.spec, annotations=str(folder / "annotations.json"))
        return dataclasses.replace(data, spec=spec)

    def engine(self, onnx_file, precision, target="onnxruntime-cpu"):
        return build(
            BuildRequest(
                shared=self.shared, onnx=put_onnx(self.store, onnx_file), reference=None,
                target=target, precision=precision, options={}, tools={}, host=None,
                builder=HOST,
            )
        )  # fmt: skip

    def check(self, built, value, predictions=None):
        return check(
            CheckRequest(
                shared=self.shared, engine=built.engine, reference=self.reference,
                metric=tasks.metric(self.task), value=value, data=self.data, size=self.size,
                largest_batch=2, float_predictions=predictions, folder=str(self.loaded.folder),
                code_sha256="", threads=1, tools={}, host=HOST,
            )
        )  # fmt: skip


def _export(name, weights, row, path):
    module = importlib.util.spec_from_file_location(f"{name}_model", EXAMPLES / name / "model.py")
    code = importlib.util.module_from_spec(module)
    module.loader.exec_module(code)
    net = code.build()
    net.load_state_dict(torch.load(EXAMPLES / name / weights, weights_only=True))
    torch.onnx.export(
        net.eval(), (torch.from_numpy(row),), str(path), dynamo=False, opset_version=17,
        input_names=["images"], output_names=["out"],
        dynamic_axes={"images": {0: "batch"}, "out": {0: "batch"}},
    )  # fmt: skip


@pytest.fixture(scope="module", params=sorted(LEAST))
def case(request, tmp_path_factory):
    """(name, example, its float engine, what the check of it found)."""
    example = Example(request.param, tmp_path_factory.mktemp(request.param))
    built = example.engine(example.path, "fp32")
    return request.param, example, built, example.check(built, 0.0)


def test_the_weights_are_good_for_something(case):
    name, example, _, checked = case
    assert checked.accuracy.value >= LEAST[name]
    assert checked.accuracy.metric == {"segmentation": "mIoU", "keypoints": "AP"}[example.task.kind]


def _damaged(path, target):
    """Weights of an inner layer at a wrong scale: the engine runs, and means something else."""
    model = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = [
        node.input[1] for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    ]  # fmt: skip
    tensor = weights[scales[len(scales) // 2]]
    array = onnx.numpy_helper.to_array(tensor) * np.float32(16)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, str(target))
    return target


def test_int8_in_order_holds_the_budget_and_damaged_it_is_rejected(case):
    _, example, _, floating = case
    value = floating.accuracy.value
    source = put_predictions(
        example.store, example.shared,
        json.loads(example.store.entry(floating.predictions).read_text()), "reference", None,
    )  # fmt: skip
    scheme = targets.int8_rules("openvino", HOST).scheme
    sound = quantized(example.path, example.folder / "int8.onnx", scheme, example.rows)
    broken = _damaged(sound, example.folder / "broken.onnx")
    words = {}
    for name, path in (("sound", sound), ("broken", broken)):
        built = example.engine(path, "int8", "openvino")
        assert built.delivered_precision.holds  # integers it has, either way
        checked = example.check(built, value, source)
        decided = verdict.decide(BudgetSpec(max_drop=0.1), built, checked, None)
        words[name] = decided.verdict
        if name == "broken":
            assert checked.accuracy.metric in decided.reason
            assert checked.difference.lost > 3
    assert words == {"sound": "shipped", "broken": "rejected"}


def test_its_command_says_and_draws(case, tmp_path, capsys):
    name, example, built, _ = case
    photo = datasets.root_of(example.data.spec) / example.data.files[0]
    engine = str(example.store.open(built.engine))
    head = runtime.Predictor(runtime.open(engine)).head
    out = tmp_path / "drawn"
    assert main([head.command, engine, str(photo), "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    if name == "shapes_segmentation":
        assert {area["label"] for area in said["areas"]} <= set(example.loaded.labels)
        assert sum(area["share"] for area in said["areas"]) == pytest.approx(1, abs=1e-3)
    else:
        points = said["detections"][0]["keypoints"]
        names = ["head", "left_hand", "right_hand", "left_foot", "right_foot"]
        assert [point["name"] for point in points] == names
    drawn = cv2.imread(str(out / photo.name))
    assert np.abs(drawn.astype(int) - cv2.imread(str(photo))).max() > 30
    assert main(["detect", engine, str(photo)]) == 2
    assert f"next: use engineworks {head.command} or engineworks video" in capsys.readouterr().err


def test_a_video_shows_it(case, tmp_path, capsys):
    name, example, built, _ = case
    folder = datasets.root_of(example.data.spec)
    engine = str(example.store.open(built.engine))
    out, lines = tmp_path / "o.mp4", tmp_path / "o.jsonl"
    track = ["--track"] if name == "figures_keypoints" else []
    words = ["video", engine, str(folder), "-o", str(out), "--jsonl", str(lines), *track]
    assert main(words) == 0, capsys.readouterr().err
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == len(list(folder.glob("*.jpg")))
    assert all(("areas" if not track else "detections") in row for row in rows)
    if not track:
        capsys.readouterr()
        assert main([*words, "--track", "--overwrite"]) == 2
        assert "answers of the task segmentation are none" in capsys.readouterr().err
