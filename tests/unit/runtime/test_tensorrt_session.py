"""TensorRT sessions against the APIs of three generations, with ordinary memory as the device.

That the calls exist, and are made in an order that yields the right answers, is proven here; that a
GPU does the same is not.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from engineworks import hosts
from engineworks.errors import ArtifactError, EngineworksError, MissingDependency
from engineworks.evaluate import parity
from engineworks.export.torch_onnx import runner
from engineworks.facts.host import Gpu
from engineworks.hosts import nvidia
from engineworks.runtime import devices
from engineworks.runtime.session import open_engine
from engineworks.runtime.session_pool import SessionPool
from engineworks.stages.build import BuildRequest, build
from tests.builders import put_onnx, samples, shared
from tests.doubles import tensorrt as double
from tests.doubles.device import NumpyDevice

GPU = Gpu(name="a gpu", compute_capability="8.9", memory_mib=24000, driver="580.65")
HOST = dataclasses.replace(hosts.probe(), gpus=(GPU,))
X = samples()


@pytest.fixture(params=double.GENERATIONS)
def trt(request, monkeypatch):
    """One generation as the installed TensorRT, on a machine that seems to have a GPU."""
    module = double.load(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(devices, "require_driver", lambda what: None)
    monkeypatch.setattr(nvidia, "gpus", lambda: (GPU,))
    module.devices = []

    def open_device(index=0):
        module.devices.append(NumpyDevice())
        module.devices[-1].index = index
        return module.devices[-1]

    monkeypatch.setattr(devices, "open_device", open_device)
    return module


@pytest.fixture
def make(store, tiny_onnx):
    def engine(precision="fp32", **options):
        return build(
            BuildRequest(
                shared=shared(store), onnx=put_onnx(store, tiny_onnx), reference=None,
                target="tensorrt", precision=precision, options=options, tools={}, host=HOST,
                builder=HOST, largest_batch=4,
            )
        ).engine.uri  # fmt: skip

    return engine


class TestSession:
    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_it_agrees_with_the_model_at_every_batch(self, trt, make, tiny_onnx, precision):
        wanted = dict(runner(tiny_onnx)(X))
        with open_engine(make(precision)) as session:

            def infer(rows):
                answers = session.infer({"images": np.ascontiguousarray(rows)})
                return {name: np.array(value) for name, value in answers.items()}

            limit = parity.limit(precision, judged=False)
            found = parity.compare(infer, X, wanted, [1, 2, 4, 3], limit)
            assert found.holds, found.reason

    def test_work_is_spread_over_gpus_with_a_session_on_each(self, trt, make, monkeypatch):
        monkeypatch.setattr(nvidia, "gpus", lambda: (GPU, GPU))
        with SessionPool(make(), [0, 1]) as pool:
            answers = list(pool.map({"images": X[n : n + 1]} for n in range(len(X))))
            assert sorted(device.index for device in trt.devices) == [0, 1]
            assert [share.device for share in pool.shares()] == [0, 1]
        with open_engine(make()) as session:
            for row, answer in zip(X, answers, strict=True):
                want = session.infer({"images": row[None]})["scores"]
                np.testing.assert_array_equal(answer["scores"], want)

    def test_a_gpu_that_is_not_there_is_refused_by_its_number(self, trt, make):
        for device in (3, -1):
            with pytest.raises(ArtifactError, match=f"no GPU {device}: this machine has 1"):
                open_engine(make(), device=device)

    def test_a_shape_is_set_when_it_changes_only(self, trt, make):
        with open_engine(make()) as session:
            trt.calls.clear()
            for rows in (4, 2, 2, 2, 3):
                session.infer({"images": X[:rows].copy()})
        shapes = [args[1] for name, args in trt.calls if name.endswith("set_input_shape")]
        assert shapes == [(2, 3, 16, 16), (3, 3, 16, 16)]

    def test_a_batch_beyond_the_profile_is_refused_and_harmless(self, trt, make):
        with open_engine(make()) as session:
            before = np.array(session.infer({"images": X})["scores"])
            with pytest.raises(ValueError, match=r"\[4, 3, 16, 16\].*optimization profile"):
                session.infer({"images": np.repeat(X, 2, axis=0)})
            np.testing.assert_array_equal(session.infer({"images": X})["scores"], before)

    def test_times_are_told_apart(self, trt, make):
        with open_engine(make()) as session:
            session.infer({"images": X})
            times = session.times()
        assert (times.to_device_ms, times.compute_ms, times.to_host_ms) == (1.0, 1.0, 1.0)

    def test_everything_is_given_back_once(self, trt, make):
        with open_engine(make()) as session:
            assert len(trt.devices[0].memory) == 2
            session.close()
        assert trt.devices[0].closed
        session.close()
        with pytest.raises(ValueError, match="closed"):
            session.infer({"images": X})

    def test_two_sessions_have_memory_of_their_own(self, trt, make):
        uri = make()
        with open_engine(uri) as one, open_engine(uri) as other:
            ours = np.array(one.infer({"images": X})["scores"])
            other.infer({"images": X[::-1].copy()})
            np.testing.assert_array_equal(one.infer({"images": X})["scores"], ours)


class TestCudaGraph:
    def test_a_shape_is_recorded_at_its_second_call_and_replayed_from_then_on(
        self, trt, make, tiny_onnx
    ):
        wanted = dict(runner(tiny_onnx)(X))["scores"]
        with open_engine(make(cuda_graph=True)) as session:
            device, seen = trt.devices[0], []
            for rows in (slice(4), slice(4), slice(None, None, -1), slice(2), slice(3), slice(3)):
                got = session.infer({"images": np.ascontiguousarray(X[rows])})["scores"]
                np.testing.assert_allclose(got, wanted[rows], rtol=1e-4, atol=1e-5)
                seen.append((device.recorded, device.replays))
            assert seen == [(0, 0), (1, 1), (1, 2), (1, 2), (1, 2), (2, 3)]

    def test_layers_are_timed_beneath_it(self, trt, make):
        with open_engine(make(cuda_graph=True)) as session:
            for _ in range(3):
                session.infer({"images": X})
            times = session.layer_ms({"images": X[:2].copy()}, calls=3)
        assert list(times.values()) == pytest.approx([0.1] * len(times))
        assert len(times) > 3

    def test_layers_that_cannot_be_timed_are_an_error(self, trt, make, monkeypatch):
        with open_engine(make()) as session:
            monkeypatch.setattr(
                double.Behaviour, "IExecutionContext_execute_async_v3", lambda *_: False
            )
            with pytest.raises(ArtifactError, match="could not run"):
                session.layer_ms({"images": X})

    def test_it_is_off_by_default(self, trt, make):
        with open_engine(make()) as session:
            for _ in range(3):
                session.infer({"images": X})
            assert trt.devices[0].recorded == 0

    def test_memory_without_graphs_is_refused_when_the_engine_is_opened(
        self, trt, make, monkeypatch
    ):
        monkeypatch.setattr(NumpyDevice, "captures", False)
        with pytest.raises(MissingDependency, match="pycuda has no CUDA graphs"):
            open_engine(make(cuda_graph=True))
        assert trt.devices[-1].closed

    def test_a_network_that_cannot_be_recorded_is_refused_by_name(self, trt, make, monkeypatch):
        def refuse(device, work):
            raise EngineworksError("cudaStreamEndCapture failed: invalidated", hint="")

        monkeypatch.setattr(NumpyDevice, "capture", refuse)
        with open_engine(make(cuda_graph=True)) as session:
            session.infer({"images": X})
            with pytest.raises(ArtifactError, match="as a CUDA graph: cudaStreamEndCapture") as why:
                session.infer({"images": X})
        assert "options.cuda_graph" in why.value.hint


class TestTensorRtRtx:
    @pytest.fixture
    def rtx(self, trt, monkeypatch):
        """TensorRT-RTX in the same way: its own module, its own API."""
        module = double.load(double.RTX)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
        module.devices = trt.devices
        return module

    @pytest.mark.parametrize("options", [{}, {"cuda_graph": True}], ids=["plain", "graph"])
    def test_it_agrees_and_records_graphs_by_itself(self, rtx, store, tiny_onnx, options):
        request = BuildRequest(
            shared=shared(store), onnx=put_onnx(store, tiny_onnx), reference=None,
            target="tensorrt-rtx", precision="fp32", options=options, tools={}, host=None,
            builder=HOST, largest_batch=4,
        )  # fmt: skip
        wanted = dict(runner(tiny_onnx)(X))["scores"]
        with open_engine(build(request).engine.uri) as session:
            for rows in (4, 4, 4, 2):
                got = session.infer({"images": X[:rows].copy()})["scores"]
                np.testing.assert_allclose(got, wanted[:rows], rtol=1e-4, atol=1e-5)
            config = session._context._d_config
        assert rtx.devices[0].recorded == 0
        strategy = rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        assert (config.cuda_graph_strategy if config else None) == (strategy if options else None)


class TestRefusals:
    def test_an_engine_of_another_version_is_named(self, trt, make, monkeypatch):
        uri = make()
        built, monkeyed = trt.__version__, "99.0"
        monkeypatch.setattr(trt, "__version__", monkeyed)
        with pytest.raises(ArtifactError, match=f"built with TensorRT {built}, here is 99.0"):
            open_engine(uri)

    def test_a_version_compatible_one_is_left_to_the_vendor(self, trt, make, monkeypatch):
        uri = make(version_compatible=True)
        with open_engine(uri) as session:
            session.infer({"images": X})
        assert session._runtime is None

    def test_an_engine_of_another_gpu_is_named(self, trt, make, monkeypatch):
        uri = make()
        other = dataclasses.replace(GPU, compute_capability="12.0")
        monkeypatch.setattr(nvidia, "gpus", lambda: (other,))
        with pytest.raises(ArtifactError, match=r"capability 8\.9, GPU 0 here has 12\.0"):
            open_engine(uri)

    def test_a_half_opened_engine_gives_its_memory_back(self, trt, make, monkeypatch):
        uri = make()
        monkeypatch.setattr(
            double.Behaviour, "IExecutionContext_set_tensor_address",
            lambda *_: (_ for _ in ()).throw(RuntimeError("no")),
        )  # fmt: skip
        with pytest.raises(ArtifactError):
            open_engine(uri)
        assert trt.devices[-1].closed


@pytest.mark.skipif(nvidia.present(), reason="this machine has a driver")
class TestWithoutADriver:
    def test_the_driver_is_asked_in_a_process_of_its_own(self):
        assert "no NVIDIA driver" in devices.driver_problem()

    def test_device_memory_is_refused_with_the_reason(self):
        with pytest.raises(ArtifactError, match="no NVIDIA driver"):
            devices.open_device()

    def test_a_driver_that_crashes_costs_a_child_only(self, monkeypatch):
        devices.driver_problem.cache_clear()
        monkeypatch.setattr(devices, "_ASK", "import os; os.kill(os.getpid(), 11)")
        try:
            assert "crashes" in devices.driver_problem()
        finally:
            devices.driver_problem.cache_clear()

    def test_an_engine_of_the_real_builder_is_refused_with_the_reason(self, store, tiny_onnx):
        """The vendor's runtime would crash this process."""
        pytest.importorskip("tensorrt_rtx")
        request = BuildRequest(
            shared=shared(store), onnx=put_onnx(store, tiny_onnx), reference=None,
            target="tensorrt-rtx", precision="fp16", options={}, tools={}, host=None,
            builder=HOST, largest_batch=2,
        )  # fmt: skip
        uri = build(request).engine.uri
        with pytest.raises(ArtifactError, match="tensorrt-rtx/fp16 needs an NVIDIA GPU"):
            open_engine(uri)

    def test_the_real_cuda_bindings_fail_with_cudas_own_word(self):
        pytest.importorskip("cuda.bindings")
        from engineworks.runtime.devices.cuda_bindings import CudaDevice

        with pytest.raises(EngineworksError, match=r"cudaSetDevice failed: cudaError"):
            CudaDevice(0)


def test_without_a_package_for_memory_both_are_named(monkeypatch):
    monkeypatch.setattr(devices, "require_driver", lambda what: None)
    monkeypatch.setattr(devices, "BACKENDS", {"no.such.package": "cuda_bindings"})
    with pytest.raises(MissingDependency, match="cuda-bindings or pycuda"):
        devices.open_device()


def test_the_runtime_needs_no_gpu_package_to_be_imported():
    code = "import engineworks.runtime.engines.tensorrt, sys; "
    code += "print(any(n.split('.')[0] in ('cuda', 'pycuda', 'tensorrt') for n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
