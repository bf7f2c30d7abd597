"""OpenVINO sessions that share a machine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from engineworks import hosts, runtime, targets
from engineworks.errors import ArtifactError
from engineworks.export.inputs import adapted
from engineworks.export.torch_onnx import signature
from engineworks.store import LocalStore
from engineworks.targets._base import BuildInput
from tests import builders

pytest.importorskip("openvino")


@pytest.mark.skipif(hosts.cores() < 2, reason="needs two cores")
def test_sessions_that_share_the_cores_are_not_pinned_to_the_same_ones(yolox_onnx, tmp_path):
    """Two sessions of one thread each once took turns on one core: half the frames per second."""
    engine = builders.put_engine(LocalStore(tmp_path), yolox_onnx, runtime="openvino").uri
    for threads, pinned in ((1, False), (hosts.cores(), True)):
        with runtime.open(engine, threads=threads) as session:
            compiled = session._request.get_compiled_model()
            assert compiled.get_property("ENABLE_CPU_PINNING") is pinned


def test_a_manifest_sets_nothing_that_engines_here_do_not(yolox_onnx, tmp_path):
    """OpenVINO writes compiled models to whatever folder CACHE_DIR names."""
    engine = builders.put_engine(
        LocalStore(tmp_path / "store"),
        yolox_onnx,
        runtime="openvino",
        details={"compile": {"CACHE_DIR": str(tmp_path / "sprung")}},
    )
    with pytest.raises(ArtifactError, match="CACHE_DIR"):
        runtime.open(engine.uri)
    assert not (tmp_path / "sprung").exists()


def test_two_sessions_that_begin_together_do_not_lock_one_another(yolox_onnx, tmp_path):
    """OpenVINO made its table of types at the first inference: two first ones hung in it."""
    engine = builders.put_engine(LocalStore(tmp_path), yolox_onnx, runtime="openvino").uri
    script = (
        "import sys, threading\n"
        "import numpy as np\n"
        "from engineworks import runtime\n"
        "row = {'images': np.zeros((1, 3, 416, 416), np.float32)}\n"
        "sessions = [runtime.open(sys.argv[1], threads=1) for _ in range(2)]\n"
        "begin = threading.Barrier(2)\n"
        "def first(session):\n"
        "    begin.wait()\n"
        "    print(len(session.infer(row)))\n"
        "threads = [threading.Thread(target=first, args=(one,)) for one in sessions]\n"
        "sys.setswitchinterval(1e-6)\n"  # so that threads change places within a call
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    for _ in range(3):  # without the lock more than half of the tries hang
        done = subprocess.run(
            [sys.executable, "-c", script, engine], capture_output=True, text=True, timeout=300
        )
        assert (done.stdout.count("1"), done.returncode) == (2, 0), done.stderr


@pytest.mark.parametrize("first", ["Cast", "Transpose", "none"])
def test_an_input_is_known_by_its_name_where_operators_behind_it_cancel_out(first, tmp_path):
    """OpenVINO drops the front and the model's own transpose, and merges their tensors' names."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    cast = helper.make_node("Cast", ["x" if first == "Cast" else "a"],
                            ["a" if first == "Cast" else "b"], to=TensorProto.FLOAT)  # fmt: skip
    turn = helper.make_node("Transpose", ["a" if first == "Cast" else "x"],
                            ["b" if first == "Cast" else "a"], perm=[0, 3, 1, 2])  # fmt: skip
    front = {"Cast": [cast, turn], "Transpose": [turn, cast], "none": [turn]}[first]
    read = "a" if first == "none" else "b"
    kind = TensorProto.FLOAT if first == "none" else TensorProto.UINT8
    nodes = [
        *front,
        helper.make_node("Conv", [read, "w"], ["k"]),
        helper.make_node("Relu", ["k"], ["y"]),
        helper.make_node("Identity", ["y"], ["again"]),
    ]
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, ["b", 8, 8, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 4, 6, 6])
         for name in ("y", "again")],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    pixels = random.integers(0, 256, (2, 8, 8, 3)).astype(
        np.float32 if first == "none" else np.uint8
    )
    plain = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = dict(zip(("y", "again"), plain.run(["y", "again"], {"x": pixels}), strict=True))
    onnx.save(adapted(model, 3)[0], tmp_path / "model.onnx")
    inputs, outputs, _ = signature(tmp_path / "model.onnx")
    (tmp_path / "work").mkdir()
    built = targets.load("openvino").build(
        BuildInput(
            onnx=tmp_path / "model.onnx", inputs=inputs, outputs=outputs, precision="fp32",
            options={}, host=hosts.probe(), work=tmp_path / "work", draft=True,
        )
    )  # fmt: skip
    import openvino

    (port,) = openvino.Core().read_model(built.files["model.xml"]).inputs
    assert port.names == {"x"}, "other servers take any of several names"
    engine = LocalStore(tmp_path / "store").put(
        built.files, kind="engine", name="net", entry=built.entry, inputs=inputs,
        outputs=outputs, target="openvino", precision="fp32", requires=built.requires,
        details=built.details, provenance=builders.MADE_HERE,
    )  # fmt: skip
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32))
    with runtime.open(engine.uri, threads=1) as session:
        answers = session.infer({"x": planes})
        assert list(answers) == ["y", "again"]
        for name, answer in answers.items():
            np.testing.assert_allclose(answer, wanted[name], rtol=1e-4, atol=1e-2)
