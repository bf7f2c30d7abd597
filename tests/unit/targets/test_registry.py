"""The folder's listing is the list of targets, and other packages can add to it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engineworks import targets
from engineworks.errors import RecipeError
from engineworks.targets._base import check_request, dtype_word, missing_package
from tests.builders import example, write

FOLDER = Path(targets.__file__).parent

THIRD_PARTY = """
from engineworks.targets import Target
def missing_requirements(host): return ""
def unsupported_operators(onnx): return ()
def build(request): raise NotImplementedError
TARGET = Target(
    title="A board", precisions=("fp32",), packages=(), host_bound=True,
    missing_requirements=missing_requirements, build=build,
    unsupported_operators=unsupported_operators,
)
"""

ASK = """
import json, sys
from engineworks import errors, targets
answers = {"names": targets.names()}
for name in sys.argv[1:]:
    try:
        target = targets.load(name)
        answers[name] = [target.title, target.build.__module__]
    except errors.EngineworksError as error:
        answers[name] = [type(error).__name__, error.message, error.hint]
print(json.dumps(answers))
"""


def test_the_listing_of_the_folder_is_the_list_of_targets():
    files = {path.stem for path in FOLDER.glob("[!_]*.py")}
    assert set(targets.names()) >= {stem.replace("_", "-") for stem in files}
    assert not [name for name in targets.names() if name.startswith(("_", "-"))]
    assert list(targets.names()) == sorted(targets.names())


def test_an_unknown_target_is_named_with_those_there_are():
    with pytest.raises(RecipeError, match="'tensorflow'") as caught:
        targets.load("tensorflow")
    assert all(name in caught.value.hint for name in targets.names())


def test_a_private_file_is_no_target():
    with pytest.raises(RecipeError):
        targets.load("_base")


@pytest.fixture
def ask(tmp_path):
    """Ask a fresh interpreter that sees an installed package with target entry points."""

    def run(entry_points, modules, *names):
        info = tmp_path / "acme_board-1.0.dist-info"
        write(info / "METADATA", "Metadata-Version: 2.1\nName: acme-board\nVersion: 1.0\n")
        lines = "".join(f"{name} = {module}\n" for name, module in entry_points.items())
        (info / "entry_points.txt").write_text(f"[engineworks.targets]\n{lines}")
        for name, text in modules.items():
            write(tmp_path / f"{name}.py", text)
        done = subprocess.run(
            [sys.executable, "-c", ASK, *names],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{FOLDER.parents[1]}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-800:]
        return json.loads(done.stdout)

    return run


def test_another_package_adds_a_target(ask):
    answers = ask({"acme_board": "acme_board"}, {"acme_board": THIRD_PARTY}, "acme-board", "null")
    assert "acme-board" in answers["names"]
    assert answers["acme-board"] == ["A board", "acme_board"]
    assert answers["null"][1] == "engineworks.targets.null"


def test_another_package_cannot_replace_a_target(ask):
    answers = ask({"null": "acme_board"}, {"acme_board": THIRD_PARTY}, "null")
    assert answers["null"][1] == "engineworks.targets.null"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("TARGET = Target", "BOARD = Target", "acme_board has no TARGET"),
        ("title=", "name=", "'name'"),
        ('("fp32",)', '("int8",)', "no int8"),
        ("host_bound=True,", "", "host_bound"),
    ],
)
def test_a_file_that_declares_no_whole_target_is_refused_by_its_name(ask, old, new, says):
    answers = ask({"board": "acme_board"}, {"acme_board": THIRD_PARTY.replace(old, new)}, "board")
    kind, message, _ = answers["board"]
    assert kind == "RecipeError"
    assert "acme_board" in message
    assert says in message


@pytest.mark.parametrize("modules", [{}, {"acme_board": "import no_such_vendor\n"}])
def test_a_file_that_does_not_import_is_refused_and_hurts_no_other(ask, modules):
    answers = ask({"board": "acme_board"}, modules, "board", "null")
    assert answers["board"][0] in ("RecipeError", "MissingDependency")
    assert "board" in answers["board"][1]
    assert answers["null"][1] == "engineworks.targets.null"


def test_precisions_and_options_are_held_against_the_target():
    null = targets.load("null")
    check_request("null", null, null.precisions, {"act": "ship"})
    with pytest.raises(RecipeError, match="'fp8'"):
        check_request("null", null, ("fp32", "fp8"), {})
    with pytest.raises(RecipeError, match="'speed'"):
        check_request("null", null, ("fp32",), {"act": "ship", "speed": 9})


def test_a_missing_package_is_named_with_its_extra():
    from engineworks.facts.host import HostCard

    host = example(HostCard)
    assert "pip install 'engineworks[openvino]'" in missing_package(host, "openvino", "openvino")
    assert missing_package(host, next(iter(host.packages)), "x") == ""


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("float32", "fp32"), ("tensor(float16)", "fp16"), ("<Type: 'bfloat16'>", "bf16"),
        ("f32", "fp32"), ("u8", "int8"), ("int64", "int64"),
    ],
)  # fmt: skip
def test_vendor_names_of_dtypes_become_our_words(name, word):
    assert dtype_word(name) == word


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        ("tensorrt", {"batch": [1, 4, 2]}, "options.batch"),
        ("tensorrt", {"batch": [2, 2, 4]}, "does not begin with 1"),
        ("tensorrt", {"cuda_graph": "yes"}, "options.cuda_graph"),
        ("tensorrt-rtx", {"gpus": ["9.0"]}, "options.gpus"),
        ("jetson", {"dla": 0, "dla_share": 2}, "options.dla_share"),
        ("jetson", {"builder": "make"}, "options.builder"),
        ("jetson", {"dla": "x"}, "options.dla"),
        ("jetson", {"dla": 0, "batch": [1, 1, 8]}, "DLA, which has no dynamic shapes"),
        ("tensorrt", {"shapes": {"images": [1, 2, 3]}}, "options.shapes.images"),
        ("tensorrt", {"shapes": {"images": [[], [], []]}}, "options.shapes.images"),
        ("tensorrt", {"timing_cache": "x"}, "options.timing_cache"),
        ("onnxruntime-cuda", {"arena": "huge"}, "options.arena"),
        ("coreml", {"compute_units": "gpu"}, "options.compute_units"),
        ("null", {"act": "dance"}, "options.act"),
    ],
)
def test_a_wrong_value_of_an_option_is_refused_when_the_recipe_is_read(target, options, says):
    module = targets.load(target)
    with pytest.raises(RecipeError, match=f"targets: {target}: .*{says}"):
        check_request(target, module, module.precisions[:1], options)


def test_a_targets_file_that_stumbles_over_an_option_is_named():
    odd = dataclasses.replace(
        targets.load("null"),
        options={"a": ""},
        check_options=lambda options: options["a"].nothing,
    )
    with pytest.raises(RecipeError, match=r"odd cannot read its options \{'a': 3\} \(Attribute"):
        check_request("odd", odd, ("fp32",), {"a": 3})


def test_a_timing_cache_is_looked_at_on_the_machine_that_has_it():
    cache = {"path": "/no/such/timing.cache", "sha256": "0" * 64}
    check_request("tensorrt", targets.load("tensorrt"), ("fp16",), {"timing_cache": cache})


BOARD = """
import numpy as np
from pathlib import Path
from engineworks.manifest import Requires
from engineworks.targets import Target
from engineworks.targets._base import UNREAD, BuildOutput
def build(request):
    path = request.work / "factor.txt"
    path.write_text("3")
    return BuildOutput(files={"factor.txt": path}, entry="factor.txt",
                       requires=Requires(runtime="acme_runtime"), delivered_precision=UNREAD)
