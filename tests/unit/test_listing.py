"""One way to list a folder: its files, what other distributions add, and how a failure is told."""

from __future__ import annotations

import sys

import pytest

from engineworks.errors import RecipeError
from engineworks.listing import Listing


@pytest.fixture
def listing(tmp_path, monkeypatch):
    folder = tmp_path / "engineworks_shapes"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "round_one.py").write_text("SHAPE = 'round'")
    (folder / "_base.py").write_text("SHAPE = 'hidden'")
    (folder / "wrong.py").write_text("SHAPE = 3")
    (tmp_path / "other_shape.py").write_text("SHAPE = 'other'")
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[engineworks.engineworks_shapes]\nother = other_shape\nround_one = not_there\n"
        "broken = not_there\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield Listing(
        "engineworks_shapes", [str(folder)], str, "SHAPE", noun="shape", at="shapes",
        guide="docs/shapes.md", error=RecipeError, dashes=True,
    )  # fmt: skip
    for name in [name for name in sys.modules if name.startswith(("engineworks_shapes", "other_"))]:
        del sys.modules[name]


def test_files_and_other_distributions_are_listed_and_a_file_wins(listing):
    assert list(listing.modules) == ["broken", "other", "round-one", "wrong"]
    assert listing.load("round-one") == "round"
    assert listing.load("other") == "other"
    assert (listing.foreign("other"), listing.foreign("round-one")) == ("other_shape", "")


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("square", "shapes: there is no shape 'square'", "the shapes are: broken, other"),
        ("broken", "broken comes from not_there, which cannot be imported", "repair or uninstall"),
        ("wrong", "engineworks_shapes.wrong has no SHAPE = str", "see docs/shapes.md"),
    ],
)
def test_what_cannot_be_had_is_said_with_the_next_step(listing, name, words, hint):
    with pytest.raises(RecipeError, match=words) as caught:
        listing.load(name)
    assert hint in caught.value.hint


def test_a_file_is_imported_when_it_is_first_used(listing):
    assert list(listing.modules) and "engineworks_shapes.round_one" not in sys.modules
    listing.load("round-one")
    assert "engineworks_shapes.round_one" in sys.modules
