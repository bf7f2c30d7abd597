"""The proof compares a server's answers with the engine's own, and says what it saw."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from engineworks import packaging, runtime
from engineworks.errors import ArtifactError, StageError
from engineworks.facts.package import Check
from engineworks.packaging import prove
from engineworks.packaging._environment import ServerEnvironment
from engineworks.store import verify
from tests import builders


class Double:
    """A server that answers with the engine itself, and can be told to err."""

    server, client = "a double 1.0", "a client"

    def __init__(self, engine, spoil=None, probe=True):
        self.session = runtime.open(engine)
        self.detector = runtime.Detector(self.session)
        self.spoil, self.probe = spoil, probe

    def tensors(self, feeds):
        outputs = {name: np.array(array) for name, array in self.session.infer(feeds).items()}
        if self.spoil == "tensors":
            outputs["detections"][0, 0, 0] += 0.5
        if self.spoil == "rounding":
            outputs["detections"] = np.nextafter(outputs["detections"], np.float32(9))
        if self.spoil == "empty":
            outputs["detections"] = np.zeros((0,), np.float32)
        return outputs

    def photo(self, data):
        found = self.detector(runtime.pictures.decode_picture(data, "photo").image)
        if self.spoil == "boxes":
            return dataclasses.replace(found, xyxy=found.xyxy + 1)
        if self.spoil == "lost":
            return found[1:]
        if self.spoil == "classes":
            return dataclasses.replace(found, class_id=found.class_id + 1)
        return found

    def probes(self, photo):
        return (Check(name="refuses", holds=self.probe, detail="said so"),)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def proof(store, yolox_engine, home, tmp_path, monkeypatch):
    monkeypatch.setattr(ServerEnvironment, "missing", lambda self, home: "")
    path = tmp_path / "config"
    path.write_text("config")

    def make(serve=None, engine_sha256="", **spoiled):
        @contextlib.contextmanager
        def double(site):
            yield Double(yolox_engine, **spoiled)

        package = dataclasses.replace(packaging.load("triton"), serve=serve or double)
        made = store.put(
            {"config": path}, kind="package", name="yolox-nano", entry="config",
            details={"engine_sha256": engine_sha256 or verify(yolox_engine).sha256},
            provenance=builders.MADE_HERE,
        )  # fmt: skip
        photos = builders.photos()[:2]
        return prove(
            "triton", package, Path(made.uri), yolox_engine, photos, home=home,
            work=tmp_path / "proof",
        )  # fmt: skip

    return make


def test_equal_answers_are_a_proof(proof):
    found = proof()
    assert (found.state, found.reason, found.photos) == ("proven", "", 2)
    assert found.server == "a double 1.0"
    tensors, photos, _ = found.checks
    assert "2 of 2 bit-equal, at most 0 ulp" in tensors.detail
    assert photos.detail.startswith("2 photos, ")


def test_rounding_is_stated_and_passes(proof):
    found = proof(spoil="rounding")
    assert found.state == "proven"
    assert "0 of 2 bit-equal" in found.checks[0].detail


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("tensors", "ulp off"),
        ("empty", "inf ulp"),
        ("boxes", "a box is 1 pixels off"),
        ("lost", "answers instead of"),
        ("classes", "classes"),
    ],
)
def test_a_wrong_answer_is_none(proof, spoil, words):
    found = proof(spoil=spoil)
    assert found.state == "failed"
    assert words in found.reason


def test_a_server_that_refuses_too_little_is_not_proven(proof):
    found = proof(probe=False)
    assert (found.state, found.reason) == ("failed", "not so: refuses (said so)")


def test_a_server_that_does_not_start_is_a_failure_with_its_words(proof):
    def serve(site):
        raise StageError("the server ended with code 1\n    | bad model", hint="look")

    found = proof(serve=serve)
    assert (found.state, "bad model" in found.reason) == ("failed", True)


def test_a_package_of_another_engine_is_refused(proof):
    with pytest.raises(ArtifactError, match="another engine"):
        proof(engine_sha256="0" * 64)


def test_without_its_server_it_waits_and_says_the_command(proof, monkeypatch):
    monkeypatch.undo()
    found = proof()
    assert found.state == "pending"
    assert "make servers NAMES=triton" in found.reason


def test_a_server_of_another_lock_file_is_not_used(home):
    environment = packaging.load("triton").environment
    folder = environment.folder(home)
    folder.mkdir(parents=True)
    (folder / "engineworks-lock.sha256").write_text("0" * 64)
    assert "another lock file" in environment.missing(home)


def test_a_program_that_is_not_there_is_named(home):
    poor = ServerEnvironment(name="triton", size_mib=1, programs=("no-such-java (apt)",))
    assert poor.missing(home) == "needs no-such-java (apt)"
