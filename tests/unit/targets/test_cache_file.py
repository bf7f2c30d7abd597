"""The calibration cache as TensorRT 10 and older write and read it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineworks.errors import ArtifactError
from engineworks.targets._nvidia.cache_file import read, write

NAMES = st.text(st.characters(codec="ascii", exclude_categories=("C",)), min_size=1)
BOUNDS = st.tuples(st.floats(-1e30, 0), st.floats(0, 1e30))


def test_a_line_is_the_bit_pattern_of_the_scale():
    text = write({"images": (-254.0, 127.0), "a/b: c": (0.0, 6.0)}, "100300")
    lines = text.splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    assert lines[1] == "images: 40000000"  # 2.0
    assert lines[2] == f"a/b: c: {struct.pack('>f', 6 / 127).hex()}"
    assert text.endswith("\n")


def test_a_file_of_tensorrt_is_read():
    """Lines in the form that its calibrators leave."""
    text = "TRT-8601-EntropyCalibration2\ndata: 3c000889\nconv1: 3c8954be\nprob: 3c010a14\n"
    found = read(text)
    assert list(found) == ["data", "conv1", "prob"]
    assert found["data"] == pytest.approx(0.9926, abs=1e-3)


@given(st.dictionaries(NAMES, BOUNDS, max_size=5))
def test_what_was_written_is_read_again(ranges):
    found = read(write(ranges, "100300"))
    assert list(found) == list(ranges)
    for tensor, (low, high) in ranges.items():
        assert found[tensor] == pytest.approx(max(-low, high), rel=1e-6, abs=1e-36)


@pytest.mark.parametrize("text", ["", "\n", "images: 40000000\n", '{"images": 2}'])
def test_another_file_is_refused(text):
    with pytest.raises(ArtifactError, match="begins with TRT-") as caught:
        read(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "line", ["images", "images:40000000", "images: 4000", "images: 4000000000", "images: wrong", ""]
)
def test_a_bad_line_is_named(line):
    with pytest.raises(ArtifactError, match="line 3") as caught:
        read(f"TRT-100300-EntropyCalibration2\ndata: 40000000\n{line}\nlast: 40000000\n")
    assert repr(line) in caught.value.message
