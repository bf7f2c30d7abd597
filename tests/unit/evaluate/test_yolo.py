"""YOLO labels as trainers have them, against the same boxes as COCO JSON written by hand."""

from __future__ import annotations

import os

import pytest

from engineworks.errors import DataError
from engineworks.evaluate import datasets, pinned
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.annotations.yolo import label_files
from engineworks.manifest import Artifact
from engineworks.specs import DataSpec, TaskSpec
from engineworks.store import LocalStore
from tests.builders import example, picture

DETECTION = TaskSpec(kind="detection")
LABELS = ("cat", "dog")
#: On pictures of 40x20 (width x height): class, centre and size in fractions; left, top, width,
#: height in pixels.
LINES = {"a": ["0 0.5 0.5 0.25 0.5", "1 0.25 0.25 0.1 0.3"], "b": ["1 0.1 0.5 0.2 0.4"]}
PIXELS = {"a": [(0, [15, 5, 10, 10]), (1, [8, 2, 4, 6])], "b": [(1, [0, 6, 8, 8])]}
YAML = "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]\n"


def tree(root, images="images/val", labels="labels/val", lines=None, yaml=YAML):
    for name, rows in (LINES if lines is None else lines).items():
        picture(root / images / f"{name}.jpg", 20, 40)
        (root / labels).mkdir(parents=True, exist_ok=True)
        (root / labels / f"{name}.txt").write_text("\n".join(rows) + "\n")
    if yaml:
        (root / "data.yaml").write_text(yaml)
    return root


def read(spec, labels=LABELS):
    found = []
    data = datasets.validate(spec, DETECTION, labels, lambda truth: found.append(truth) or KEPT)
    boxes = {name: [] for name in data.files}
    known = found[0].labels
    names = {key: name for name, key in known.image_id.items()}
    for row in known.raw["annotations"]:
        index = known.category_id.index(row["category_id"])
        boxes[names[row["image_id"]]].append((index, [round(v, 4) for v in row["bbox"]]))
    return data, boxes


KEPT = example(Artifact)


def expected(prefix=""):
    return {f"{prefix}{name}.jpg": rows for name, rows in PIXELS.items()}


class TestLayouts:
    @pytest.mark.parametrize(
        ("images", "labels", "given"),
        [
            ("images/val", "labels/val", "labels/val"),
            ("images/val", "labels/val", "data.yaml"),
            ("valid/images", "valid/labels", "data.yaml"),
            ("valid/images", "valid/labels", "valid/labels"),
            ("photos", "photos", "photos"),
            ("photos", "photos", "data.yaml"),
        ],
    )
    def test_as_everybody_has_them(self, tmp_path, images, labels, given):
        tree(tmp_path, images, labels)
        data, boxes = read(
            DataSpec(images=str(tmp_path / images), annotations=str(tmp_path / given))
        )
        assert boxes == expected()
        assert (data.objects, data.notes, data.bad) == (3, (), ())

    @pytest.mark.parametrize("given", ["labels", "data.yaml"])
    def test_splits_below_one_folder(self, tmp_path, given):
        tree(tmp_path)
        spec = DataSpec(images=str(tmp_path / "images"), annotations=str(tmp_path / given))
        assert read(spec)[1] == expected("val/")

    @pytest.mark.parametrize("given", ["labels", "data.yaml"])
    def test_a_list_of_pictures(self, tmp_path, given):
        tree(tmp_path)
        (tmp_path / "val.txt").write_text("images/val/a.jpg\n")
        spec = DataSpec(images=str(tmp_path / "val.txt"), annotations=str(tmp_path / given))
        data, boxes = read(spec)
        assert boxes == {"images/val/a.jpg": PIXELS["a"]}
        assert data.bad == ()

    @pytest.mark.parametrize("given", ["labels/val", "data.yaml"])
    def test_the_stores_copy_reads_the_same(self, tmp_path, given):
        tree(tmp_path)
        spec = DataSpec(images=str(tmp_path / "images" / "val"), annotations=str(tmp_path / given))
        store = LocalStore(tmp_path / "store")
        answers = pinned.hold_answers(spec, store, "yolo")
        for file in (tmp_path / "labels").rglob("*.txt"):
            file.write_text("0 0.1 0.1 0.1 0.1\n")  # changed meanwhile
        with pinned.settled(spec, answers, store) as settled:
            assert read(settled)[1] == expected()

    def test_look_takes_a_folder_and_says_what_it_lacks(self, tmp_path):
        tree(tmp_path)
        datasets.look(
            DataSpec(images=str(tmp_path / "images"), annotations=str(tmp_path / "labels"))
        )
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="is there, and .*no label file"):
            datasets.look(
                DataSpec(images=str(tmp_path / "images"), annotations=str(tmp_path / "empty"))
            )
        with pytest.raises(DataError, match="does not exist"):
            datasets.look(
                DataSpec(images=str(tmp_path / "images"), annotations=str(tmp_path / "gone"))
            )


