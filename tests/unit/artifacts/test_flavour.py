"""A registered engine is loaded, served and scored in batches by MLflow itself, without a pickle.

The right answers are those of `runtime.Detector` and `Classifier` on the engine's own folder.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from artifacts.registry import flavour, mlflow_log, ownership, versions
from artifacts.summary import Engine, Summary, Variant
from engineworks import runtime
from engineworks.errors import ArtifactError, DataError, FeedError
from engineworks.manifest import Requires
from engineworks.runtime import pyfunc
from engineworks.specs import InputSpec, Preprocess, TaskSpec
from engineworks.store import LocalStore
from tests import builders

INPUT = InputSpec(size=(16, 16))
LABELS = ("a", "b", "c", "d", "e")
CLASSES = TaskSpec(kind="classification", labels=LABELS, scores="logits")
BOXES = TaskSpec(kind="detection", layout="end2end", labels=LABELS, confidence=0.05)
PIXELS = Preprocess(color="rgb", resize="stretch", scale=1 / 255)


def boxes_net(path):
    """images (batch, 3, 16, 16) -> rows (batch, 4, 6) made of the pixels of its first row."""
    from onnx import TensorProto, helper, numpy_helper, save

    constants = [
        numpy_helper.from_array(np.array([0, 0, 0, 0], np.int64), "starts"),
        numpy_helper.from_array(np.array([2**30, 3, 1, 8], np.int64), "ends"),
        numpy_helper.from_array(np.array([-1, 4, 6], np.int64), "shape"),
        numpy_helper.from_array(np.array([5, 5, 16, 16, 1, 4], np.float32), "factor"),
        numpy_helper.from_array(np.array([0, 0, 5, 5, 0, 0], np.float32), "shift"),
    ]
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends"], ["part"]),
        helper.make_node("Reshape", ["part", "shape"], ["rows"]),
        helper.make_node("Mul", ["rows", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["boxes"]),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])
    wanted = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 4, 6])
    graph = helper.make_graph(nodes, "net", [given], [wanted], constants)
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A real MLflow database with three engines of a run, registered as `ship` does it."""
    folder = tmp_path_factory.mktemp("registry")
    store, home = LocalStore(folder / "store"), folder / "home"
    home.mkdir()
    nets = {"net": builders.conv_net(folder / "net.onnx"), "box": boxes_net(folder / "box.onnx")}
    engines = {
        "onnxruntime-cpu/fp32": builders.put_engine(
            store, nets["net"], name="tiny", preprocess=PIXELS, task=CLASSES
        ),
        "onnxruntime-cpu/fp32:boxes": builders.put_engine(
            store, nets["box"], name="tiny", preprocess=PIXELS, task=BOXES
        ),
        "onnxruntime-cpu/fp32:plain": builders.put_engine(
            store, nets["net"], name="tiny", task=TaskSpec()
        ),
    }
    rows = tuple(
        dataclasses.replace(
            builders.example(Variant), name=name, verdict="shipped", predictions=None, sealed=None,
            package=(), quantized=None, registered=None, host=None, accuracy=None, benchmark=(),
            engine=Engine(sha256=engine.sha256, size_bytes=9, uri=engine.uri),
        )
        for name, engine in engines.items()
    )  # fmt: skip
    facts = builders.example(Summary)
    onnx = builders.put_bytes(store, folder)
    summary = dataclasses.replace(
        facts, name="tiny", variants=rows, simplified=None, comparison=None, calibration=None,
        reference=dataclasses.replace(facts.reference, artifact=onnx, predictions=None, detail={}),
        exported=dataclasses.replace(facts.exported, onnx=onnx),
    )  # fmt: skip
    owner = ownership.owner("/a/recipe.yaml on one", CLASSES, LABELS, INPUT, PIXELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        logged = mlflow_log.log_run(summary, store, {}, "k", home)
        registered = versions.register(summary, logged, home, owner)
        yield {
            "home": home, "summary": summary, "owner": owner, "logged": logged,
            "registered": registered, "engines": list(engines.values()),
        }  # fmt: skip


def load(registry, number):
    alias = list(registry["registered"].values())[number].alias
    return mlflow.pyfunc.load_model(f"models:/tiny@{alias}")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + 4 * n, 30, 3)).astype(np.uint8) for n in range(3)]
    paths = [folder / f"{n}.png" for n in range(3)]
    for path, image in zip(paths, images, strict=True):
        assert cv2.imwrite(str(path), image)
    return paths, images


