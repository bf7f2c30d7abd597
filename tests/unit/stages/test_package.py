"""Stage `package`: a package in the store, and a proof that waits where there is no server."""

from __future__ import annotations

import dataclasses

import pytest

from engineworks import packaging
from engineworks.codec import digest
from engineworks.errors import InputError
from engineworks.facts.data import PinnedData
from engineworks.facts.package import Packaged, Proof
from engineworks.specs import DataSpec
from engineworks.stages.package import PackageRequest
from engineworks.store import LocalStore, file_sha256
from tasks.package import _holds
from tests.builders import picture, put_engine, shared, through_json, yolox_task
from tests.unit.packaging.conftest import row


@pytest.fixture
def request_of(tmp_path, tiny_onnx):
    store = LocalStore(tmp_path / "store")
    photo = picture(tmp_path / "pics" / "one.png")
    data = PinnedData(
        spec=DataSpec(images=str(photo.parent)), files=("one.png",),
        digests={"one.png": file_sha256(photo)}, sha256="d" * 64,
    )  # fmt: skip

    def make(kind):
        return PackageRequest(
            shared=shared(store), package=kind, options={},
            engine=put_engine(store, tiny_onnx, name="tiny", task=yolox_task()),
            rows=(row(1, 10.0, height=16, width=16),), cores=4, data=data, photos=1,
            code_sha256="c" * 64, server_sha256="s" * 64, home=str(tmp_path / "home"),
            logs=str(tmp_path / "logs"),
        )  # fmt: skip

    return make


@pytest.mark.parametrize("kind", packaging.names())
def test_without_its_server_a_package_is_written_and_waits(request_of, kind):
    request = request_of(kind)
    made = through_json("package", request)
    assert (made.kind, made.proof.state) == (kind, "pending")
    assert f"NAMES={kind}" in made.proof.reason
    manifest = made.artifact.manifest
    assert (manifest.kind, manifest.details["package"]) == ("package", kind)
    assert manifest.provenance.parents == (request.engine.sha256,)
    assert manifest.details["engine_sha256"] == request.engine.sha256
    # The same engine gives the same package.
    assert through_json("package", request).artifact.sha256 == made.artifact.sha256


def test_a_photo_that_was_replaced_is_not_sent(request_of, tmp_path):
    request = request_of("triton")
    picture(tmp_path / "pics" / "one.png", seed=7)
    with pytest.raises(InputError, match=r"one\.png changed"):
        through_json("package", request)


def test_what_is_measured_and_what_travels_are_part_of_the_key(request_of):
    request = request_of("triton")
    key = digest(request)
    assert digest(dataclasses.replace(request, home="elsewhere", logs="there")) == key
    for change in (
        {"rows": (row(1, 11.0),)},
        {"code_sha256": "d" * 64},
        {"server_sha256": "t" * 64},
        {"options": {"backend": "python"}},
    ):
        assert digest(dataclasses.replace(request, **change)) != key


@pytest.mark.parametrize(
    ("state", "waits", "holds"),
    [
        ("proven", False, True),
        ("pending", True, True),
        ("pending", False, False),  # its server is here by now
        ("failed", False, False),
    ],
)
def test_a_kept_proof_is_asked_for_again_unless_it_holds(state, waits, holds):
    value = Packaged(kind="triton", proof=Proof(package="triton", state=state, reason=""))
    assert _holds(value, waits=waits) is holds


def test_the_code_of_a_package_has_a_digest():
    assert packaging.code_sha256("triton") == packaging.code_sha256("triton")
    assert len(packaging.code_sha256("triton")) == 64
