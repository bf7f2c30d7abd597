"""Images and labels are held against each other before anything costly runs."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engineworks.errors import DataError
from engineworks.evaluate import datasets, pinned
from engineworks.evaluate.tasks import classification
from engineworks.facts.data import PinnedData
from engineworks.specs import DataSpec, TaskSpec
from tests.builders import ROOT, coco, picture

NONE, DETECTION, CLASSIFICATION = (
    TaskSpec(kind=kind) for kind in ("none", "detection", "classification")
)
LABELS = ("cat", "dog")
CASES = ROOT / "tests" / "cases"


@pytest.fixture
def folder(tmp_path):
    """Three pictures in the order c, a, b of writing."""
    for seed, name in enumerate(("c.png", "a.png", "sub/b.png")):
        picture(tmp_path / "pics" / name, seed=seed)
    (tmp_path / "pics" / "notes.txt").write_text("no picture")
    return tmp_path


def spec(folder, **changes):
    return DataSpec(images=str(folder / "pics"), **changes)


def test_pictures_are_listed_sorted_and_nothing_else(folder):
    assert datasets.list_images(spec(folder)) == ["a.png", "c.png", "sub/b.png"]


@pytest.mark.parametrize(
    ("limit", "names"),
    [(1, ["a.png"]), (2, ["a.png", "sub/b.png"]), (3, ["a.png", "c.png", "sub/b.png"]),
     (99, ["a.png", "c.png", "sub/b.png"])],
)  # fmt: skip
def test_a_limit_is_spread_over_the_names(folder, limit, names):
    assert datasets.list_images(spec(folder, limit=limit)) == names


@pytest.mark.parametrize("listed", [False, True])
def test_a_limit_sees_every_class_in_its_share(tmp_path, listed):
    """Sorted by name, the first photos of class folders are all of one class."""
    for label, count in (("cat", 6), ("dog", 12)):
        for number in range(count):
            picture(tmp_path / "pics" / label / f"{number:02}.png", seed=count + number)
    images = tmp_path / "pics"
    if listed:
        names = sorted(str(path.relative_to(images)) for path in images.rglob("*.png"))
        images = images / "list.txt"
        images.write_text("\n".join(names))
    chosen = DataSpec(images=str(images), limit=6)
    data = datasets.validate(chosen, CLASSIFICATION, LABELS)
    assert classification.class_ids(data, LABELS).tolist() == [0, 0, 1, 1, 1, 1]
    assert data.notes == ()


@pytest.mark.parametrize("name", ["gone", "pics/a.png"])
def test_a_missing_folder_is_named(folder, name):
    with pytest.raises(DataError, match=name):
        datasets.list_images(DataSpec(images=str(folder / name)))


def test_a_folder_without_pictures_is_named(folder):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no image"):
        datasets.list_images(DataSpec(images=str(folder / "empty")))


@pytest.mark.parametrize("twin", ["a.png", "./a.png", "sub/../a.png"])
def test_a_list_that_names_one_file_twice_is_refused(folder, twin):
    path = folder / "pics" / "list.txt"
    path.write_text(f"a.png\nc.png\n{twin}\n")
    with pytest.raises(DataError, match=r"lists 'a\.png' twice"):
        datasets.list_images(DataSpec(images=str(path)))


class TestClassFoldersAsPeopleHaveThem:
    """Six photos in three class folders, as people have them after a while."""

    LABELS = ("red", "green", "blue")

    @pytest.fixture
    def photos(self, tmp_path):
        return Path(shutil.copytree(CASES / "hidden_in_class", tmp_path / "photos"))

    def screened(self, photos, labels=LABELS):
        return datasets.validate(DataSpec(images=str(photos)), CLASSIFICATION, labels)

    def test_what_systems_left_is_left_out_and_counted(self, photos):
        shadow = b"\0\5\x16\7\0\2\0\0Mac OS X        "
        (photos / "red" / "._0.png").write_bytes(shadow)
        (photos / "red" / ".DS_Store").write_bytes(shadow)
        for inside in ("red/.ipynb_checkpoints/1-checkpoint.png", "green/@eaDir/0.png/S.png",
                       "__MACOSX/red/0.png", ".Trash-1000/files/x.png"):  # fmt: skip
            (photos / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / "red" / "1.png", photos / inside)
        found = self.screened(photos)
        assert found.files == (
            "blue/0.png", "blue/1.png", "green/0.png", "green/1.png", "red/0.png", "red/1.png",
        )  # fmt: skip
        (note,) = found.notes
        assert "left out 5 hidden or system entries" in note
        assert "red/.ipynb_checkpoints" in note

    @pytest.mark.parametrize("ending", [".jfif", ".jpe", ".gif", ".pnm", ".ppm"])
    def test_every_format_that_is_read_is_searched_for(self, photos, ending):
        kind = {".gif": "GIF", ".pnm": "PPM", ".ppm": "PPM"}.get(ending, "JPEG")
        with Image.open(photos / "red" / "1.png") as image:
            image.convert("RGB").save(photos / "red" / f"1{ending}", kind)
        (photos / "red" / "1.png").unlink()
        found = self.screened(photos)
        assert f"red/1{ending}" in found.files
        assert (len(found.files), found.notes) == (6, ())

    @pytest.mark.parametrize("ending", [".heic", ".AVIF", ".jp2", ""])
    def test_what_is_left_out_for_its_ending_is_counted(self, photos, ending):
        (photos / "red" / "1.png").rename(photos / "red" / f"1{ending}")
        (photos / "blue" / "._0.png").write_bytes(b"")
        found = self.screened(photos)
        assert len(found.files) == 5
        told = ending.lower() or "without ending"
        assert f"no image that is read ends so: 1 {told} (red/1{ending})" in found.notes[1]

    def test_a_link_to_itself_is_a_bad_image(self, photos):
        (photos / "red" / "2.png").symlink_to("2.png")
        with pytest.raises(DataError, match=r"2\.png cannot be read"):
            self.screened(photos)
        spec = DataSpec(images=str(photos), on_bad_image="skip")
        found = datasets.validate(spec, CLASSIFICATION, self.LABELS)
        assert len(found.files) == 6
        assert [bad.file for bad in found.bad] == ["red/2.png"]

    def test_a_linked_folder_and_a_linked_file_are_read(self, photos, tmp_path):
        (photos / "red").rename(tmp_path / "elsewhere")
        (photos / "red").symlink_to(tmp_path / "elsewhere")
        (photos / "blue" / "2.png").symlink_to(photos / "blue" / "0.png")
        found = self.screened(photos)
        assert [name for name in found.files if "red" in name] == ["red/0.png", "red/1.png"]
        assert "blue/2.png" in found.files
        assert found.notes == ()

    def test_a_loop_of_links_ends_and_is_said(self, photos):
        (photos / "red" / "all").symlink_to(photos)
        (photos / "green" / "self").symlink_to(photos / "green")
        found = self.screened(photos)
        assert len(found.files) == 6
        assert "red/all" in found.notes[0]
        assert "green/self" in found.notes[0]

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_a_name_in_either_spelling_is_its_label(self, photos, form):
        (photos / "red").rename(photos / unicodedata.normalize(form, "caf\u00e9"))
        for label in ("NFC", "NFD"):
            labels = (unicodedata.normalize(label, "caf\u00e9"), "green", "blue")
            found = self.screened(photos, labels)
            assert classification.class_ids(found, labels).tolist() == [2, 2, 0, 0, 1, 1]

    def test_a_label_without_pictures_is_said(self, photos):
        found = self.screened(photos, ("red", "green", "blue", "grey", "5"))
        assert found.notes == ("2 of 5 labels have no picture: grey, 5",)

    def test_a_folder_that_cannot_be_read_is_named(self, photos, monkeypatch):
        scan = os.scandir

        def refuse(path):
            if Path(path).name == "green":
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr("engineworks.folders.os.scandir", refuse)
        with pytest.raises(DataError, match="green cannot be read"):
            self.screened(photos)

    def test_only_hidden_pictures_are_none(self, tmp_path):
        picture(tmp_path / "pics" / ".thumbs" / "a.png")
        with pytest.raises(DataError, match="hidden ones do not count: .thumbs"):
            datasets.list_images(DataSpec(images=str(tmp_path / "pics")))


def test_an_absurd_picture_is_bad_and_the_others_are_used(folder):
    shutil.copy(CASES / "hostile" / "bomb_decl_60000.png", folder / "pics" / "bomb.png")
    found = datasets.validate(spec(folder, on_bad_image="skip"), NONE, ())
    assert found.files == ("a.png", "c.png", "sub/b.png")
    assert "60000x60000 pixels" in found.bad[0].reason
    with pytest.raises(DataError, match="bomb.png"):
        datasets.validate(spec(folder), NONE, ())


def test_the_limit_of_pixels_is_the_specs(folder):
    with pytest.raises(DataError, match="more than the 10 that are read|more than a picture of 10"):
        datasets.validate(spec(folder, max_pixels=10), NONE, ())


def test_a_set_of_12_bits_in_16_is_noted(tmp_path):
    (tmp_path / "pics").mkdir()
    for number in range(3):
        name = str(tmp_path / "pics" / f"{number}.png")
        cv2.imwrite(name, np.full((8, 8), 4095, np.uint16))
    (note,) = datasets.validate(spec(tmp_path), NONE, ()).notes
    assert "all 3 16-bit pictures stay below 1/16" in note


class TestList:
    def listed(self, folder, text):
        (folder / "lists").mkdir(exist_ok=True)
        path = folder / "lists" / "some.txt"
        path.write_text(text, encoding="utf-8-sig")
        return DataSpec(images=str(path))

    def test_its_order_is_kept_and_paths_are_relative_to_it(self, folder):
        spec = self.listed(folder, "# two of three\n../pics/c.png\n\n  ../pics/a.png  \n")
        assert datasets.list_images(spec) == ["../pics/c.png", "../pics/a.png"]
        data = datasets.validate(spec, NONE, ())
        alone = datasets.validate(DataSpec(images=str(folder / "pics")), NONE, ())
        for image, other in zip(datasets.images(data), (1, 0), strict=True):
            np.testing.assert_array_equal(image, list(datasets.images(alone))[other])

    def test_an_absolute_path_will_do(self, folder):
        spec = self.listed(folder, str(folder / "pics" / "a.png"))
        assert len(list(datasets.images(datasets.validate(spec, NONE, ())))) == 1

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("../pics/gone.png\n", "lists '../pics/gone.png', which does not exist"),
            ("../pics/a.png\n../pics/a.png", "lists '../pics/a.png' twice"),
            ("# nothing\n", "lists no image"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, folder, text, words):
        with pytest.raises(DataError, match=words):
            datasets.list_images(self.listed(folder, text))

    def test_a_list_that_is_not_there_is_named(self, folder):
        with pytest.raises(DataError, match=r"gone\.txt cannot be read"):
            datasets.list_images(DataSpec(images=str(folder / "gone.txt")))

    def test_other_bytes_are_another_digest(self, folder):
        spec = self.listed(folder, "../pics/a.png\n../pics/c.png\n")
        files = datasets.list_images(spec)
        before = pinned.digests(datasets.root_of(spec), files)
        picture(folder / "pics" / "a.png", seed=99)
        after = pinned.digests(datasets.root_of(spec), files)
        assert pinned.bytes_sha256(after, None) != pinned.bytes_sha256(before, None)


def test_images_in_both_sets_are_counted_also_as_copies(folder):
    (folder / "some.txt").write_text("pics/a.png\npics/sub/../c.png\n")
    every = datasets.validate(spec(folder), NONE, ())
    some = datasets.validate(DataSpec(images=str(folder / "some.txt")), NONE, ())
    assert datasets.in_both(some, every) == 2
    assert datasets.in_both(every, some) == 2
    assert datasets.in_both(some, None) == 0
    picture(folder / "other" / "a.png", seed=9)
    picture(folder / "other" / "copied.png", seed=0)  # what c.png is
    other = datasets.validate(DataSpec(images=str(folder / "other")), NONE, ())
    assert datasets.in_both(other, every) == 1


def test_an_image_in_the_folders_of_two_classes_is_told(tmp_path):
    for place, seed in (("cat/1", 1), ("cat/2", 2), ("dog/3", 3), ("dog/copy", 2), ("dog/x", 3)):
        picture(tmp_path / "pics" / f"{place}.png", seed=seed)
    data = datasets.validate(spec(tmp_path), CLASSIFICATION, LABELS)
    assert data.notes == (
        "1 images lie in the folders of two classes, one of which any model gets wrong: "
        "cat/2.png = dog/copy.png",
    )


def test_usable_pictures_are_pinned(folder):
    data = datasets.validate(spec(folder), NONE, ())
    assert data.files == ("a.png", "c.png", "sub/b.png")
    assert (data.bad, data.objects, len(data.sha256)) == ((), 3, 64)
    shapes = [image.shape for image in datasets.images(data)]
    assert shapes == [(24, 32, 3)] * 3


class TestDigest:
    def test_one_changed_byte_changes_it(self, folder):
        before = datasets.validate(spec(folder), NONE, ()).sha256
        path = folder / "pics" / "c.png"
        path.write_bytes(path.read_bytes() + b"\0")
        assert datasets.validate(spec(folder), NONE, ()).sha256 != before

    def test_another_name_changes_it(self, folder):
        before = datasets.validate(spec(folder), NONE, ()).sha256
        (folder / "pics" / "c.png").rename(folder / "pics" / "d.png")
        assert datasets.validate(spec(folder), NONE, ()).sha256 != before

    def test_moving_the_folder_does_not_change_it(self, folder):
        before = datasets.validate(spec(folder), NONE, ()).sha256
        (folder / "pics").rename(folder / "moved")
        moved = DataSpec(images=str(folder / "moved"))
        assert datasets.validate(moved, NONE, ()).sha256 == before

    def test_the_annotations_are_part_of_it(self, folder):
        labels = folder / "l.json"
        both = spec(folder, annotations=str(labels))
        digests = set()
        for box in ([1, 1, 5, 5], [1, 1, 5, 6]):
            coco(labels, {"a.png": (24, 32)}, [("a.png", "cat", box)], {"cat": 7})
            digests.add(datasets.validate(both, DETECTION, LABELS).sha256)
        assert len(digests) == 2


class TestBadImages:
    @pytest.fixture
    def broken(self, folder):
        os.truncate(folder / "pics" / "c.png", 40)
        (folder / "pics" / "d.jpg").write_text("no picture")
        return folder

    def test_stop_names_the_first_and_counts_them(self, broken):
        with pytest.raises(DataError, match=r"2 of 4 images .* c\.png") as caught:
            datasets.validate(spec(broken), NONE, ())
        assert "skip" in caught.value.hint

    def test_skip_names_each_and_goes_on(self, broken):
        data = datasets.validate(spec(broken, on_bad_image="skip"), NONE, ())
        assert data.files == ("a.png", "sub/b.png")
        assert [bad.file for bad in data.bad] == ["c.png", "d.jpg"]
        assert all(bad.file in bad.reason for bad in data.bad)

    def test_skip_stops_when_none_is_left(self, tmp_path):
        (tmp_path / "pics").mkdir()
        (tmp_path / "pics" / "x.jpg").write_text("no picture")
        with pytest.raises(DataError, match=r"1 of 1 .* x\.jpg"):
            datasets.validate(spec(tmp_path, on_bad_image="skip"), NONE, ())

    def test_a_skipped_picture_is_no_part_of_the_digest(self, broken):
        before = datasets.validate(spec(broken, on_bad_image="skip"), NONE, ()).sha256
        (broken / "pics" / "c.png").unlink()
        assert datasets.validate(spec(broken, on_bad_image="skip"), NONE, ()).sha256 == before

    def test_a_name_that_is_no_utf8_is_refused(self, folder):
        source = os.fsencode(folder / "pics" / "a.png")
        os.link(source, os.fsencode(folder / "pics") + b"/\xff.png")
        with pytest.raises(DataError, match="name"):
            datasets.validate(spec(folder), NONE, ())


class TestClassFolders:
    @pytest.fixture
    def sorted_folder(self, tmp_path):
        for name in ("dog/1.png", "cat/1.png", "cat/deep/2.png"):
            picture(tmp_path / "pics" / name)
        return tmp_path

    def test_the_folder_names_the_class(self, sorted_folder):
        data = datasets.validate(spec(sorted_folder), CLASSIFICATION, LABELS)
        assert data.files == ("cat/1.png", "cat/deep/2.png", "dog/1.png")
        np.testing.assert_array_equal(classification.class_ids(data, LABELS), [0, 0, 1])

    @pytest.mark.parametrize("name", ["wolf/1.png", "loose.png"])
    def test_a_picture_of_no_known_class_is_named(self, sorted_folder, name):
        picture(sorted_folder / "pics" / name)
        with pytest.raises(DataError, match=name) as caught:
            datasets.validate(spec(sorted_folder), CLASSIFICATION, LABELS)
        assert "cat, dog" in caught.value.hint


class TestCoco:
    FILES = {"a.png": (24, 32), "c.png": (24, 32), "sub/b.png": (24, 32)}
    BOXES = [("a.png", "cat", [0, 0, 9, 9]), ("c.png", "dog", [1, 1, 9, 9])]
    NAMES = {"cat": 17, "dog": 18}

    def screen(self, folder, files=FILES, boxes=BOXES, names=NAMES, labels=LABELS, **changes):
        path = coco(folder / "l.json", files, boxes, names)
        return datasets.validate(spec(folder, annotations=str(path), **changes), DETECTION, labels)

    def test_boxes_of_usable_pictures_are_counted(self, folder):
        assert self.screen(folder).objects == 2
        os.truncate(folder / "pics" / "c.png", 40)
        assert self.screen(folder, on_bad_image="skip").objects == 1

    def test_pictures_without_annotation_entry_are_left_out(self, folder):
        data = self.screen(folder, files={"a.png": (24, 32)}, boxes=self.BOXES[:1])
        assert data.files == ("a.png",)

    def test_no_picture_in_the_annotations_is_an_error(self, folder):
        with pytest.raises(DataError, match="none of the 3 images"):
            self.screen(folder, files={"x.png": (24, 32)}, boxes=[])

    def test_data_without_any_box_judges_nothing(self, folder):
        with pytest.raises(DataError, match="no box|no object|0 boxes"):
            self.screen(folder, boxes=[])

    def test_a_picture_of_another_size_is_named(self, folder):
        files = {**self.FILES, "c.png": (32, 24)}
        with pytest.raises(DataError, match=r"c\.png is 32x24 pixels, .* says 24x32"):
            self.screen(folder, files=files)
        data = self.screen(folder, files=files, on_bad_image="skip")
        assert [bad.file for bad in data.bad] == ["c.png"]

    def test_a_category_that_is_no_label_is_named(self, folder):
        with pytest.raises(DataError, match="'dog' is not among"):
            self.screen(folder, labels=("cat", "wolf"))

    def test_missing_annotations_are_named(self, folder):
        with pytest.raises(DataError, match=r"data\.annotations is missing"):
            datasets.validate(spec(folder), DETECTION, LABELS)
        with pytest.raises(DataError, match=r"gone\.json"):
            where = str(folder / "gone.json")
            datasets.validate(spec(folder, annotations=where), DETECTION, LABELS)

    @pytest.mark.parametrize(
        "breaks",
        [
            lambda raw: "not json {",
            lambda raw: json.dumps([raw]),
            lambda raw: json.dumps({**raw, "images": None}),
            lambda raw: json.dumps({key: raw[key] for key in ("images", "annotations")}),
            lambda raw: json.dumps({**raw, "annotations": [{"image_id": 100}]}),
            lambda raw: json.dumps({**raw, "images": [{"file_name": "a.png", "id": 100}]}),
            lambda raw: json.dumps(
                {**raw, "images": [{"file_name": "a.png", "height": 24, "width": 32}]}
            ),
            lambda raw: json.dumps(
                {**raw, "annotations": [{"image_id": 100, "category_id": 17, "bbox": [1, 2]}]}
            ),
            lambda raw: json.dumps(
                {**raw, "annotations": [{"image_id": 100, "category_id": 99, "bbox": [1, 2, 3, 4]}]}
            ),
        ],
        ids=["text", "list", "no images", "no categories", "no box", "no size", "no id",
             "a box of two numbers", "an unknown category id"],
    )  # fmt: skip
    def test_a_file_that_is_no_coco_json_is_named(self, folder, breaks):
        path = coco(folder / "l.json", self.FILES, self.BOXES, self.NAMES)
        path.write_text(breaks(json.loads(path.read_text())))
        with pytest.raises(DataError, match=r"l\.json|data\.annotations"):
            datasets.validate(spec(folder, annotations=str(path)), DETECTION, LABELS)


class TestSampleEvenly:
    DATA = PinnedData(
        spec=DataSpec(images="pics"), files=tuple(f"{n:02}.png" for n in range(40)), sha256="0"
    )

    @pytest.mark.parametrize("most", [1, 2, 7, 39])
    def test_fewer_images_are_spread_over_all(self, most):
        found = datasets.sample_evenly(self.DATA, most).files
        assert len(set(found)) == len(found) == most
        assert list(found) == sorted(found)
        if most > 1:
            assert (found[0], found[-1]) == ("00.png", "39.png")

    @pytest.mark.parametrize("most", [40, 1000])
    def test_enough_for_all_takes_all(self, most):
        assert datasets.sample_evenly(self.DATA, most) == self.DATA
