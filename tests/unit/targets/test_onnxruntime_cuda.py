"""ONNX Runtime on CUDA: without a GPU, what must be refused is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnxruntime as ort
import pytest

from engineworks import hosts, targets
from engineworks.errors import ArtifactError, BuildError, RecipeError
from engineworks.facts.host import Gpu
from engineworks.hosts import nvidia
from engineworks.manifest import Requires
from engineworks.runtime.engines import onnxruntime_cuda as onnxruntime_cuda_engine
from engineworks.runtime.session import open_engine
from engineworks.targets import _half, onnxruntime_cuda
from engineworks.targets._base import BuildInput, check_request
from tests.builders import put_engine

CUDA = targets.load("onnxruntime-cuda")
HOST = hosts.probe()
GPU = Gpu(name="a gpu", compute_capability="9.0", memory_mib=140000, driver="580.65")

without_gpu = pytest.mark.skipif(nvidia.present(), reason="this machine has a GPU")


def request(onnx, work, precision="fp32", **options):
    return BuildInput(
        onnx=onnx, inputs=(), outputs=(), precision=precision, options=options, host=HOST, work=work
    )


class TestMissing:
    def test_each_missing_thing_is_named_alone(self):
        bare = dataclasses.replace(HOST, packages={}, gpus=())
        assert "pip install 'engineworks[onnxruntime-gpu]'" in CUDA.missing_requirements(bare)
        both = dataclasses.replace(
            bare, packages={"onnxruntime-gpu": "1.31.1", "onnxruntime": "1.32.0"}
        )
        assert "without onnxruntime" in CUDA.missing_requirements(both)
        alone = dataclasses.replace(bare, packages={"onnxruntime-gpu": "1.31.1"})
        assert "needs an NVIDIA GPU" in CUDA.missing_requirements(alone)
        assert CUDA.missing_requirements(dataclasses.replace(alone, gpus=(GPU,))) == ""


@without_gpu
class TestFallBack:
    """Real ONNX Runtime, which falls back to the CPU without an error."""

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_building_on_the_cpu_instead_is_a_failure(self, tiny_onnx, tmp_path, precision):
        with pytest.raises(BuildError, match="fell back to CPUExecutionProvider"):
            CUDA.build(request(tiny_onnx, tmp_path, precision))

    def test_opening_on_the_cpu_instead_is_a_failure(self, store, tiny_onnx):
        engine = put_engine(store, tiny_onnx, runtime="onnxruntime_cuda")
        assert engine.manifest.requires == Requires(runtime="onnxruntime_cuda")
        with pytest.raises(ArtifactError, match="would run on CPUExecutionProvider"):
            open_engine(engine.uri)


class TestOptions:
    def test_the_defaults_are_those_of_a_server(self):
        assert onnxruntime_cuda.provider_options({}) == {
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "use_tf32": "0",
        }

    def test_the_recipes_words_become_the_providers(self):
        found = onnxruntime_cuda.provider_options(
            {"memory_limit_mib": 512, "arena": "next_power_of_two", "tf32": True,
             "cudnn_search": "heuristic", "cuda_graph": False}
        )  # fmt: skip
        assert found == {
            "arena_extend_strategy": "kNextPowerOfTwo",
            "cudnn_conv_algo_search": "HEURISTIC",
            "use_tf32": "1",
            "gpu_mem_limit": str(512 * 2**20),
        }

    @pytest.mark.parametrize(
        "options",
        [{"arena": "huge"}, {"cudnn_search": 3}, {"tf32": "yes"}, {"memory_limit_mib": 0},
         {"memory_limit_mib": True}, {"cuda_graph": "yes"}, {"cuda_graph": 1}],
    )  # fmt: skip
    def test_others_are_refused_by_name(self, options):
        with pytest.raises(BuildError, match=f"options.{next(iter(options))}"):
            onnxruntime_cuda.provider_options(options)

    def test_a_recording_is_refused_when_the_recipe_is_read(self):
        with pytest.raises(RecipeError, match="cuda_graph: true is refused.*not proven") as why:
            check_request("onnxruntime-cuda", CUDA, ("fp32",), {"cuda_graph": True})
        assert "leave cuda_graph out" in why.value.hint

    def test_the_list_of_options_says_so(self):
        assert "true is refused" in CUDA.options["cuda_graph"]


class TestOldEngines:
    """Engines that were built when recordings were still allowed."""

    @pytest.fixture
    def providers(self, monkeypatch):
        given = []

        class Session(ort.InferenceSession):
            def __init__(self, path, options, providers):
                given.extend(providers)
                super().__init__(path, options, providers=["CPUExecutionProvider"])

            def get_providers(self):
                return ["CUDAExecutionProvider"]

        monkeypatch.setattr(ort, "InferenceSession", Session)
        monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
        return given

    def test_what_was_to_be_recorded_runs_plainly(self, providers, store, tiny_onnx):
        engine = put_engine(store, tiny_onnx, runtime="onnxruntime_cuda")
        manifest = dataclasses.replace(
            engine.manifest,
            details={"provider": {"enable_cuda_graph": "1", "gpu_mem_limit": str(64 * 2**20)}},
        )
        session = onnxruntime_cuda_engine.open_session(Path(engine.uri), manifest, 1)
        assert dict(providers)["CUDAExecutionProvider"]["enable_cuda_graph"] == "0"
        assert session._recorder is None
        assert session.gpu.limit_mib == 64


class TestTruth:
    def test_the_bulk_of_the_weights_decides(self, tiny_onnx, tmp_path):
        half = _half.convert(tiny_onnx, tmp_path / "half.onnx")
        assert onnxruntime_cuda.delivered_precision(half, "fp16").holds
        assert onnxruntime_cuda.delivered_precision(half, "fp32").delivered == "fp16"
        assert onnxruntime_cuda.delivered_precision(tiny_onnx, "fp32").holds
        assert not onnxruntime_cuda.delivered_precision(tiny_onnx, "fp16").holds
