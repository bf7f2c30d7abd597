"""A Triton repository as it is written, read back by Triton's own protobuf types."""

from __future__ import annotations

import json

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from engineworks import packaging
from engineworks.codec import from_json
from engineworks.errors import BuildError
from engineworks.manifest import Manifest, Requires, TensorSpec
from engineworks.packaging import PackageInput
from engineworks.packaging._triton import config
from engineworks.runtime.remote import MANIFEST
from engineworks.store import verify
from tests.unit.packaging.conftest import classifier, row

TRITON = packaging.load("triton")
ROWS = (row(1, 10.0), row(4, 20.0))


def read(output, model):
    return config.parse(output.files[f"model_repository/{model}/config.pbtxt"].read_text())


def test_the_engine_is_served_with_what_was_measured(engine, written):
    output = written("triton", engine(), ROWS)
    served = read(output, "cars.engine")
    assert (served.name, served.platform) == ("cars.engine", "onnxruntime_onnx")
    assert served.max_batch_size == 4
    assert [(each.name, each.data_type, list(each.dims)) for each in served.input] == [
        ("images", pb.TYPE_FP32, [3, 416, 416])
    ]
    assert list(served.output[0].dims) == [3549, 85]
    group = served.instance_group[0]
    assert (group.count, group.kind) == (2, pb.ModelInstanceGroup.KIND_CPU)
    batching = served.dynamic_batching
    assert list(batching.preferred_batch_size) == [4]
    assert batching.max_queue_delay_microseconds == 5000  # 10 - 20 / 4 ms
    assert batching.default_queue_policy.max_queue_size == 200
    assert {each.batch_size for each in served.model_warmup} == {1, 4}
    assert served.parameters["intra_op_thread_count"].string_value == "2"
    assert served.version_policy.latest.num_versions == 1


def test_reasons_stand_beside_their_numbers(engine, written):
    output = written("triton", engine(), ROWS)
    text = output.files["model_repository/cars.engine/config.pbtxt"].read_text().splitlines()
    before = {line.split(" ")[0]: text[number - 1] for number, line in enumerate(text) if number}
    assert "batch 1: 100 images/s, batch 4: 200 images/s" in before["dynamic_batching"]
    assert "2 x 2 threads on 4 cores" in before["instance_group"]
    assert "1.96x" in output.files["README.md"].read_text()


def test_a_configuration_holds_the_engines_manifest(engine, written):
    folder = engine()
    output = written("triton", folder)
    for model in ("cars", "cars.engine"):
        text = read(output, model).parameters[MANIFEST].string_value
        assert from_json(Manifest, json.loads(text)).sha256 == verify(folder).sha256


def test_the_ensemble_takes_a_picture_and_gives_boxes(engine, written):
    output = written("triton", engine(), ROWS)
    ensemble = read(output, "cars")
    assert ensemble.platform == "ensemble"
    assert [(each.name, each.data_type) for each in ensemble.input] == [("photo", pb.TYPE_STRING)]
    assert [each.name for each in ensemble.output] == ["boxes", "confidence", "class_id", "label"]
    steps = {step.model_name: step for step in ensemble.ensemble_scheduling.step}
    assert list(steps) == ["cars.decode", "cars.engine", "cars.answer"]
    for name, step in steps.items():
        model = read(output, name)
        assert set(step.input_map) == {each.name for each in model.input}
        assert set(step.output_map) == {each.name for each in model.output}
    # Whatever a step reads, the client or an earlier step has written.
    known = {"photo"}
    for step in steps.values():
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())


def test_a_package_brings_what_its_steps_import(engine, written):
    output = written("triton", engine())
    inside = {path for path in output.files if path.startswith("model_repository/cars.decode/1/")}
    base = "model_repository/cars.decode/1"
    assert f"{base}/model.py" in inside
    assert f"{base}/engineworks/runtime/preprocess.py" in inside
    assert f"{base}/engine/manifest.json" in inside
    assert "opencv-python-headless>=5" in output.files["requirements.txt"].read_text()


def test_the_python_backend_holds_the_whole_engine(engine, written):
    output = written("triton", engine(), ROWS, backend="python")
    served = read(output, "cars.engine")
    assert (served.backend, served.platform) == ("python", "")
    assert served.parameters["threads"].string_value == "2"
    base = "model_repository/cars.engine/1"
    assert output.files[f"{base}/engine/model.onnx"].read_bytes() == b"graph"
    assert f"{base}/engineworks/runtime/engines/onnxruntime.py" in output.files
    assert "onnxruntime>=1.32.0" in output.files["requirements.txt"].read_text()
    assert TRITON.unproven(_made(output)) == ()


