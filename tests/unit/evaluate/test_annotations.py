"""Annotations as exporters write them: right values are by hand or by plain pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import unicodedata

import pytest
from PIL import Image

from engineworks.errors import DataError
from engineworks.evaluate import datasets
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.annotations.coco import read_coco
from engineworks.evaluate.cocoeval import score
from engineworks.specs import DataSpec, TaskSpec
from tests.builders import picture

DETECTION = TaskSpec(kind="detection")
LABELS = ("red", "green")
#: Boxes of every picture, by category.
BOXES = {1: [2, 2, 10, 8], 2: [14, 10, 12, 9]}
SIDES = {"height": 24, "width": 32}


def document(names=("a.png", "b.png"), **of_each_box):
    """COCO JSON of pictures with one box of each category."""
    return {
        "images": [{"id": i, "file_name": name, **SIDES} for i, name in enumerate(names, start=1)],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}],
        "annotations": [
            {"id": 9, "image_id": i, "category_id": category, "bbox": list(box), **of_each_box}
            for i in range(1, len(names) + 1)
            for category, box in BOXES.items()
        ],
    }


@pytest.fixture
def place(tmp_path):
    for seed, name in enumerate(("a.png", "b.png")):
        picture(tmp_path / "pics" / name, 24, 32, seed=seed)
    return tmp_path


def screen(place, raw, labels=LABELS, **changes):
    path = place / "boxes.json"
    path.write_text(json.dumps(raw))
    spec = DataSpec(images=str(place / "pics"), annotations=str(path), **changes)
    return datasets.validate(spec, DETECTION, labels)


def read(place, raw, labels=LABELS):
    path = place / "boxes.json"
    path.write_text(json.dumps(raw))
    return read_coco(path, labels)


def answers(raw):
    """Every box of a document, found."""
    return [
        {key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for row in raw["annotations"]
    ]


def ap(labels, results):
    return score(results, labels, list(labels.image_id.values()))["AP"]


def plain_ap(raw, results):
    """AP by pycocotools alone, of a document with every field in its type."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        rows = [
            {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row, "id": i}
            for i, row in enumerate(raw["annotations"], start=1)
        ]
        truth.dataset = {"info": {}, **raw, "annotations": rows}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


class TestFields:
    @pytest.mark.parametrize("crowd", [0, None, "0", "", False, 0.0, "false"])
    @pytest.mark.parametrize("area", [80, None, "80", 0, ""])
    def test_what_exporters_write_for_no_crowd_and_any_area(self, place, crowd, area):
        raw = document(iscrowd=crowd, area=area)
        assert screen(place, raw).objects == 4
        typed = document(iscrowd=0, area=80)
        results = answers(raw)[:3]  # one of four is missed
        labels = read(place, raw)
        assert ap(labels, results) == pytest.approx(plain_ap(typed, results))
        assert 0.5 < ap(labels, results) < 1

    @pytest.mark.parametrize("crowd", [1, "1", True])
    def test_only_crowds_leave_nothing_to_find(self, place, crowd):
        with pytest.raises(DataError, match="nothing to find") as caught:
            screen(place, document(iscrowd=crowd))
        assert "iscrowd" in caught.value.hint

    def test_no_metric_is_ever_below_zero(self, place):
        labels = read(place, document())
        found = score([], labels, [1, 2])
        assert found == {"AP": 0, "AP50": 0, "AP75": 0, "AP_small": 0}
        with pytest.raises(DataError, match="nothing to find"):
            score([], read(place, document(iscrowd=1)), [1, 2])

    def test_an_area_that_is_missing_is_that_of_the_box(self, place):
        labels = read(place, document(area=None))
        assert [row["area"] for row in labels.raw["annotations"][:2]] == [80, 108]

    @pytest.mark.parametrize(
        ("field", "value"),
        [("iscrowd", 2), ("iscrowd", "maybe"), ("area", "big"), ("area", [1]), ("bbox", None),
         ("bbox", [1, 2, 3, "x"]), ("bbox", [1, 2, 3, float("nan")]), ("bbox", [1, 2, 3, True]),
         ("bbox", [1, 2, 3, 10**400]), ("image_id", "one"), ("category_id", None),
         ("category_id", 99), ("image_id", 1.5), ("image_id", 10**30), ("image_id", -1),
         ("bbox", [1, 2, 1e300, 1e300])],
    )  # fmt: skip
    def test_a_field_that_is_none_is_named(self, place, field, value):
        raw = document()
        raw["annotations"][2][field] = value
        with pytest.raises(DataError, match=rf"annotations\[2\].*{field}"):
            screen(place, raw)

    @pytest.mark.parametrize("section", ["images", "categories"])
    def test_half_of_a_character_is_no_name(self, place, section):
        """JSON can write one; no file can, so a skipped picture would have ended the report."""
        raw = document()
        raw[section][0]["file_name" if section == "images" else "name"] = "\ud800.png"
        with pytest.raises(DataError, match=r"is '\\ud800\.png', which is no text"):
            screen(place, raw, on_bad_image="skip")

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8", "utf-32"])
    def test_a_byte_order_mark_is_no_part_of_the_text(self, place, encoding):
        (place / "boxes.json").write_text(json.dumps(document()), encoding=encoding)
        assert len(read_coco(place / "boxes.json", LABELS).image_id) == 2

    @pytest.mark.parametrize("content", ["[" * 100_000, "", "{", "[]", "7", "null", "\0\1\2\3"])
    def test_what_is_no_coco_json_is_refused(self, place, content):
        (place / "boxes.json").write_text(content)
        with pytest.raises(DataError, match="not COCO JSON"):
            read_coco(place / "boxes.json", LABELS)

    def test_a_category_below_zero_is_refused_for_it_would_stand_for_no_category(self, place):
        raw = document()
        raw["categories"].append({"id": -1, "name": "none"})
        with pytest.raises(DataError, match=r"categories\[2\]\.id is -1"):
            screen(place, raw)

    def test_ids_as_text_belong_together(self, place):
        raw = document()
        for row in raw["annotations"]:
            row["image_id"] = str(row["image_id"])
        raw["images"][0]["id"] = 1.0
        assert screen(place, raw).objects == 4


