"""Pixels get classes: maps go back to source pixels, and mIoU is what another counting says."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest

from engineworks.errors import DataError, ModelError, RecipeError
from engineworks.evaluate import confusion, datasets, judge, meaning, suspects, tasks
from engineworks.evaluate.annotations import masks
from engineworks.evaluate.annotations import truth as truths
from engineworks.evaluate.tasks import segmentation
from engineworks.runtime import heads
from engineworks.runtime.heads.segmentation import UNSEEN, Segmentation, from_png, to_png
from engineworks.runtime.preprocess import Preprocessor
from engineworks.specs import DataSpec, Preprocess, TaskSpec

LABELS = ("background", "red", "blue")
TASK = TaskSpec(kind="segmentation", layout="scores", labels=LABELS)
SIZE = (48, 64)
COLOURS = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0]], np.uint8)  # BGR


def by_colour(batch):
    """A model without doubt: scores of black, red and blue pixels of an RGB picture in 0..1."""
    red, blue = batch[:, 0], batch[:, 2]
    return {"scores": np.stack([0.5 - np.maximum(red, blue), red - 0.5, blue - 0.5], axis=1)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(12):
        mask = np.zeros(SIZE, np.uint8)
        for kind in (1, 2):
            top, left = rng.integers(0, 24, 2)
            mask[top : top + rng.integers(9, 24), left : left + rng.integers(9, 40)] = kind
        cv2.imwrite(str(folder / "images" / f"{number}.png"), COLOURS[mask])
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    return folder


def spec(place, **changes):
    given = {"images": str(place / "images"), "annotations": str(place / "masks"), **changes}
    return DataSpec(**given)


@pytest.fixture(scope="module")
def data(place):
    return datasets.validate(spec(place), TASK, LABELS)


def copy_of(place, tmp_path):
    return shutil.copytree(place, tmp_path / "copy")


def score(data, infer=by_colour, task=TASK, prepare=None, size=SIZE):
    return judge.judge(infer, data, task, LABELS, prepare or Preprocess(), size, None)


class TestScore:
    def test_a_perfect_model_scores_one(self, data):
        metrics, predictions = score(data)
        assert metrics["mIoU"] == metrics["pixel_accuracy"] == 1
        assert [row["file"] for row in predictions] == list(data.files)

    @pytest.mark.parametrize("seed", range(4))
    def test_mean_iou_is_that_of_sets_of_pixels(self, seed):
        """A second way: sets of pixels, class by class, over all photos."""
        rng = np.random.default_rng(seed)
        truth = rng.integers(-1, 4, (5, 30, 40))
        answer = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(-1, 5, truth.shape))
        table = sum(confusion.count(a, t, 5) for a, t in zip(answer, truth, strict=True))
        each = []
        for kind in range(5):
            one = set(np.flatnonzero((answer == kind) & (truth >= 0)))
            other = set(np.flatnonzero(truth == kind))
            if other:
                each.append(len(one & other) / len(one | other))
        assert confusion.mean_iou(table) == pytest.approx(np.mean(each), abs=1e-12)
        counts = truth >= 0
        right = (answer[counts] == truth[counts]).mean()
        assert confusion.pixel_accuracy(table) == pytest.approx(right, abs=1e-12)

    def test_pixels_of_the_ignored_value_do_not_count(self, place, tmp_path):
        (tmp_path / "masks").mkdir()
        for file in sorted((place / "masks").iterdir()):
            mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            mask[:10] = 255  # whatever the picture shows there
            cv2.imwrite(str(tmp_path / "masks" / file.name), mask)
        given = spec(place, annotations=str(tmp_path / "masks"))
        assert score(datasets.validate(given, TASK, LABELS))[0]["mIoU"] == 1
        every = TaskSpec(kind="segmentation", layout="scores", options={"ignore_index": None})
        with pytest.raises(DataError, match="holds 255, the model has 3 classes"):
            datasets.validate(given, every, LABELS)

    def test_a_class_that_no_mask_has_is_left_out_of_the_mean(self, data):
        labels = (*LABELS, "green")

        def infer(batch):
            (scores,) = by_colour(batch).values()
            return {"scores": np.concatenate([scores, scores[:, :1] - 9], axis=1)}

        metrics, _ = judge.judge(infer, data, TASK, labels, Preprocess(), SIZE, None)
        assert metrics["mIoU"] == 1
        assert "IoU green" not in metrics

    @pytest.mark.parametrize("damage", ["shifted", "one class lost", "constant"])
    def test_damage_costs(self, data, damage):
        def infer(batch):
            (scores,) = by_colour(batch).values()
            if damage == "shifted":
                scores = np.roll(scores, 6, axis=3)
            elif damage == "one class lost":
                scores[:, 2] = -9
            else:
                scores[:, 0] = 9
            return {"scores": scores}

        sound, broken = score(data), score(data, infer)
        assert broken[0]["mIoU"] < 0.8
        kind = tasks.load("segmentation")
        assert kind.agreement(sound[1], broken[1]) < 0.9
        assert kind.agreement(sound[1], sound[1]) == 1
        held = kind.photo_scores(broken[1], data, TASK, LABELS)
        assert held.on(range(held.photos)) == pytest.approx(broken[0]["mIoU"], abs=1e-12)
        part = dataclasses.replace(data, files=data.files[1:])
        rest, _ = judge.judge(infer, part, TASK, LABELS, Preprocess(), SIZE, None)
        assert held.on(range(1, held.photos)) == pytest.approx(rest["mIoU"], abs=1e-12)
        found = kind.difference(sound[1], broken[1])
        assert found.lost + found.moved > 5
        assert found.things == "areas"
        same = kind.difference(sound[1], sound[1])
        assert (same.lost, same.gained, same.moved) == (0, 0, 0)
        assert "100.00 % of all pixels" in same.words

    def test_a_right_answer_is_better_than_chance_and_a_constant_is_not(self, data):
        good = suspects.evidence(score(data)[1], data, TASK, LABELS)
        assert good.word == "better"

        def blank(batch):
            (scores,) = by_colour(batch).values()
            return {"scores": scores * 0 + np.array([1, 0, 0])[:, None, None]}

        assert suspects.evidence(score(data, blank)[1], data, TASK, LABELS).word == "near zero"


class TestMaps:
    @pytest.mark.parametrize("resize", ["letterbox", "stretch"])
    @pytest.mark.parametrize("stride", [1, 2, 4])
    @pytest.mark.parametrize("layout", ["scores", "classes"])
    def test_edges_fall_where_they_are_in_the_source(self, resize, stride, layout):
        """A picture whose left 3/8 are red, at another size, aspect and grid than the input's."""
        image = np.zeros((100, 240, 3), np.uint8)
        image[:, :90] = (0, 0, 255)
        prepare = Preprocessor(Preprocess(resize=resize, pad=0), (96, 96))
        row, placement = prepare(image)
        (scores,) = by_colour(row[None]).values()
        cells = scores[0].reshape(3, 96 // stride, stride, 96 // stride, stride).mean((2, 4))
        outputs = {"y": cells if layout == "scores" else cells.argmax(axis=0)}
        task = TaskSpec(kind="segmentation", layout=layout)
        found = heads.load("segmentation").open(task, (96, 96), None)(outputs, placement)
        assert found.class_map.shape == (100, 240)
        wrong = found.class_map != np.where(np.arange(240) < 90, 1, 0)
        # One cell of the output is so many columns of the picture.
        assert wrong.any(axis=0).sum() <= np.ceil(240 / 96 * stride)

    def test_what_was_cut_off_has_no_class(self):
        prepare = Preprocessor(Preprocess(resize="center_crop"), (32, 32))
        row, placement = prepare(np.zeros((40, 100, 3), np.uint8))
        (scores,) = by_colour(row[None]).values()
        task = TaskSpec(kind="segmentation", layout="scores")
        found = heads.load("segmentation").open(task, (32, 32), None)({"y": scores[0]}, placement)
        assert (found.class_map[:, 31:69] == 0).all()
        assert (found.class_map[:, :29] == UNSEEN).all()
        assert (from_png(to_png(found.class_map)) == found.class_map).all()

    @pytest.mark.parametrize("classes", [3, 254, 255, 300])
    def test_a_png_gives_the_map_back(self, classes):
        numbers = np.random.default_rng(0).integers(0, classes, (9, 7)).astype(np.int16)
        numbers[0, :2] = UNSEEN, classes - 1
        assert (from_png(to_png(numbers)) == numbers).all()

    @pytest.mark.parametrize(
        ("layout", "output", "said"),
        [
            ("scores", np.zeros((1, 8, 8)), "one map of one class"),
            ("scores", np.zeros((8, 8)), "two or more classes"),
            ("classes", np.full((8, 8), 0.5), "class numbers"),
            ("classes", np.zeros((2, 8, 8)), "class numbers"),
        ],
    )
    def test_outputs_of_another_form_are_told(self, data, layout, output, said):
        task = TaskSpec(kind="segmentation", layout=layout)
        with pytest.raises(ModelError, match=said):
            score(data, lambda batch: {"y": output[None]}, task)

    def test_an_answer_in_json_and_words(self):
        answer = Segmentation(class_map=np.array([[0, 0, 0, 2]], np.int16))
        head = heads.load("segmentation")
        found = head.to_json(answer, TASK)
        assert found["areas"][1] == {"label": "blue", "class_id": 2, "pixels": 1, "share": 0.25}
        assert head.count(answer, TASK) == {"blue": 1}
        assert head.lines(answer, TASK)[0].split() == ["background", "75.0", "%"]

    def test_areas_are_tinted_and_the_background_is_not(self):
        image = np.full((64, 64, 3), 100, np.uint8)
        numbers = np.zeros((64, 64), np.int16)
        numbers[32:] = 2
        heads.load("segmentation").draw(image, Segmentation(class_map=numbers), TASK, None)
        assert (image[20:32, 40:] == 100).all()
        assert not (image[40:, 40:] == 100).all(axis=2).any()


def test_calibration_photos_are_counted_by_class(data):
    counted = tasks.load("segmentation").counts(data, TASK, LABELS)
    assert counted == {"background": 12, "red": 12, "blue": 12}


class TestMasks:
    def test_a_palette_means_its_numbers(self, tmp_path):
        """Written by another library: Pillow, as Pascal VOC's masks were."""
        image = pytest.importorskip("PIL.Image")
        numbers = np.random.default_rng(0).integers(0, 3, (13, 11)).astype(np.uint8)
        picture = image.fromarray(numbers, mode="P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        for bits in (8, 2):
            path = tmp_path / f"{bits}.png"
            picture.save(path, bits=bits)
            assert (masks.decode(path.read_bytes(), "it") == numbers).all()

    def test_a_mask_of_another_size_is_told(self, place, tmp_path):
        (tmp_path / "masks").mkdir()
        for file in (place / "masks").iterdir():
            cv2.imwrite(str(tmp_path / "masks" / file.name), np.eye(40, dtype=np.uint8))
        with pytest.raises(DataError, match="12 of 12 images cannot be used"):
            datasets.validate(spec(place, annotations=str(tmp_path / "masks")), TASK, LABELS)

    def test_a_mask_that_declares_gigabytes_is_told_and_not_decoded(
        self, place, tmp_path, monkeypatch
    ):
        folder = copy_of(place, tmp_path)
        path = folder / "masks" / "3.png"
        data = bytearray(path.read_bytes())
        data[16:24] = struct.pack(">II", 30_000, 20_000)  # IHDR: width, height
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        path.write_bytes(data)
        decoded = []
        real = masks.decode
        monkeypatch.setattr(masks, "decode", lambda *given: decoded.append(given) or real(*given))
        found = datasets.validate(spec(folder, on_bad_image="skip"), TASK, LABELS)
        assert [bad.reason for bad in found.bad] == [
            "3.png is 64x48 pixels, its annotation says 30000x20000"
        ]
        assert not any("3.png" in what for _, what in decoded)

    def test_pictures_without_a_mask_are_bad_images(self, place, tmp_path):
        (tmp_path / "masks").mkdir()
        for number in range(11):
            data = (place / "masks" / f"{number}.png").read_bytes()
            (tmp_path / "masks" / f"{number}.png").write_bytes(data)
        given = spec(place, annotations=str(tmp_path / "masks"))
        with pytest.raises(DataError, match=r"11\.png has no mask"):
            datasets.validate(given, TASK, LABELS)
        skip = spec(place, annotations=str(tmp_path / "masks"), on_bad_image="skip")
        assert len(datasets.validate(skip, TASK, LABELS).files) == 11

    def test_white_for_a_class_is_found_out(self, place, tmp_path):
        (tmp_path / "masks").mkdir()
        for file in (place / "masks").iterdir():
            mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(tmp_path / "masks" / file.name), np.where(mask > 0, 255, 0))
        with pytest.raises(DataError, match="hold one class, 0, and nothing else beside 255"):
            datasets.validate(spec(place, annotations=str(tmp_path / "masks")), TASK, LABELS)

    def test_what_later_stages_read_scores_the_same(self, place, tmp_path):
        import dataclasses

        kept = []
        data = datasets.validate(spec(place), TASK, LABELS, lambda truth: kept.append(truth))
        path = tmp_path / "annotations.json"
        truths.write(kept[0], path)
        moved = dataclasses.replace(data.spec, annotations=str(path))
        assert score(dataclasses.replace(data, spec=moved))[0]["mIoU"] == 1

    def test_a_mask_belongs_to_a_picture_of_any_ending(self, place, tmp_path):
        (tmp_path / "images").mkdir()
        for file in (place / "images").iterdir():
            cv2.imwrite(str(tmp_path / "images" / f"{file.stem}.bmp"), cv2.imread(str(file)))
        data = datasets.validate(spec(place, images=str(tmp_path / "images")), TASK, LABELS)
        assert score(data)[0]["mIoU"] == 1

    def test_masks_are_told_from_yolos_labels(self, place, tmp_path):
        (place / "masks" / "readme.txt").write_text("masks")
        assert masks.is_masks(place / "masks")
        (tmp_path / "a.png").write_bytes(b"")
        (tmp_path / "a.txt").write_text("0 0.5 0.5 1 1")
        assert not masks.is_masks(tmp_path)


def test_a_recipe_that_cannot_be_judged_is_refused():
    with pytest.raises(RecipeError, match="at least two"):
        tasks.check(TASK, ("all",), Preprocess())
    with pytest.raises(RecipeError, match="center_crop cuts"):
        tasks.check(TASK, LABELS, Preprocess(resize="center_crop"))
    with pytest.raises(RecipeError, match=r"'yolox' is unknown to segmentation"):
        tasks.check(TaskSpec(kind="segmentation"), LABELS, Preprocess())
    with pytest.raises(RecipeError, match="has no option 'ignore'"):
        task = TaskSpec(kind="segmentation", layout="scores", options={"ignore": 3})
        tasks.check(task, LABELS, Preprocess())
    with pytest.raises(ModelError, match="scores 4 classes"):
        judge.check_labels(TASK, LABELS, {"y": np.zeros((1, 4, 8, 8))})


def test_without_labels_two_engines_maps_are_compared(data):
    rows = [Preprocessor(Preprocess(), SIZE)(image)[0] for image in datasets.images(data)]
    against = meaning.Judge(by_colour, lambda: rows, TASK, SIZE)
    assert against.compare(against.answers(by_colour)).holds
    broken = against.compare(
        against.answers(lambda batch: {"scores": by_colour(batch)["scores"][:, ::-1]})
    )
    assert not broken.holds


def test_the_report_draws_both_maps(data, place):
    from engineworks.evaluate import pictures

    def infer(batch):
        (scores,) = by_colour(batch).values()
        scores[:, 2] = -9
        return {"scores": scores}

    source, other = score(data)[1], score(data, infer)[1]
    album = segmentation.album(data, place / "masks", TASK, LABELS)
    shown = pictures.gallery(album, data, source, {"openvino/int8": other}, frozenset())
    assert shown.changes[0].lost == 12
    assert shown.pictures[0].differs
    assert shown.pictures[0].before.startswith("data:image/jpeg")
    found = segmentation.difference(source, other)
    worst, gone = pictures.worst(album, data, "v", found, (source, other), 2)
    assert (len(worst), gone) == (2, 0)
    assert album.names["2"] == "blue"
