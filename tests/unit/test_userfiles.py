"""What a user's code opens beside itself is noted, and compared before a cached result is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from engineworks import child, userfiles
from engineworks.codec import to_json
from engineworks.errors import InputError
from engineworks.stages.generate import GenerateRequest
from engineworks.store import LocalStore, file_sha256
from tests.builders import shared, write

FUNCTION = """
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def make():
    level = int((HERE / "level.txt").read_text())
    yield np.full((8, 8, 3), level, np.uint8)
    {then}
"""


def generate(tmp_path, then="pass"):
    write(tmp_path / "recipe" / "ewtest_makes.py", FUNCTION.format(then=then))
    write(tmp_path / "recipe" / "level.txt", "7")
    store = LocalStore(tmp_path / "store")
    request = GenerateRequest(
        shared=shared(store), function="ewtest_makes:make", limit=4, code_sha256="",
        folder=str(tmp_path / "recipe"),
    )  # fmt: skip
    return child.run("generate", to_json(request), folder=tmp_path / "stage", limit_s=60)


def test_a_stage_says_what_the_users_function_has_read(tmp_path):
    path = tmp_path / "recipe" / "level.txt"
    read = generate(tmp_path)["read"]
    code = tmp_path / "recipe" / "ewtest_makes.py"
    assert read == {str(file): file_sha256(file) for file in (code, path)}
    assert userfiles.altered(read) == ""
    path.write_text("8")
    assert userfiles.altered(read) == str(path)
    path.unlink()
    assert userfiles.altered(read) == str(path)


def test_a_file_that_changes_before_the_stage_ends_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"level\.txt changed while the run went on"):
        generate(tmp_path, 'Path(HERE, "level.txt").write_text("9")')


def test_only_data_that_is_read_while_user_code_runs_is_noted(tmp_path):
    script = f"""
import json, os
from pathlib import Path
import cv2
import numpy as np
from engineworks import userfiles
here = Path({str(tmp_path)!r}, "recipe")
(here / ".venv").mkdir(parents=True)
data = here.parent / "data"
for folder in (data, data / ".cache", here.parent / "state", here.parent / "temporary"):
    folder.mkdir()
names = ("before", "read", "low", "code.py", ".venv/x", "../data/outside", "../data/.cache/x",
         "../state/x", "../temporary/x", "../data/gone", "../data/code.py")
for name in names:
    (here / name).write_text(name)
cv2.imwrite(str(data / "photo.png"), np.zeros((4, 4, 3), np.uint8))
cv2.imwrite(str(here / "own.png"), np.zeros((4, 4, 3), np.uint8))
(here / "before").read_text()
with userfiles.noted(here):
    (here / "read").read_text()
    os.close(os.open(here / "low", os.O_RDONLY))
    (here / "code.py").read_text()
    (here / ".venv/x").read_text()
    for name in names[5:]:
        (here / name).read_text()
    Path("/etc/passwd").read_text()
    assert cv2.imread(str(data / "photo.png")).shape == (4, 4, 3)
    assert cv2.imread(filename=str(here / "own.png")).shape == (4, 4, 3)
    assert cv2.imread(str(data / "nowhere.png")) is None
    (data / "gone").unlink()
    (here / "written").write_text("w")
    try:
        (here / "missing").read_text()
    except OSError:
        pass
print(json.dumps(sorted(Path(path).name for path in userfiles.seen())))
"""
    surroundings = {
        **os.environ, "TMPDIR": str(tmp_path / "temporary"),
        "ENGINEWORKS_HOME": str(tmp_path / "state"),
    }  # fmt: skip
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, env=surroundings
    )
    assert json.loads(out.stdout) == [
        *("code.py", "code.py", "low", "missing", "nowhere.png"),
        *("outside", "own.png", "photo.png", "read"),
    ]


def watched(folder, code):
    """What is noted while code runs in a process of its own, and nothing else."""
    temporary = folder.parent / f"{folder.name}-temporary"
    temporary.mkdir(exist_ok=True)
    script = f"""