def spec(root, **changes):
    return DataSpec(
        images=str(root / "images" / "val"), annotations=str(root / "labels" / "val"), **changes
    )


class TestClasses:
    @pytest.mark.parametrize(
        "names",
        ["names:\n  0: cat\n  1: dog\n", "names: {1: dog, 0: cat}\n", "names: ['cat', 'dog']\n"],
    )
    def test_names_as_a_list_or_by_index(self, tmp_path, names):
        tree(tmp_path, yaml=names)
        assert read(spec(tmp_path))[1] == expected()

    def test_the_models_order_may_be_another(self, tmp_path):
        tree(tmp_path)
        boxes = read(spec(tmp_path), ("dog", "other", "cat"))[1]
        assert [index for index, _ in boxes["a.jpg"]] == [2, 0]

    def test_without_names_the_recipes_labels_count(self, tmp_path):
        tree(tmp_path, yaml="")
        assert read(spec(tmp_path))[1] == expected()
        with pytest.raises(DataError, match="does not name its classes"):
            read(spec(tmp_path), ())

    def test_labelimgs_classes(self, tmp_path):
        tree(tmp_path, yaml="")
        (tmp_path / "labels" / "val" / "classes.txt").write_text("cat\ndog\n")
        data, boxes = read(spec(tmp_path), ())
        assert boxes == expected()
        assert data.bad == ()

    @pytest.mark.parametrize(
        "yaml", ["names: [cat, cat]", "names: 3", "names: {0: cat, 2: dog}", "names: [[1]]",
                 "names: [cat", "names: {0: cat, '0': dog}", "names: {0: cat, 0: dog}",
             "names: [cat, dog]\nnames: [dog, cat]"],
    )  # fmt: skip
    def test_names_that_are_none_are_refused(self, tmp_path, yaml):
        tree(tmp_path, yaml=yaml)
        with pytest.raises(DataError, match=r"data\.yaml"):
            read(spec(tmp_path))