TARGET = Target(title="A board", precisions=("fp32",), packages=(), host_bound=False,
                missing_requirements=lambda host: "", build=build,
                unsupported_operators=lambda onnx: ())
"""

RUNTIME = """
from engineworks.runtime.session import SessionBase
class Times(SessionBase):
    def __init__(self, folder, manifest):
        super().__init__(manifest)
        self.factor = float((folder / manifest.entry).read_text())
    def __enter__(self):
        return self
    def infer(self, feeds):
        self.check(feeds)
        return {self.outputs[0].name: feeds[self.inputs[0].name] * self.factor}
    def close(self):
        pass
def open_session(folder, manifest, threads):
    return Times(folder, manifest)
"""

SHIP = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
from engineworks import hosts, runtime, targets
from engineworks.manifest import Provenance, TensorSpec
from engineworks.store import LocalStore
from engineworks.targets._base import BuildInput
spec = lambda name: (TensorSpec(name=name, dtype="float32", shape=("batch", 2)),)
folder = Path(sys.argv[1])
(folder / "work").mkdir()
built = targets.load("acme-board").build(BuildInput(
    onnx=folder / "none.onnx", inputs=spec("x"), outputs=spec("y"), precision="fp32", options={},
    host=hosts.probe(), work=folder / "work"))
engine = LocalStore(folder / "store").put(
    built.files, kind="engine", name="acme", entry=built.entry, inputs=spec("x"), outputs=spec("y"),
    requires=built.requires, target="acme-board", precision="fp32",
    provenance=Provenance(stage="build"))
with runtime.open(engine.uri) as session:
    answer = session.infer({"x": np.ones((1, 2), np.float32)})["y"].tolist()
print(json.dumps([answer, targets.tools("acme-board")]))
"""


def test_a_package_elsewhere_brings_target_and_runtime_and_its_code_is_in_the_key(tmp_path):
    info = tmp_path / "acme_board-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: acme-board\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[engineworks.targets]\nacme-board = acme_board.target\n"
        "[engineworks.engines]\nacme_runtime = acme_board.session\n"
    )
    write(tmp_path / "acme_board" / "__init__.py", "")
    write(tmp_path / "acme_board" / "target.py", BOARD)

    def ship(name, runtime):
        write(tmp_path / "acme_board" / "session.py", runtime)
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", SHIP, str(tmp_path / name)],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{FOLDER.parents[1]}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-800:]
        return json.loads(done.stdout)

    answer, tools = ship("first", RUNTIME)
    assert answer == [[3.0, 3.0]]
    assert ship("second", RUNTIME)[1] == tools
    assert ship("third", RUNTIME + "# changed\n")[1] != tools
