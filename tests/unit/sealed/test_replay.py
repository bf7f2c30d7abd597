"""A sealed test holds for the engine that it was made of, and for no other one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from engineworks import sealed
from engineworks.errors import ArtifactError
from engineworks.export.torch_onnx import runner
from engineworks.sealed import contents
from engineworks.store import LocalStore
from tests import builders
from tests.unit.sealed.conftest import PREPROCESS, TASK, seal


def missed(folder, test):
    return {one.name for one in sealed.replay(folder, test).expectations if not one.holds}


@pytest.mark.parametrize("threads", [1, 2])
def test_the_engine_itself_holds(tiny, threads):
    shown = sealed.replay(tiny.engine, tiny.test, threads=threads)
    assert shown.holds and not shown.reason
    assert (shown.pictures, shown.photos) == (8, 0)
    assert shown.closest.used <= 0.5
    assert any(note.startswith("weaker: its pictures were made") for note in shown.notes)


def test_what_is_expected_comes_from_the_source_where_the_engine_is_as_close_as_a_replay(tiny):
    loaded = contents.load(tiny.test)
    assert {test.origin for test in loaded.sealed.tensors} == {"source"}
    assert {test.origin for test in loaded.sealed.answers} == {"source", "engine"}
    # Against plain ONNX Runtime on rows that are made by hand.
    case = loaded.sealed.numbers("exact")[0]
    from engineworks.runtime.pictures import read_image

    pixels = read_image(loaded.folder / loaded.sealed.cases[case].file)[..., ::-1]
    row = (pixels / np.float32(255) - np.float32(PREPROCESS.mean)) / np.float32(PREPROCESS.std)
    wanted = runner(tiny.onnx)(row.transpose(2, 0, 1)[None].astype(np.float32))["scores"][0]
    number = [test.part for test in loaded.sealed.tensors].index("exact")
    assert loaded.of(number, "values")[0, :, 0] == pytest.approx(wanted, abs=1e-4)


def test_without_a_source_the_engine_says_what_is_expected_and_the_test_says_so(tiny, tmp_path):
    store = LocalStore(tmp_path / "store")
    engine = builders.put_engine(store, tiny.onnx, name="tiny", preprocess=PREPROCESS, task=TASK)
    test = contents.load(seal(store, engine, None, tmp_path / "work"))
    assert {one.origin for one in (*test.sealed.tensors, *test.sealed.answers)} == {"engine"}
    assert any("the source model was not at hand" in note for note in test.sealed.notes)


def test_an_engine_that_rounds_is_held_to_its_own_answers_and_to_its_distance(tiny, tmp_path):
    """The source says something else, as it does where values are integers."""
    run = runner(tiny.onnx)

    def source(batch):
        return {name: out + 0.05 * np.sin(40 * out) for name, out in run(batch).items()}

    store = LocalStore(tmp_path / "store")
    engine = builders.put_engine(store, tiny.onnx, name="tiny", preprocess=PREPROCESS, task=TASK)
    test = contents.load(seal(store, engine, source, tmp_path / "work"))
    assert {one.origin for one in test.sealed.tensors} == {"engine", "source"}
    assert any("for it rounds" in note for note in test.sealed.notes)
    shown = sealed.replay(engine.uri, test)
    assert shown.holds
    apart = {
        e.part: e for e in shown.expectations if (e.name, e.origin) == ("scores rms", "source")
    }
    assert 0.01 < apart["exact"].deviation < apart["exact"].tolerance < 2 * apart["exact"].deviation


def scaled(weights):
    weights["left_w"] *= np.float32(1.03)


def one_weight(weights):
    weights["deep_w"].reshape(-1)[5] *= np.float32(20)


def channel_gone(weights):
    weights["stem_w"][2] = 0


def not_a_number(weights):
    weights["scores_b"][1] = np.nan


@pytest.mark.parametrize("graph", [scaled, one_weight, channel_gone, not_a_number])
def test_another_graph_is_found(tiny, changed, graph):
    assert missed(changed(graph), tiny.test)


def test_classes_that_changed_places_are_found(tiny, changed):
    swapped = dataclasses.replace(TASK, labels=("bee", "ant", "cow", "dog", "elk"))
    assert missed(changed(task=swapped), tiny.test) == {"labels"}


@pytest.mark.parametrize(
    "change",
    [
        {"color": "bgr"}, {"scale": 1 / 250}, {"mean": (0.4, 0.5, 0.63)}, {"resize": "stretch"},
        {"anchor": "top_left"}, {"pad": 90},
    ],
    ids=str,
)  # fmt: skip
def test_other_preprocessing_is_found(tiny, changed, change):
    assert missed(changed(preprocess=dataclasses.replace(PREPROCESS, **change)), tiny.test)


def test_an_engine_that_does_not_open_holds_nothing(tiny, changed):
    folder = changed()
    (folder / "model.onnx").write_bytes(b"no graph")
    shown = sealed.replay(folder, tiny.test)
    assert not shown.holds and [one.name for one in shown.expectations] == ["opens and runs"]
    assert "model.onnx" in shown.reason


def test_an_altered_test_is_refused(tiny, tmp_path):
    import shutil

    copy = shutil.copytree(tiny.test, tmp_path / "test")
    path = copy / "expected.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="altered"):
        sealed.replay(tiny.engine, copy)


def test_a_test_whose_arrays_do_not_fit_is_refused_without_a_trace(tiny):
    loaded = contents.load(tiny.test)
    arrays = {**loaded.arrays, "tensor/0/positions": loaded.of(0, "positions") + 10**6}
    with pytest.raises(ArtifactError, match="no test that can be replayed"):
        sealed.replay(tiny.engine, dataclasses.replace(loaded, arrays=arrays))


def test_an_engine_is_no_sealed_test(tiny):
    with pytest.raises(ArtifactError, match="is a engine, not a sealed test"):
        sealed.load(tiny.engine)


def test_a_replay_needs_the_runtime_alone(tiny):
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'pydantic', 'cryptography', 'prefect', 'mlflow'):\n"
        "    sys.modules[name] = None\n"
        "from engineworks import sealed\n"
        "assert sealed.replay(*sys.argv[1:]).holds\n"
    )
    subprocess.run([sys.executable, "-c", code, tiny.engine, tiny.test], check=True)
