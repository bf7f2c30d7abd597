"""Jetsons: defaults, DLA, and the ways to a TensorRT that this Python has not. No board at hand.

The builder for old interpreters runs under Python 3.6 and 3.8 where these are installed, else
under this one; its syntax is checked in any case.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from engineworks import hosts, targets
from engineworks.calibrate import collect, derive
from engineworks.errors import ArtifactError, BuildError
from engineworks.export.torch_onnx import signature
from engineworks.facts.host import Jetson
from engineworks.qdq import pairs
from engineworks.qdq.graph import Graph
from engineworks.runtime import devices
from engineworks.targets import jetson
from engineworks.targets._base import BuildInput
from engineworks.targets._nvidia import (
    cache_file,
    dla,
    py36_builder,
    settings,
    system,
    timing,
    trtexec,
)
from tests import builders
from tests.doubles import tensorrt as double
from tests.doubles.device import NumpyDevice

JETSON = targets.load("jetson")
GOLDEN = Path(__file__).with_name("golden")
OLD = Path(double.__file__).with_name("old")
SCRIPT = Path(py36_builder.__file__)
XAVIER = Jetson(module="NVIDIA Jetson AGX Xavier", l4t="35.4.1", jetpack="5.1.2", dla_cores=2)
NANO = Jetson(module="NVIDIA Jetson Nano Developer Kit", l4t="32.7.1", jetpack="4.6.1")


def host(board=XAVIER, memory_mib=32768, **changes):
    card = dataclasses.replace(hosts.probe(), jetson=board, memory_mib=memory_mib)
    return dataclasses.replace(card, **changes)


def starts(python):
    try:
        return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


def interpreters():
    """Pythons of JetPack 4 and 5, where this machine has them."""
    found = []
    for version in ("3.6", "3.8"):
        places = [str(p) for p in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
        places += [f"python{version}"]
        place = next((place for place in places if starts(place)), "")
        absent = pytest.mark.skipif(not place, reason=f"no Python {version} on this machine")
        found.append(pytest.param(place, id=version, marks=absent))
    return [*found, pytest.param(sys.executable, id="this one")]


each_python = pytest.mark.parametrize("python", interpreters())


@pytest.fixture
def old_tensorrt(monkeypatch):
    """Every child interpreter finds a TensorRT 8.2; this one finds none."""
    monkeypatch.setenv("PYTHONPATH", str(OLD))
    system.python_version.cache_clear()
    yield
    system.python_version.cache_clear()


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return builders.conv_net(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture(scope="module")
def int8(net, tmp_path_factory):
    """Two of five layers in integers."""
    scheme = targets.int8_rules("jetson", host()).scheme
    graph = Graph(net)
    statistics = collect.collect(graph, [builders.samples(1)], threads=1)
    bounds = derive.derive(graph, statistics, "minmax", scheme)
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    onnx.save(pairs.emit(graph, bounds, ["left", "deep"], scheme), str(path))
    return path


@pytest.fixture
def make(tmp_path):
    def build(path, precision="fp16", card=None, **options):
        work = tmp_path / f"work{len(list(tmp_path.iterdir()))}"
        work.mkdir()
        inputs, outputs, _ = signature(path)
        return JETSON.build(
            BuildInput(
                onnx=path, inputs=inputs, outputs=outputs, precision=precision, options=options,
                host=card or host(), work=work, largest_batch=4,
            )
        )  # fmt: skip

    return build


class TestDefaults:
    @pytest.mark.parametrize(
        ("module", "memory_mib", "workspace_mib"),
        [
            ("NVIDIA Jetson Nano Developer Kit", 3964, 256),
            ("NVIDIA Jetson TX2", 7860, 1024),
            ("NVIDIA Jetson AGX Xavier", 31920, 4096),
            ("NVIDIA Jetson Orin Nano Developer Kit", 7620, 1024),
            ("NVIDIA Jetson Thor", 125000, 16384),
            ("A board of tomorrow", 8000, 512),
        ],
    )
    def test_workspace_follows_the_memory_that_is_shared(self, module, memory_mib, workspace_mib):
        card = host(Jetson(module=module, l4t="36.4"), memory_mib)
        assert jetson.with_defaults({}, card, "fp16")["workspace_mib"] == workspace_mib
        assert jetson.with_defaults({"workspace_mib": 7}, card, "fp16")["workspace_mib"] == 7

    def test_a_board_without_8_bit_products_refuses_int8(self):
        with pytest.raises(BuildError, match="Nano Developer Kit multiplies no 8-bit"):
            jetson.with_defaults({}, host(NANO), "int8")
        orin = Jetson(module="NVIDIA Jetson Orin Nano Developer Kit", l4t="36.4")
        jetson.with_defaults({}, host(orin), "int8")

    def test_dla_gets_one_shape_and_its_ranges_beside_the_graph(self):
        found = jetson.with_defaults({"dla": 0}, host(), "int8")
        assert (found["batch"], found["ranges"]) == ([1, 1, 1], "cache")

    def test_only_a_jetson_can_build_it(self):
        assert "needs a Jetson" in JETSON.missing_requirements(host(None))
        assert JETSON.missing_requirements(host()) == ""
        assert "bindings for Python" in JETSON.cannot_run(host(packages={}))
        assert JETSON.cannot_run(host(packages={"tensorrt": "8.5.2"})) == ""


class TestDla:
    LOG = (
        "[I] [TRT] ---------- Layers Running on DLA ----------\n"
        "[I] [TRT] [DlaLayer] {ForeignNode[conv1...relu2]}\n"
        "[I] [TRT] [DlaLayer] {ForeignNode[conv4]}\n"
        "[I] [TRT] ---------- Layers Running on GPU ----------\n"
        "[I] [TRT] [GpuLayer] SOFTMAX: soft\n"
        "[I] [TRT] [GpuLayer] SHUFFLE: reshape\n"
    )
    LAYERS = ("conv1", "relu1", "conv2", "relu2", "soft", "conv4", "reshape")

    def test_a_foreign_node_counts_as_the_layers_in_it(self):
        found = dla.from_log(self.LOG, self.LAYERS)
        assert found.dla == ("conv1", "relu1", "conv2", "relu2", "conv4")
        assert found.gpu == ("soft", "reshape")
        assert found.share == pytest.approx(5 / 7)
        assert found.words() == "5 of 7 layers on DLA (71%); on the GPU: soft, reshape"

    def test_a_part_that_the_log_names_twice_takes_its_time_once(self):
        found = dla.from_log(self.LOG + self.LOG, self.LAYERS)
        half = timing.Timed(ms=2.0, layers={"{ForeignNode[conv4]}": 1.0, "soft": 1.0})
        assert half.share(found.nodes) == 0.5

    def test_without_names_its_ends_count(self):
        assert dla.from_log(self.LOG).dla == ("conv1", "relu2", "conv4")

    def test_a_log_of_a_gpu_alone_has_a_share_of_none(self):
        assert dla.from_log("[I] nothing of the kind").share == 0

    def test_too_small_a_share_is_refused_with_both_figures(self):
        found = dla.from_log(self.LOG, self.LAYERS)
        dla.demand(found, 0.7, "runs")
        with pytest.raises(BuildError, match=r"at least 80% .* 71% runs there: 5 of 7"):
            dla.demand(found, 0.8, "runs")

    @pytest.mark.parametrize(
        ("precision", "options", "says"),
        [
            ("fp32", {"dla": 0}, "fp16 and int8"),
            ("fp16", {"dla": 2}, "which has 2"),
            ("fp16", {"dla": True}, "no DLA core"),
            ("fp16", {"dla": 0, "batch": [1, 1, 4]}, "no dynamic shapes"),
            ("fp16", {"dla": 0, "batch": [4, 4, 4]}, "does not begin with 1|no dynamic shapes"),
            ("fp16", {"dla": 0, "dla_share": 1.5}, "no share"),
        ],
    )
    def test_what_dla_cannot_is_refused_before_the_build(self, net, make, precision, options, says):
        with pytest.raises(BuildError, match=says):
            make(net, precision, **options)


@pytest.mark.parametrize("generation", double.GENERATIONS)
class TestByBindings:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch, generation):
        module = double.load(generation)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(devices, "require_driver", lambda what: None)
        monkeypatch.setattr(devices, "open_device", lambda index: NumpyDevice())
        monkeypatch.setattr(timing, "SECONDS", 0.02)

    def test_the_gpu_alone(self, net, make):
        made = make(net, "fp16", builder="python")
        plan = json.loads(made.files["engine.plan"].read_bytes())
        assert made.delivered_precision.holds
        assert plan["limits"] == {"WORKSPACE": 8192 * 2**20}
        assert plan["profile"]["images"][2][0] == 4
        assert "dla" not in made.details
        assert made.details["built_by"] == "python"

    def test_a_forecast_below_the_share_costs_no_build(self, net, make):
        with pytest.raises(BuildError, match=r"at least 90% on DLA.* would run there"):
            make(net, "fp16", builder="python", dla=1, dla_share=0.9)

    def test_the_placement_and_the_gpu_alone_stand_beside_the_engine(self, net, make):
        made = make(net, "fp16", builder="python", dla=1)
        placed = json.loads(made.files["placement.json"].read_text())
        both = json.loads(made.files["baseline.json"].read_text())
        on_dla, on_gpu = len(placed["dla"]), len(placed["gpu"])
        assert on_dla >= 3
        assert placed["share_of_layers"] == pytest.approx(on_dla / (on_dla + on_gpu))
        # The double's layers take 2 ms on DLA and 1 ms on the GPU, its GPU engine 1 ms in all.
        assert placed["share_of_time"] == pytest.approx(2 * on_dla / (2 * on_dla + on_gpu))
        assert placed["ms"] == both["own"]["ms"] == pytest.approx(2 * on_dla + on_gpu)
        assert both["baseline"]["ms"] == pytest.approx(1.0)
        note = made.delivered_precision.note
        assert f"layers on DLA ({placed['share_of_layers']:.0%}), " in note
        assert f"{placed['share_of_time']:.0%} of the time; on the GPU: " in note
        assert "on the GPU alone it would be " in note
        assert " and take 1.000 ms instead of " in note

    def test_the_baseline_can_be_left_out(self, net, make):
        made = make(net, "fp16", builder="python", dla=1, baseline=False)
        assert "placement.json" in made.files
        assert "baseline.json" not in made.files

    def test_what_compatibility_costs_is_said_here_too(self, net, make):
        made = make(net, "fp16", builder="python", version_compatible=True)
        both = json.loads(made.files["baseline.json"].read_text())
        assert (both["own"]["ms"], both["baseline"]["ms"]) == (1.5, 1.0)
        assert "without version_compatible it would be" in made.delivered_precision.note

    def test_whatever_goes_wrong_in_timing_costs_no_engine(self, net, make, monkeypatch):
        """Out of memory, for one: the vendor gives no context then."""
        monkeypatch.setattr(
            double.Behaviour, "ICudaEngine_create_execution_context", lambda *_, **__: None
        )
        made = make(net, "fp16", builder="python", dla=1)
        assert made.files["engine.plan"].is_file()
        assert "(not timed: AttributeError: " in made.delivered_precision.note
        assert json.loads(made.files["placement.json"].read_text())["layers_ms"] == {}

    def test_what_cannot_be_timed_is_said_and_ships_all_the_same(self, net, make, monkeypatch):
        def refuse(what):
            raise ArtifactError(f"{what} needs an NVIDIA GPU: none", hint="")

        monkeypatch.setattr(devices, "require_driver", refuse)
        made = make(net, "fp16", builder="python", dla=1)
        assert json.loads(made.files["placement.json"].read_text())["share_of_time"] is None
        assert (
            "(not timed: tensorrt/fp16 needs an NVIDIA GPU: none)" in made.delivered_precision.note
        )


class TestOldPython:
    def test_its_syntax_and_imports_are_those_of_python_36(self):
        text = SCRIPT.read_text(encoding="utf-8")
        tree = ast.parse(text, feature_version=(3, 6))
        nodes = list(ast.walk(tree))
        imported = {n.name for node in nodes if isinstance(node, ast.Import) for n in node.names}
        assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
        assert imported == {"json", "os", "sys", "tensorrt"}
        assert "f'" not in text
        assert 'f"' not in text

    @each_python
    def test_it_builds_under_it(self, python, old_tensorrt, net, make):
        made = make(net, "fp16", builder="system", system_python=python, tf32=False)
        plan = json.loads(made.files["engine.plan"].read_bytes())
        assert plan == {
            "workspace": 8192 * 2**20, "flags": ["FP16"], "floats": [], "calibration": "",
            "ranges": {}, "dla": None, "explicit": 1,
            "profile": {"images": [[1, 3, 16, 16], [1, 3, 16, 16], [4, 3, 16, 16]]},
        }  # fmt: skip
        assert (made.delivered_precision.holds, made.delivered_precision.delivered) == (
            True,
            "fp16",
        )
        assert (made.details["version"], made.details["built_by"]) == ("8.2.1.8", "system")

    @each_python
    def test_int8_on_dla_with_ranges_beside_the_graph(self, python, old_tensorrt, int8, make):
        made = make(int8, "int8", builder="system", system_python=python, dla=1, dla_share=0.5)
        plan = json.loads(made.files["engine.plan"].read_bytes())
        assert plan["flags"] == ["FP16", "GPU_FALLBACK", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
        assert plan["dla"] == 1
        assert plan["floats"] == ["stem"]  # those of the double's layers that stay in float
        assert plan["calibration"].startswith("TRT-8201-EntropyCalibration2")
        assert set(cache_file.read(plan["calibration"])) == {"act", "pool"}
        assert made.details["dla_share"] == 0.75
        assert "3 of 4 layers on DLA (75%)" in made.delivered_precision.note

    @each_python
    def test_int8_with_ranges_on_the_tensors(self, python, old_tensorrt, int8, make):
        made = make(int8, "int8", builder="system", system_python=python, ranges="dynamic")
        plan = json.loads(made.files["engine.plan"].read_bytes())
        assert plan["calibration"] == ""
        assert set(plan["ranges"]) == {"act", "pool"}
        assert all(low == -high < 0 for low, high in plan["ranges"].values())
        assert plan["floats"] == ["stem"]
        assert "calibration.cache" not in made.files

    def test_too_small_a_share_is_refused_before_it_builds(self, old_tensorrt, net, make):
        with pytest.raises(BuildError, match="75% would run there"):
            make(net, builder="system", system_python=sys.executable, dla=0, dla_share=0.9)

    def test_what_its_parser_refuses_comes_back_in_words(self, old_tensorrt, make, tmp_path):
        model = onnx.load(str(builders.conv_net(tmp_path / "odd.onnx")))
        model.graph.node[1].op_type = "Frobnicate"
        onnx.save(model, str(tmp_path / "odd.onnx"))
        with pytest.raises(BuildError, match="node number 3: No importer registered"):
            make(tmp_path / "odd.onnx", builder="system", system_python=sys.executable)

    @each_python
    def test_without_tensorrt_it_says_so(self, python, tmp_path):
        request = tmp_path / "request.json"
        request.write_text("{}")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run([python, "-S", str(SCRIPT), str(request)], env=environment)
        assert done.returncode == 1
        error = json.loads((tmp_path / "result.json").read_text())["error"]
        assert "the system's Python has no TensorRT" in error

    def test_a_system_without_it_is_not_offered(self, net, make, tmp_path):
        system.python_version.cache_clear()
        with pytest.raises(BuildError, match="system has no TensorRT"):
            make(net, builder="system", system_python=str(tmp_path / "no python"))


#: Options that the tool names, by version; after its public source.
HELP = {
    "8.2": "--onnx --saveEngine --fp16 --int8 --calib --workspace --minShapes --optShapes "
    "--maxShapes --noTF32 --useDLACore --allowGPUFallback --timingCacheFile --buildOnly "
    "--exportLayerInfo --profilingVerbosity --loadEngine --shapes --dumpProfile --exportProfile "
    "--separateProfileRun --verbose",
    "8.6": "--onnx --saveEngine --fp16 --int8 --calib --memPoolSize --minShapes --optShapes "
    "--maxShapes --noTF32 --useDLACore --allowGPUFallback --timingCacheFile --skipInference "
    "--exportLayerInfo --profilingVerbosity --builderOptimizationLevel --verbose",
    "11": "--onnx --saveEngine --stronglyTyped --memPoolSize --minShapes --optShapes "
    "--maxShapes --noTF32 --useDLACore --allowGPUFallback --timingCacheFile --skipInference "
    "--exportLayerInfo --profilingVerbosity --builderOptimizationLevel --verbose",
}


class TestTrtexec:
    @pytest.mark.parametrize("version", HELP)
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    def test_its_command_lines(self, version, precision):
        """`GOLDEN=write` in the environment writes the files anew."""
        known = trtexec.options_of(HELP[version])
        shapes = {"images": ((1, 3, 416, 416), (1, 3, 416, 416), (8, 3, 416, 416))}
        job = trtexec.TrtexecBuild(
            onnx=Path("model.onnx"), plan=Path("engine.plan"), layers=Path("layers.json"),
            precision=precision, profile=shapes,
            calibration=Path("calibration.cache")
            if precision == "int8" and version != "11" else None,
            dla=0 if precision == "int8" else None,
        )  # fmt: skip
        checked = settings.read({"workspace_mib": 1024, "optimization_level": 4}, 8)
        words = trtexec.command("trtexec", known, job, checked)
        path = GOLDEN / f"trtexec_{version}_{precision}.txt"
        if os.environ.get("GOLDEN") == "write":
            path.write_text("\n".join(words) + "\n")
        assert words == path.read_text().splitlines()
        used = {word.split("=")[0][2:] for word in words[1:]}
        assert used <= known

    def test_a_cache_is_refused_where_it_would_be_ignored(self):
        job = trtexec.TrtexecBuild(
            onnx=Path("m"), plan=Path("p"), layers=Path("l"), precision="int8", profile={},
            calibration=Path("c"),
        )  # fmt: skip
        with pytest.raises(BuildError, match="takes no calibration cache"):
            trtexec.command("t", trtexec.options_of(HELP["11"]), job, settings.read({}, 1))

    @pytest.fixture
    def tool(self, tmp_path):
        """A program that answers as trtexec 8.2 does."""

        def write(ending):
            path = tmp_path / "trtexec"
            path.write_text(
                f"#!{sys.executable}\nimport sys\n"
                f"if '--help' in sys.argv: print({HELP['8.2']!r}); sys.exit()\n"
                "given = dict(w.split('=', 1) for w in sys.argv[1:] if '=' in w)\n" + ending
            )
            path.chmod(path.stat().st_mode | stat.S_IEXEC)
            return str(path)

        return write

    def test_it_is_run_and_read_back(self, tool, net, make):
        inspected = {"Layers": [{"Name": "stem", "ParameterType": "Convolution",
                                 "Weights": {"Type": "Half", "Count": 9}}]}  # fmt: skip
        path = tool(
            "open(given['--saveEngine'], 'w').write(' '.join(sys.argv))\n"
            f"open(given['--exportLayerInfo'], 'w').write('''{json.dumps(inspected)}''')\n"
        )
        made = make(net, "fp16", host(tensorrt="8.2.1.8"), builder="trtexec", trtexec=path)
        assert "--fp16" in made.files["engine.plan"].read_text()
        assert "--workspace=8192" in made.files["engine.plan"].read_text()
        assert made.delivered_precision.holds
        assert made.details["version"] == "8.2.1.8"

    def test_a_tool_that_is_gone_when_it_is_to_time_costs_no_engine(
        self, old_tensorrt, net, make, tmp_path
    ):
        made = make(net, builder="system", system_python=sys.executable, dla=0,
                    trtexec=str(tmp_path / "none"))  # fmt: skip
        assert "(not timed: FileNotFoundError: " in made.delivered_precision.note

    def test_compatibility_is_refused_where_the_tool_would_ignore_it(self, tool, net, make):
        path = tool("sys.exit(1)\n")
        with pytest.raises(BuildError, match="version_compatible needs a TensorRT that this"):
            make(net, "fp16", host(tensorrt="8.6"), builder="trtexec", trtexec=path,
                 version_compatible=True)  # fmt: skip

    def test_ranges_on_tensors_are_refused_where_the_tool_takes_none(self, tool, int8, net, make):
        path = tool("sys.exit(1)\n")
        with pytest.raises(BuildError, match="trtexec built nothing"):  # no concern of fp16
            make(net, "fp16", host(tensorrt="8.2"), builder="trtexec", trtexec=path,
                 ranges="dynamic")  # fmt: skip
        with pytest.raises(BuildError, match="trtexec takes no dynamic ranges"):
            make(int8, "int8", host(tensorrt="8.2"), builder="trtexec", trtexec=path,
                 ranges="dynamic")  # fmt: skip

    def test_dla_is_timed_by_it_layer_by_layer_beside_the_gpu_alone(self, tool, net, make):
        path = tool(
            "core = '--useDLACore=0' in sys.argv\n"
            "if '--loadEngine' in given:\n"
            "    assert given['--shapes'] == 'images:1x3x16x16', given\n"
            "    import json\n"
            "    layers = [{'count': 9}, {'name': '{ForeignNode[stem...deep]}', 'averageMs': 6.0},"
            " {'name': 'soft', 'averageMs': 2.0}]\n"
            "    json.dump(layers, open(given['--exportProfile'], 'w'))\n"
            "    print('[I] GPU Compute Time: min = 1.1 ms, max = 3 ms, mean = 2 ms, median = "
            "%s ms, percentile(99%%) = 9 ms' % ('7.5' if core else '3.0'))\n"
            "    sys.exit()\n"
            "open(given['--saveEngine'], 'w').write('plan' * (2 - core))\n"
            "if core: print('[I] [TRT] [DlaLayer] {ForeignNode[stem...deep]}')\n"
            "if core: print('[I] [TRT] [GpuLayer] SOFTMAX: soft')\n"
        )
        card = host(tensorrt="8.2.1.8")
        made = make(net, "fp16", card, builder="trtexec", trtexec=path, dla=0, dla_share=0.5)
        placed = json.loads(made.files["placement.json"].read_text())
        assert (placed["ms"], placed["share_of_time"]) == (7.5, 0.75)
        both = json.loads(made.files["baseline.json"].read_text())
        assert both["baseline"] == {"size_bytes": 8, "ms": 3.0}
        assert "take 3.000 ms instead of 7.500 (0.40x)" in made.delivered_precision.note

    def test_without_an_inspector_nothing_is_claimed(self, tool, net, make):
        path = tool("open(given['--saveEngine'], 'w').write('plan')\n")
        made = make(net, "fp16", host(tensorrt="8.0"), builder="trtexec", trtexec=path)
        assert not made.delivered_precision.holds
        assert made.delivered_precision.delivered == "unknown"

    def test_its_errors_are_shown_with_the_command(self, tool, net, make):
        path = tool("print('[E] Error[4]: out of everything'); sys.exit(1)\n")
        with pytest.raises(BuildError, match="out of everything") as caught:
            make(net, "fp16", host(tensorrt="8.2"), builder="trtexec", trtexec=path)
        assert "--saveEngine" in caught.value.hint


def test_with_no_way_at_all_every_place_is_named(net, make, monkeypatch):
    monkeypatch.setattr(trtexec, "PLACES", ())
    monkeypatch.setenv("PATH", "")
    system.python_version.cache_clear()
    with pytest.raises(BuildError, match="neither this Python nor the system's"):
        make(net, system_python="/no/such/python")
