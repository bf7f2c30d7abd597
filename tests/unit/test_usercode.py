"""User code beside the recipe is found, and its digest covers what it may use."""

from __future__ import annotations

import itertools
import sys

import pytest

from engineworks import usercode
from engineworks.errors import ModelError
from tests.builders import write

numbers = itertools.count()


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def fresh(folder, text="def build(): return 1\n", ending=".py"):
    name = f"ewtest_user_{next(numbers)}"
    write(folder / f"{name}{ending}", text)
    return name


def test_a_module_beside_the_recipe_is_loaded(folder):
    assert usercode.load(f"{fresh(folder)}:build", folder, "model.source")() == 1


def test_a_package_beside_the_recipe_is_loaded(folder):
    name = f"ewtest_user_{next(numbers)}"
    write(folder / name / "nets.py", "def build(): return 2\n")
    assert usercode.load(f"{name}.nets:build", folder, "model.source")() == 2


def test_a_module_beside_the_recipe_may_use_its_neighbour(folder):
    helper = fresh(folder, "VALUE = 5\n")
    name = fresh(folder, f"from {helper} import VALUE\ndef build(): return VALUE\n")
    assert usercode.load(f"{name}:build", folder, "model.source")() == 5


def test_a_missing_module_is_named_with_where_it_could_lie(folder):
    with pytest.raises(ModelError, match=r"task\.layout: 'nowhere_at_all:x'") as caught:
        usercode.load("nowhere_at_all:x", folder, "task.layout")
    assert str(folder / "nowhere_at_all.py") in caught.value.hint


def test_a_missing_name_is_answered_with_those_there_are(folder):
    with pytest.raises(ModelError, match="no callable 'bild'") as caught:
        usercode.load(f"{fresh(folder)}:bild", folder, "model.source")
    assert "build" in caught.value.hint


class TestDigest:
    @pytest.mark.parametrize("place", ["other.py", "deep/er/other.py"])
    def test_any_python_file_beside_the_recipe_is_part_of_it(self, folder, place):
        name = fresh(folder)
        before = usercode.code_sha256(f"{name}:build", folder)
        write(folder / place, "x = 1\n")
        assert usercode.code_sha256(f"{name}:build", folder) != before

    @pytest.mark.parametrize("place", [".venv/x.py", "__pycache__/x.py", "data/x.py", "notes.txt"])
    def test_other_files_are_not(self, folder, place):
        name = fresh(folder)
        before = usercode.code_sha256(f"{name}:build", folder)
        write(folder / place, "x = 1\n")
        assert usercode.code_sha256(f"{name}:build", folder) == before

    def test_renaming_a_file_changes_it(self, folder):
        name = fresh(folder)
        write(folder / "one.py", "x = 1\n")
        before = usercode.code_sha256(f"{name}:build", folder)
        (folder / "one.py").rename(folder / "two.py")
        assert usercode.code_sha256(f"{name}:build", folder) != before
