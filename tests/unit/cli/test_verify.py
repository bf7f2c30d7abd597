"""`verify` says what is proven: whole, and the artifact that it should be; or whole only."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from engineworks import manifest as manifests
from engineworks.cli import main
from engineworks.errors import ArtifactError
from engineworks.runtime import open as open_engine
from engineworks.specs import Preprocess
from engineworks.store import LocalStore, verify
from tests.builders import put_bytes


@pytest.fixture
def artifact(tmp_path):
    store = LocalStore(tmp_path / "store")
    return put_bytes(store, tmp_path, kind="engine", preprocess=Preprocess(color="bgr"))


@pytest.fixture
def moved(artifact, tmp_path):
    """A copy under a name that says nothing, as a download leaves it."""
    return shutil.copytree(artifact.uri, tmp_path / "engine")


def forge(folder):
    """Swap the colours, with a sum that fits: only the identity can tell."""
    path = folder / "manifest.json"
    found = manifests.load(path)
    swapped = dataclasses.replace(found, preprocess=Preprocess(color="rgb"))
    path.write_text(manifests.dump(swapped))
    return swapped.sha256


def told(capsys, *arguments):
    code = main(["verify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, " ".join((out + err).split())


def test_a_folder_of_the_store_is_compared_with_its_name(artifact, capsys):
    code, words = told(capsys, artifact.uri)
    assert (code, f"sha256 {artifact.sha256}" in words) == (0, True)
    assert "agrees with the folder's name" in words


def test_a_copy_is_self_consistent_and_no_more_until_somebody_says_what_it_should_be(
    artifact, moved, tmp_path, capsys
):
    code, words = told(capsys, moved)
    assert (code, "only self-consistent" in words) == (0, True)
    forge(moved)
    code, words = told(capsys, moved)
    assert (code, "only self-consistent" in words) == (0, True)  # nobody can know
    code, words = told(capsys, moved, "--sha256", artifact.sha256)
    assert (code, f"not {artifact.sha256[:16]}..." in words) == (2, True)
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"engine": {"sha256": artifact.sha256, "uri": "there"}}))
    assert told(capsys, moved, "--summary", summary)[0] == 2


def test_the_right_one_is_said_to_be_the_right_one(artifact, moved, tmp_path, capsys):
    code, words = told(capsys, moved, "--sha256", artifact.sha256.upper())
    assert (code, "agrees with --sha256" in words) == (0, True)
    summary = tmp_path / "summary.json"
    summary.write_text(
        json.dumps({"variants": [{"engine": {"sha256": artifact.sha256, "uri": ""}}]})
    )
    code, words = told(capsys, moved, "--summary", summary)
    assert (code, "agrees with" in words and "summary.json" in words) == (0, True)


def test_a_variant_of_the_latest_run_is_compared_with_its_summary(
    artifact, moved, tmp_path, monkeypatch, capsys
):
    latest = tmp_path / "home" / "runs" / "latest" / "summary.json"
    latest.parent.mkdir(parents=True)
    engine = {"uri": str(moved), "sha256": artifact.sha256}
    latest.write_text(json.dumps({"variants": [{"name": "null/fp32", "engine": engine}]}))
    monkeypatch.setenv("ENGINEWORKS_HOME", str(tmp_path / "home"))
    code, words = told(capsys, "null/fp32")
    assert (code, "the latest run's summary.json" in words) == (0, True)
    forge(moved)
    assert told(capsys, "null/fp32")[0] == 2


def test_what_is_no_sha256_is_said(moved, capsys):
    code, words = told(capsys, moved, "--sha256", "12ab")
    assert (code, "is no sha256" in words) == (2, True)


@pytest.mark.parametrize("how", ["name", "sha256"])
def test_an_engine_with_swapped_colours_does_not_open_where_its_identity_is_known(
    artifact, moved, tmp_path, how
):
    folder = moved if how == "sha256" else moved.rename(tmp_path / artifact.sha256)
    forge(folder)
    with pytest.raises(ArtifactError, match="its manifest was altered, or it is another one"):
        open_engine(folder, sha256=artifact.sha256 if how == "sha256" else "")


@pytest.mark.parametrize("place", ["/etc/hostname", "../elsewhere.bin"])
def test_a_link_that_leaves_the_artifact_is_refused(moved, tmp_path, place):
    shutil.copy(moved / "model.bin", tmp_path / "elsewhere.bin")
    (moved / "model.bin").unlink()
    (moved / "model.bin").symlink_to(place)
    with pytest.raises(ArtifactError, match="is a link to .* outside the artifact"):
        verify(moved)


def test_links_inside_and_a_linked_folder_are_fine(artifact, moved, tmp_path):
    (moved / "..data").mkdir()
    (moved / "model.bin").rename(moved / "..data" / "model.bin")
    (moved / "model.bin").symlink_to("..data/model.bin")
    (tmp_path / "link").symlink_to(moved)
    assert verify(tmp_path / "link").sha256 == artifact.sha256
