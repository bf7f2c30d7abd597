"""What a user's code opens beside itself is noted, and compared before a cached result is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from engineworks import child, userfiles
from engineworks.codec import to_json
from engineworks.errors import InputError
from engineworks.stages import requests as asked
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


def gather(tmp_path, then="pass"):
    write(tmp_path / "recipe" / "ewtest_makes.py", FUNCTION.format(then=then))
    write(tmp_path / "recipe" / "level.txt", "7")
    store = LocalStore(tmp_path / "store")
    request = asked.GatherRequest(
        shared=shared(store), function="ewtest_makes:make", limit=4, code_sha256="",
        folder=str(tmp_path / "recipe"),
    )  # fmt: skip
    return child.run("gather", to_json(request), folder=tmp_path / "stage", limit_s=60)


def test_a_stage_says_what_the_users_function_has_read(tmp_path):
    path = tmp_path / "recipe" / "level.txt"
    read = gather(tmp_path)["read"]
    assert read == {str(path): file_sha256(path)}
    assert userfiles.altered(read) == ""
    path.write_text("8")
    assert userfiles.altered(read) == str(path)
    path.unlink()
    assert userfiles.altered(read) == str(path)


def test_a_file_that_changes_before_the_stage_ends_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"level\.txt changed while the run went on"):
        gather(tmp_path, 'Path(HERE, "level.txt").write_text("9")')


def test_only_what_is_read_in_the_folder_while_user_code_runs_is_noted(tmp_path):
    script = f"""
import json, os
from pathlib import Path
from engineworks import userfiles
here = Path({str(tmp_path)!r}, "recipe")
(here / ".venv").mkdir(parents=True)
for name in ("before", "read", "low", "code.py", ".venv/x", "../outside"):
    (here / name).write_text(name)
(here / "before").read_text()
with userfiles.noted(here):
    (here / "read").read_text()
    os.close(os.open(here / "low", os.O_RDONLY))
    (here / "code.py").read_text()
    (here / ".venv/x").read_text()
    (here / "../outside").read_text()
    (here / "written").write_text("w")
    try:
        (here / "missing").read_text()
    except OSError:
        pass
print(json.dumps(sorted(Path(path).name for path in userfiles.seen())))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert json.loads(out.stdout) == ["low", "read"]
