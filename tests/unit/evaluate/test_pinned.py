"""What was hashed is what is decoded, whatever becomes of the user's files meanwhile."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from engineworks.errors import DataError, InputError
from engineworks.evaluate import datasets, pinned
from engineworks.specs import DataSpec, TaskSpec
from engineworks.store import LocalStore
from tests.builders import coco, picture

LABELS = ("cat", "dog")
CLASSES = TaskSpec(kind="classification")


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def data(tmp_path):
    for number, label in enumerate(LABELS):
        picture(tmp_path / "pics" / label / "a.bmp", seed=number)
    return datasets.validate(DataSpec(images=str(tmp_path / "pics")), CLASSES, LABELS)


def swap(path, other, *, keep_times=True):
    """Another picture's bytes under this name, of equal size and with equal times."""
    before = path.stat()
    path.write_bytes(other.read_bytes())
    assert path.stat().st_size == before.st_size
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_photo_that_was_replaced_is_refused_by_name(data, tmp_path):
    cat, dog = (tmp_path / "pics" / label / "a.bmp" for label in LABELS)
    swap(dog, cat)
    with pytest.raises(InputError, match=r"dog/a\.bmp changed while the run went on"):
        list(datasets.images(data))


def test_a_photo_that_is_gone_is_refused_by_name(data, tmp_path):
    (tmp_path / "pics" / "dog" / "a.bmp").unlink()
    with pytest.raises(InputError, match=r"dog/a\.bmp.*cannot be read"):
        list(datasets.images(data))


def test_one_that_was_put_back_is_read(data, tmp_path):
    cat, dog = (tmp_path / "pics" / label / "a.bmp" for label in LABELS)
    shutil.copy(dog, tmp_path / "kept.bmp")
    swap(dog, cat)
    shutil.copy(tmp_path / "kept.bmp", dog)
    want = [cv2.imread(str(path)) for path in (cat, dog)]
    np.testing.assert_array_equal(list(datasets.images(data)), want)


def test_a_file_is_read_once_so_a_swap_in_between_cannot_be_seen(data, tmp_path, monkeypatch):
    cat, dog = (tmp_path / "pics" / label / "a.bmp" for label in LABELS)
    want, other = cv2.imread(str(dog)), cat.read_bytes()
    decode = pinned.decode_picture

    def late(bytes_read, name, **limits):
        dog.write_bytes(other)
        return decode(bytes_read, name, **limits)

    monkeypatch.setattr(pinned, "decode_picture", late)
    np.testing.assert_array_equal(datasets.read(data, "dog/a.bmp"), want)


def test_screening_works_on_the_list_that_was_hashed(data, tmp_path):
    picture(tmp_path / "pics" / "dog" / "new.bmp")
    again = datasets.validate(data.spec, CLASSES, LABELS, digests=data.digests)
    assert again.files == data.files
    assert again.sha256 == data.sha256
    swap(tmp_path / "pics/dog/a.bmp", tmp_path / "pics/cat/a.bmp")
    with pytest.raises(InputError, match=r"dog/a\.bmp"):
        datasets.validate(data.spec, CLASSES, LABELS, digests=data.digests)


def test_a_photo_that_cannot_be_read_is_a_bad_image_and_no_crash(tmp_path):
    picture(tmp_path / "cat" / "a.bmp")
    (tmp_path / "cat" / "b.bmp").mkdir()
    digests = pinned.digests(tmp_path, ["cat/a.bmp", "cat/b.bmp"])
    assert digests["cat/b.bmp"] == ""
    spec = DataSpec(images=str(tmp_path), on_bad_image="skip")
    found = datasets.validate(spec, CLASSES, LABELS, digests=digests)
    assert (found.files, found.bad[0].file) == (("cat/a.bmp",), "cat/b.bmp")


class TestAnswers:
    @pytest.fixture
    def labelled(self, tmp_path, store):
        picture(tmp_path / "pics" / "a.bmp")
        path = coco(tmp_path / "manifest.json", {"a.bmp": (24, 32)}, [], {"cat": 1})
        spec = DataSpec(images=str(tmp_path / "pics"), annotations=str(path))
        return spec, pinned.hold_answers(spec, store, "tiny")

    def test_stages_read_the_copy(self, labelled, store, tmp_path):
        before = (tmp_path / "manifest.json").read_text()
        (tmp_path / "manifest.json").write_text("another")
        with pinned.settled(*labelled, store) as spec:
            assert Path(spec.annotations).read_text() == before

    def test_errors_speak_of_the_users_file(self, labelled, store, tmp_path):
        with pytest.raises(DataError) as caught, pinned.settled(*labelled, store) as spec:
            raise DataError(f"{spec.annotations} is odd", hint=f"see {spec.annotations}")
        assert caught.value.message == f"{tmp_path / 'manifest.json'} is odd"
        assert caught.value.hint == f"see {tmp_path / 'manifest.json'}"

    def test_a_folder_of_them_is_kept_whole(self, tmp_path, store):
        (tmp_path / "labels" / "val").mkdir(parents=True)
        (tmp_path / "labels" / "val" / "a.txt").write_text("0 .5 .5 1 1")
        (tmp_path / "labels" / "notes.md").write_text("no label")
        spec = DataSpec(images="pics", annotations=str(tmp_path / "labels"))
        answers = pinned.hold_answers(spec, store, "tiny")
        (tmp_path / "labels" / "val" / "a.txt").write_text("1 .5 .5 1 1")
        with pinned.settled(spec, answers, store) as here:
            root = Path(here.annotations)
            files = [path for path in root.rglob("*") if path.is_file()]
            assert [path.relative_to(root).as_posix() for path in files] == ["val/a.txt"]
            assert files[0].read_text() == "0 .5 .5 1 1"

    def test_they_are_part_of_the_digest_and_their_own_name_is_not(self, tmp_path, store):
        digests = []
        for name, text in (("a.json", "{}"), ("b.json", "{}"), ("b.json", "[]")):
            (tmp_path / name).write_text(text)
            spec = DataSpec(images="pics", annotations=str(tmp_path / name))
            answers = pinned.hold_answers(spec, store, "tiny")
            digests.append(pinned.bytes_sha256({"a": "0"}, answers))
            assert pinned.bytes_sha256({"a": "0"}, None, spec) == digests[-1]
        assert digests[0] == digests[1] != digests[2]

    def test_missing_ones_are_said(self, store):
        spec = dataclasses.replace(DataSpec(images="pics"), annotations="/nowhere/a.json")
        with pytest.raises(DataError, match="does not exist"):
            pinned.hold_answers(spec, store, "tiny")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_annotations_that_are_no_file_are_refused_before_they_are_read(kind, tmp_path):
    path = tmp_path / "ann.json"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        datasets.look(DataSpec(images=str(photos(tmp_path)), annotations=str(path)))


def photos(tmp_path):
    picture(tmp_path / "pics" / "a.bmp")
    return tmp_path / "pics"
