"""`runtime.remote` against a real Triton, over HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engineworks import packaging, runtime
from engineworks.errors import FeedError
from engineworks.packaging import PackageInput
from engineworks.packaging._base import Site
from engineworks.store import LocalStore, verify
from tests import builders

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def served(home, yolox_engine, tmp_path_factory):
    package = packaging.load("triton")
    missing = package.environment.missing(home)
    if missing:
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("remote")
    (folder / "work").mkdir()
    output = package.write(
        PackageInput(
            engine=yolox_engine,
            manifest=verify(yolox_engine),
            rows=(),
            cores=2,
            options={},
            work=folder / "work",
        )
    )
    made = LocalStore(folder / "packages").put(
        output.files, kind="package", name="yolox-nano", entry=output.entry,
        details=output.details, provenance=builders.MADE_HERE,
    )  # fmt: skip
    (folder / "proof").mkdir()
    site = Site(
        package=Path(made.uri), manifest=verify(Path(made.uri)), engine=verify(yolox_engine),
        environment=package.environment.folder(home), work=folder / "proof", limit_s=60,
    )  # fmt: skip
    with package.serve(site) as running:
        yield {"http": f"http://{running.address}", "grpc": f"grpc://{running.grpc_address}"}


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_it_answers_as_the_engine_does(served, yolox_engine, scheme):
    images = [runtime.read_image(path) for path in builders.photos()[:10]]
    with runtime.open(yolox_engine) as session:
        wanted = [runtime.Detector(session)(image) for image in images]
    with runtime.remote(served[scheme]) as session:
        detector = runtime.Detector(session, max_batch=10)  # Triton takes 8 rows: split
        together = detector(images)
        alone = [detector(image) for image in images]
        sent = [session.photo(path.read_bytes()) for path in builders.photos()[:10]]
    for ours, one, posted, batched in zip(wanted, alone, sent, together, strict=True):
        assert np.array_equal(ours.xyxy, one.xyxy)
        assert np.array_equal(ours.xyxy, posted.xyxy)
        assert np.array_equal(ours.class_id, batched.class_id)
        np.testing.assert_allclose(ours.xyxy, batched.xyxy, atol=1e-2)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_what_is_no_picture_is_refused_with_its_words(served, scheme):
    with (
        runtime.remote(served[scheme]) as session,
        pytest.raises(FeedError, match="no image codec"),
    ):
        session.photo(b"<html>")
