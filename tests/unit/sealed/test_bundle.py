"""A bundle holds only whole, and says who signed it; signatures are checked by OpenSSL, too."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from engineworks import sealed
from engineworks.cli import main
from engineworks.errors import ArtifactError, MissingDependency
from engineworks.sealed import signing
from engineworks.store import LocalStore
from tests import builders
from tests.unit.sealed.conftest import PREPROCESS, TASK, seal


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        signing.new_key(folder / name)
    return folder


@pytest.fixture
def bundle(tiny, keys, tmp_path):
    folder = tmp_path / "bundle"
    sealed.write_bundle(tiny.engine, tiny.test, folder, key=keys / "mine", signer="release team")
    return folder


def failed(folder, **options):
    proof = sealed.prove(folder, **options)
    assert not proof.holds and "do not use" in proof.words
    return [check.name for check in proof.checks if not check.holds]


def test_a_signed_bundle_holds_and_says_by_whom(bundle, keys):
    proof = sealed.prove(bundle)
    assert (proof.holds, proof.signed, proof.signer) == (True, "yes", "release team")
    assert "the bundle cannot prove" in proof.words and proof.key in proof.words
    proof = sealed.prove(bundle, key=keys / "mine.pub")
    assert (proof.holds, proof.signed) == (True, "trusted")
    assert proof.replay.holds and proof.replay.pictures == 8


def test_an_unsigned_one_is_self_consistent_only(tiny, keys, tmp_path):
    sealed.write_bundle(tiny.engine, tiny.test, tmp_path / "bundle", signer="nobody")
    proof = sealed.prove(tmp_path / "bundle")
    assert (proof.holds, proof.signed, proof.signer) == (True, "no", "")
    assert proof.words.startswith("self-consistent only")
    assert failed(tmp_path / "bundle", key=keys / "mine.pub") == ["signature"]


def test_a_key_that_is_not_the_one_that_was_given_is_refused(bundle, keys):
    assert failed(bundle, key=keys / "other.pub") == ["signature"]


@pytest.mark.parametrize("name", ["engine/model.onnx", "sealed/expected.npz", "sealed/000.png"])
def test_altered_bytes_are_found_and_nothing_is_opened(bundle, name):
    path = bundle / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert failed(bundle) == [f"digests of {name.partition('/')[0]}"]
    assert sealed.prove(bundle).replay is None


def test_an_altered_statement_breaks_the_signature(bundle):
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace("release team", "somebody else"))
    assert failed(bundle) == ["signature"]


def test_an_engine_that_answers_otherwise_is_found_though_everything_else_fits(
    tiny, changed, tmp_path, keys
):
    """Whoever holds the key has signed another engine beside the test of the first."""

    def graph(weights):
        weights["deep_w"] *= np.float32(1.05)

    store = LocalStore(tmp_path / "store")
    worse = changed(graph)
    forged = shutil.copytree(tiny.test, tmp_path / "test")
    manifest = sealed.contents.load(forged)
    assert manifest.sealed.engine != sealed.replay(worse, tiny.test).engine
    with pytest.raises(ArtifactError, match="is the sealed test of engine"):
        sealed.write_bundle(worse, tiny.test, tmp_path / "bundle", key=keys / "mine")
    assert store.root.parent == tmp_path and not (tmp_path / "bundle").exists()
    assert not sealed.replay(worse, tiny.test).holds


def test_a_test_of_another_engine_is_refused_on_the_way_in_and_found_on_the_way_out(
    tiny, bundle, tmp_path
):
    store = LocalStore(tmp_path / "store")
    onnx = builders.conv_net(tmp_path / "other.onnx", seed=1)
    engine = builders.put_engine(store, onnx, name="tiny", preprocess=PREPROCESS, task=TASK)
    other = seal(store, engine, None, tmp_path / "work")
    with pytest.raises(ArtifactError, match="is the sealed test of engine"):
        sealed.write_bundle(tiny.engine, store.open(other), tmp_path / "mixed")
    shutil.rmtree(bundle / "sealed")
    shutil.copytree(store.open(other), bundle / "sealed")
    (bundle / "bundle.sig.json").unlink()
    path = bundle / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sealed": other.sha256}))
    assert failed(bundle) == ["parent"]


def test_openssl_agrees_with_a_signature(bundle, keys, tmp_path):
    said = json.loads((bundle / "bundle.sig.json").read_text())
    (tmp_path / "message").write_bytes(signing.CONTEXT + (bundle / "bundle.json").read_bytes())
    (tmp_path / "signature").write_bytes(base64.b64decode(said["signature"]))
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    words = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", keys / "mine.pub", "-rawin"]
    words += ["-in", tmp_path / "message", "-sigfile", tmp_path / "signature"]
    assert b"Verified Successfully" in subprocess.run(words, capture_output=True).stdout


def test_a_private_key_is_for_its_owner_and_never_overwritten(keys):
    assert (keys / "mine").stat().st_mode & 0o077 == 0
    with pytest.raises(ArtifactError, match="is there already"):
        signing.new_key(keys / "mine")


def test_without_cryptography_an_unsigned_bundle_is_proven_and_a_signed_one_says_what_is_missing(
    tiny, bundle, tmp_path, monkeypatch
):
    sealed.write_bundle(tiny.engine, tiny.test, tmp_path / "unsigned")
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert sealed.prove(tmp_path / "unsigned").holds
    with pytest.raises(MissingDependency, match="cryptography"):
        sealed.prove(bundle)


def test_the_commands(tiny, tmp_path, capsys):
    key, folder = tmp_path / "key", tmp_path / "bundle"
    assert main(["bundle", "--new-key", str(key)]) == 0
    words = ["bundle", str(tiny.engine), "--test", str(tiny.test), "-o", str(folder)]
    assert main([*words, "--key", str(key), "--signer", "me"]) == 0
    capsys.readouterr()
    assert main(["prove", str(folder), "--key", f"{key}.pub", "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert (proof["holds"], proof["signed"]) == (True, "trusted")
    (folder / "engine" / "model.onnx").write_bytes(b"")
    assert main(["prove", str(folder)]) == 1
    assert "FAIL  digests of engine" in capsys.readouterr().out
    assert main(["prove", str(tmp_path)]) == 2
