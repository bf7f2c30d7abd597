"""The TensorRT target against the APIs of three generations, dumped from NVIDIA's own bindings.

The double refuses whatever a generation lacks; what a GPU makes of the engines it cannot tell.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import onnx
import pytest

from engineworks import hosts, targets
from engineworks.calibrate import collect, derive
from engineworks.errors import ArtifactError, BuildError
from engineworks.export.torch_onnx import signature
from engineworks.facts.engine import Built
from engineworks.facts.host import Gpu
from engineworks.qdq import pairs
from engineworks.qdq.graph import Graph
from engineworks.runtime import devices
from engineworks.targets._base import UNREAD, BuildInput
from engineworks.targets._nvidia import api as apis
from engineworks.targets._nvidia import builder as builders_
from engineworks.targets._nvidia import cache_file, timing, weak
from tests import builders
from tests.doubles import tensorrt as double
from tests.doubles.device import NumpyDevice

TRT = targets.load("tensorrt")
GPU = Gpu(name="a gpu", compute_capability="8.9", memory_mib=24000, driver="580.65")
HOST = dataclasses.replace(hosts.probe(), gpus=(GPU,))
SIGNED = targets.int8_rules("tensorrt", HOST).scheme

each = pytest.mark.parametrize("trt", double.GENERATIONS, indirect=True)
OLD = pytest.mark.parametrize("trt", ["8_6", "10_13"], indirect=True)
NEW = pytest.mark.parametrize("trt", ["10_13", "11_4"], indirect=True)


@pytest.fixture
def trt(request, monkeypatch):
    """The module of one generation, as `import tensorrt` gives it."""
    module = double.load(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture
def make(tmp_path):
    """Build with the target; gives what it gave and the plan as the double wrote it."""

    def build(path, precision="fp32", *, draft=False, limit_s=0, **options):
        work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        inputs, outputs, _ = signature(path)
        made = TRT.build(
            BuildInput(
                onnx=Path(path), inputs=inputs, outputs=outputs, precision=precision,
                options=options, host=HOST, work=work, largest_batch=4, draft=draft,
                limit_s=limit_s,
            )
        )  # fmt: skip
        return made, json.loads(made.files["engine.plan"].read_bytes())

    return build


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """(Q/DQ graph with two of five layers in integers, scale of each quantized tensor)."""
    folder = tmp_path_factory.mktemp("mixed")
    graph = Graph(builders.conv_net(folder / "net.onnx"))
    statistics = collect.collect(graph, [builders.samples(1)], threads=1)
    bounds = derive.derive(graph, statistics, "minmax", SIGNED)
    path = folder / "mixed.onnx"
    onnx.save(pairs.emit(graph, bounds, ["left", "deep"], SIGNED), str(path))
    ranges = {name: bounds.tensors[graph.source(name)] for name in ("act", "pool")}
    steps = {name: float(pairs.step(*r, SIGNED).scale) for name, r in ranges.items()}
    return path, steps


class TestRoutes:
    def test_each_generation_has_its_own(self):
        found = {g: apis.Api(double.load(g)).routes for g in double.GENERATIONS}
        assert found == {"8_6": ("weak",), "10_13": ("strong", "weak"), "11_4": ("strong",)}

    @pytest.mark.parametrize(
        ("trt", "route", "flag"),
        [
            ("8_6", "weak", "EXPLICIT_BATCH"), ("10_13", "weak", "EXPLICIT_BATCH"),
            ("10_13", "strong", "STRONGLY_TYPED"), ("11_4", "strong", None),
        ],
        indirect=["trt"],
    )  # fmt: skip
    def test_the_network_is_made_for_its_route(self, trt, route, flag, make, tiny_onnx):
        make(tiny_onnx, route=route)
        (flags,) = next(args for name, args in trt.calls if name == "Builder.create_network")
        enumeration = trt.NetworkDefinitionCreationFlag
        assert flags == (1 << int(getattr(enumeration, flag)) if flag else 0)

    @each
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    def test_every_precision_is_delivered_by_each(self, trt, precision, make, tiny_onnx, tmp_path):
        path = tiny_onnx
        if precision == "int8":
            path = builders.quantized(tiny_onnx, tmp_path / "q.onnx", SIGNED, builders.samples())
        made, plan = make(path, precision)
        assert (made.delivered_precision.holds, made.delivered_precision.delivered) == (
            True,
            precision,
        )
        assert made.delivered_precision.computed_nodes[precision] == 3
        assert made.details["route"] == apis.Api(trt).routes[0]
        assert "TF32" not in plan["flags"]
        assert plan["profile"] == {"images": [[1, 3, 16, 16], [1, 3, 16, 16], [4, 3, 16, 16]]}

    @each
    def test_bf16_by_either_route_or_by_name_refused(self, trt, make, tiny_onnx):
        if trt.__version__.startswith("8"):
            with pytest.raises(
                BuildError, match=r"bf16: TensorRT 8\.6\.1 has no BuilderFlag\.BF16"
            ):
                make(tiny_onnx, "bf16")
            return
        for route in apis.Api(trt).routes:
            made, plan = make(tiny_onnx, "bf16", route=route)
            assert made.delivered_precision.delivered == "bf16", route
            assert plan["flags"] == (["BF16"] if route == "weak" else [])

    @OLD
    def test_the_weak_route_allows_and_the_strong_one_converts(self, trt, make, tiny_onnx):
        _, plan = make(tiny_onnx, "fp16", route="weak")
        assert plan["flags"] == ["FP16"]
        assert plan["onnx"] == str(tiny_onnx)
        if "strong" in apis.Api(trt).routes:
            _, plan = make(tiny_onnx, "fp16", route="strong")
            assert plan["flags"] == []
            assert plan["onnx"] != str(tiny_onnx)

    @each
    def test_a_route_that_is_not_there_is_refused(self, trt, make, tiny_onnx):
        (unsupported_operators,) = {"weak", "strong"} - set(apis.Api(trt).routes) or {"neither"}
        with pytest.raises(BuildError, match=f"options.route: .*{unsupported_operators}") as caught:
            make(tiny_onnx, route=unsupported_operators)
        assert caught.value.hint

    @OLD
    def test_a_builder_that_ignores_leave_to_go_narrower_is_found_out(
        self, trt, make, tiny_onnx, monkeypatch
    ):
        monkeypatch.setattr(weak, "allow", lambda api, config, precision: None)
        made, _ = make(tiny_onnx, "fp16", route="weak")
        assert not made.delivered_precision.holds
        assert made.delivered_precision.delivered == "fp32"


class TestRanges:
    @OLD
    @pytest.mark.parametrize(
        ("kind", "algorithm"),
        [("entropy2", "EntropyCalibration2"), ("minmax", "MinMaxCalibration")],
    )
    def test_the_calibrator_answers_with_the_ranges_of_the_search(
        self, trt, make, mixed, kind, algorithm
    ):
        path, scales = mixed
        made, plan = make(path, "int8", route="weak", ranges="cache", calibrator=kind)
        version = {"8.6.1": "8601", "10.13.3.9": "101303"}[trt.__version__]
        assert plan["calibration"].startswith(f"TRT-{version}-{algorithm}\n")
        assert plan["calibration"] == made.files["calibration.cache"].read_text()
        found = {k: v / 127 for k, v in cache_file.read(plan["calibration"]).items()}
        assert found == pytest.approx(scales)
        assert "INT8" in plan["flags"]

    @each
    def test_ranges_beside_a_graph_that_has_them_are_refused(self, trt, make, mixed):
        if trt.__version__.startswith("8"):
            pytest.skip("this generation has no route strong")
        for ranges in ("cache", "dynamic"):
            with pytest.raises(BuildError, match=f"options.ranges: {ranges} stands beside"):
                make(mixed[0], "int8", ranges=ranges)
        make(mixed[0], "fp32", ranges="dynamic")  # no concern of fp32

    @OLD
    def test_the_tensors_bear_the_ranges_of_the_search(self, trt, make, mixed):
        path, scales = mixed
        made, plan = make(path, "int8", route="weak", ranges="dynamic")
        assert plan["calibration"] == ""
        assert {k: high / 127 for k, (_, high) in plan["ranges"].items()} == pytest.approx(scales)
        assert all(low == -high for low, high in plan["ranges"].values())
        assert "calibration.cache" not in made.files

    @OLD
    @pytest.mark.parametrize("ranges", ["cache", "dynamic"])
    def test_layers_left_in_float_stay_there(self, trt, make, mixed, ranges):
        made, plan = make(mixed[0], "int8", route="weak", ranges=ranges)
        assert "OBEY_PRECISION_CONSTRAINTS" in plan["flags"]
        types = {e["Name"]: e["Weights"]["Type"] for e in plan["layers"] if e["Weights"]["Count"]}
        assert {n for n, kind in types.items() if kind == "Int8"} == {"left", "deep"}
        assert made.delivered_precision.computed_nodes["int8"] == 2

    def test_the_graph_without_its_pairs_answers_the_same(self, mixed, tmp_path):
        from engineworks.export.torch_onnx import runner

        path, _ = mixed
        found = weak.take_apart(path, tmp_path / "float.onnx")
        onnx.checker.check_model(onnx.load(found.onnx), full_check=True)
        operators = {node.op_type for node in onnx.load(found.onnx).graph.node}
        assert not operators & {"QuantizeLinear", "DequantizeLinear"}
        assert found.floats == {"stem", "mixed", "scores"}
        x = builders.samples(2)
        wanted, got = runner(path)(x)["scores"], runner(found.onnx)(x)["scores"]
        assert abs(got - wanted).max() < 0.05 * abs(wanted).max()

    def test_the_version_in_a_cache_is_written_as_nvidia_does(self):
        assert weak.cache_version("8.6.1") == "8601"
        assert weak.cache_version("10.3.0") == "100300"
        assert weak.cache_version("10.13.3.9") == "101303"


class TestTimingCache:
    @each
    def test_it_is_kept_and_pinned_by_its_bytes(self, trt, make, tiny_onnx):
        made, _ = make(tiny_onnx)
        path = made.files["timing.cache"]
        assert path.read_bytes() == b"measured"
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        pinned = {"path": str(path), "sha256": sha256}
        again, plan = make(tiny_onnx, timing_cache=pinned)
        assert plan["timing"] == "measured"
        assert again.files["timing.cache"].read_bytes() == b"measured"
        with pytest.raises(BuildError, match="is not the sha256"):
            make(tiny_onnx, timing_cache={**pinned, "sha256": "0" * 64})
        with pytest.raises(BuildError, match="is no file"):
            make(tiny_onnx, timing_cache={**pinned, "path": "/no/such/file"})

    @each
    def test_one_of_another_machine_is_refused(self, trt, make, tiny_onnx, tmp_path):
        path = tmp_path / "alien.cache"
        path.write_bytes(b"alien")
        pinned = {"path": str(path), "sha256": hashlib.sha256(b"alien").hexdigest()}
        with pytest.raises(BuildError, match="another TensorRT or GPU"):
            make(tiny_onnx, timing_cache=pinned)

    @each
    def test_a_miss_can_be_an_error_where_the_builder_knows_that(
        self, trt, make, tiny_onnx, tmp_path
    ):
        path = tmp_path / "t.cache"
        path.write_bytes(b"measured")
        pinned = {"path": str(path), "sha256": hashlib.sha256(b"measured").hexdigest()}
        options = {"timing_cache": pinned, "timing_cache_miss": "error"}
        if hasattr(trt.BuilderFlag, "ERROR_ON_TIMING_CACHE_MISS"):
            assert "ERROR_ON_TIMING_CACHE_MISS" in make(tiny_onnx, **options)[1]["flags"]
        else:
            with pytest.raises(BuildError, match="options.timing_cache_miss: TensorRT 8"):
                make(tiny_onnx, **options)


class TestOptions:
    @each
    def test_they_reach_the_builder(self, trt, make, tiny_onnx):
        made, plan = make(
            tiny_onnx, workspace_mib=64, version_compatible=True, tf32=True, batch=[1, 2, 8],
            hardware_compatible="ampere_plus",
        )  # fmt: skip
        assert plan["limits"] == {"WORKSPACE": 64 * 2**20}
        assert plan["flags"] == ["TF32", "VERSION_COMPATIBLE"]
        assert plan["profile"]["images"][2] == [8, 3, 16, 16]
        assert made.details["any_version"] is made.details["any_gpu"] is True
        assert made.details["gpu"] == "8.9"
        assert made.details["version"] == trt.__version__

    @each
    def test_what_compatibility_costs_stands_beside_the_engine(
        self, trt, make, tiny_onnx, monkeypatch
    ):
        monkeypatch.setattr(devices, "require_driver", lambda what: None)
        monkeypatch.setattr(devices, "open_device", lambda index: NumpyDevice())
        monkeypatch.setattr(timing, "SECONDS", 0.02)
        made, _ = make(tiny_onnx, version_compatible=True)
        cost = json.loads(made.files["baseline.json"].read_text())
        # The double's version-compatible engines take 1.5 ms, others 1 ms.
        assert (cost["own"]["ms"], cost["baseline"]["ms"]) == (1.5, 1.0)
        assert cost["own"]["size_bytes"] == made.files["engine.plan"].stat().st_size
        assert "without version_compatible it would be" in made.delivered_precision.note
        assert "take 1.000 ms instead of 1.500 (0.67x)" in made.delivered_precision.note
        for options in ({}, {"version_compatible": True, "baseline": False}):
            made, _ = make(tiny_onnx, **options)
            assert "baseline.json" not in made.files
            assert "it would be" not in made.delivered_precision.note

    @each
    def test_a_baseline_that_would_cost_the_engine_its_time_is_spared(self, trt, make, tiny_onnx):
        made, _ = make(tiny_onnx, version_compatible=True, limit_s=1e-6)
        assert json.loads(made.files["baseline.json"].read_text())["baseline"] is None
        assert (
            "without version_compatible: not built, since the engine took"
            in made.delivered_precision.note
        )
        # With that limit it is: who has the engine from a cache must know.
        assert made.whole_from_s > 1e-6
        longer, _ = make(tiny_onnx, version_compatible=True, limit_s=made.whole_from_s * 1000)
        assert "not built" not in longer.delivered_precision.note
        assert longer.whole_from_s == 0

        def built(output):
            return dataclasses.replace(builders.example(Built), whole_from_s=output.whole_from_s)

        assert built(made).holds_within(1e-6)
        assert not built(made).holds_within(made.whole_from_s)
        assert built(longer).holds_within(1e9)

    @each
    def test_without_a_gpu_the_cost_in_bytes_is_told_all_the_same(
        self, trt, make, tiny_onnx, monkeypatch
    ):
        def refuse(what):
            raise ArtifactError(f"{what} needs an NVIDIA GPU: none", hint="")

        monkeypatch.setattr(devices, "require_driver", refuse)
        made, _ = make(tiny_onnx, hardware_compatible="ampere_plus")
        assert (
            "without hardware_compatible: ampere_plus it would be" in made.delivered_precision.note
        )
        assert (
            "(not timed: tensorrt/fp32 needs an NVIDIA GPU: none)" in made.delivered_precision.note
        )

    @each
    def test_one_that_a_generation_lacks_is_named(self, trt, make, tiny_onnx):
        level = getattr(trt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY", None)
        if level is not None:
            make(tiny_onnx, hardware_compatible="same_compute_capability")
            return
        with pytest.raises(BuildError, match=r"TensorRT 8\.6\.1 has no"):
            make(tiny_onnx, hardware_compatible="same_compute_capability")

    @each
    def test_an_engine_keeps_what_it_takes_to_read_it(self, trt, make, tiny_onnx):
        made, _ = make(tiny_onnx)
        assert set(made.files) == {"engine.plan", "build.log", "timing.cache", "layers.json"}
        assert json.loads(made.files["layers.json"].read_text())["Layers"]
        assert made.requires.arch == HOST.arch
        draft, _ = make(tiny_onnx, draft=True)
        assert draft.delivered_precision == UNREAD
        assert "layers.json" not in draft.files


class TestRefusals:
    @each
    def test_an_unknown_operator_is_named_with_its_node(self, trt, make, tiny_onnx, tmp_path):
        model = onnx.load(str(tiny_onnx))
        model.graph.node[0].op_type = "Frobnicate"
        model.graph.node[0].name = "my_node"
        path = tmp_path / "odd.onnx"
        onnx.save(model, str(path))
        with pytest.raises(BuildError, match="Frobnicate 'my_node': no importer"):
            make(path)
        assert TRT.unsupported_operators(path) == ("Frobnicate",)

    @each
    def test_without_a_profile_the_builders_words_are_shown(self, trt, tiny_onnx, tmp_path):
        from engineworks.targets._nvidia import network, settings
        from engineworks.targets._nvidia.log import BuildLog

        api, said = apis.Api(trt), BuildLog(trt)
        vendor = trt.Builder(said.logger)
        parsed = network.parse(api, vendor, tiny_onnx, api.route(), said)
        config = builders_.configure(api, vendor, settings.read({}, 1))
        with pytest.raises(BuildError, match="no optimization profile"):
            builders_.serialize(vendor, parsed, config, said, tmp_path / "plan")


class TestMissing:
    def test_what_is_missing_is_said_in_order(self):
        bare = dataclasses.replace(HOST, packages={}, gpus=())
        assert "pip install 'engineworks[tensorrt]'" in TRT.missing_requirements(bare)
        installed = dataclasses.replace(bare, packages={"tensorrt-cu13": "11.4.0.106"})
        assert "needs an NVIDIA GPU" in TRT.missing_requirements(installed)
        assert TRT.missing_requirements(dataclasses.replace(installed, gpus=(GPU,))) == ""


class TestTheDouble:
    """It must refuse what a generation has lost, or the tests above prove nothing."""

    @pytest.mark.parametrize(
        ("generation", "use"),
        [
            ("11_4", lambda m, c, n: m.BuilderFlag.FP16),
            ("11_4", lambda m, c, n: m.BuilderFlag.INT8),
            ("11_4", lambda m, c, n: m.IInt8EntropyCalibrator2),
            ("11_4", lambda m, c, n: setattr(c, "int8_calibrator", None)),
            ("11_4", lambda m, c, n: m.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),
            ("11_4", lambda m, c, n: m.ITensor.set_dynamic_range),
            ("11_4", lambda m, c, n: setattr(n.get_layer(0), "precision", None)),
            ("10_13", lambda m, c, n: setattr(c, "max_workspace_size", 1)),
            ("10_13", lambda m, c, n: m.ICudaEngine.num_bindings),
            ("10_13", lambda m, c, n: m.IExecutionContext.execute_async_v2),
            ("8_6", lambda m, c, n: m.IProgressMonitor),
            ("8_6", lambda m, c, n: m.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
            ("8_6", lambda m, c, n: m.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS),
        ],
    )
    def test_what_a_generation_lacks_is_refused(self, generation, use, tiny_onnx):
        module = double.load(generation)
        vendor = module.Builder(module.Logger())
        network = vendor.create_network(0)
        module.OnnxParser(network, module.Logger()).parse_from_file(str(tiny_onnx))
        with pytest.raises(AttributeError):
            use(module, vendor.create_builder_config(), network)

    @each
    def test_a_wrong_signature_is_refused(self, trt):
        vendor = trt.Builder(trt.Logger())
        with pytest.raises(TypeError, match="incompatible"):
            vendor.create_builder_config("more")
        with pytest.raises(TypeError, match="incompatible"):
            vendor.create_network(bits=0)
        with pytest.raises(TypeError, match="incompatible"):
            vendor.build_serialized_network(None)

    @pytest.mark.parametrize("trt", ["11_4"], indirect=True)
    def test_the_old_route_on_a_new_generation_fails(self, trt, make, tiny_onnx, monkeypatch):
        """The mutation: our own builder, made to believe that everything is as it was."""
        monkeypatch.setattr(apis.Api, "routes", ("weak",))
        with pytest.raises(BuildError, match=r"has no BuilderFlag\.FP16"):
            make(tiny_onnx, "fp16")

    @NEW
    def test_an_old_property_in_our_builder_fails(self, trt, make, tiny_onnx, monkeypatch):
        real = builders_.configure

        def mutated(api, vendor, settings):
            config = real(api, vendor, settings)
            config.max_workspace_size = 1 << 20
            return config

        monkeypatch.setattr(builders_, "configure", mutated)
        with pytest.raises(AttributeError, match="max_workspace_size"):
            make(tiny_onnx)
