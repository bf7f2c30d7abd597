"""What all tests share: a quiet, repeatable Hypothesis, a store, and two tiny graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from engineworks.store import LocalStore
from tests import builders

# The machine may be slow and shared, and a failure must come back when the test is run again.
settings.register_profile("engineworks", deadline=None, derandomize=True, database=None)
settings.load_profile("engineworks")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional net made by torch, with an open batch: input `images`, output `scores`."""
    return builders.export_tiny(tmp_path_factory.mktemp("tiny") / "tiny.onnx")