class TestTwice:
    def test_two_pictures_of_one_id_are_both_named(self, place):
        raw = document()
        raw["images"][1]["id"] = 1
        for row in raw["annotations"]:
            row["image_id"] = 1
        with pytest.raises(DataError, match=r"id 1 to 'a\.png' and to 'b\.png'"):
            screen(place, raw)

    @pytest.mark.parametrize("twin", ["a.png", "./a.png", ".\\a.png"])
    def test_one_picture_under_two_ids_is_named(self, place, twin):
        raw = document(("a.png", twin))
        with pytest.raises(DataError, match=r"a\.png") as caught:
            screen(place, raw)
        assert "unknown" not in caught.value.message

    def test_a_row_that_only_stands_there_again_is_told(self, place):
        raw = document()
        raw["images"].append(dict(raw["images"][0]))
        data = screen(place, raw)
        assert data.objects == 4
        assert "twice" in data.notes[0]

    @pytest.mark.parametrize("again", [[2, 2, 10, 8], [2.0, 2, 10, 8.0]])
    def test_an_object_annotated_twice_is_one(self, place, again):
        """As two merged exports have it: what is found once would be missed once."""
        raw = document()
        right = plain_ap(raw, answers(raw))
        raw["annotations"] += [{**row, "id": 99, "bbox": again} for row in raw["annotations"][::2]]
        found_once = answers(document())
        assert plain_ap(raw, found_once) < 0.8 < right
        data, labels = screen(place, raw), read(place, raw)
        assert data.objects == 4
        assert ap(labels, found_once) == pytest.approx(right)
        assert "2 of 6 boxes stand in boxes.json twice: counted once" in data.notes

    @pytest.mark.parametrize(
        ("change", "nearly"),
        [
            ({"bbox": [2.02, 2, 10, 8]}, True),  # IoU 79.84 / 80.16
            ({"bbox": [2, 2, 10, 7]}, False),  # IoU 0.875: two things may lie like that
            ({"category_id": 2}, False),
            ({"image_id": 2, "bbox": [5, 9, 4, 4]}, False),
            ({"iscrowd": 1}, False),
        ],
    )
    def test_what_is_not_quite_the_same_stays(self, place, change, nearly):
        raw = document()
        raw["annotations"].append({**raw["annotations"][0], **change})
        labels = read(place, raw)
        assert len(labels.raw["annotations"]) == 5
        told = [words for words in labels.notes if words.startswith("1 of 5 boxes in boxes.json")]
        assert bool(told) == nearly

    def test_categories_of_one_name_are_one_class(self, place):
        raw = document()
        raw["categories"].append({"id": 7, "name": "red"})
        raw["annotations"][2]["category_id"] = 7  # the box of b.png
        labels = read(place, raw)
        assert labels.category_id == (1, 2)
        assert any("7" in words and "'red'" in words for words in labels.notes)
        # Found as class 0 everywhere: all are right.
        assert ap(labels, answers(document())) == pytest.approx(1)

    def test_without_labels_two_used_categories_of_one_name_are_refused(self, place):
        raw = document()
        raw["categories"].append({"id": 7, "name": "red"})
        raw["annotations"][2]["category_id"] = 7
        with pytest.raises(DataError, match="ids 1, 7") as caught:
            read(place, raw, ())
        assert "task.labels" in caught.value.hint

    def test_a_category_id_of_two_names_names_both(self, place):
        raw = document()
        raw["categories"].append({"id": 1, "name": "blue"})
        with pytest.raises(DataError, match="id 1 to 'red' and to 'blue'"):
            screen(place, raw)

    def test_a_key_that_stands_twice_is_refused(self, place):
        text = json.dumps(document())
        (place / "boxes.json").write_text(text[:-1] + ', "annotations": []}')
        with pytest.raises(DataError, match="'annotations' stands twice"):
            read_coco(place / "boxes.json", LABELS)


