"""What all tests share: a quiet, repeatable Hypothesis, a store, and two tiny graphs."""

from __future__ import annotations

import functools
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import settings

from engineworks.specs import Preprocess, TaskSpec
from engineworks.store import LocalStore
from infra.s3 import S3Server
from tests import builders, oracle

# The machine may be slow and shared, and a failure must come back when the test is run again.
settings.register_profile("engineworks", deadline=None, derandomize=True, database=None)
settings.load_profile("engineworks")

# In the background of a script Ctrl-C is ignored, by all that a test starts, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def botocore_reads_once() -> Iterator[None]:
    """Every client parses megabytes of JSON; hundreds of them may share what the first has read."""
    read = functools.cache(functools.partial(JSONFileLoader._load_file, None))  # it asks no self
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "_load_file", staticmethod(read))
        yield


@pytest.fixture(scope="session")
def s3_server(
    tmp_path_factory: pytest.TempPathFactory, botocore_reads_once: None
) -> Iterator[S3Server]:
    """A real S3 server on this machine, with one bucket."""
    server = S3Server(
        tmp_path_factory.mktemp("s3"), key="tests", secret="only-on-127-0-0-1", bucket="models"
    )
    try:
        yield server.start()
    finally:
        server.stop(0)


@pytest.fixture
def s3_prefix(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of the test's own on that server, which the environment leads to."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional net made by torch, with an open batch: input `images`, output `scores`."""
    return builders.export_tiny(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="session")
def yolox_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's trained YOLOX-Nano at 416x416 with an open batch."""
    return builders.export_yolox(tmp_path_factory.mktemp("yolox") / "yolox.onnx")


@pytest.fixture(scope="session")
def yolox_engine(yolox_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an ONNX Runtime engine of the trained YOLOX-Nano."""
    made_in = LocalStore(tmp_path_factory.mktemp("engines"))
    return Path(builders.put_engine(made_in, yolox_onnx).uri)


@pytest.fixture(scope="session")
def oracle_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an engine that finds the extents of pure colours (`tests/oracle.py`)."""
    folder = tmp_path_factory.mktemp("oracle")
    task = TaskSpec(kind="detection", layout="end2end", labels=oracle.LABELS, confidence=0.1)
    engine = builders.put_engine(
        LocalStore(folder / "store"),
        oracle.export(folder / "oracle.onnx"),
        name="oracle",
        preprocess=Preprocess(resize="letterbox"),
        task=task,
    )
    return Path(engine.uri)