class TestLines:
    @pytest.mark.parametrize(
        ("line", "box"),
        [
            ("0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", [10, 5, 20, 10]),
            ("0 0.5 0.2 0.6 0.6 0.3 0.9", [12, 4, 12, 14]),
            ("0.0  0.5\t0.5 0.25 0.5  ", [15, 5, 10, 10]),
        ],
    )
    def test_polygons_and_spaces(self, tmp_path, line, box):
        tree(tmp_path, lines={"a": [line], "b": []})
        data, boxes = read(spec(tmp_path))
        assert boxes == {"a.jpg": [(0, box)], "b.jpg": []}
        assert data.objects == 1

    def test_key_points_follow_a_box(self, tmp_path):
        tree(tmp_path, lines={"a": ["0 0.5 0.5 0.25 0.5 0.4 0.4 2"]},
             yaml=YAML + "kpt_shape: [1, 3]\n")  # fmt: skip
        assert read(spec(tmp_path))[1] == {"a.jpg": [(0, [15, 5, 10, 10])]}

    @pytest.mark.parametrize(
        ("line", "words"),
        [("2 0.5 0.5 0.1 0.1", "class is 2"), ("-1 0.5 0.5 0.1 0.1", "class is -1"),
         ("0.5 0.5 0.5 0.1 0.1", "class is 0.5"), ("0 0.5 0.5 0.1", "3 numbers"),
         ("0 0.5 0.5 0.1 0.1 0.9", "confidence"), ("0 20 10 5 5", "pixels"),
         ("cat 0.5 0.5 0.1 0.1", "class is 'cat'"), ("0 nan 0.5 0.1 0.1", "not a number")],
    )  # fmt: skip
    def test_a_line_that_is_none_is_named_with_its_place(self, tmp_path, line, words):
        tree(tmp_path, lines={"a": ["0 0.5 0.5 0.1 0.1", "", line]})
        with pytest.raises(DataError, match=r"a\.txt: line 3") as caught:
            read(spec(tmp_path))
        assert words in caught.value.message

    def test_pictures_without_a_file_have_no_object_and_are_told(self, tmp_path):
        tree(tmp_path)
        picture(tmp_path / "images" / "val" / "c.jpg", 20, 40)
        data, boxes = read(spec(tmp_path))
        assert boxes == {**expected(), "c.jpg": []}
        assert data.notes == (
            "1 of 3 images have no label file: taken as pictures without objects",
        )

    def test_labels_without_a_picture_count_as_missing(self, tmp_path):
        tree(tmp_path)
        (tmp_path / "labels" / "val" / "lost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        (tmp_path / "labels" / "val" / "notes.txt").write_text("as agreed\n")
        with pytest.raises(DataError, match=r"1 of 3 images .*lost\.txt"):
            read(spec(tmp_path))
        assert len(read(spec(tmp_path, on_bad_image="skip"))[0].files) == 2

    def test_a_line_that_stands_there_twice_is_one_object(self, tmp_path):
        tree(tmp_path, lines={"a": [*LINES["a"], LINES["a"][0]], "b": LINES["b"]})
        data, boxes = read(spec(tmp_path))
        assert boxes == expected()
        assert "1 of 4 boxes stand in val twice: counted once" in data.notes

    def test_boxes_beyond_the_picture_are_impossible_here_too(self, tmp_path):
        tree(tmp_path, lines={"a": ["0 0.9 0.5 0.8 0.5"]})
        with pytest.raises(DataError, match="cannot be"):
            read(spec(tmp_path))


def test_other_texts_of_a_data_set_are_no_labels_to_be_read(tmp_path):
    tree(tmp_path, "train", "train")
    (tmp_path / "train" / "README.dataset.txt").write_text("made by hand\n")
    both = DataSpec(images=str(tmp_path / "train"), annotations=str(tmp_path / "train"))
    found = label_files(both)
    assert set(found) == {"a.txt", "b.txt", "README.dataset.txt", "data.yaml"}
    data, _ = read(both)
    assert data.bad == ()
    assert truths.answer_files(DataSpec(images=str(tmp_path))) == {}


def test_a_pipe_among_the_pictures_holds_nobody_up(tmp_path):
    """And the boxes of a picture that cannot be read are not called impossible."""
    tree(tmp_path)
    os.mkfifo(tmp_path / "images/val/c.jpg")
    (tmp_path / "labels/val/c.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    spec = DataSpec(
        images=str(tmp_path / "images/val"), annotations=str(tmp_path / "labels/val"),
        on_bad_image="skip",
    )  # fmt: skip
    data = datasets.validate(spec, DETECTION, LABELS, lambda truth: KEPT)
    assert data.files == ("a.jpg", "b.jpg")
    assert [bad.file for bad in data.bad] == ["c.jpg"]


class TestNames:
    """Label files whose names another system has written."""

    @pytest.mark.parametrize("name", ["a.TXT", "A.txt", "A.Txt"])
    def test_a_label_file_in_other_case_is_not_left_out(self, tmp_path, name):
        tree(tmp_path)
        (tmp_path / "labels/val/a.txt").rename(tmp_path / "labels/val" / name)
        data, boxes = read(specified(tmp_path))
        assert boxes == expected()
        assert data.notes == (
            "1 of 2 label files differ from their pictures' names in case or accents (the first: "
            f"{name!r} is of 'a.jpg')",
        )

    def test_which_of_two_is_meant_is_not_guessed(self, tmp_path):
        tree(tmp_path)
        for name in ("a.TXT", "A.txt"):
            (tmp_path / "labels/val" / name).write_text("\n".join(LINES["a"]))
        (tmp_path / "labels/val/a.txt").unlink()
        with pytest.raises(DataError, match="labels a picture that is not there"):
            read(specified(tmp_path))

    def test_a_file_of_the_very_name_is_taken_by_nobody_else(self, tmp_path):
        tree(tmp_path)
        picture(tmp_path / "images/val/A.jpg", 20, 40)
        data, boxes = read(specified(tmp_path))
        assert boxes == {**expected(), "A.jpg": []}
        assert data.notes == (
            "1 of 3 images have no label file: taken as pictures without objects",
        )


def specified(root):
    return DataSpec(images=str(root / "images/val"), annotations=str(root / "labels/val"))