class TestRoot:
    """Roboflow writes a category of id 0 that only groups the others."""

    def rooted(self):
        raw = document()
        for row in raw["categories"]:
            row["supercategory"] = "shapes"
        raw["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
        return raw

    @pytest.mark.parametrize("labels", [LABELS, ()])
    def test_it_is_no_class(self, place, labels):
        raw = self.rooted()
        found = read(place, raw, labels)
        assert found.category_id == (1, 2)
        assert any("'shapes'" in words for words in found.notes)
        assert ap(found, answers(raw)) == pytest.approx(1)

    def test_it_is_one_if_the_model_has_it(self, place):
        assert read(place, self.rooted(), ("shapes", *LABELS)).category_id == (0, 1, 2)

    def test_a_root_with_boxes_is_one_without_labels_and_refused_with_others(self, place):
        raw = self.rooted()
        raw["annotations"][0]["category_id"] = 0
        assert read(place, raw, ()).category_id == (0, 1, 2)
        with pytest.raises(DataError, match="'shapes' is not among"):
            read(place, raw)

    def test_a_rare_class_without_boxes_keeps_its_place(self, place):
        raw = document()
        raw["categories"].insert(0, {"id": 0, "name": "rare"})
        assert read(place, raw, ()).category_id == (0, 1, 2)

    def test_a_root_named_as_its_only_class_is_that_class(self, place):
        raw = document()
        raw["categories"] = [
            {"id": 0, "name": "red", "supercategory": "none"},
            {"id": 1, "name": "red", "supercategory": "red"},
        ]
        raw["annotations"] = raw["annotations"][::2]
        assert read(place, raw, ()).category_id == (1,)


class TestNames:
    def test_pictures_that_are_missing_are_counted_and_named(self, place):
        raw = document(("a.png", "b.png", "gone.png", "lost.png"))
        with pytest.raises(DataError, match=r"2 of 4 images .*gone\.png"):
            screen(place, raw)
        data = screen(place, raw, on_bad_image="skip")
        assert (data.files, data.objects) == (("a.png", "b.png"), 4)
        assert [bad.file for bad in data.bad] == ["gone.png", "lost.png"]

    def test_a_list_of_the_users_own_misses_nothing(self, place):
        (place / "pics" / "some.txt").write_text("b.png\n")
        path = place / "boxes.json"
        path.write_text(json.dumps(document()))
        spec = DataSpec(images=str(place / "pics" / "some.txt"), annotations=str(path))
        assert datasets.validate(spec, DETECTION, LABELS).files == ("b.png",)

    def test_a_limit_misses_nothing(self, place):
        assert screen(place, document(), limit=1).files == ("a.png",)

    @pytest.mark.parametrize(
        ("file", "named"),
        [("x/C.JPG", "x/c.jpg"), ("x/c.jpg", "x\\c.jpg"), ("x/c.jpg", "X\\C.JPG"),
         ("x/c.jpg", "./x/c.jpg"), ("x/c.jpg", "x//c.jpg"),
         (unicodedata.normalize("NFC", "schön.png"), unicodedata.normalize("NFD", "schön.png"))],
    )  # fmt: skip
    def test_names_of_other_systems_find_their_files(self, place, file, named):
        picture(place / "pics" / file, 24, 32)
        raw = document(("a.png", "b.png", named))
        data = screen(place, raw)
        assert (set(data.files), data.objects) == ({"a.png", "b.png", file}, 6)
        assert "1 of 3 names" in data.notes[0]

    def test_which_of_two_is_meant_is_not_guessed(self, place):
        for name in ("C.png", "c.PNG"):
            picture(place / "pics" / name, 24, 32)
        with pytest.raises(DataError, match=r"c\.png could be C\.png or c\.PNG"):
            screen(place, document(("a.png", "b.png", "c.png")))
        # Named exactly they are two pictures.
        data = screen(place, document(("a.png", "b.png", "C.png", "c.PNG")))
        assert len(data.files) == 4

    def test_the_wrong_folder_is_recognised(self, place):
        with pytest.raises(DataError, match=r"there is a\.png: is data\.images the folder"):
            screen(place, document(("val/a.png", "val/b.png")))

    @pytest.mark.parametrize("file", ["c.heic", "sub/C", "c.avif"])
    def test_a_file_that_is_there_and_left_out_for_its_ending_is_not_said_to_be_missing(
        self, place, file
    ):
        (place / "pics" / file).parent.mkdir(exist_ok=True)
        (place / "pics" / file).write_bytes((place / "pics" / "a.png").read_bytes())
        with pytest.raises(DataError, match=r"[cC].* no image that is read ends so: .* is there"):
            screen(place, document(("a.png", "b.png", file)))

    @pytest.mark.parametrize("file", ["c.jfif", "c.gif"])
    def test_a_format_that_is_read_is_found_by_any_ending_of_it(self, place, file):
        kind = "GIF" if file == "c.gif" else "JPEG"
        with Image.open(place / "pics" / "a.png") as image:
            image.convert("RGB").save(place / "pics" / file, kind)
        assert file in screen(place, document(("a.png", "b.png", file))).files

    def test_pictures_that_the_annotations_do_not_name_are_told(self, place):
        picture(place / "pics" / "c.png", 24, 32)
        assert screen(place, document()).notes == (
            "1 of 3 images are not named in boxes.json: left out",
        )


def many(boxes, size=(320, 240)):
    """One picture with these boxes."""
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "red"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
    }


