"""Objects with points: decoded, brought back to the source, scored by OKS as pycocotools has it."""

from __future__ import annotations

import contextlib
import io
import json

import cv2
import numpy as np
import pytest

from engineworks.errors import DataError, ModelError, RecipeError
from engineworks.evaluate import agreement, datasets, judge, meaning, pictures, suspects, tasks
from engineworks.evaluate.annotations import turned
from engineworks.evaluate.annotations.coco import read_coco
from engineworks.evaluate.oks import COCO_SIGMAS, between, oks
from engineworks.evaluate.precision import average_precision, sides
from engineworks.evaluate.tasks import keypoints
from engineworks.runtime import heads
from engineworks.runtime.heads.keypoints import COCO_NAMES, Poses
from engineworks.runtime.preprocess import Preprocessor
from engineworks.runtime.tracking import ByteTrack
from engineworks.specs import DataSpec, Preprocess, TaskSpec

SIZE = (96, 96)
NAMES = ("red", "green", "blue")
OPTIONS = {"names": NAMES, "sigmas": (0.05, 0.05, 0.05), "skeleton": ((0, 1), (1, 2))}
TASK = TaskSpec(kind="keypoints", layout="end2end_pose", confidence=0.1, options=OPTIONS)
LABELS = ("thing",)
COLOURS = ((0, 0, 255), (0, 255, 0), (255, 0, 0))  # BGR


def by_colour(batch, *, shift=0.0):
    """One object: the extent of everything coloured, its points the centres of pure colours."""
    row = [0.0] * (6 + 9)
    marks = []
    for channel in range(3):
        others = np.delete(batch[0], channel, 0)
        y, x = np.nonzero((batch[0, channel] > 0.7) & (others < 0.3).all(0))
        marks.append((x, y))
    if all(len(x) for x, _ in marks):
        xs, ys = (np.concatenate(side) for side in zip(*marks, strict=True))
        row[:6] = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, 0.9, 0]
        for n, (x, y) in enumerate(marks):
            row[6 + 3 * n : 9 + 3 * n] = [x.mean() + 0.5 + shift, y.mean() + 0.5, 0.8]
    return {"poses": np.array([[row]], np.float32)}


def document(count=12, size=(96, 192)):
    rng = np.random.default_rng(0)
    images, rows, shown = [], [], {}
    for number in range(count):
        image = np.zeros((*size, 3), np.uint8)
        corner = rng.uniform((4, 4), (100, 30))
        points = corner + rng.uniform(4, 56, (3, 2))
        while min(np.abs(points[a] - points[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) < 14:
            points = corner + rng.uniform(4, 56, (3, 2))
        for point, colour in zip(points, COLOURS, strict=True):
            x, y = np.rint(point - 4).astype(int)
            image[y : y + 8, x : x + 8] = colour
            point[:] = x + 4, y + 4
        low, high = points.min(0) - 4, points.max(0) + 4
        shown[f"{number}.png"] = image
        images.append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 192})
        rows.append({
            "id": number + 1, "image_id": number, "category_id": 3, "iscrowd": 0,
            "bbox": [*low.tolist(), *(high - low).tolist()], "area": float(np.prod(high - low)),
            "keypoints": np.c_[points, np.full(3, 2)].ravel().tolist(),
        })  # fmt: skip
    categories = [{"id": 3, "name": "thing", "keypoints": list(NAMES)}]
    return {"images": images, "annotations": rows, "categories": categories}, shown


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poses")
    raw, shown = document()
    (folder / "pics").mkdir()
    for name, image in shown.items():
        cv2.imwrite(str(folder / "pics" / name), image)
    (folder / "poses.json").write_text(json.dumps(raw))
    return folder


def spec(place):
    return DataSpec(images=str(place / "pics"), annotations=str(place / "poses.json"))


@pytest.fixture(scope="module")
def data(place):
    return datasets.validate(spec(place), TASK, LABELS)


def score(data, infer=by_colour, task=TASK, resize="letterbox"):
    prepare = Preprocess(resize=resize, pad=0)
    return judge.judge(infer, data, task, LABELS, prepare, (96, 192), None)


