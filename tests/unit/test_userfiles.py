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
    assert read == {str(path): file_sha256(path)}
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
    assert json.loads(out.stdout) == ["low", "outside", "own.png", "photo.png", "read"]
