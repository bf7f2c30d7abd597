"""User code beside the recipe is found, and its digest covers what it may use."""

from __future__ import annotations

import inspect
import itertools
import os
import subprocess
import sys

import pytest

from engineworks import usercode
from engineworks.errors import InputError, ModelError
from tests.builders import write

numbers = itertools.count()


@pytest.fixture
def folder(tmp_path):
    finders = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
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
    @pytest.mark.parametrize("place", ["other.py", "deep/er/other.py", "data/other.py"])
    def test_any_python_file_beside_the_recipe_is_part_of_it(self, folder, place):
        name = fresh(folder)
        before = usercode.pin(f"{name}:build", folder).sha256
        write(folder / place, "x = 1\n")
        assert usercode.pin(f"{name}:build", folder).sha256 != before

    @pytest.mark.parametrize("place", [".venv/x.py", "__pycache__/x.py", "notes.txt"])
    def test_other_files_are_not(self, folder, place):
        name = fresh(folder)
        before = usercode.pin(f"{name}:build", folder).sha256
        write(folder / place, "x = 1\n")
        assert usercode.pin(f"{name}:build", folder).sha256 == before

    def test_renaming_a_file_changes_it(self, folder):
        name = fresh(folder)
        write(folder / "one.py", "x = 1\n")
        before = usercode.pin(f"{name}:build", folder).sha256
        (folder / "one.py").rename(folder / "two.py")
        assert usercode.pin(f"{name}:build", folder).sha256 != before

    def test_a_compiled_module_is_part_of_it(self, folder):
        name = fresh(folder)
        before = usercode.pin(f"{name}:build", folder).sha256
        (folder / "fast.abi3.so").write_bytes(b"ELF")
        assert usercode.pin(f"{name}:build", folder).sha256 != before


class TestHeld:
    """What a process may import once it was told what was pinned."""

    def held(self, folder, name):
        usercode.hold_to([usercode.pin(f"{name}:build", folder)], folder)

    def test_the_pinned_code_runs(self, folder):
        name = fresh(folder)
        self.held(folder, name)
        assert usercode.load(f"{name}:build", folder, "model.source")() == 1

    def test_code_that_was_replaced_is_refused_by_name(self, folder):
        name = fresh(folder)
        self.held(folder, name)
        (folder / f"{name}.py").write_text("def build(): return 2\n")
        with pytest.raises(InputError, match=rf"{name}\.py changed while the run went on"):
            usercode.load(f"{name}:build", folder, "model.source")

    def test_so_is_a_neighbour_that_is_imported_later(self, folder):
        helper = fresh(folder, "VALUE = 5\n")
        name = fresh(folder, f"def build():\n    import {helper}\n    return {helper}.VALUE\n")
        self.held(folder, name)
        build = usercode.load(f"{name}:build", folder, "model.source")
        (folder / f"{helper}.py").write_text("VALUE = 6\n")
        with pytest.raises(InputError, match=helper):
            build()

    def test_so_is_a_module_of_a_package(self, folder):
        name = f"ewtest_user_{next(numbers)}"
        write(folder / name / "nets.py", "def build(): return 2\n")
        self.held(folder, f"{name}.nets")
        write(folder / name / "nets.py", "def build(): return 3\n")
        with pytest.raises(InputError, match=r"nets\.py"):
            usercode.load(f"{name}.nets:build", folder, "model.source")

    def test_code_that_appeared_since_is_refused(self, folder):
        name = fresh(folder, "import ewtest_late\ndef build(): return 1\n")
        self.held(folder, name)
        write(folder / "ewtest_late.py", "")
        with pytest.raises(InputError, match=r"ewtest_late\.py .*was not there"):
            usercode.load(f"{name}:build", folder, "model.source")

    def test_a_cache_of_equal_size_and_time_proves_nothing(self, folder):
        name = fresh(folder, "def build(): return 1\n")
        path = folder / f"{name}.py"
        command = f"import py_compile; py_compile.compile({str(path)!r})"
        subprocess.run([sys.executable, "-c", command], check=True)
        times = path.stat().st_mtime_ns
        path.write_text("def build(): return 2\n")
        os.utime(path, ns=(times, times))
        self.held(folder, name)
        assert usercode.load(f"{name}:build", folder, "model.source")() == 2

    def test_who_asks_for_the_source_gets_the_pinned_one(self, folder):
        name = fresh(folder, "def build():\n    return 1\n")
        self.held(folder, name)
        build = usercode.load(f"{name}:build", folder, "model.source")
        (folder / f"{name}.py").write_text("def build():\n    return 22\n")
        assert inspect.getsource(build) == "def build():\n    return 1\n"

    def test_a_virtual_environment_beside_the_recipe_is_left_alone(self, folder, monkeypatch):
        place = folder / ".venv" / "site"
        monkeypatch.syspath_prepend(str(place))
        other = f"ewtest_user_{next(numbers)}"
        name = fresh(folder, f"from {other} import VALUE\ndef build(): return VALUE\n")
        self.held(folder, name)
        write(place / f"{other}.py", "VALUE = 7\n")
        assert usercode.load(f"{name}:build", folder, "model.source")() == 7

    def test_an_installed_package_is_held_too(self, folder, monkeypatch):
        installed = folder / "installed"
        name = f"ewtest_user_{next(numbers)}"
        write(installed / name / "__init__.py", "def build(): return 1\n")
        monkeypatch.syspath_prepend(str(installed))
        recipe = folder / "recipe"
        recipe.mkdir()
        usercode.hold_to([usercode.pin(f"{name}:build", recipe)], recipe)
        write(installed / name / "__init__.py", "def build(): return 2\n")
        with pytest.raises(InputError, match="__init__"):
            usercode.load(f"{name}:build", recipe, "model.source")