def test_a_vendors_library_that_was_not_run_is_named(engine, written):
    (sentence,) = TRITON.unproven(_made(written("triton", engine())))
    assert "configuration, core and clients proven" in sentence
    assert "(onnxruntime_onnx) was not run" in sentence


def _made(output):
    return Manifest(
        kind="package", name="cars", entry="", files=(), details=output.details, provenance=None
    )


def test_a_graph_that_was_optimised_is_not_optimised_again(engine, written):
    output = written("triton", engine(details={"optimized": True}))
    assert read(output, "cars.engine").optimization.graph.level == 2


def test_a_fixed_batch_gets_all_of_its_rows(engine, written):
    fixed = {
        "inputs": (TensorSpec(name="images", dtype="float32", shape=(4, 3, 416, 416)),),
        "outputs": (TensorSpec(name="boxes", dtype="float32", shape=(4, 3549, 85)),),
    }
    output = written("triton", engine(**fixed))
    served, decode = read(output, "cars.engine"), read(output, "cars.decode")
    assert (served.max_batch_size, list(served.input[0].dims)) == (0, [4, 3, 416, 416])
    assert not served.HasField("dynamic_batching")
    assert list(decode.output[0].dims) == [4, 3, 416, 416]


def test_an_output_whose_first_axis_is_not_the_batch_is_never_merged(engine, written):
    outputs = (TensorSpec(name="boxes", dtype="float32", shape=("found", 6)),)
    output = written("triton", engine(outputs=outputs), ROWS)
    served = read(output, "cars.engine")
    assert served.max_batch_size == 0
    assert not served.HasField("dynamic_batching")
    text = output.files["model_repository/cars.engine/config.pbtxt"].read_text()
    assert "first axis is not the batch" in text


def test_a_classifier_names_classes(engine, written):
    output = written("triton", engine(**classifier()))
    assert read(output, "cars.engine").output[0].label_filename == "labels.txt"
    assert output.files["model_repository/cars.engine/labels.txt"].read_text() == "cat\ndog\n"
    assert [each.name for each in read(output, "cars").output] == [
        "confidence",
        "class_id",
        "label",
    ]


def test_a_layout_of_ones_own_has_tensors_only(engine, written):
    task = verify(engine()).task
    own = type(task)(kind="detection", layout="heads:mine")
    output = written("triton", engine(task=own))
    assert output.details["model"] == ""
    assert {path.split("/")[1] for path in output.files if path.startswith("model")} == {
        "cars.engine"
    }


@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime_cuda"])
def test_what_needs_a_gpu_is_written_and_waits(engine, written, runtime):
    output = written("triton", engine(runtime=runtime), ROWS)
    group = read(output, "cars.engine").instance_group[0]
    assert group.kind == pb.ModelInstanceGroup.KIND_GPU
    assert not group.gpus  # every GPU that the server has
    assert "NVIDIA GPU" in TRITON.pending(_made(output))


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"runtime": "coreml"}, {}, "no backend"),
        ({"runtime": "tensorrt", "details": {"module": "tensorrt_rtx"}}, {}, "RTX"),
        ({"runtime": "tensorrt"}, {"backend": "python"}, "opens engines of onnxruntime"),
        ({"requires": None}, {}, "no runtime"),
    ],
)
def test_an_engine_that_does_not_fit_is_told_why(engine, changes, options, words):
    assert words in TRITON.fits(verify(engine(**changes)), options)


def test_a_type_that_triton_lacks_is_refused(engine, tmp_path):
    outputs = (TensorSpec(name="boxes", dtype="complex64", shape=("batch", 6)),)
    folder = engine(outputs=outputs, requires=Requires(runtime="onnxruntime"))
    request = PackageInput(
        engine=folder, manifest=verify(folder), rows=(), cores=2, options={}, work=tmp_path
    )
    with pytest.raises(BuildError, match="complex64"):
        TRITON.write(request)


def test_the_cache_is_on_where_it_is_asked_for(engine, written):
    output = written("triton", engine(), cache_mib=64)
    assert read(output, "cars.engine").response_cache.enable
    assert "--cache-config local,size=67108864" in output.files["README.md"].read_text()


def test_the_same_engine_gives_the_same_bytes(engine, tmp_path):
    folder = engine()
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        request = PackageInput(
            engine=folder, manifest=verify(folder), rows=ROWS, cores=4, options={},
            work=tmp_path / name,
        )  # fmt: skip
        files = TRITON.write(request).files
        texts.append({inside: path.read_bytes() for inside, path in files.items()})
    assert texts[0] == texts[1]