import contextlib, json, os, sys
from pathlib import Path
from engineworks import userfiles
here = Path({str(folder)!r})
with userfiles.noted(here), contextlib.suppress(Exception):
    {code}
print(json.dumps(userfiles.seen()))
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": ""},
    )  # fmt: skip
    return json.loads(out.stdout.splitlines()[-1])


LOOKS = {
    "exists": "os.path.exists(here / 'later.json')",
    "isfile": "os.path.isfile(str(here / 'later.json'))",
    "path": "(here / 'later.json').is_file()",
    "bytes": "os.path.exists(os.fsencode(here / 'later.json'))",
    "open": "open(here / 'later.json')",
    "relative": "os.chdir(here); os.path.exists('later.json')",
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_was_looked_for_in_vain_counts_once_it_is_there(tmp_path, look):
    noted = watched(tmp_path, LOOKS[look])
    assert noted == {str(tmp_path / "later.json"): ""}
    assert userfiles.altered(noted) == ""
    (tmp_path / "later.json").mkdir()
    assert userfiles.altered(noted) == str(tmp_path / "later.json")
    (tmp_path / "later.json").rmdir()
    (tmp_path / "later.json").write_text("{}")
    assert userfiles.altered(noted) == str(tmp_path / "later.json")


LISTINGS = {
    "glob": "import glob; glob.glob(str(here / 'ckpt/*.pt'))",
    "path": "list((here / 'ckpt').glob('*'))",
    "listdir": "os.chdir(here / 'ckpt'); os.listdir()",
    "walk": "list(os.walk(here / 'ckpt'))",
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_folder_that_was_listed_counts_by_its_names(tmp_path, listing):
    write(tmp_path / "ckpt" / "1.pt", "1")
    noted = watched(tmp_path, LISTINGS[listing])
    folder = f"{tmp_path / 'ckpt'}/"
    assert folder in noted
    (tmp_path / "ckpt" / "__pycache__").mkdir()
    assert userfiles.altered(noted) == ""
    write(tmp_path / "ckpt" / "2.pt", "2")
    assert userfiles.altered(noted) == folder.rstrip("/")


def test_a_module_of_the_users_elsewhere_counts_also_as_bytecode(tmp_path):
    write(tmp_path / "common" / "shared_net.py", "K = 1")
    code = f"sys.path.insert(0, {str(tmp_path / 'common')!r}); import shared_net"
    (tmp_path / "recipe").mkdir()
    for _ in range(2):  # the second time it is Python's own copy that is opened
        noted = watched(tmp_path / "recipe", code)
        assert set(noted) == {
            f"{tmp_path / 'common'}/", str(tmp_path / "common" / "shared_net.py")
        }  # fmt: skip
    assert (tmp_path / "common" / "__pycache__").is_dir()
    write(tmp_path / "common" / "shared_net.py", "K = 4")
    assert userfiles.altered(noted) == str(tmp_path / "common" / "shared_net.py")


def test_installed_packages_and_imports_that_look_around_are_not_noted(tmp_path):
    assert watched(tmp_path, "import xml.dom.minidom, PIL.Image, engineworks.verdict") == {}


READERS = {
    "torch": "import torch; torch.jit.load(here / 'net.pt')",
    "named": "import torch; torch.jit.load(f=str(here / 'net.pt'))",
    "storage": "import cv2; cv2.FileStorage(str(here / 'net.pt'), 0)",
    "video": "import cv2; cv2.VideoCapture(str(here / 'net.pt'))",
    "av": "import av; av.open(str(here / 'net.pt'))",
    "numpy": "import numpy; numpy.fromfile(here / 'net.pt')",
    "mapped": "import numpy; numpy.memmap(here / 'net.pt')",
    "for writing, too": "open(here / 'net.pt', 'r+b').read()",
    "session": "import onnxruntime; onnxruntime.InferenceSession(str(here / 'net.pt'))",
    "sqlite": "import sqlite3; sqlite3.connect(here / 'net.pt')",
    "forked": "import multiprocessing as mp; p = mp.get_context('fork').Process("
    "target=(here / 'net.pt').read_bytes); p.start(); p.join()",
}


@pytest.mark.parametrize("reader", READERS)
def test_what_libraries_read_without_python_is_noted(tmp_path, reader):
    import torch

    path = tmp_path / "net.pt"
    torch.jit.script(torch.nn.ReLU()).save(path)
    noted = watched(tmp_path, READERS[reader])
    assert {key: noted[key] for key in noted if "\0" not in key} == {str(path): file_sha256(path)}
    assert userfiles.altered(noted) == ""
    os.utime(path, (1, 1))  # the same bytes at another time are the same
    assert userfiles.altered(noted) == ""


def test_a_wrapped_class_stays_a_class(tmp_path):
    watched(tmp_path, "import cv2; assert isinstance(cv2.VideoCapture(), cv2.VideoCapture)")


def test_what_the_code_itself_leaves_is_no_change_under_way(tmp_path):
    code = (
        "cache = here / 'cache'; cache.exists() or cache.mkdir(); list(cache.iterdir()); "
        "(cache / 'a').write_text('a')"
    )
    first = watched(tmp_path, code)
    assert userfiles.altered(first) != ""  # made once more, then it stands
    second = watched(tmp_path, code)
    assert userfiles.altered(second) == ""


LATER = {
    "a folder that is listed and not there": (
        "import glob; glob.glob(str(here / 'extra/*.pt'))", "extra/1.pt"
    ),
    "access": ("os.access(here / 'o.json', os.R_OK)", "o.json"),
    "an optional module elsewhere": (
        "sys.path.insert(0, str(here.parent / 'lib')); import local_settings",
        "../lib/local_settings.py",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LATER)
def test_what_appears_later_counts(tmp_path, case):
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    write(tmp_path / "lib" / "other.py", "")
    code, name = LATER[case]
    noted = watched(recipe, code)
    assert userfiles.altered(noted) == ""
    write(recipe / name, "")
    assert userfiles.altered(noted) != ""


def test_a_link_that_is_followed_counts_by_where_it_leads(tmp_path):
    for number in (1, 2):
        write(tmp_path / f"v{number}" / "a.txt", str(number))
    (tmp_path / "latest").symlink_to("v1")
    noted = watched(tmp_path, "((here / 'latest').resolve() / 'a.txt').read_text()")
    assert userfiles.altered(noted) == ""
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("v2")
    assert userfiles.altered(noted) == str(tmp_path / "latest")


@pytest.mark.parametrize("look", ["os.path.getmtime", "os.path.getsize", "os.stat"])
def test_times_and_sizes_that_were_asked_for_count(tmp_path, look):
    write(tmp_path / "a.pt", "1")
    noted = watched(tmp_path, f"{look}(here / 'a.pt')")
    assert userfiles.altered(noted) == ""
    os.utime(tmp_path / "a.pt", (1, 1))
    assert userfiles.altered(noted) == str(tmp_path / "a.pt")


def test_what_was_there_and_is_taken_away_counts(tmp_path):
    write(tmp_path / "flag", "1")
    noted = watched(tmp_path, "os.path.exists(here / 'flag')")
    os.utime(tmp_path / "flag", (1, 1))
    assert userfiles.altered(noted) == ""
    (tmp_path / "flag").unlink()
    assert userfiles.altered(noted) == str(tmp_path / "flag")


def test_a_link_whose_target_comes_later_counts(tmp_path):
    (tmp_path / "latest.pt").symlink_to("v1.pt")
    noted = watched(tmp_path, "open(here / 'latest.pt')")
    assert userfiles.altered(noted) == ""
    write(tmp_path / "v1.pt", "1")
    assert userfiles.altered(noted) == str(tmp_path / "latest.pt")
