"""What a runtime raises while it runs: real failures on the CPU, vendors' sentences for GPUs."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from engineworks.errors import ArtifactError, InferenceError
from engineworks.hosts import nvidia
from engineworks.runtime import failures
from engineworks.runtime.engines.onnxruntime import OnnxRuntimeSession
from engineworks.runtime.session import open_engine
from tests.builders import power_onnx, put_engine

#: As an H200 said them, ONNX Runtime 1.31.1.
LIMIT = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. "
    "Name:'/backbone/conv' Status Message: bfc_arena.cc:376 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Available memory of 47562752 is "
    "smaller than requested bytes of 66453504"
)
LOST = (
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; "
    "GPU=0 ; hostname=h ; file=/onnxruntime_src/cuda_graph.cc ; line=95 ; "
    "expr=cudaStreamSynchronize(stream_);"
)
FULL = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : CUDA failure 2: out of memory ; GPU=0 ; line=1"

BATCH = {"images": np.zeros((64, 3, 416, 416), np.float32)}


@pytest.fixture
def power(tmp_path):
    return power_onnx(tmp_path / "power.onnx")


def rows(count):
    return {"images": np.ones((count, 3, 4, 4), np.float32)}


def test_a_batch_too_large_is_named_and_the_session_goes_on(power, store, capfd):
    with open_engine(put_engine(store, power, name="power").uri) as session:
        with pytest.raises(InferenceError) as why:
            session.infer(rows(64))
        np.testing.assert_array_equal(session.infer(rows(2))["scores"], np.ones(2**8))
    assert why.value.message == (
        "power (onnxruntime/fp32), a batch of 64 (images 64x3x4x4): memory ran out: "
        f"Failed to allocate memory for requested buffer of size {4 * 64**8}"
    )
    assert "use a smaller batch" in why.value.hint
    assert "this session can go on" in why.value.hint
    assert capfd.readouterr() == ("", "")  # nothing beside the exception


def test_any_other_error_keeps_the_vendors_words(power, store, monkeypatch):
    with open_engine(put_engine(store, power).uri) as session:

        class Broken:
            def run(self, names, feeds):
                raise RuntimeError("a " * 300 + "the end that tells")

        session._session = Broken()
        with pytest.raises(InferenceError, match=r"RuntimeError: a a .* the end that tells") as why:
            session.infer(rows(1))
    assert "not known" in why.value.hint


def test_openvinos_errors_are_told_alike(store, power):
    pytest.importorskip("openvino")
    with open_engine(put_engine(store, power, runtime="openvino", name="power").uri) as session:

        class Broken:
            def infer(self, *_, **__):
                raise RuntimeError("Exception from src/inference/memory.cpp: bad_alloc")

        session._request = Broken()
        with pytest.raises(InferenceError, match=r"\(openvino/fp32\), a batch of 64 .*bad_al"):
            session.infer(rows(64))


class TestOnAGpu:
    @pytest.fixture(autouse=True)
    def gpu(self, monkeypatch):
        monkeypatch.setattr(nvidia, "memory_mib", lambda device: (512, 143771))

    def error(self, words, limit_mib=None):
        gpu = failures.OnGpu(device=0, option="options.memory_limit_mib", limit_mib=limit_mib)
        return failures.inference_error("yolox", BATCH, RuntimeError(words), gpu)

    def test_a_limit_is_named_with_what_is_free(self):
        error = self.error(LIMIT, 64)
        assert error.message == (
            "yolox, a batch of 64 (images 64x3x416x416): GPU memory ran out: Available memory of "
            "47562752 is smaller than requested bytes of 66453504; options.memory_limit_mib is 64, "
            "512 of 143771 MiB are free on GPU 0"
        )
        assert "larger options.memory_limit_mib" in error.hint
        assert error.hint.endswith("this session can go on")

    def test_a_full_gpu_asks_for_no_larger_limit(self):
        error = self.error(FULL)
        assert "out of memory" in error.message or "CUDA failure 2" in error.message
        assert "options.memory_limit_mib is not set" in error.message
        assert "nvidia-smi" in error.hint
        assert "larger" not in error.hint

    @pytest.mark.parametrize(
        "words",
        [LOST, "cudaStreamSynchronize failed: cudaErrorIllegalAddress",
         "CUDA error 719: unspecified launch failure", "CUDA failure 710: device-side assert"],
    )  # fmt: skip
    def test_a_lost_gpu_ends_the_process_not_the_batch(self, words):
        error = self.error(words)
        assert "CUDA is lost for this process" in error.message
        assert "no session of it can go on" in error.hint
        assert "can go on with" not in error.hint
        assert "smaller batch" not in error.hint


def test_a_target_without_a_limit_is_told_of_none(monkeypatch):
    monkeypatch.setattr(nvidia, "memory_mib", lambda device: None)
    gpu = failures.OnGpu(device=1)
    error = failures.inference_error(
        "x", BATCH, RuntimeError("cudaMalloc failed: cudaErrorMemoryAllocation"), gpu
    )
    assert "memory_limit_mib" not in str(error)
    assert "what is free on GPU 1 cannot be read" in error.message


def test_memory_that_lacks_at_opening_asks_for_no_smaller_batch(store, power, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("bad allocation")

    monkeypatch.setattr(OnnxRuntimeSession, "__init__", refuse)
    with pytest.raises(ArtifactError, match="memory ran out: bad allocation") as why:
        open_engine(put_engine(store, power).uri)
    assert why.value.hint == "use a machine with more free memory"


class Driver:
    """`libcuda.so.1` with the functions that are asked, and what it was left with."""

    def __init__(self, failing=""):
        self.failing, self.stack, self.retained = failing, 0, 0

    def __getattr__(self, name):
        def call(*arguments):
            if name == self.failing:
                return 700
            if name == "cuCtxPushCurrent_v2":
                self.stack += 1
            if name == "cuCtxPopCurrent_v2":
                self.stack -= 1
            if name == "cuDevicePrimaryCtxRetain":
                self.retained += 1
            if name == "cuDevicePrimaryCtxRelease_v2":
                self.retained -= 1
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 3 << 30, 80 << 30
            return 0

        return call


@pytest.mark.parametrize(
    "failing", ["", "cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2",
                "cuMemGetInfo_v2"],
)  # fmt: skip
def test_the_driver_is_left_as_it_was(monkeypatch, failing):
    driver = Driver(failing)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert nvidia.memory_mib(0) == (None if failing else (3072, 81920))
    assert (driver.stack, driver.retained) == (0, 0)


def test_no_driver_is_no_memory(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert nvidia.memory_mib(0) is None


@pytest.mark.parametrize(("gpu", "goes_on"), [(None, True), (failures.OnGpu(device=0), False)])
def test_an_operation_that_could_not_be_done_leaves_a_session_on_the_cpu_as_it_was(gpu, goes_on):
    words = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Concat node"
    )
    feeds = {"images": np.zeros((1, 3, 5, 5), np.float32)}
    assert failures.inference_error("net", feeds, RuntimeError(words), gpu).goes_on is goes_on
