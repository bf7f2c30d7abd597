"""Pictures that EXIF turns: the right way up is Pillow's, boxes are followed as painted areas."""

from __future__ import annotations

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest

from engineworks import verdict
from engineworks.errors import DataError
from engineworks.evaluate import datasets, frames
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.annotations import turned
from engineworks.evaluate.annotations.coco import read_coco
from engineworks.facts.model import Reference
from engineworks.manifest import Artifact
from engineworks.runtime.pictures import read_image
from engineworks.specs import DataSpec, TaskSpec
from tests.builders import example

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

TASK = TaskSpec(kind="detection")
BOX = [6, 10, 14, 9]
EVERY = range(1, 9)


def photo(path, number, size=(40, 56), box=BOX):
    """A stored picture (height, width) with one white area, and a tag that turns it."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 80, (*size, 3), np.uint8)
    left, top, width, height = box
    image[top : top + height, left : left + width] = 255
    tags = Image.Exif()
    tags[0x0112] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, exif=tags, quality=95)
    return path


def white(image):
    """(left, top, width, height) of the white area."""
    rows, columns = np.nonzero(image.min(axis=2) > 170)
    return [int(v) for v in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]


def document(folder, sizes, boxes):
    names = list(sizes)
    raw = {
        "images": [{"id": i, "file_name": name, "height": sizes[name][0], "width": sizes[name][1]}
                   for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "area"}],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": boxes[name]}
                        for i, name in enumerate(names)],
    }  # fmt: skip
    path = folder / "l.json"
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("size", [(40, 56), (48, 48)])
@pytest.mark.parametrize("number", EVERY)
def test_the_tag_is_read_and_the_box_follows_its_area(tmp_path, ending, size, number):
    path = photo(tmp_path / f"a.{ending}", number, size)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    decoded = read_image(path)
    assert decoded.shape == shown.shape
    assert turned.orientation(path.read_bytes(), decoded) == number
    assert turned.to_upright(BOX, number, shown.shape[:2]) == white(shown) == white(decoded)


@pytest.mark.parametrize("cut", [12, 30, 40, 60])
def test_a_cut_tag_is_none(tmp_path, cut):
    path = photo(tmp_path / "a.jpg", 6)
    assert turned.orientation(path.read_bytes()[:cut], read_image(path)) == 1


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_a_number_that_is_none_turns_nothing(tmp_path, tag):
    path = photo(tmp_path / "a.jpg", tag)
    assert turned.orientation(path.read_bytes(), read_image(path)) == 1


def screened(folder, sizes, boxes, kept=None, **changes):
    path = document(folder, sizes, boxes)
    spec = DataSpec(images=str(folder / "pics"), annotations=str(path), **changes)

    def keep(labels):
        truths.write(labels, kept)
        return example(Artifact)

    return datasets.validate(spec, TASK, ("area",), keep if kept else None)


class TestOblong:
    NAMES = tuple(f"{number}.jpg" for number in EVERY)

    @pytest.fixture
    def place(self, tmp_path):
        for number in EVERY:
            photo(tmp_path / "pics" / f"{number}.jpg", number)
        return tmp_path

    def test_sizes_as_stored_name_exif_and_offer_the_key(self, place):
        sizes, boxes = (dict.fromkeys(self.NAMES, value) for value in ((40, 56), BOX))
        with pytest.raises(DataError, match=r"4 of 8 .*EXIF \(orientation 5\)") as caught:
            screened(place, sizes, boxes)
        assert "data.frame: unturned" in caught.value.hint
        assert "remove" not in caught.value.hint
        assert "skip" not in caught.value.hint

    def test_the_key_turns_boxes_with_their_pictures(self, place, tmp_path):
        sizes, boxes = (dict.fromkeys(self.NAMES, value) for value in ((40, 56), BOX))
        data = screened(place, sizes, boxes, tmp_path / "kept.json", frame="unturned")
        labels = read_coco(tmp_path / "kept.json", ("area",))
        for name, row in zip(data.files, labels.raw["annotations"], strict=True):
            image = read_image(place / "pics" / name)
            assert row["bbox"] == white(image), name
            assert labels.size[name] == image.shape[:2]

    def test_sizes_as_upright_are_refused_under_that_key(self, place):
        shapes = {n: read_image(place / "pics" / n).shape[:2] for n in self.NAMES}
        boxes = {n: white(read_image(place / "pics" / n)) for n in self.NAMES}
        assert len(screened(place, shapes, boxes).files) == 8
        with pytest.raises(DataError, match="4 of 8"):
            screened(place, shapes, boxes, frame="unturned")


class TestSquare:
    """Only what the model finds tells which way up boxes were drawn."""

    @pytest.fixture
    def place(self, tmp_path):
        for number in range(12):
            corner = [4 + number, 8, 14, 9]
            photo(tmp_path / "pics" / f"{number}.jpg", 2 + number % 7, (48, 48), corner)
        return tmp_path

    def found(self, place, boxes, **changes):
        names = sorted(f"{number}.jpg" for number in range(12))
        data = screened(place, dict.fromkeys(names, (48, 48)), boxes, **changes)
        labels = read_coco(place / "l.json", ("area",))
        results = [
            {"image_id": labels.image_id[n], "category_id": 1, "score": 0.9,
             "bbox": white(read_image(place / "pics" / n))}
            for n in names
        ]  # fmt: skip
        return frames.compare(results, labels, data)

    def stored(self):
        return {f"{number}.jpg": [4 + number, 8, 14, 9] for number in range(12)}

    def upright(self, place):
        return {n: white(read_image(place / "pics" / n)) for n in self.stored()}

    def test_boxes_of_stored_pictures_are_recognised(self, place):
        evidence = self.found(place, self.stored())
        assert evidence.photos == 12
        assert evidence.unturned == pytest.approx(1)
        assert evidence.upright < 0.7
        reference = dataclasses.replace(example(Reference), frames=evidence)
        with pytest.raises(DataError, match=r"12 images .* EXIF") as caught:
            verdict.refuse_frame(reference)
        assert "data.frame: unturned" in caught.value.hint

    def test_boxes_of_upright_pictures_are_right(self, place):
        evidence = self.found(place, self.upright(place))
        assert evidence.upright == pytest.approx(1)
        assert not evidence.doubtful
        verdict.refuse_frame(dataclasses.replace(example(Reference), frames=evidence))

    @pytest.mark.parametrize("frame", ["upright", "unturned"])
    def test_what_the_recipe_says_is_not_doubted(self, place, frame):
        assert self.found(place, self.stored(), frame=frame) is None

    def test_pictures_that_are_not_turned_say_nothing(self, place):
        shutil.rmtree(place / "pics")
        for number in range(12):
            corner = [4 + number, 8, 14, 9]
            photo(place / "pics" / f"{number}.jpg", 1, (48, 48), corner)
        assert self.found(place, self.stored()) is None


def test_the_answer_does_not_depend_on_the_decoder_alone(tmp_path):
    """A picture that looks the same both ways keeps the number of its tag where the size tells."""
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (20, 10), "white").save(tmp_path / "a.png", exif=tags)
    image = cv2.imdecode(np.fromfile(tmp_path / "a.png", np.uint8), cv2.IMREAD_COLOR)
    assert turned.orientation((tmp_path / "a.png").read_bytes(), image) == 6
