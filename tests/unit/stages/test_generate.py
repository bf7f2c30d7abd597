"""Images of a user's function become files, as they came, or a clear refusal."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engineworks.errors import DataError, ModelError
from engineworks.stages.generate import GenerateRequest, generate
from engineworks.store import LocalStore
from tests.builders import shared, through_json

CODE = """
import numpy as np

def frames():
    for n in range(100):
        yield np.full((6 + n % 3, 8, 3), (n, 2 * n, 255 - n), np.uint8)

def listed():
    return list(frames())[:3]

def floats():
    yield np.zeros((6, 8, 3), np.float32)

def rows():
    yield np.zeros((3, 6, 8), np.uint8)

def words():
    yield "photo.jpg"

def nothing():
    return iter(())

def number():
    return 3

def breaks():
    yield np.zeros((6, 8, 3), np.uint8)
    raise OSError("camera unplugged")
"""


@pytest.fixture
def request_of(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "made_images.py").write_text(CODE)
    common = shared(LocalStore(tmp_path / "store"))

    def request(name, limit=10):
        return GenerateRequest(
            shared=common, function=f"made_images:{name}", limit=limit, code_sha256="",
            folder=str(tmp_path / "code"),
        )  # fmt: skip

    return request


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "made_images", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_images_are_kept_bit_by_bit_and_in_order(request_of):
    found = through_json("generate", request_of("frames"))
    assert (found.images, found.artifact.kind) == (10, "samples")
    store = LocalStore(store_root(request_of))
    folder = store.open(found.artifact)
    names = sorted(path.name for path in folder.glob("*.png"))
    assert len(names) == 10
    for n, name in enumerate(names):
        image = cv2.imread(str(folder / name))
        assert image.shape == (6 + n % 3, 8, 3)
        np.testing.assert_array_equal(image[0, 0], (n, 2 * n, 255 - n))


def store_root(request_of):
    from pathlib import Path

    return Path(request_of("frames").shared.store)


def test_a_list_will_do_and_the_same_images_are_the_same_artifact(request_of):
    found = generate(request_of("listed"))
    assert found.images == 3
    assert generate(request_of("frames", limit=3)).artifact.manifest.files == (
        found.artifact.manifest.files
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("floats", r"image 0 .* is float32 \(6, 8, 3\), not uint8"),
        ("rows", r"image 0 .* is uint8 \(3, 6, 8\), not uint8 \(height, width, 3\)"),
        ("words", "not uint8"),
        ("nothing", "yielded no image"),
        ("number", "returns int"),
        ("breaks", "raised OSError: camera unplugged"),
    ],
)
def test_what_is_no_image_is_refused_in_words(request_of, name, words):
    with pytest.raises(DataError, match=words):
        generate(request_of(name))


def test_a_function_that_is_not_there_is_named(request_of):
    with pytest.raises(ModelError, match=r"calibration\.images: .* has no callable 'gone'"):
        generate(request_of("gone"))
