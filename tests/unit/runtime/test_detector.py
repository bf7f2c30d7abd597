"""Images in, answers out: real engines of the trained example, on its photos."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engineworks import runtime
from engineworks.errors import ArtifactError, DataError, FeedError
from engineworks.runtime import Classifier, Detector, read_image
from engineworks.specs import Preprocess, TaskSpec
from engineworks.store import LocalStore
from tests import builders


@pytest.mark.parametrize("most", [0, -1])
def test_a_batch_of_nothing_is_refused(yolox_engine, most):
    with runtime.open(yolox_engine) as session, pytest.raises(FeedError, match="max_batch"):
        Detector(session, max_batch=most)


@pytest.fixture(scope="module")
def images():
    """Six photos, not all of one size."""
    found = [read_image(path) for path in builders.photos()[:6]]
    assert len({image.shape for image in found}) > 1
    return found


@pytest.fixture(scope="module")
def engines(yolox_onnx, tmp_path_factory):
    """Engine folders: ONNX Runtime and OpenVINO with an open batch, one with a batch of 4."""
    store = LocalStore(tmp_path_factory.mktemp("engines"))
    four = builders.export_yolox(tmp_path_factory.mktemp("four") / "four.onnx", batch=4)
    return {
        "onnxruntime": builders.put_engine(store, yolox_onnx).uri,
        "openvino": builders.put_engine(store, yolox_onnx, runtime="openvino").uri,
        "batch of 4": builders.put_engine(store, four).uri,
    }


@pytest.fixture(params=["onnxruntime", "openvino", "batch of 4"])
def detector(request, engines):
    with runtime.open(engines[request.param], threads=2) as session:
        yield Detector(session)


@pytest.fixture(scope="module")
def wanted(engines, images):
    """The answers of one engine, image by image."""
    with runtime.open(engines["onnxruntime"], threads=2) as session:
        detector = Detector(session)
        return [detector(image) for image in images]


def same(found, wanted):
    """Boxes to a tenth of a pixel: engines and batch sizes add up in another order."""
    assert found.class_id.tolist() == wanted.class_id.tolist()
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.1)
    np.testing.assert_allclose(found.confidence, wanted.confidence, atol=1e-3)


def test_a_bear_is_found_where_it_is(detector, images):
    found = detector(images[0])
    assert [detector.label(number) for number in found.class_id] == ["bear"]
    left, top, right, bottom = found.xyxy[0]
    height, width = images[0].shape[:2]
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert (right - left) * (bottom - top) > 0.5 * height * width


def test_many_images_get_the_answers_of_each(detector, images, wanted):
    """Six images: with a batch of 4 the second batch is half empty."""
    found = detector(images)
    assert len(found) == len(images)
    for one, other in zip(found, wanted, strict=True):
        same(one, other)
    assert any(len(one) for one in found)
    assert detector([]) == []


def test_steps_on_their_own_threads_give_the_same(detector, images, wanted):
    """A pipeline: rows, outputs and placements wait in queues while the others go on."""
    with ThreadPoolExecutor(4) as pool:
        prepared = list(pool.map(detector.prepare, images * 3))
        rows = [row for row, _ in prepared]
        first, second = pool.submit(detector.infer, rows[:7]), pool.submit(detector.infer, rows[7:])
        outputs = first.result() + second.result()
        found = list(pool.map(detector.finish, outputs, [placement for _, placement in prepared]))
    for position, one in enumerate(found):
        same(one, wanted[position % len(images)])


def test_what_was_returned_is_not_touched_again(detector, images):
    row, placement = detector.prepare(images[0])
    (outputs,) = detector.infer([row])
    found = detector.finish(outputs, placement)
    before = row.copy(), {name: array.copy() for name, array in outputs.items()}, found.xyxy.copy()
    detector(images)
    detector.infer([detector.prepare(image)[0] for image in images])
    np.testing.assert_array_equal(row, before[0])
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, before[1][name])
    np.testing.assert_array_equal(found.xyxy, before[2])


def test_threads_may_call_one_detector(detector, images, wanted):
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        return [detector(image) for image in images[:3]]

    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(work, range(4)):
            for one, other in zip(answers, wanted, strict=False):
                same(one, other)


def test_the_times_of_the_last_call_are_kept(detector, images):
    detector(images[:3])
    times = detector.times
    assert times.images == 3
    assert min(times.preprocess_ms, times.infer_ms, times.postprocess_ms) > 0


def test_a_higher_confidence_leaves_fewer(engines, images):
    with runtime.open(engines["onnxruntime"]) as session:
        many = Detector(session, confidence=0.05)(images[1])
        few = Detector(session, confidence=0.5)(images[1])
    assert len(many) > len(few)
    assert (few.confidence > 0.5).all()


def test_a_bad_image_is_refused_before_inference(detector, images):
    with pytest.raises(DataError, match=r"uint8 \(height, width, 3\)"):
        detector(images[0].astype(np.float32))
    with pytest.raises(DataError):
        detector([images[0], images[0][:, :, 0]])


def graph(path, nodes, inputs, outputs):
    """An ONNX file of a few nodes."""
    import onnx
    from onnx import TensorProto, helper

    kinds = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}

    def values(specs):
        return [
            helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in specs
        ]

    made = helper.make_graph(nodes, "g", values(inputs), values(outputs))
    onnx.save(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def test_an_engine_that_normalises_itself_is_fed_pixels(store, yolox_onnx, tmp_path, images):
    """The trained model behind Cast and Transpose: uint8 pixels in, the same boxes out."""
    pixels = builders.put_engine(
        store, builders.behind_pixels(yolox_onnx, tmp_path / "pixels.onnx")
    )
    floats = builders.put_engine(store, yolox_onnx)
    with runtime.open(pixels.uri) as one, runtime.open(floats.uri) as other:
        eats_pixels, eats_floats = Detector(one), Detector(other)
        row, _ = eats_pixels.prepare(images[0])
        assert (row.dtype, row.shape) == (np.uint8, (416, 416, 3))
        for image in images[:3]:
            same(eats_pixels(image), eats_floats(image))


class TestRefusals:
    @pytest.mark.parametrize(
        ("task", "says"),
        [
            (TaskSpec(kind="none"), "task none, not detection"),
            (TaskSpec(kind="classification", labels=("a",)), "classification, not detection"),
            (TaskSpec(kind="detection", layout="mine:decode"), "layout of its own, mine:decode"),
        ],
    )
    def test_an_engine_of_another_task(self, store, tiny_onnx, task, says):
        engine = builders.put_engine(store, tiny_onnx, task=task)
        with runtime.open(engine.uri) as session, pytest.raises(ArtifactError, match=says):
            Detector(session)

    @pytest.mark.parametrize(
        ("kind", "shape", "says"),
        [
            ("float32", ["n", 3, "h", "w"], "leaves the input size open"),
            ("float32", ["n", 8], "is no image"),
            ("uint8", ["n", 3, 8, 8], "is no image"),
        ],
    )
    def test_an_input_that_is_no_image(self, store, tmp_path, kind, shape, says):
        from onnx import helper

        path = graph(
            tmp_path / "odd.onnx",
            [helper.make_node("Identity", ["x"], ["y"])],
            [("x", kind, shape)],
            [("y", kind, shape)],
        )
        engine = builders.put_engine(store, path)
        with runtime.open(engine.uri) as session, pytest.raises(ArtifactError, match=says):
            Detector(session)

    def test_outputs_that_are_not_what_the_layout_says(self, store, yolox_onnx, images):
        task = TaskSpec(kind="detection", layout="detr")
        engine = builders.put_engine(store, yolox_onnx, task=task)
        with (
            runtime.open(engine.uri) as session,
            pytest.raises(ArtifactError, match=r"layout detr cannot .*\[3549, 85\]"),
        ):
            Detector(session)(images[0])

    def test_own_decoder_is_used_when_given(self, store, yolox_onnx, images):
        def decode(outputs, size, confidence):
            assert size == (416, 416)
            return np.array([[0, 0, 104, 208]], np.float32), np.array([0.5]), np.array([3])

        task = TaskSpec(kind="detection", layout="mine:decode", confidence=0.1)
        engine = builders.put_engine(store, yolox_onnx, task=task)
        with runtime.open(engine.uri) as session:
            found = Detector(session, decoder=decode)(np.zeros((416, 832, 3), np.uint8))
        assert found.xyxy.tolist() == [[0, 0, 208, 416]]


class TestClassifier:
    def test_the_best_classes_come_first(self, store, tiny_onnx):
        labels = ("ant", "bee", "cat", "dog", "eel")
        task = TaskSpec(kind="classification", labels=labels, scores="logits")
        engine = builders.put_engine(store, tiny_onnx, task=task, preprocess=Preprocess())
        rng = np.random.default_rng(0)
        pictures = [rng.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(3)]
        with runtime.open(engine.uri) as session:
            classifier = Classifier(session, top=3)
            answers = classifier(pictures)
            one = classifier(pictures[0])
            row, _ = classifier.prepare(pictures[0])
            logits = session.infer({"images": row[None]})["scores"][0].astype(np.float64)
        wanted = np.exp(logits) / np.exp(logits).sum()
        assert one.class_id.tolist() == np.argsort(-wanted)[:3].tolist()
        np.testing.assert_allclose(one.confidence, np.sort(wanted)[::-1][:3], rtol=1e-4)
        assert one.class_id.tolist() == answers[0].class_id.tolist()
        assert classifier.label(int(one.class_id[0])) in labels
        assert len(answers) == 3

    def test_probabilities_stay_what_they_are(self, store, tmp_path):
        from onnx import helper

        nodes = [
            helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Softmax", ["flat"], ["scores"], axis=1),
        ]
        path = graph(
            tmp_path / "soft.onnx",
            nodes,
            [("images", "float32", ["n", 3, 8, 8])],
            [("scores", "float32", ["n", 3])],
        )
        task = TaskSpec(kind="classification", labels=("r", "g", "b"), scores="probabilities")
        engine = builders.put_engine(store, path, task=task, preprocess=Preprocess())
        red = np.zeros((8, 8, 3), np.uint8)
        red[..., 2] = 255
        with runtime.open(engine.uri) as session:
            answer = Classifier(session)(red)
        assert answer.class_id[0] == 0
        np.testing.assert_allclose(answer.confidence[0], np.e / (np.e + 2), rtol=1e-5)

    @pytest.mark.parametrize("given", [None, 7, Path("photo.jpg")])
    def test_what_is_no_image_is_refused_in_own_words(self, yolox_engine: Path, given):
        kind = type(given).__name__
        with runtime.open(yolox_engine) as session:
            detector = Detector(session)
            with pytest.raises(FeedError, match=f"Detector is given {kind}"):
                detector(given)
            with pytest.raises(FeedError, match=f"rows are {kind}"):
                detector.infer(given)
        with pytest.raises(FeedError, match=f"Detector is given {kind}, which is no open engine"):
            Detector(given)

    def test_a_detector_is_no_classifier(self, yolox_engine: Path):
        with (
            runtime.open(yolox_engine) as session,
            pytest.raises(ArtifactError, match="detection, not classification"),
        ):
            Classifier(session)