def forms(paths, images):
    """The same pictures in every form that people have them in."""
    texts, files = [str(path) for path in paths], [path.read_bytes() for path in paths]
    coded = [base64.b64encode(data).decode() for data in files]
    return {
        "paths": paths, "texts": texts, "bytes": files, "arrays": images, "base64": coded,
        "data URIs": [f"data:image/png;base64,{text}" for text in coded],
        "mixed": [texts[0], files[1], images[2]],
        "array of texts": np.array(texts),
        "series": pd.Series(files),
        "table of paths": pd.DataFrame({"image": texts, "id": [7, 8, 9]}, index=[4, 2, 9]),
        "table of arrays": pd.DataFrame({"photo": images}),
        "nested numbers": [image.tolist() for image in images],
        "mapping": {"image": files},
    }  # fmt: skip


FORMS = [
    "paths", "texts", "bytes", "arrays", "base64", "data URIs", "mixed", "array of texts", "series",
    "table of paths", "table of arrays", "nested numbers", "mapping",
]  # fmt: skip


@pytest.fixture(scope="module")
def classifier(registry):
    return load(registry, 0)


@pytest.fixture(scope="module")
def detector(registry):
    return load(registry, 1)


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_those_of_the_runtime(registry, classifier, detector, pictures, form):
    given = forms(*pictures)[form]
    with runtime.open(registry["engines"][0].uri) as session:
        wanted = runtime.Classifier(session)(pictures[1])
    answers = classifier.predict(given)
    assert len(answers) == 3
    for answer, right in zip(answers, wanted, strict=True):
        assert np.array_equal(np.float32(answer["scores"]), right.confidence)
        assert answer["class_ids"] == right.class_id.tolist()
        assert answer["labels"] == [LABELS[number] for number in right.class_id]
    with runtime.open(registry["engines"][1].uri) as session:
        objects = runtime.Detector(session)(pictures[1])
    assert sum(len(found.xyxy) for found in objects) > 4
    for answer, right in zip(detector.predict(given), objects, strict=True):
        assert np.array_equal(np.float32(answer["boxes"]).reshape(-1, 4), right.xyxy)
        assert np.array_equal(np.float32(answer["scores"]), right.confidence)
        assert answer["labels"] == [LABELS[number] for number in right.class_id]


def test_one_picture_is_a_list_of_one_and_settings_are_params(registry, detector, pictures):
    with runtime.open(registry["engines"][1].uri) as session:
        all_of_them = runtime.Detector(session)(pictures[1][0])
        middle = float(np.mean(all_of_them.confidence))
        few = runtime.Detector(session, confidence=middle)(pictures[1][0])
    assert 0 < len(few.xyxy) < len(all_of_them.xyxy)
    for given in (pictures[1][0], pictures[0][0].read_bytes(), str(pictures[0][0])):
        (answer,) = detector.predict(given, params={"confidence": middle})
        assert np.array_equal(np.float32(answer["scores"]), few.confidence)
    declared = {param.name: param.default for param in detector.metadata.get_params_schema()}
    assert declared == {"confidence": 0.05, "iou": 0.65, "max_detections": 100}


def test_tensors_are_answered_in_pixels_of_the_input(registry, classifier, detector, pictures):
    image = cv2.resize(pictures[1][0], (16, 16))
    with runtime.open(registry["engines"][1].uri) as session:
        found = runtime.Detector(session)
        row, _ = found.prepare(image)
        right = found(image)
    for given in (row, row[None], np.stack([row] * 3), {"images": row[None]}, row[None].tolist()):
        answers = detector.predict(given)
        assert len(answers) == (3 if np.shape(given)[:1] == (3,) and np.ndim(given) == 4 else 1)
        assert np.array_equal(np.float32(answers[-1]["boxes"]), right.xyxy)
    with pytest.raises(FeedError, match=r"float array of shape \[16, 16, 3\] is no row"):
        classifier.predict(image.astype(np.float32) / 255)


