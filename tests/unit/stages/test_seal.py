"""Stage `seal`: the test of an engine, of photos that may leave the house or of made pictures."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks import hosts, sealed
from engineworks.errors import ArtifactError
from engineworks.facts.plan import Verdict
from engineworks.manifest import Provenance
from engineworks.stages.seal import SealRequest
from engineworks.store import LocalStore
from tests.builders import conv_net, picture, put_engine, put_onnx, shared, through_json
from tests.unit.sealed.conftest import PREPROCESS, TASK


@pytest.fixture
def request_of(tmp_path):
    store = LocalStore(tmp_path / "store")
    onnx = conv_net(tmp_path / "net.onnx")
    photos = {
        f"{number}.jpg": picture(tmp_path / f"{number}.jpg", seed=number) for number in (1, 2)
    }
    kept = store.put(
        photos, kind="samples", name="tiny", entry="1.jpg", provenance=Provenance(stage="seal")
    )
    return SealRequest(
        shared=shared(store, preprocess=PREPROCESS, task=TASK),
        engine=put_engine(store, onnx, name="tiny", preprocess=PREPROCESS, task=TASK),
        source=put_onnx(store, onnx), photos=kept, pictures=2, size=(16, 16), tools={},
        host=hosts.probe(),
    )  # fmt: skip


def test_photos_become_a_test_whose_parent_is_the_engine(request_of, tmp_path):
    made = through_json("seal", request_of)
    assert (made.state, made.pictures, made.photos) == ("sealed", 2, 2)
    manifest = made.artifact.manifest
    assert manifest.details["engine"] == request_of.engine.sha256
    assert manifest.provenance.parents == (request_of.engine.sha256,)
    assert sealed.parent_of(manifest) == request_of.engine.sha256
    assert not any("weaker" in note for note in made.notes)
    assert any("source model says" in note for note in made.notes)
    # Nothing of a photo's file leaves: no name, no EXIF.
    assert all(entry.path.endswith((".png", ".json", ".npz")) for entry in manifest.files)
    # Another engine of the same model has another test; the engine's own identity stays.
    store = LocalStore(tmp_path / "store")
    assert store.get(request_of.engine.sha256) == request_of.engine


def test_without_photos_pictures_are_made_and_the_test_says_that_it_is_weaker(request_of):
    made = through_json("seal", dataclasses.replace(request_of, photos=None, pictures=4))
    assert (made.pictures, made.photos) == (4, 0)
    assert made.notes[0].startswith("weaker: its pictures were made")


def test_an_engine_that_answers_differently_each_time_is_not_sealed(request_of, monkeypatch):
    from engineworks.stages import seal as stage

    def broken(engine, test):
        return dataclasses.replace(shown(engine, test), holds=False, reason="scores rms is off")

    shown = sealed.replay
    monkeypatch.setattr(stage.sealed, "replay", broken)
    with pytest.raises(ArtifactError, match="does not hold its own sealed test"):
        through_json("seal", request_of)


def test_a_test_that_cannot_be_made_costs_no_engine(monkeypatch):
    from engineworks.facts.outcome import VariantOutcome
    from engineworks.specs import SealedSpec
    from flows.steps import variant
    from tests.builders import example

    def refuse(*_):
        raise ArtifactError("it takes no image", hint="none")

    monkeypatch.setattr(variant.sealing, "seal", refuse)
    monkeypatch.setattr(variant, "get_run_logger", lambda: example_logger())
    outcome = dataclasses.replace(
        example(VariantOutcome), verdict=Verdict(verdict="shipped", reason="")
    )
    recipe = type("Recipe", (), {"sealed": SealedSpec()})()
    job = type("Job", (), {"planned": outcome.planned, "recipe": recipe})()
    made = variant._sealed(job, None, outcome)
    assert (made.state, "it takes no image" in made.reason) == ("failed", True)
    rejected = dataclasses.replace(outcome, verdict=Verdict(verdict="rejected", reason=""))
    assert variant._sealed(job, None, rejected) is None
    recipe.sealed = None
    assert variant._sealed(job, None, outcome) is None  # nobody has asked


def example_logger():
    import logging

    return logging.getLogger("tests")


def test_the_recipe_names_photos_as_folder_or_list_and_they_must_be_there(tmp_path):
    from engineworks.errors import DataError
    from engineworks.evaluate import datasets
    from engineworks.specs import SealedSpec

    paths = [picture(tmp_path / "pics" / f"{number}.png", seed=number) for number in range(5)]
    folder = SealedSpec(photos=str(tmp_path / "pics"), pictures=3)
    assert datasets.photo_files(folder) == [paths[0], paths[2], paths[4]]
    listed = SealedSpec(photos=(str(paths[3]), str(paths[1])))
    assert datasets.photo_files(listed) == [paths[3], paths[1]]
    assert datasets.photo_files(SealedSpec()) == []
    with pytest.raises(DataError, match=r"sealed\.photos: .*gone\.png does not exist"):
        datasets.photo_files(SealedSpec(photos=(str(tmp_path / "gone.png"),)))
    with pytest.raises(DataError, match=r"sealed\.photos"):
        datasets.photo_files(SealedSpec(photos=str(tmp_path / "nowhere")))
