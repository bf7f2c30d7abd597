"""The wheel, as a release would build it, and its contents in a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.builders import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what a release holds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    # Everything that setuptools could wrongly take for a package lies beside src, as it does here.
    for name in ("src", "flows", "tasks", "artifacts", "examples", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.jpg")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """A folder that holds the wheel's contents and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
