"""`engineworks shadow`: whole command lines, real engines, the candidate in its own process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engineworks import manifest as manifests
from engineworks.cli import main
from engineworks.errors import ArtifactError
from engineworks.facts.shadow import ShadowRecord
from engineworks.shadow import record as records
from engineworks.store import LocalStore
from tests import builders
from tests.clips import panned, write_clip

PHOTOS = builders.photos()[0].parent
LABELS = PHOTOS.parent / "val2017.json"
EXACT = builders.yolox_task(0.01)


@pytest.fixture(scope="module")
def engines(tmp_path_factory, yolox_onnx):
    """The example's detector twice, by two runtimes, and one that has lost most of its AP."""
    folder = tmp_path_factory.mktemp("shadow")
    store = LocalStore(folder / "store")
    spoiled = folder / "spoiled.onnx"
    graph, noise = onnx.load(yolox_onnx), np.random.default_rng(0)
    for entry in graph.graph.initializer:
        weights = numpy_helper.to_array(entry)
        if weights.ndim == 4:
            more = noise.normal(0, 0.01 * weights.std(), weights.shape).astype(np.float32)
            entry.CopyFrom(numpy_helper.from_array(weights + more, entry.name))
    onnx.save(graph, spoiled)

    def put(graph, runtime="onnxruntime"):
        return str(builders.put_engine(store, graph, runtime=runtime, task=EXACT).uri)

    return {
        "champion": put(yolox_onnx), "other runtime": put(yolox_onnx, "openvino"),
        "worse": put(spoiled),
    }  # fmt: skip


def sha256(uri):
    return manifests.load(Path(uri.removeprefix("file://")) / "manifest.json").sha256


def shadow(engines, candidate, *more):
    return main(["shadow", engines["champion"], engines.get(candidate, candidate), *map(str, more)])


def test_a_worse_candidate_is_found_by_labels_and_the_record_names_both(engines, tmp_path, capsys):
    path = tmp_path / "shadow.json"
    code = shadow(engines, "worse", PHOTOS, "--labels", LABELS, "-o", path)
    assert code == 1
    assert capsys.readouterr().out.startswith("worse: AP of a frame 0.1")
    found = records.read(path)
    assert found.decision == "worse" and found.why_ended == "decided"
    assert found.champion.sha256 == sha256(engines["champion"])
    assert found.candidate.sha256 == sha256(engines["worse"])
    assert found.interval[1] < 0 and found.difference < -0.1
    assert found.frames.compared == found.decided_frame == found.observations <= 33
    assert shadow(engines, "worse", PHOTOS, "--labels", LABELS, "-o", path) == 2
    assert "exists already" in capsys.readouterr().err


def test_another_runtime_is_not_worse_by_the_reference(engines, yolox_onnx, capsys):
    """The reference is the bare ONNX file that both were built from."""
    more = ("--reference", yolox_onnx, "--max-drop", "0.4", "--json")
    assert shadow(engines, "other runtime", PHOTOS, *more) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decision"] == "not worse" and found["judged_by"] == "reference"
    assert found["reference"]["sha256"] == hashlib.sha256(yolox_onnx.read_bytes()).hexdigest()
    assert found["champion_score"] > 0.999 and found["agreement"]["lost"] == 0


def test_without_a_judge_it_says_same_or_different_only(engines, capsys):
    assert shadow(engines, "other runtime", PHOTOS, "--frames", 6) == 0
    told = capsys.readouterr().out
    assert told.startswith(
        "same: nothing was lost, gained or moved in 6 frames (95 %: otherwise in fewer"
    )
    assert "better or worse needs --labels or --reference" in told
    assert shadow(engines, "worse", PHOTOS, "--frames", 10, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["decision"], found["interval"], found["metric"]) == ("different", None, "")
    assert found["frames"]["compared"] == 10 and found["agreement"]["lost"] > 5


