"""An engine is checked before anything opens it, and so is what it is fed."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tomllib

from engineworks import hosts, runtime
from engineworks.codec import to_json
from engineworks.errors import ArtifactError, FeedError, MissingDependency
from engineworks.manifest import CHECKSUM, Manifest, Requires
from engineworks.runtime import engines
from engineworks.runtime.engines.null import row_key
from engineworks.runtime.session import SessionBase, check_machine, check_version, open_engine
from engineworks.specs import Preprocess
from tests.builders import MADE_HERE, example, put_bytes, tensor

ROOT = Path(__file__).parents[3]
ANSWERS = np.arange(8, dtype=np.float32).reshape(2, 4)
ROWS = np.random.default_rng(0).random((2, 3, 4, 4), np.float32)


@pytest.fixture
def engine(store, tmp_path):
    """The folder of a null engine that knows two rows."""
    path = tmp_path / "answers.npz"
    np.savez(path, **{"keys": np.array([row_key(row) for row in ROWS]), "output:y": ANSWERS})
    artifact = store.put(
        {"answers.npz": path},
        kind="engine",
        name="tiny",
        entry="answers.npz",
        inputs=(tensor("images", ("batch", 3, 4, 4)),),
        outputs=(tensor("y", ("batch", 4)),),
        target="null",
        precision="fp32",
        requires=Requires(runtime="null"),
        provenance=MADE_HERE,
    )
    # Outside of a store, whose folders are named by what they must hold.
    return Path(shutil.copytree(artifact.uri, tmp_path / "engine"))


def rewrite(folder, **changes):
    path = folder / "manifest.json"
    data = {**json.loads(path.read_text()), **changes}
    del data[CHECKSUM]  # as one writes it who means harm
    path.write_text(json.dumps(data))


def test_an_engine_answers(engine):
    with open_engine(str(engine)) as session:
        np.testing.assert_array_equal(
            session.infer({"images": ROWS[::-1].copy()})["y"], ANSWERS[::-1]
        )
        assert (session.infer({"images": ROWS[:1] + 1})["y"] == 0).all()


def test_an_altered_engine_is_refused_before_it_is_opened(engine):
    (engine / "answers.npz").write_bytes(b"\0" * (engine / "answers.npz").stat().st_size)
    with pytest.raises(ArtifactError, match="altered and is not opened"):
        open_engine(engine)


def test_a_missing_file_is_refused(engine):
    (engine / "answers.npz").unlink()
    with pytest.raises(ArtifactError, match="found nothing"):
        open_engine(engine)


@pytest.mark.parametrize("name", ["nowhere", "store"])
def test_a_folder_that_is_no_engine_is_refused(store, engine, name):
    with pytest.raises(ArtifactError, match="not an artifact"):
        open_engine(store.root.parent / name)


def test_a_file_that_no_digest_covers_is_not_opened(engine):
    """Whoever adds a file and points `entry` at it has passed no check."""
    (engine / "evil.npz").write_bytes((engine / "answers.npz").read_bytes())
    rewrite(engine, entry="evil.npz")
    with pytest.raises(ArtifactError, match=r"evil\.npz"):
        open_engine(engine)


def test_a_path_that_leads_out_of_the_folder_is_refused(engine):
    manifest = json.loads((engine / "manifest.json").read_text())
    (engine.parent / "outside.npz").write_bytes((engine / "answers.npz").read_bytes())
    entry = "../outside.npz"
    rewrite(engine, entry=entry, files=[{**manifest["files"][0], "path": entry}])
    with pytest.raises(ArtifactError, match="outside"):
        open_engine(engine)


def test_an_artifact_that_is_no_engine_is_refused(store, tmp_path):
    with pytest.raises(ArtifactError, match="not an engine"):
        open_engine(Path(put_bytes(store, tmp_path).uri))


def test_an_engine_for_another_architecture_is_refused(engine):
    manifest = json.loads((engine / "manifest.json").read_text())
    rewrite(engine, requires={**manifest["requires"], "arch": "riscv64"})
    with pytest.raises(ArtifactError, match="built for riscv64") as caught:
        open_engine(engine)
    assert platform.machine() in caught.value.message


@pytest.mark.skipif(not hosts.cpu_flags(), reason="this system does not tell its CPU's flags")
def test_an_engine_for_another_cpu_is_refused(engine):
    manifest = json.loads((engine / "manifest.json").read_text())
    flags = [*hosts.cpu_flags(), "warp_drive"]
    rewrite(engine, requires={**manifest["requires"], "cpu_flags": flags})
    with pytest.raises(ArtifactError, match="CPU with warp_drive,"):
        open_engine(engine)


@pytest.mark.parametrize(
    ("needs", "refused"),
    [
        (Requires(runtime="null"), ""),
        (Requires(runtime="null", arch="x86_64", cpu_flags=("avx2",)), ""),
        (Requires(runtime="null", arch="aarch64"), "aarch64"),
        (Requires(runtime="null", cpu_flags=("avx2", "amx_int8")), "amx_int8"),
    ],
)
def test_a_machine_is_held_against_what_the_engine_needs(needs, refused):
    manifest = dataclasses.replace(example(Manifest), requires=needs)
    if not refused:
        check_machine(manifest, arch="x86_64", cpu_flags=("avx", "avx2"))
        return
    with pytest.raises(ArtifactError, match=refused):
        check_machine(manifest, arch="x86_64", cpu_flags=("avx", "avx2"))


@pytest.mark.parametrize("runtime", ["warp", "../null", "os.path", ""])
def test_an_unknown_runtime_is_refused(engine, runtime):
    rewrite(engine, requires={"runtime": runtime})
    with pytest.raises(ArtifactError, match="runtime"):
        open_engine(engine)


def test_a_file_that_the_runtime_cannot_read_is_refused_by_name(store, tmp_path):
    """Whole, but no engine: what a build of another version may leave."""
    artifact = put_bytes(store, tmp_path, kind="engine", requires=Requires(runtime="onnxruntime"))
    with pytest.raises(ArtifactError, match="tiny|model.bin"):
        open_engine(Path(artifact.uri))


BAD_FEEDS = {
    "nothing": ({}, "'images' is missing"),
    "another name": ({"image": ROWS}, r"'images' is missing; given: \['image'\]"),
    "another dtype": ({"images": ROWS.astype(np.float64)}, "'images' must be float32 .* float64"),
    "another shape": ({"images": ROWS[:, :2]}, r"\[2, 2, 4, 4\]"),
    "no batch dimension": ({"images": ROWS[0]}, r"got float32 \[3, 4, 4\]"),
    "a batch of nothing": ({"images": ROWS[:0]}, r"got float32 \[0, 3, 4, 4\]"),
    "an array alone": (ROWS, "feeds are ndarray"),
    "None": (None, "feeds are NoneType"),
    "names of two kinds": ({1: ROWS, "x": ROWS}, "'images' is missing"),
    "a list": ({"images": ROWS.tolist()}, "is list, no array"),
}


@pytest.mark.parametrize("name", BAD_FEEDS)
def test_a_wrong_feed_is_refused_and_named(engine, name):
    feeds, says = BAD_FEEDS[name]
    with open_engine(engine) as session, pytest.raises(FeedError, match=says) as caught:
        session.infer(feeds)
    assert isinstance(caught.value, ValueError)  # for whoever catches it as Python has it


def test_a_closed_engine_says_so(engine):
    with open_engine(engine) as session:
        session.infer({"images": ROWS})
    with pytest.raises(FeedError, match=r"tiny \(null/fp32\) is closed"):
        session.infer({"images": ROWS})


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("runtime", "advice"),
    [
        ("onnxruntime", "engineworks[onnxruntime]"),
        ("onnxruntime_cuda", "engineworks[onnxruntime-gpu]"),
        ("openvino", "engineworks[openvino]"),
        ("coreml", "engineworks[coreml]"),
        ("tensorrt", "engineworks[tensorrt]"),
        ("null", "install the package that provides 'vendor'"),
    ],
)
def test_a_missing_package_is_named_with_an_extra_that_there_is(
    engine, monkeypatch, runtime, advice
):
    def without(*args, **options):
        raise ModuleNotFoundError("No module named 'vendor'", name="vendor")

    monkeypatch.setattr(engines.load(runtime), "open_session", without)
    rewrite(engine, requires={"runtime": runtime})
    with pytest.raises(MissingDependency, match="needs the package 'vendor'") as caught:
        open_engine(engine)
    assert advice in caught.value.hint
    assert advice.partition("[")[2].rstrip("]") in {*EXTRAS, ""}


def test_every_extra_that_a_message_advises_is_one():
    advised = {
        extra
        for path in (ROOT / "src").rglob("*.py")
        for extras in re.findall(r"engineworks\[([a-z,-]+)\]", path.read_text())
        for extra in extras.split(",")
    }
    assert "onnxruntime" in advised or "metrics" in advised
    assert advised <= set(EXTRAS)


@pytest.mark.parametrize("wrong", [{"threads": -1}, {"device": -1}])
def test_a_negative_number_is_refused(engine, wrong):
    with pytest.raises(ArtifactError, match="-1"):
        open_engine(engine, **wrong)


STRANGE = {
    "a size below 1": ("inputs", 0, "shape", ["batch", 3, 0, 4]),
    "a negative size": ("outputs", 0, "shape", [-1, 4]),
    "a size that no machine holds": ("inputs", 0, "shape", ["batch", 3, 10**9, 10**9]),
    "a number of thousands of digits": ("inputs", 0, "shape", [10**4000]),
    "hundreds of dimensions": ("outputs", 0, "shape", [1] * 300),
    "a dtype that is none": ("inputs", 0, "dtype", "os.system"),
    "a zero byte in a path": ("files", 0, "path", "answers\0.npz"),
    "a number that is no float": ("preprocess", None, "scale", 10**400),
}

STRANGE_WORDS = {
    "inputs": "no tensor|which is none",
    "outputs": "no tensor",
    "files": "outside the artifact",
    "preprocess": "a number that fits",
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_manifest_that_cannot_be_is_refused(engine, name):
    section, number, key, value = STRANGE[name]
    file = engine / "manifest.json"
    data = json.loads(file.read_text())
    del data[CHECKSUM]  # as one writes it who means harm
    data["preprocess"] = to_json(Preprocess())
    (data[section] if number is None else data[section][number])[key] = value
    file.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=STRANGE_WORDS[section]):
        open_engine(engine)


def test_a_manifest_of_endless_brackets_or_a_pipe_is_refused(engine):
    (engine / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="no.* JSON"):
        open_engine(engine)
    (engine / "manifest.json").unlink()
    os.mkfifo(engine / "manifest.json")
    with pytest.raises(ArtifactError, match="is a pipe"):
        open_engine(engine)


@pytest.mark.parametrize("change", ["size", "name", "outputs"])
def test_a_manifest_of_another_engine_is_refused(oracle_engine, tmp_path, change):
    folder = tmp_path / "engine"
    shutil.copytree(oracle_engine, folder)
    data = json.loads((folder / "manifest.json").read_text())
    del data[CHECKSUM]
    if change == "size":
        data["inputs"][0]["shape"][2:] = [8192, 8192]
    elif change == "name":
        data["inputs"][0]["name"] = "pixels"
    else:
        data["outputs"] = []
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="its manifest says"):
        open_engine(folder)


def test_an_open_dimension_takes_any_number_and_a_fixed_one_only_its_own():
    manifest = dataclasses.replace(
        example(Manifest), inputs=(tensor("a", ("n", 3)), tensor("b", (2, "m")))
    )
    session = SessionBase(manifest)
    a, b = np.zeros((7, 3), np.float32), np.zeros((2, 9), np.float32)
    session.check({"a": a, "b": b})
    with pytest.raises(ValueError, match="'b'"):
        session.check({"a": a, "b": b[:1]})


def test_an_engine_opens_by_its_file_uri(engine):
    with runtime.open(engine.as_uri()) as session:
        assert session.manifest.name == "tiny"
        assert session.infer({"images": ROWS})["y"].shape == (2, 4)


@pytest.mark.parametrize("uri", ["gs://bucket/engine", "file://elsewhere/engine", "http://a/b"])
def test_a_uri_of_another_machine_is_refused(uri):
    with pytest.raises(ArtifactError, match="not on this machine"):
        runtime.open(uri)


@pytest.mark.parametrize(
    ("built", "here", "refused"),
    [
        ("1.32.0", "1.32.0", False),
        ("1.32.1", "1.32.0", False),
        ("1.32.0", "1.33.0rc1", False),
        ("1.32.0", "2.0", False),
        ("1.32.0", "1.9.9", True),
        ("2.0.0", "1.99.0", True),
        ("1.32.0", "", False),
        ("", "1.0", False),
    ],
)
def test_an_engine_of_a_newer_runtime_is_refused(built, here, refused):
    requires = Requires(runtime="null", package=f"acme=={built}" if built else "")
    manifest = dataclasses.replace(example(Manifest), requires=requires)
    installed = {"acme": here} if here else {}
    if not refused:
        check_version(manifest, installed)
        return
    with pytest.raises(ArtifactError, match=f"built with acme {built}, here is {here}"):
        check_version(manifest, installed)


def test_the_version_is_checked_before_the_runtime_sees_the_file(engine):
    manifest = json.loads((engine / "manifest.json").read_text())
    rewrite(engine, requires={**manifest["requires"], "package": "numpy==999.0"})
    with pytest.raises(ArtifactError, match=r"numpy 999\.0"):
        open_engine(engine)