def test_an_engine_without_a_task_takes_and_gives_tensors(registry, pictures):
    plain = load(registry, 2)
    rows = np.random.default_rng(1).random((2, 3, 16, 16)).astype(np.float32)
    with runtime.open(registry["engines"][2].uri) as session:
        wanted = session.infer({"images": rows})["scores"].copy()
    assert np.array_equal(plain.predict({"images": rows})["scores"], wanted)
    assert np.array_equal(plain.predict(rows)["scores"], wanted)
    assert [spec.name for spec in plain.metadata.get_input_schema()] == ["images"]
    with pytest.raises(FeedError, match="takes tensors only"):
        pyfunc.LoadedEngine(plain.get_raw_model()).predict(str(pictures[0][0]))


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (["nowhere.png"], DataError, "row 0: nowhere.png cannot be read"),
        ([b"", b"x"], DataError, "row 0: 0 bytes that no image codec understands"),
        (["http://elsewhere/a.png"], DataError, "is an address: nothing is fetched"),
        ([None], DataError, "row 0: NoneType is neither a picture nor a row"),
        (pd.DataFrame({"image": [float("nan")]}), DataError, "row 0: float64"),
        (np.full((4, 4, 3), 256), DataError, "are no pixels"),
        (np.zeros((16, 16)), FeedError, r"shape \[16, 16\] is neither one picture"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), FeedError, "columns a, b does not say"),
        (7, FeedError, "int holds no pictures"),
    ],
)
def test_what_is_no_picture_is_named(classifier, given, kind, words):
    with pytest.raises(kind, match=words):
        classifier.predict(given)


def test_nothing_of_it_is_a_pickle_and_all_is_declared(registry, classifier):
    folder = registry["home"] / "mlruns"
    (model,) = [file for file in folder.rglob("MLmodel") if "--" not in file.parent.name]
    names = {file.name for file in model.parent.iterdir()} - {"registered_model_meta"}
    assert names == {
        "manifest.json", "model.onnx", "MLmodel", "requirements.txt", "conda.yaml",
        "python_env.yaml",
    }  # fmt: skip
    described = yaml.safe_load(model.read_text(encoding="utf-8"))
    loader = described["flavors"]["python_function"]
    assert loader["loader_module"] == "engineworks.runtime.pyfunc"
    assert not {"python_model", "cloudpickle_version", "data", "code"} & {
        name for name, value in loader.items() if value is not None
    }
    needed = (model.parent / "requirements.txt").read_text(encoding="utf-8").split()
    assert needed[:2] == [f"mlflow=={mlflow.__version__}", "engineworks[onnxruntime]==0.1.0"]
    schema = classifier.metadata.get_output_schema()
    assert [column.name for column in schema] == ["scores", "class_ids", "labels"]
    assert classifier.metadata.metadata["engineworks.sha256"] == registry["engines"][0].sha256


def test_a_package_that_was_built_with_is_required():
    manifest = dataclasses.replace(
        builders.example(flavour.Manifest), task=None,
        requires=Requires(runtime="openvino", package="openvino==2026.4.0"),
    )  # fmt: skip
    assert flavour.requirements(manifest)[1:] == [
        "engineworks[openvino]==0.1.0", "openvino==2026.4.0"
    ]  # fmt: skip


def copied(registry, tmp_path):
    version = mlflow.MlflowClient().get_model_version("tiny", "1")
    folder = tmp_path / "model"
    shutil.copytree(mlflow.artifacts.download_artifacts(version.source), folder)
    return folder


def test_altered_bytes_and_other_engines_are_not_opened(registry, tmp_path):
    folder = copied(registry, tmp_path)
    (folder / "registered_model_meta").write_text("model_name: tiny\nmodel_version: '2'\n")
    with pytest.raises(ArtifactError, match="holds artifact .*, not "):
        mlflow.pyfunc.load_model(str(folder))
    (folder / "registered_model_meta").unlink()
    mlflow.pyfunc.load_model(str(folder))
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="it was altered and is not opened"):
        mlflow.pyfunc.load_model(str(folder))


def test_withdrawn_and_simulated_versions_say_so(registry, caplog, monkeypatch):
    client = mlflow.MlflowClient()
    load(registry, 0)
    assert not caplog.records
    client.set_model_version_tag("tiny", "1", "verdict", "rejected")
    client.set_model_version_tag("tiny", "1", "simulated", "answers of a double")
    try:
        assert mlflow.pyfunc.load_model("models:/tiny/1").predict(np.zeros((9, 9, 3), np.uint8))
    finally:
        client.set_model_version_tag("tiny", "1", "verdict", "shipped")
        client.delete_model_version_tag("tiny", "1", "simulated")
    assert "version 1 of tiny is rejected: it was withdrawn" in caplog.text
    assert "version 1 of tiny is simulated: answers of a double" in caplog.text
    double = SimpleNamespace(manifest=SimpleNamespace(target="null", task=None))
    monkeypatch.setattr(pyfunc, "open_engine", lambda *_, **__: double)
    pyfunc._load_pyfunc("somewhere")
    assert "somewhere is simulated: it replays recorded answers" in caplog.text


