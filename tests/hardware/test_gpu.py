"""`make test-gpu`: what only a machine with an NVIDIA GPU can prove; says what ran."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from engineworks import hosts, targets
from engineworks.errors import InferenceError
from engineworks.evaluate import parity
from engineworks.export import torch_session
from engineworks.export.torch_onnx import runner
from engineworks.hosts import nvidia
from engineworks.runtime import devices
from engineworks.runtime.engines import onnxruntime_cuda
from engineworks.runtime.session import local_folder, open_engine
from engineworks.runtime.session_pool import SessionPool
from engineworks.specs import Preprocess
from engineworks.stages.build import BuildRequest, build
from tests.builders import pinned, power_onnx, put_onnx, quantized, samples, shared, tiny_module

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not nvidia.present(), reason="no NVIDIA driver on this machine"),
]

HOST = hosts.probe()
X = samples()
VARIANTS = [
    (name, precision)
    for name in ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
    for precision in targets.load(name).precisions
]


def test_the_host_card_knows_the_gpu(record_property):
    assert HOST.gpus, "a driver is loaded, and neither NVML nor nvidia-smi names a GPU"
    for gpu in HOST.gpus:
        record_property("gpu", str(gpu))
        assert gpu.name
        assert float(gpu.compute_capability) >= 3
        assert gpu.memory_mib > 1000
        assert gpu.driver
    assert HOST.cuda


def test_both_ways_to_ask_agree():
    nvml = pytest.importorskip("pynvml")
    assert nvml
    by_nvml = nvidia._by_nvml()
    assert [g.name for g in by_nvml] == [g.name for g in HOST.gpus]


def test_device_memory_copies_there_and_back():
    if devices.driver_problem():
        pytest.fail(devices.driver_problem())
    try:
        device = devices.open_device()
    except devices.MissingDependency as error:
        pytest.skip(error.message)
    try:
        address, source, target = device.allocate(4096), device.pinned(4096), device.pinned(4096)
        source[:] = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)
        device.mark(0)
        device.to_device(address, source)
        device.mark(1)
        device.to_host(target, address)
        device.mark(2)
        device.wait()
        np.testing.assert_array_equal(target, source)
        assert device.between_ms(0, 2) >= device.between_ms(0, 1) >= 0
    finally:
        device.close()
    device.close()


@pytest.mark.parametrize(("target", "precision"), VARIANTS, ids="/".join)
def test_an_engine_agrees_with_the_model(target, precision, store, tiny_onnx, tmp_path):
    reason = targets.load(target).missing_requirements(HOST) or targets.load(target).cannot_run(
        HOST
    )
    if reason:
        pytest.skip(reason)
    path = tiny_onnx
    if precision == "int8":
        scheme = targets.int8_rules(target, HOST).scheme
        path = quantized(tiny_onnx, tmp_path / "int8.onnx", scheme, X)
    made = build(
        BuildRequest(
            shared=shared(store), onnx=put_onnx(store, path), reference=None, target=target,
            precision=precision, options={}, tools={}, host=HOST, builder=HOST, largest_batch=4,
        )
    )  # fmt: skip
    assert made.delivered_precision.holds, made.delivered_precision
    with open_engine(made.engine.uri) as session:

        def infer(rows):
            answers = session.infer({"images": np.ascontiguousarray(rows)})
            return {name: np.array(value) for name, value in answers.items()}

        wanted = dict(runner(tiny_onnx)(X))
        found = parity.compare(
            infer, X, wanted, [1, 2, 4], parity.limit(precision, judged=False)
        )  # fmt: skip
        assert found.holds, found.reason
        if hasattr(session, "times"):
            times = session.times()
            assert times.compute_ms > 0
            assert times.to_device_ms > 0


@pytest.mark.parametrize(
    ("target", "graph"),
    [("tensorrt", False), ("tensorrt", True), ("onnxruntime-cuda", False)],
)
def test_work_is_spread_over_every_gpu(target, graph, store, tiny_onnx, record_property):
    reason = targets.load(target).missing_requirements(HOST) or targets.load(target).cannot_run(
        HOST
    )
    if reason:
        pytest.skip(reason)
    made = build(
        BuildRequest(
            shared=shared(store), onnx=put_onnx(store, tiny_onnx), reference=None, target=target,
            precision="fp32", options={"cuda_graph": True} if graph else {}, tools={}, host=HOST,
            builder=HOST, largest_batch=4,
        )
    )  # fmt: skip
    wanted = dict(runner(tiny_onnx)(X))["scores"]
    # With one GPU: two sessions on it.
    with SessionPool(
        made.engine.uri, range(len(HOST.gpus)) if len(HOST.gpus) > 1 else [0, 0]
    ) as pool:
        for _ in range(50):
            rows = [answer["scores"] for answer in pool.map({"images": x[None]} for x in X)]
            np.testing.assert_allclose(np.concatenate(rows), wanted, rtol=1e-3, atol=1e-4)
        shares = pool.shares()
    record_property("shares", str(shares))
    assert all(share.calls for share in shares)


@pytest.fixture
def torch_cuda():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} is built without CUDA")
    return torch


def test_memory_that_runs_out_is_told_and_the_session_goes_on(store, tmp_path, capfd):
    """Under a limit of the arena: a batch of 64 asks for a petabyte."""
    target = "onnxruntime-cuda"
    if reason := targets.load(target).missing_requirements(HOST):
        pytest.skip(reason)
    made = build(
        BuildRequest(
            shared=shared(store), onnx=put_onnx(store, power_onnx(tmp_path / "power.onnx")),
            reference=None, target=target, precision="fp32", options={"memory_limit_mib": 64},
            tools={}, host=HOST, builder=HOST, largest_batch=64,
        )
    )  # fmt: skip
    rows = np.ones((64, 3, 4, 4), np.float32)
    capfd.readouterr()
    with open_engine(made.engine.uri) as session:
        for count in (8, 64, 2):  # 64 MiB alone pass the limit, too
            with pytest.raises(InferenceError) if count > 2 else nullcontext() as why:
                scores = session.infer({"images": rows[:count]})["scores"]
            if count > 2:
                assert f"a batch of {count}" in why.value.message
                assert "options.memory_limit_mib is 64" in why.value.message
                assert "MiB are free on GPU 0" in why.value.message
                assert "this session can go on" in why.value.hint
        np.testing.assert_array_equal(scores, np.ones(2**8))
    assert capfd.readouterr() == ("", "")  # no warning of ONNX Runtime's on the console


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def test_a_cuda_graph_gives_the_same_answers(target, store, tiny_onnx):
    reason = targets.load(target).missing_requirements(HOST) or targets.load(target).cannot_run(
        HOST
    )
    if reason:
        pytest.skip(reason)
    made = build(
        BuildRequest(
            shared=shared(store), onnx=put_onnx(store, tiny_onnx), reference=None, target=target,
            precision="fp32", options={} if target == "onnxruntime-cuda" else {"cuda_graph": True},
            tools={}, host=HOST, builder=HOST, largest_batch=4,
        )
    )  # fmt: skip
    wanted = dict(runner(tiny_onnx)(X))["scores"]
    with _recorded(made.engine) as session:
        for rows in (slice(4), slice(None, None, -1), slice(4), slice(2), slice(2), slice(4)):
            got = session.infer({"images": np.ascontiguousarray(X[rows])})["scores"]
            np.testing.assert_allclose(got, wanted[rows], rtol=1e-3, atol=1e-4)


def _recorded(engine):
    """A session that records: with ONNX Runtime no option gives one, its proof is not there yet."""
    if engine.manifest.target != "onnxruntime-cuda":
        return open_engine(engine.uri)
    folder = local_folder(engine.uri)
    return onnxruntime_cuda.OnnxRuntimeCudaSession(folder, engine.manifest, 1, recorded=True)


def test_torch_is_spread_over_every_gpu(torch_cuda, tmp_path, record_property):
    example = torch_cuda.from_numpy(X)
    torch_cuda.jit.trace(tiny_module(), example).save(str(tmp_path / "m.torchscript"))
    opener = torch_session.opener(pinned(tmp_path, "m.torchscript"), "tiny", Preprocess())
    wanted = tiny_module()(example).detach().numpy()
    with SessionPool(opener, range(len(HOST.gpus)) if len(HOST.gpus) > 1 else [0, 0]) as pool:
        name = pool.session.inputs[0].name
        for _ in range(20):
            answers = list(pool.map({name: x[None]} for x in X))
            found = np.concatenate([next(iter(answer.values())) for answer in answers])
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
        record_property("shares", str(pool.shares()))


def test_torch_sees_the_same_gpu(torch_cuda):
    torch = torch_cuda
    major, minor = torch.cuda.get_device_capability(0)
    assert HOST.gpus[0].compute_capability == f"{major}.{minor}"
