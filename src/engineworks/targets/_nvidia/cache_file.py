"""The calibration cache of TensorRT 10 and older, which DLA needs: one scale per tensor as text.

A line is `tensor: hex`, where hex is the big-endian bit pattern of the float32 scale
(largest absolute value / 127). Source: the files that IInt8EntropyCalibrator2 writes,
https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-1001/developer-guide/ section
"Post-Training Quantization Using Calibration".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from engineworks.errors import ArtifactError
from engineworks.qdq.ranges import Range

#: The algorithm's name in the header decides which calibrator class accepts the file.
ALGORITHM = "EntropyCalibration2"


def write(ranges: Mapping[str, Range], version: str, algorithm: str = ALGORITHM) -> str:
    """Text of a cache file.

    Args:
        ranges: Tensor -> (low, high); the larger side decides.
        version: TensorRT's version as in its header, for example "100300" for 10.3.0.
        algorithm: Of the calibrator that will read it.
    """
    lines = [f"TRT-{version}-{algorithm}"]
    for tensor, (low, high) in ranges.items():
        scale = max(abs(low), abs(high)) / 127
        lines.append(f"{tensor}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def read(text: str) -> dict[str, float]:
    """Tensor -> largest absolute value.

    Raises:
        ArtifactError: Not a cache file.
    """
    header, *lines = text.splitlines() or [""]
    if not header.startswith("TRT-"):
        raise ArtifactError(
            f"a calibration cache begins with TRT-, this one with {header[:20]!r}",
            hint="give a file that TensorRT 10 or older has written",
        )
    ranges = {}
    for number, line in enumerate(lines, start=2):
        tensor, separator, word = line.rpartition(": ")
        try:
            if not separator:
                raise ValueError("no colon")
            (scale,) = struct.unpack(">f", bytes.fromhex(word))
        except (ValueError, struct.error) as error:
            raise ArtifactError(
                f"line {number} of the calibration cache is {line[:60]!r}, "
                "not `tensor: 8 hex digits`",
                hint="write the cache anew",
            ) from error
        ranges[tensor] = scale * 127
    return ranges