class TestScore:
    @pytest.mark.parametrize("resize", ["letterbox", "stretch"])
    def test_a_perfect_model_scores_one(self, data, resize):
        metrics, rows = score(data, resize=resize)
        assert metrics["AP"] == pytest.approx(1)
        assert len(rows[0]["keypoints"]) == 9

    def test_points_beside_the_truth_cost_though_boxes_are_right(self, data):
        sound, broken = score(data), score(data, lambda batch: by_colour(batch, shift=9))
        assert broken[0]["AP"] < 0.5
        kind = tasks.load("keypoints")
        assert kind.agreement(sound[1], sound[1]) == pytest.approx(1)
        assert kind.agreement(sound[1], broken[1]) < 0.6
        assert agreement.score(sound[1], broken[1]) == pytest.approx(1)  # boxes say nothing
        held = kind.photo_scores(broken[1], data, TASK, LABELS)
        assert held.on(range(held.photos)) == pytest.approx(broken[0]["AP"], abs=1e-6)
        found = kind.difference(sound[1], broken[1])
        assert found.lost + found.moved == 12

    @pytest.mark.parametrize("seed", range(3))
    def test_ap_is_that_of_pycocotools_on_files_and_of_a_second_counting(self, seed, tmp_path):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        rng = np.random.default_rng(seed)
        raw, results = crowd(rng)
        path = tmp_path / "t.json"
        path.write_text(json.dumps(raw))
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(path))
            keys = ("image_id", "category_id", "keypoints", "score")
            found = truth.loadRes([{key: row[key] for key in keys} for row in results])
            official = COCOeval(truth, found, "keypoints")
            official.evaluate()
            official.accumulate()
            official.summarize()
        labels = read_coco(path, ("person",), points=17)
        ids = [row["id"] for row in raw["images"]]
        from engineworks.evaluate import cocoeval

        ours = cocoeval.score(results, labels, ids, 20, COCO_SIGMAS)
        names = ("AP", "AP50", "AP75", "AP_medium", "AP_large")
        for name, value in zip(names, official.stats[:5], strict=True):
            assert ours[name] == pytest.approx(value, abs=1e-6)
        assert 0.1 < ours["AP"] < 0.95
        second = average_precision(*sides(results, labels, ids, COCO_SIGMAS))
        assert second == pytest.approx(ours["AP"], abs=1e-6)

    def test_a_right_answer_is_better_than_chance(self, data):
        assert suspects.evidence(score(data)[1], data, TASK, LABELS).word == "better"
        far = score(data, lambda batch: by_colour(batch, shift=60))[1]
        assert suspects.evidence(far, data, TASK, LABELS).word == "near zero"


def crowd(rng):
    """People of COCO's points, some hidden, and answers that are right to different degrees."""
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 480, "width": 640} for n in range(1, 9)]
    rows, results = [], []
    for image in images:
        for _ in range(rng.integers(1, 5)):
            corner, side = rng.uniform(0, 300, 2), rng.uniform(80, 180, 2)
            points = corner + rng.uniform(0, 1, (17, 2)) * side
            seen = rng.integers(0, 3, 17)
            seen[0] = 2
            rows.append({
                "id": len(rows) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": 0,
                "bbox": [*corner.tolist(), *side.tolist()], "area": float(np.prod(side) * 0.6),
                "keypoints": np.c_[points * (seen > 0)[:, None], seen].ravel().tolist(),
                "num_keypoints": int((seen > 0).sum()),
            })  # fmt: skip
            for _ in range(rng.integers(0, 3)):
                off = points + rng.normal(0, rng.uniform(1, 12), points.shape)
                results.append({
                    "image_id": image["id"], "category_id": 1, "score": float(rng.random()),
                    "bbox": [*corner.tolist(), *side.tolist()],
                    "keypoints": np.c_[off, np.ones(17)].ravel().tolist(),
                })  # fmt: skip
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO_NAMES)}]
    return {"images": images, "annotations": rows, "categories": categories}, results


