"""OpenVINO sessions that share a machine."""

from __future__ import annotations

import pytest

from engineworks import hosts, runtime
from engineworks.errors import ArtifactError
from engineworks.store import LocalStore
from tests import builders

pytest.importorskip("openvino")


@pytest.mark.skipif(hosts.cores() < 2, reason="needs two cores")
def test_sessions_that_share_the_cores_are_not_pinned_to_the_same_ones(yolox_onnx, tmp_path):
    """Two sessions of one thread each once took turns on one core: half the frames per second."""
    engine = builders.put_engine(LocalStore(tmp_path), yolox_onnx, runtime="openvino").uri
    for threads, pinned in ((1, False), (hosts.cores(), True)):
        with runtime.open(engine, threads=threads) as session:
            compiled = session._request.get_compiled_model()
            assert compiled.get_property("ENABLE_CPU_PINNING") is pinned


def test_a_manifest_sets_nothing_that_engines_here_do_not(yolox_onnx, tmp_path):
    """OpenVINO writes compiled models to whatever folder CACHE_DIR names."""
    engine = builders.put_engine(
        LocalStore(tmp_path / "store"),
        yolox_onnx,
        runtime="openvino",
        details={"compile": {"CACHE_DIR": str(tmp_path / "sprung")}},
    )
    with pytest.raises(ArtifactError, match="CACHE_DIR"):
        runtime.open(engine.uri)
    assert not (tmp_path / "sprung").exists()
