"""No file of the checkout takes the name of a package that someone could import instead."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from tests.builders import ROOT

#: `build` makes engines; pypa's `build` makes wheels and is never imported by a flow.
ALLOWED = {"build"}


@pytest.mark.parametrize("folder", ["flows", "tasks", "artifacts"])
def test_no_file_is_named_as_an_importable_package(folder):
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions())
    stems = {path.stem for path in (ROOT / folder).glob("[!_]*.py")}
    assert stems, f"{folder}/ holds no file"
    assert (stems & taken) - ALLOWED == set()


@pytest.mark.parametrize("folder", ["flows", "tasks", "artifacts"])
def test_no_folder_is_named_as_an_importable_package(folder):
    """`import tasks` from the checkout must not find another distribution's `tasks`."""
    ours = {folder, "engineworks"}
    others = {
        top for top, owners in metadata.packages_distributions().items()
        if set(owners) != {"engineworks"}
    }  # fmt: skip
    assert not ours & others
    assert folder not in sys.stdlib_module_names


def test_an_allowed_name_is_still_taken():
    """Whoever renames the file shall shorten the list."""
    stems = {
        path.stem for name in ("flows", "tasks", "artifacts") for path in (ROOT / name).iterdir()
    }
    assert stems >= ALLOWED