def test_oks_by_hand():
    """Distance d at spread s and area A: exp(-d^2 / (2 (2 s)^2 A))."""
    truth = np.array([[[0, 0, 2], [10, 0, 1], [99, 99, 0]]], np.float64)
    answer = np.array([[[3, 4, 1], [10, 0, 1], [0, 0, 1]]], np.float64)
    found = oks(answer, truth, np.array([100.0]), np.array([0.25, 0.25, 0.25]))
    assert found[0, 0] == pytest.approx((np.exp(-25 / (2 * 0.25 * 100)) + 1) / 2)
    left = [{"bbox": [0, 0, 9, 9], "keypoints": [1, 1, 0.5]}] * 2
    assert between(left, left[:1]).shape == (2, 1)


class TestHead:
    def pose(self, *, classes=1):
        """Two candidates of one object and one of another, as YOLOv8-pose has columns."""
        box = np.array([[30, 40, 20, 20], [31, 40, 20, 20], [70, 70, 10, 30]], np.float32)
        score = np.array([[0.9, 0.8, 0.7]] * classes, np.float32)
        points = np.arange(27, dtype=np.float32).reshape(3, 9)
        return np.concatenate([box, score.T, points], axis=1).T

    def test_a_yolo_pose_head_is_decoded_and_suppressed(self):
        task = TaskSpec(kind="keypoints", layout="yolov8_pose", options=OPTIONS)
        image = np.zeros((48, 96, 3), np.uint8)
        _, placement = Preprocessor(Preprocess(resize="letterbox"), SIZE)(image)
        found = heads.load("keypoints").open(task, SIZE, None)({"y": self.pose()}, placement)
        assert found.confidence.tolist() == pytest.approx([0.9, 0.7])
        # The image lies 24 rows down in the input.
        assert found.xyxy[0].tolist() == pytest.approx([20, 6, 40, 26])
        assert found.points[0].tolist() == [[0, 1 - 24, 2], [3, 4 - 24, 5], [6, 7 - 24, 8]]

    def test_both_layouts_say_the_same(self):
        pose = self.pose().T[[0, 2]]
        half = pose[:, 2:4] / 2
        rows = np.concatenate(
            [pose[:, :2] - half, pose[:, :2] + half, pose[:, 4:5], np.zeros((2, 1)), pose[:, 5:]], 1
        )
        _, placement = Preprocessor(Preprocess(), SIZE)(np.zeros((*SIZE, 3), np.uint8))
        one, other = (
            heads.load("keypoints").open(
                TaskSpec(kind="keypoints", layout=layout, options=OPTIONS), SIZE, None
            )({"y": array}, placement)
            for layout, array in (("yolov8_pose", self.pose()), ("end2end_pose", rows))
        )
        np.testing.assert_allclose(one.xyxy, other.xyxy)
        np.testing.assert_allclose(one.points, other.points)

    @pytest.mark.parametrize("layout", ["yolov8_pose", "end2end_pose"])
    def test_another_number_of_points_is_told(self, data, layout):
        task = TaskSpec(kind="keypoints", layout=layout, options=OPTIONS)
        with pytest.raises(ModelError, match="with 3 points"):
            score(data, lambda batch: {"y": np.zeros((1, 8, 8))}, task)

    def test_tracks_keep_their_points(self):
        tracker = ByteTrack(fps=25, high=0.3)
        for step in range(4):
            points = np.full((1, 3, 3), step, np.float32)
            box = np.array([[10 + step, 10, 60 + step, 80]], np.float32)
            found = tracker.update(
                Poses(
                    xyxy=box, confidence=np.array([0.9], np.float32),
                    class_id=np.array([0]), points=points,
                )
            )  # fmt: skip
        assert found.track_id.tolist() == [1]
        assert found.points[0, 0, 0] == 3

    def test_json_names_the_points_and_pictures_show_them(self):
        found = Poses(
            xyxy=np.array([[10, 10, 50, 50]], np.float32), confidence=np.array([0.9], np.float32),
            class_id=np.array([0]),
            points=np.array([[[12, 40, 0.9], [48, 40, 0.8], [30, 30, 0.1]]], np.float32),
        )  # fmt: skip
        head = heads.load("keypoints")
        row = head.to_json(found, TASK)["detections"][0]
        assert row["keypoints"][1] == {"name": "green", "x": 48, "y": 40, "confidence": 0.8}
        assert head.lines(found, TASK)[0].endswith("2 of 3 points")
        image = np.zeros((64, 64, 3), np.uint8)
        head.draw(image, found, TASK, None)
        assert image[40, 20:40].any(axis=1).all()  # the limb between both
        assert not image[25:35, 20:40].any()  # the point in doubt has none