#: Twelve boxes all over a picture of 320x240 pixels.
RIGHT = [[20 + 90 * column, 15 + 75 * row, 30, 40] for column in range(3) for row in range(3)]
RIGHT += [[230, 190, 80, 45], [5, 5, 12, 10], [280, 10, 35, 30]]


class TestImpossible:
    @pytest.fixture
    def wide(self, tmp_path):
        picture(tmp_path / "pics" / "a.png", 240, 320)
        return tmp_path

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ([[x, y, x + w, y + h] for x, y, w, h in RIGHT], "corners"),
            ([[x / 320, y / 240, w / 320, h / 240] for x, y, w, h in RIGHT], "fractions"),
            ([[y, x, h, w] for x, y, w, h in RIGHT], "(top, left, height, width)"),
            ([[2 * value for value in box] for box in RIGHT], "larger pictures"),
        ],
    )
    def test_they_are_refused_as_what_they_look_like(self, wide, wrong, words):
        with pytest.raises(DataError, match="cannot be") as caught:
            screen(wide, many(wrong))
        assert words in caught.value.message
        assert "a.png, 320x240 pixels" in caught.value.message
        assert screen(wide, many(RIGHT)).notes == ()

    def test_the_user_may_know_better(self, wide):
        beyond = [[x + 60, y + 50, w + 60, h + 40] for x, y, w, h in RIGHT]
        with pytest.raises(DataError, match="boxes in"):
            screen(wide, many(beyond))
        data = screen(wide, many(beyond), accept=("impossible_boxes",))
        assert data.objects == 12
        assert "cannot be" in data.notes[0]

    def test_a_few_are_told_and_those_without_area_left_out(self, wide):
        data = screen(wide, many([*RIGHT, [300, 200, 80, 20], [4, 4, 0, 9]]))
        assert data.objects == 13
        assert "2 of 14 boxes" in data.notes[0]
        assert "1 without area" in data.notes[0]

    @pytest.mark.parametrize("bad", [[10, 10, -5, 5], [10, 10, 0, 0]])
    def test_swapped_sides_are_refused_where_they_are_many(self, wide, bad):
        with pytest.raises(DataError, match="3 of 6 boxes"):
            screen(wide, many([*RIGHT[:3], bad, bad, bad]))

    def test_the_edge_may_be_passed_by_a_pixel(self, wide):
        assert screen(wide, many([[0, 0, 321, 241], [-1, -1, 50, 50]])).notes == ()


def test_boxes_are_read_back_as_they_were_understood(place):
    raw = document(("a.png", "B.png"), iscrowd="0", area=None)
    path = place / "boxes.json"
    path.write_text(json.dumps(raw))
    spec = DataSpec(images=str(place / "pics"), annotations=str(path))
    truth, _ = truths.read_boxes(spec, LABELS, ["a.png", "b.png"], chosen=False)
    truths.write(truth, place / "kept.json")
    labels = truth.labels
    again = read_coco(place / "kept.json", LABELS)
    assert (again.raw, again.image_id) == (labels.raw, {"a.png": 1, "b.png": 2})
    assert again.category_id == labels.category_id
