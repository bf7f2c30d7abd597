"""Commands in folders whose names are no UTF-8, or where Python was told that names are ASCII."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.builders import EXAMPLES, ROOT

RECIPE = str(EXAMPLES / "yolox_nano" / "recipe.yaml")


def dry_run(recipe, home, **more):
    surroundings = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **more}
    command = [sys.executable, "-m", "flows.ship", recipe, "--dry-run", "--home", home]
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="takes only UTF-8")
@pytest.mark.parametrize("place", ["home", "recipe"])
def test_a_name_that_is_no_text_is_named(tmp_path, place):
    odd = os.fsencode(tmp_path / "st") + b"\xe4nde"  # Latin-1
    os.mkdir(odd)  # noqa: PTH102 - a path of bytes
    recipe = odd + b"/recipe.yaml" if place == "recipe" else RECIPE
    code, told = dry_run(recipe, odd if place == "home" else tmp_path)
    assert code == 3
    assert b"st\\xe4nde" in told
    assert b"rename it to plain UTF-8" in told


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"LC_ALL": "C"}, 0, b"onnxruntime-cpu/fp32"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 3, b"PYTHONUTF8=1"),
    ],
)
def test_a_home_with_accents_where_no_language_is_set(tmp_path, more, code, words):
    told = dry_run(RECIPE, tmp_path / "zuhause-\u00fc", **more)
    assert told[0] == code, told[1]
    assert words in told[1]
    assert b"unexpected" not in told[1]