class TestTruth:
    def test_points_of_other_names_are_told(self, place, tmp_path):
        raw = json.loads((place / "poses.json").read_text())
        raw["categories"][0]["keypoints"] = ["green", "red", "blue"]
        path = tmp_path / "x.json"
        path.write_text(json.dumps(raw))
        given = DataSpec(images=str(place / "pics"), annotations=str(path))
        with pytest.raises(DataError, match="has the points green, red, blue, the model red"):
            datasets.validate(given, TASK, LABELS)

    def test_another_number_of_points_is_told(self, place):
        person = TaskSpec(kind="keypoints", layout="yolov8_pose")
        with pytest.raises(DataError, match="9 numbers, 17 points need 51"):
            datasets.validate(spec(place), person, LABELS)

    def test_points_turn_with_their_pictures(self):
        """EXIF 6: the stored left upper corner is the upright right upper one."""
        from engineworks.evaluate.annotations.coco import CocoLabels

        labels = CocoLabels(
            raw={
                "images": [{"id": 1, "file_name": "a", "height": 40, "width": 60}],
                "annotations": [
                    {"image_id": 1, "bbox": [0, 0, 10, 20], "keypoints": [2, 5, 2, 0, 0, 0]}
                ],
                "categories": [],
            },
            image_id={"a": 1}, size={"a": (40, 60)}, category_id=(),
        )  # fmt: skip
        (row,) = turned.upright(labels, {"a": 6}).raw["annotations"]
        stored = np.zeros((40, 60))
        stored[5, 2] = 1
        y, x = np.argwhere(turned.turn(stored, 6))[0]
        # Pixel centres turn as pixels do.
        assert row["keypoints"][:2] == pytest.approx([x, y], abs=1)
        assert row["keypoints"][3:] == [0, 0, 0]

    def test_spreads_must_be_known(self):
        options = {"names": NAMES}
        with pytest.raises(RecipeError, match="sigmas are missing"):
            tasks.check(
                TaskSpec(kind="keypoints", layout="yolov8_pose", options=options), LABELS,
                Preprocess(),
            )  # fmt: skip
        tasks.check(TaskSpec(kind="keypoints", layout="yolov8_pose"), LABELS, Preprocess())
        for wrong in ({"names": []}, {"sigmas": [1]}, {"skeleton": [[0, 17]]}):
            with pytest.raises(RecipeError, match=r"task\.options: "):
                task = TaskSpec(kind="keypoints", layout="yolov8_pose", options=wrong)
                tasks.check(task, LABELS, Preprocess())


def test_without_labels_points_are_compared_too(data):
    rows = [
        Preprocessor(Preprocess(resize="letterbox", pad=0), (96, 192))(image)[0]
        for image in datasets.images(data)
    ]
    against = meaning.Judge(by_colour, lambda: rows, TASK, (96, 192))
    assert against.compare(against.answers(by_colour)).holds
    moved = against.compare(against.answers(lambda batch: by_colour(batch, shift=12)))
    assert not moved.holds
    assert "points are" in moved.reason


def test_the_report_draws_limbs(data, place):
    source = score(data)[1]
    other = score(data, lambda batch: by_colour(batch, shift=30))[1]
    album = keypoints.album(data, place / "poses.json", TASK, LABELS)
    shown = pictures.gallery(album, data, source, {"openvino/int8": other}, frozenset())
    assert shown.changes[0].lost == 12
    assert shown.words.things == "objects"
