"""`make bench-runtime`: the on-device runtime against the loops that guides print.

Every figure is a ratio within this one process, contenders in alternating blocks. A part is a
module with `measure() -> (bars, details)`; add it to `PARTS`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from benchmarks import runtime_images
from benchmarks._bars import Bar, finish

PARTS: tuple[ModuleType, ...] = (runtime_images,)


def main(names: list[str]) -> int:
    """Measure all parts, or those whose module's name ends as given (`images`)."""
    bars: list[Bar] = []
    details: dict[str, Any] = {}
    for part in PARTS:
        name = part.__name__.rpartition("runtime_")[2]
        if not names or name in names:
            found, details[name] = part.measure()
            bars += found
    return finish("runtime", bars, details)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