def test_callers_at_once_get_their_own_answers_whatever_they_set(detector, pictures, monkeypatch):
    """MLflow's server calls from many threads, and gives every declared setting each time."""
    asked = [(at % 3, 0.05 + 0.01 * (at % 10)) for at in range(120)]
    session, inside, overlaps = detector.get_raw_model(), [], []

    def infer(feeds, real=session.infer):
        overlaps.extend(inside)
        inside.append("another caller's")
        time.sleep(0.0005)
        outputs = real(feeds)
        inside.pop()
        return outputs

    monkeypatch.setattr(session, "infer", infer)

    def ask(one):
        return detector.predict(pictures[1][one[0]], params={"confidence": one[1]})

    wanted = {one: ask(one) for one in dict.fromkeys(asked)}
    assert len(detector._PyFuncModel__model_impl._predictors) <= 8
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, asked))
    assert answers == [wanted[one] for one in asked] and not overlaps


def test_threads_are_set_where_it_is_loaded(registry, monkeypatch):
    given = []
    real = pyfunc.open_engine
    monkeypatch.setattr(
        pyfunc, "open_engine", lambda folder, **more: given.append(more) or real(folder, **more)
    )
    mlflow.pyfunc.load_model("models:/tiny/1", model_config={"threads": 1})
    load(registry, 0)
    assert [(more["threads"], more["device"]) for more in given] == [(1, 0), (0, 0)]
    with pytest.raises(FeedError, match="has no setting 'treads'"):
        pyfunc._load_pyfunc(str(registry["engines"][0].uri), {"treads": 1})


def test_a_copy_under_another_name_answers_alike(registry, classifier, pictures):
    """As MLflow's own button `promote` makes it: it only points at the first one."""
    client = mlflow.MlflowClient()
    copy = client.copy_model_version("models:/tiny/1", "other")
    loaded = mlflow.pyfunc.load_model(f"models:/other/{copy.version}")
    assert loaded.predict(pictures[0]) == classifier.predict(pictures[0])


def test_a_version_of_before_gets_its_flavour_with_the_next_run(registry):
    def ask():
        return versions.contradiction(
            registry["summary"], registry["logged"], registry["registered"], registry["home"],
            registry["owner"],
        )  # fmt: skip

    assert ask() == ""
    (model,) = [
        file for file in registry["home"].rglob("MLmodel") if file.parent.name.endswith("plain")
    ]
    model.unlink()
    assert ask() == "version 3 is from before MLflow could load it"
    again = versions.register(
        registry["summary"], registry["logged"], registry["home"], registry["owner"]
    )
    assert again == registry["registered"]
    assert ask() == ""


def test_mlflows_server_and_batch_scoring_answer_alike(
    registry, classifier, pictures, tmp_path, monkeypatch
):
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import _predict

    paths, _ = pictures
    right = classifier.predict(paths)
    table, out = tmp_path / "in.csv", tmp_path / "out.json"
    pd.DataFrame({"image": [str(path) for path in paths]}).to_csv(table, index=False)
    alias = registry["registered"]["onnxruntime-cpu/fp32"].alias
    _predict(f"models:/tiny@{alias}", str(table), str(out), "csv")
    assert json.loads(out.read_text())["predictions"] == right
    coded = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    monkeypatch.setenv("__pyfunc_model_path__", f"models:/tiny@{alias}")
    name = "mlflow.pyfunc.scoring_server.app"
    app = importlib.import_module(name).app
    try:
        http = TestClient(app)
        for body in (
            {"inputs": coded},
            {"dataframe_split": {"columns": ["image"], "data": [[text] for text in coded]}},
            {"dataframe_records": [{"image": text} for text in coded]},
            {"instances": coded},
        ):
            answer = http.post("/invocations", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"] == right
        one = http.post("/invocations", json={"inputs": coded[:1], "params": {"top": 2}})
        assert len(one.json()["predictions"][0]["labels"]) == 2
        refused = http.post("/invocations", json={"inputs": [str(Path(paths[0]))]})
        assert refused.status_code == 400
        assert "files of this server are opened for nobody" in refused.text
    finally:
        sys.modules.pop(name, None)
