"""The edge box with the extra [video]: videos without the checkout; without it, a clear refusal."""

from __future__ import annotations

import json

import pytest

from tests.clips import panned, read_clip, write_clip
from tests.packaging.test_edge import bare, edge, run

__all__ = ["bare", "edge"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "bear.mp4", panned(20))


def test_it_tracks_in_a_video_without_the_checkout(edge, yolox_engine, clip, tmp_path):
    python = edge("onnxruntime", "video")
    done = run(python, tmp_path, "video", yolox_engine, clip, "-o", "out.mp4", "--track", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["outcome"], report["frames"], report["tracks"]) == ("whole", 20, 1)
    assert len(read_clip(tmp_path / "out.mp4")) == 20


def test_without_the_extra_it_is_named(bare, yolox_engine, clip, tmp_path):
    done = run(bare, tmp_path, "video", yolox_engine, clip, "-o", "out.mp4")
    assert done.returncode == 2
    assert "pip install 'engineworks[video]'" in done.stderr
    assert list(tmp_path.iterdir()) == []
