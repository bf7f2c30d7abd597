"""What pip installs: the library alone, and of it only what an edge box can import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.builders import ROOT

#: What an edge box does not have.
HEAVY = [
    "torch", "onnx", "onnxscript", "onnxsim", "prefect", "mlflow", "pydantic", "yaml", "cv2",
    "pycocotools", "onnxruntime", "openvino", "structlog", "prometheus_client", "pynvml",
    "supervision", "av",
]  # fmt: skip

#: What must be importable there nevertheless.
LIGHT = [
    f"engineworks.{name}"
    for name in (
        "runtime", "cli", "targets", "store", "manifest", "codec", "facts", "hosts", "child",
        "verdict", "bench", "errors", "specs",
    )
]  # fmt: skip

PROBE = """
import importlib, importlib.abc, json, pkgutil, sys

blocked, tops = json.loads(sys.argv[1]), json.loads(sys.argv[2])

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())
tried, failed = [], {}
for top in tops:
    names = [top]
    try:
        module = importlib.import_module(top)
        if hasattr(module, "__path__"):
            names += [m.name for m in pkgutil.walk_packages(module.__path__, f"{top}.", failed.get)]
    except Exception:
        pass
    for name in names:
        if name.rpartition(".")[2] == "__main__":
            continue
        tried.append(name)
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
import engineworks
print(json.dumps({"file": engineworks.__file__, "tried": tried, "failed": failed,
                  "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="session")
def probe(installed):
    """Import modules of the installed wheel in a fresh interpreter, with packages blocked."""

    def run(blocked, tops):
        done = subprocess.run(
            [sys.executable, "-c", PROBE, json.dumps(blocked), json.dumps(tops)],
            cwd=installed,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-1500:]
        found = json.loads(done.stdout)
        assert Path(found["file"]).is_relative_to(installed), "another engineworks was imported"
        return found

    return run


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in contents(wheel)}
    (info,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {"engineworks", info}


def test_every_module_and_the_type_marker_are_in_the_wheel(wheel):
    source = ROOT / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in (source / "engineworks").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "engineworks/py.typed" in files
    assert {name for name in contents(wheel) if name.startswith("engineworks/")} == files


def metadata(installed):
    (path,) = installed.glob("*.dist-info/METADATA")
    return Parser().parsestr(path.read_text(encoding="utf-8"))


def test_the_base_installation_needs_numpy_alone(installed):
    needs = metadata(installed).get_all("Requires-Dist")
    assert [need for need in needs if "extra ==" not in need] == ["numpy>=1.24"]


@pytest.mark.parametrize("extra", ["onnxruntime", "openvino"])
def test_an_edge_extra_brings_neither_torch_nor_a_flow_engine(installed, extra):
    needs = [n for n in metadata(installed).get_all("Requires-Dist") if f"extra == '{extra}'" in n
             or f'extra == "{extra}"' in n]  # fmt: skip
    assert any(need.startswith(extra) for need in needs)
    heavy = ("torch", "onnx>", "prefect", "mlflow", "pydantic", "engineworks[")
    assert [need for need in needs if need.startswith(heavy)] == []


def test_the_version_is_that_of_the_code(installed, probe):
    text = (installed / "engineworks" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{metadata(installed)["Version"]}"' in text


def test_an_edge_box_can_import_the_runtime(probe):
    found = probe(HEAVY, LIGHT)
    assert found["failed"] == {}
    runtime = ROOT / "src" / "engineworks" / "runtime"
    modules = {path.relative_to(runtime.parents[1]) for path in runtime.rglob("[!_]*.py")}
    assert {".".join(path.with_suffix("").parts) for path in modules} <= set(found["tried"])
    assert "engineworks.targets.openvino" in found["tried"]
    assert len(found["tried"]) > 20


def test_importing_the_runtime_loads_no_heavy_package(probe):
    loaded = probe([], LIGHT)["loaded"]
    assert [name for name in HEAVY if name in loaded] == []


def test_the_whole_library_imports_without_prefect_and_mlflow(probe):
    found = probe(["prefect", "mlflow"], ["engineworks"])
    # Code that travels into servers and runs there, beside modules that only those have.
    theirs = ("'triton_python_backend_utils'", "'kserve'")
    assert {k: why for k, why in found["failed"].items() if not why.endswith(theirs)} == {}
    inside = ("engineworks.packaging._triton.", "engineworks.packaging._kserve.")
    assert all(name.startswith(inside) for name in found["failed"])
    assert {"engineworks.recipe", "engineworks.stages.build"} <= set(found["tried"])
