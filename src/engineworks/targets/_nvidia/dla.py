"""What runs on a Jetson's deep-learning accelerator, told before and after a build.

Unsupported layers fall back to the GPU without an error, and a graph of which little is left on
DLA is slower than on the GPU alone; so the share is reported, and a recipe may demand one.
Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-dla.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engineworks.errors import BuildError
from engineworks.targets._nvidia.timing import Timed

NAME = "placement.json"


@dataclass(frozen=True, kw_only=True)
class DlaPlacement:
    """Layers by where they run."""

    dla: tuple[str, ...]
    gpu: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    """The parts of the engine that run on DLA, as its builder and its profiler name them."""

    @property
    def share(self) -> float:
        """Share of the layers that run on DLA; 0 of no layers at all."""
        return len(self.dla) / max(1, len(self.dla) + len(self.gpu))

    def words(self, timed: Timed | None = None) -> str:
        """For a table's note."""
        total = len(self.dla) + len(self.gpu)
        spent = f", {timed.share(self.nodes):.0%} of the time" if timed and timed.layers else ""
        rest = f"; on the GPU: {', '.join(self.gpu[:3])}" if self.gpu else ""
        more = f" and {len(self.gpu) - 3} more" if len(self.gpu) > 3 else ""
        return f"{len(self.dla)} of {total} layers on DLA ({self.share:.0%}){spent}{rest}{more}"


def split(able: Mapping[str, bool]) -> DlaPlacement:
    """A forecast: layer -> whether DLA can run it."""
    return DlaPlacement(
        dla=tuple(name for name, can in able.items() if can),
        gpu=tuple(name for name, can in able.items() if not can),
    )


def from_log(text: str, layers: Sequence[str] = ()) -> DlaPlacement:
    """Read the builder's own list of layers by device.

    Args:
        text: Its log, with the lines `[DlaLayer] {ForeignNode[first...last]}` and
            `[GpuLayer] KIND: name` of TensorRT 8 and newer.
        layers: Names of the network's layers in order, to count those within a foreign node;
            without them a foreign node counts as two, its ends.
    """
    dla: list[str] = []
    gpu: list[str] = []
    nodes: list[str] = []
    order = {name: position for position, name in enumerate(layers)}
    for kind, listing in re.findall(r"\[(Dla|Gpu)Layer\] (.+)", text):
        names = _names(listing.strip(), order, layers)
        (dla if kind == "Dla" else gpu).extend(names)
        nodes += [listing.strip()] if kind == "Dla" else []
    return DlaPlacement(
        dla=tuple(dict.fromkeys(dla)),
        gpu=tuple(dict.fromkeys(gpu)),
        nodes=tuple(dict.fromkeys(nodes)),
    )


def _names(listing: str, order: dict[str, int], layers: Sequence[str]) -> list[str]:
    foreign = re.fullmatch(r"\{ForeignNode\[(.+)\]\}", listing)
    if foreign is None:
        return [re.sub(r"^[A-Z_]+: ", "", listing)]
    first, _, last = foreign[1].partition("...")
    if not last or first == last:
        return [first]
    if first in order and last in order and order[first] <= order[last]:
        return list(layers[order[first] : order[last] + 1])
    return [first, last]


def write(placement: DlaPlacement, timed: Timed | None, work: Path) -> Path:
    """The placement report, a file beside the engine: layers by device, shares of both."""
    report = {
        "share_of_layers": placement.share,
        "share_of_time": timed.share(placement.nodes) if timed and timed.layers else None,
        "ms": timed.ms if timed else None,
        "dla": placement.dla,
        "gpu": placement.gpu,
        "layers_ms": dict(timed.layers) if timed else {},
    }
    path = work / NAME
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def demand(placement: DlaPlacement, least: float, what: str) -> None:
    """Refuse a placement that keeps too little on DLA.

    Args:
        placement: Forecast or result.
        least: Share that the recipe wants, 0..1.
        what: "would run" or "runs".

    Raises:
        BuildError: Names both shares and the first layers that stay on the GPU.
    """
    if placement.share >= least:
        return
    raise BuildError(
        f"options.dla_share: the recipe wants at least {least:.0%} on DLA, of this graph "
        f"{placement.share:.0%} {what} there: {placement.words()}",
        hint="use the GPU alone (leave options.dla out), or lower options.dla_share",
    )