def test_too_few_frames_say_how_many_more(engines, tmp_path, capsys):
    """A clip of 40 frames at 20 a second: one observation."""
    clip = write_clip(tmp_path / "bear.mp4", panned(40))
    more = ("--reference", engines["worse"], "--every", 3, "--cpu-share", 0.05, "--json")
    assert shadow(engines, "champion", clip, *more) == 4
    found = json.loads(capsys.readouterr().out)
    frames = found["frames"]
    assert (frames["seen"], frames["sampled"]) == (40, 14)
    assert frames["over_share"] > 0 and frames["compared"] + frames["over_share"] == 14
    assert found["decision"] == "not decided" and found["needed"] > 100
    assert 1 <= found["observations"] <= 2 and "more frames would decide" in found["reason"]


def test_ctrl_c_leaves_the_record_and_no_process(engines, tmp_path):
    clip, path = write_clip(tmp_path / "bear.mp4", panned(40)), tmp_path / "shadow.json"
    clips = [shutil.copy(clip, tmp_path / f"{number}.mp4") for number in range(200)]
    words = [sys.executable, "-m", "engineworks.cli", "shadow", engines["champion"],
             engines["champion"], *clips, "-o", str(path)]  # fmt: skip
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as command:
        try:
            assert " beside " in command.stderr.readline()  # both are open
            candidate = _child_of(command.pid)
            time.sleep(1.0)
            command.send_signal(signal.SIGINT)
            assert command.wait(30) == 130
        finally:
            command.kill()
    found = records.read(path)
    assert found.why_ended == "stopped" and found.frames.seen > 0
    with pytest.raises(ProcessLookupError):
        os.kill(candidate, 0)


def _child_of(parent):
    words = ["ps", "-o", "pid=,args=", "--ppid", str(parent)]
    rows = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(int(row.split()[0]) for row in rows if "engineworks.shadow.child" in row)


def test_a_candidate_whose_process_dies_has_failed(engines, monkeypatch, capsys):
    from engineworks.shadow.lane import Lane

    offered = Lane.offer

    def deadly(self, ticket, frame, *, wait):
        if frame.number == 5:
            self._idle.wait()
            self._child.kill()
        return offered(self, ticket, frame, wait=wait)

    monkeypatch.setattr(Lane, "offer", deadly)
    assert shadow(engines, "champion", PHOTOS, "--labels", LABELS, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["decision"], found["why_ended"]) == ("failed", "failed")
    assert "ended with code -9" in found["reason"] and found["frames"]["seen"] >= 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--labels", LABELS, "--block-s", "2"), "--block-s does nothing here"),
        (("--labels", LABELS, "--reference", "x"), "not allowed with argument"),
        (("--labels", "no.json"), "no.json is not COCO JSON"),
        (("--every", "0"), "no whole number"),
        (("--overlay",), "unrecognized arguments"),
        (("--give-up", "3"), "--give-up does nothing here"),
    ],
)
def test_what_cannot_be_is_refused(engines, more, words, capsys):
    try:
        code = shadow(engines, "other runtime", PHOTOS, *more)
    except SystemExit as error:
        code = error.code
    assert code == 2 and words in capsys.readouterr().err


def test_an_engine_of_another_question_is_refused(engines, oracle_engine, yolox_onnx, capsys):
    assert shadow(engines, str(oracle_engine), PHOTOS) == 2
    assert "the candidate oracle answers another question: it has" in capsys.readouterr().err
    assert shadow(engines, "worse", PHOTOS, "--reference", engines["worse"]) == 2
    assert "cannot be its own reference" in capsys.readouterr().err
    assert shadow(engines, "worse", PHOTOS, PHOTOS) == 2
    assert "is given twice" in capsys.readouterr().err
    assert shadow(engines, str(yolox_onnx), PHOTOS) == 2
    assert "holds no manifest.json" in capsys.readouterr().err


def test_a_record_is_read_back_whole_or_refused(tmp_path):
    path = tmp_path / "shadow.json"
    found = builders.example(ShadowRecord)
    path.write_text(json.dumps({**records.to_json(found), "schema": records.SCHEMA}))
    assert records.read(path) == records.from_json(
        ShadowRecord, {**records.to_json(found), "schema": records.SCHEMA}
    )
    for text in ("[]", "{}", '{"schema": 1}', "no"):
        path.write_text(text)
        with pytest.raises(ArtifactError):
            records.read(path)
