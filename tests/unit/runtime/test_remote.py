"""An engine in a server, used by the same words as one that is opened here."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engineworks import runtime
from engineworks.errors import ArtifactError, FeedError, InferenceError
from engineworks.runtime.pictures import decode_picture
from engineworks.store import verify
from tests import servers


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    return {
        "finder": servers.oracle_engine(folder / "oracle"),
        "fixed": servers.constant_detector(folder / "fixed", (4, 8, 16, 24), batch=4),
    }


@pytest.fixture(scope="module")
def url(engines, tmp_path_factory):
    named = [f"{name}={folder}" for name, folder in engines.items()]
    with servers.serving(tmp_path_factory.mktemp("serve"), *named) as running:
        yield running.url


@pytest.fixture
def image():
    return decode_picture(servers.picture(), "picture").image


@pytest.mark.parametrize("name", ["finder", "fixed"])
def test_a_detector_on_it_finds_what_one_here_finds(url, engines, name, image):
    images = [image, image[:, ::-1].copy(), image[::2].copy()]
    with runtime.open(engines[name]) as session:
        wanted = runtime.Detector(session)(images)
    with runtime.remote(url, name) as session:
        found = runtime.Detector(session)(images)
    assert len(wanted[0])
    for ours, theirs in zip(wanted, found, strict=True):
        assert np.array_equal(ours.xyxy, theirs.xyxy)
        assert np.array_equal(ours.confidence, theirs.confidence)
        assert np.array_equal(ours.class_id, theirs.class_id)


def test_its_manifest_is_the_engines(url, engines):
    identity = verify(engines["finder"]).sha256
    with runtime.remote(url, "finder", sha256=identity) as session:
        assert session.manifest.sha256 == identity
    with pytest.raises(ArtifactError, match=f"not {'0' * 16}"):
        runtime.remote(url, "finder", sha256="0" * 64)


def test_more_rows_than_it_takes_come_back_in_order(url):
    rows = np.zeros((5, 3, 64, 64), np.float32)
    for number, row in enumerate(rows):
        row[0, 8 : 16 + number * 8, 8:40] = 1.0
    with runtime.remote(url, "finder") as session:
        whole = session.infer({session.inputs[0].name: rows})
        session._max_batch = 2
        split = session.infer({session.inputs[0].name: rows})
    for name, array in whole.items():
        assert len(array) == 5
        assert np.array_equal(array, split[name])


def test_threads_share_one(url, image):
    with runtime.remote(url, "finder") as session:
        detector = runtime.Detector(session)
        wanted = detector(image).xyxy
        found = []

        def ask():
            for _ in range(5):
                found.append(np.array_equal(detector(image).xyxy, wanted))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert found == [True] * 20


def test_which_of_several_must_be_said(url):
    with pytest.raises(ArtifactError, match="holds 2 models") as caught:
        runtime.remote(url)
    assert "finder, fixed" in caught.value.hint
    with pytest.raises(ArtifactError, match="no model 'cars'"):
        runtime.remote(url, "cars")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1/v2/models/x"]
)
def test_what_is_no_address_is_told(address):
    with pytest.raises(FeedError, match="no address"):
        runtime.remote(address)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_where_nobody_answers_is_told(scheme):
    with pytest.raises(InferenceError, match="127.0.0.1:9") as caught:
        runtime.remote(f"{scheme}://127.0.0.1:9", timeout_s=2)
    assert "address and port" in caught.value.hint


def test_feeds_that_are_wrong_do_not_travel(url):
    with (
        runtime.remote(url, "finder") as session,
        pytest.raises(FeedError, match="must be float32"),
    ):
        session.infer({session.inputs[0].name: np.zeros((1, 3, 8, 8), np.float32)})


def test_a_picture_file_goes_only_where_it_is_taken(url):
    with runtime.remote(url, "finder") as session, pytest.raises(FeedError, match="tensors only"):
        session.photo(servers.picture())


def test_one_that_is_closed_asks_nobody(url):
    session = runtime.remote(url, "finder")
    session.close()
    with pytest.raises(FeedError, match="is closed"):
        session.infer({session.inputs[0].name: np.zeros((1, 3, 64, 64), np.float32)})
