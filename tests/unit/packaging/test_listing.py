"""The folder's listing is the list of packages, and other distributions can add to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engineworks import packaging
from engineworks.errors import BuildError, RecipeError

FOLDER = Path(packaging.__file__).parent

THIRD_PARTY = """
from engineworks.packaging import Package
from engineworks.packaging.triton import ENVIRONMENT, serve
PACKAGE = Package(
    title="Elsewhere", fits=lambda manifest, options: "", write=lambda request: None,
    environment=ENVIRONMENT, serve=serve, unproven=lambda manifest: (),
)
"""


def test_the_listing_of_the_folder_is_the_list_of_packages():
    files = {path.stem for path in FOLDER.glob("[!_]*.py")}
    assert set(packaging.names()) >= {stem.replace("_", "-") for stem in files}


@pytest.mark.parametrize("name", packaging.names())
def test_each_has_a_lock_file_that_pins_every_line(name):
    lines = packaging.load(name).environment.lock.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith(("#", "--"))]
    assert pins
    assert all("==" in line for line in pins)


def test_an_unknown_package_is_named_with_those_there_are():
    with pytest.raises(RecipeError, match="'bento'") as caught:
        packaging.load("bento")
    assert "triton" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bakend": "python"}, "no option 'bakend'"),
        ({"backend": "rust"}, "no backend 'rust'"),
        ({"cache_mib": -1}, "cache_mib -1"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises((RecipeError, BuildError), match=words):
        packaging.check_options("triton", packaging.load("triton"), options)


def test_another_distribution_adds_one(tmp_path):
    (tmp_path / "elsewhere.py").write_text(THIRD_PARTY)
    info = tmp_path / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[engineworks.packaging]\nelse_where = elsewhere\nbroken = not_there\n"
    )
    code = """
from engineworks import packaging
print(packaging.load("else-where").title, "triton" in packaging.names())
try:
    packaging.load("broken")
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    assert "Elsewhere True" in done.stdout
    assert "repair or uninstall" in done.stdout
