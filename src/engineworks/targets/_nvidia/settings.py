"""A recipe's options for NVIDIA's builders, checked before anything is built.

Knows names and values, no TensorRT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError
from engineworks.store import file_sha256
from engineworks.targets._nvidia.api import STRONG, WEAK
from engineworks.targets._nvidia.weak import CALIBRATORS

#: Further options of TensorRT itself, which builds on the GPU that will run the engine.
ON_DEVICE = {
    "route": "strong: types from the graph (default where TensorRT has it); weak: a float graph "
    "and leave to go narrower (TensorRT 8 to 10)",
    "ranges": "weak route and int8: graph (Q/DQ nodes, default), cache (a calibration cache beside "
    "a float graph) or dynamic (dynamic ranges on its tensors)",
    "calibrator": "which calibrator reads the cache: entropy2 (default) or minmax",
    "version_compatible": "true: the engine opens in newer versions, too; costs size and speed",
    "hardware_compatible": "none (default), same_compute_capability or ampere_plus: on which "
    "other GPUs the engine opens; costs speed",
    "baseline": "false: do not build the engine without DLA or compatibility beside it, which "
    "shows what these cost; default true",
    "timing_cache": "{path, sha256}: measurements of an earlier build, for the same choices again",
    "timing_cache_miss": "measure (default), or error: refuse a layer that the cache lacks",
}

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

#: Option -> description, of those that every NVIDIA builder has.
OPTIONS = {
    "workspace_mib": "most memory for scratch space while building and running, MiB",
    "batch": "[min, opt, max] batch of the optimization profile; default [1, 1, the largest "
    "batch that the recipe checks or times]",
    "shapes": "input -> [min, opt, max] shapes, for open dimensions other than the batch",
    "optimization_level": "0 (quick) to 5 (thorough); the builder's own default is 3",
    "tf32": "true: float32 layers may round to 10 bits of mantissa; default false",
    "cuda_graph": "true: the session records the network once for a shape and replays it, which "
    "spares the CPU a launch per kernel; default false",
}


@dataclass(frozen=True, kw_only=True)
class BuilderSettings:
    """Options with their defaults filled in."""

    workspace_mib: int | None = None
    batch: tuple[int, int, int] = (1, 1, 8)
    shapes: Mapping[str, Shapes] = field(default_factory=dict)
    optimization_level: int | None = None
    tf32: bool = False
    cuda_graph: bool = False
    route: str = ""
    ranges: str = "graph"
    calibrator: str = "entropy2"
    version_compatible: bool = False
    hardware_compatible: str = "none"
    baseline: bool = True
    timing_cache: Path | None = None
    timing_cache_miss: str = "measure"


def _refuse(option: str, value: Any, rule: str, hint: str) -> BuildError:
    return BuildError(f"options.{option}: {value!r} {rule}", hint=hint)


def _number(option: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refuse(option, value, f"is no number in {low}..{high}", f"write {option}: {low}")
    return value


def flag(options: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """An option that is true or false."""
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise _refuse(name, value, "is neither true nor false", f"write {name}: true")
    return value


def _choice(options: Mapping[str, Any], name: str, *choices: str) -> str:
    """An option with few values, the first by default."""
    value = options.get(name, choices[0])
    if value not in choices:
        listed = ", ".join(choice for choice in choices if choice)
        raise _refuse(name, value, f"is not one of {listed}", f"choose one of: {listed}")
    return str(value)


def _pin(options: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """An option that names a file and its bytes."""
    value = options.get(name)
    if value is None:
        return None
    example = f"write {name}: {{path: /where/timing.cache, sha256: 64 hex digits}}"
    if not isinstance(value, dict) or set(value) != {"path", "sha256"}:
        raise _refuse(name, value, "is not {path, sha256}", example)
    return value


def _pinned(options: Mapping[str, Any], name: str) -> Path | None:
    """A file whose bytes are those that the option names."""
    value = _pin(options, name)
    if value is None:
        return None
    path = Path(str(value["path"]))
    if not path.is_file():
        raise _refuse(name, str(path), "is no file", "give the timing.cache of an earlier engine")
    sha256 = file_sha256(path)
    if sha256 != value["sha256"]:
        raise _refuse(
            name, value["sha256"], f"is not the sha256 of {path}, which is {sha256}",
            "name the sha256 of the file that you mean",
        )  # fmt: skip
    return path


def _rising(option: str, value: Any) -> tuple[int, int, int]:
    whole = isinstance(value, list | tuple) and len(value) == 3
    if not whole or not all(isinstance(n, int) and not isinstance(n, bool) for n in value):
        raise _refuse(option, value, "is not [min, opt, max]", f"write {option}: [1, 1, 8]")
    low, best, high = value
    if not 1 <= low <= best <= high:
        raise _refuse(option, value, "does not rise from at least 1", f"write {option}: [1, 1, 8]")
    return low, best, high


def _shapes(value: Any) -> dict[str, Shapes]:
    example = "write shapes: {images: [[1, 3, 320, 320], [1, 3, 416, 416], [1, 3, 640, 640]]}"
    if not isinstance(value, dict):
        raise _refuse("shapes", value, "is not a mapping of inputs", example)
    shapes = {}
    for name, three in value.items():
        whole = isinstance(three, list) and len(three) == 3
        if not whole or not all(isinstance(s, list) and len(s) == len(three[0]) > 0 for s in three):
            raise _refuse(f"shapes.{name}", three, "is not three shapes of one rank", example)
        for sizes in zip(*three, strict=True):
            _rising(f"shapes.{name}", list(sizes))
        low, best, high = (tuple(shape) for shape in three)
        shapes[str(name)] = (low, best, high)
    return shapes


def read(options: Mapping[str, Any], largest_batch: int) -> BuilderSettings:
    """Check options and fill in defaults.

    Args:
        options: The recipe's; names were checked.
        largest_batch: What the profile must reach when the recipe does not say.

    Raises:
        BuildError: Names the option, its value and the rule.
    """
    workspace, level = options.get("workspace_mib"), options.get("optimization_level")
    batch = _rising("batch", options.get("batch", [1, 1, largest_batch]))
    if batch[0] != 1:
        raise _refuse(
            "batch", list(batch), "does not begin with 1, and every engine is checked with one "
            "row", "write batch: [1, 1, 8]",
        )  # fmt: skip
    return BuilderSettings(
        workspace_mib=None if workspace is None else _number("workspace_mib", workspace, 1, 2**20),
        batch=batch,
        shapes=_shapes(options.get("shapes", {})),
        optimization_level=None if level is None else _number("optimization_level", level, 0, 5),
        tf32=flag(options, "tf32"),
        cuda_graph=flag(options, "cuda_graph"),
        route=_choice(options, "route", "", STRONG, WEAK),
        ranges=_choice(options, "ranges", "graph", "cache", "dynamic"),
        calibrator=_choice(options, "calibrator", *CALIBRATORS),
        version_compatible=flag(options, "version_compatible"),
        hardware_compatible=_choice(
            options, "hardware_compatible", "none", "same_compute_capability", "ampere_plus"
        ),
        baseline=flag(options, "baseline", True),
        timing_cache=_pinned(options, "timing_cache"),
        timing_cache_miss=_choice(options, "timing_cache_miss", "measure", "error"),
    )


def check(options: Mapping[str, Any]) -> None:
    """Refuse values early; the file of a timing cache is looked at where the engine is built.

    Raises:
        BuildError: Names the option, its value and the rule.
    """
    read({name: value for name, value in options.items() if name != "timing_cache"}, 1)
    _pin(options, "timing_cache")


def compatibility(settings: BuilderSettings) -> tuple[str, ...]:
    """The options that let an engine open elsewhere, which cost size and speed."""
    flags = ("version_compatible",) if settings.version_compatible else ()
    level = settings.hardware_compatible
    return (*flags, *((f"hardware_compatible: {level}",) if level != "none" else ()))


def plain(settings: BuilderSettings) -> BuilderSettings:
    """The same settings without compatibility; a timing cache is of the other kind of kernels."""
    return dataclasses.replace(
        settings, version_compatible=False, hardware_compatible="none", timing_cache=None
    )


def for_session(settings: BuilderSettings) -> dict[str, Any]:
    """What concerns running the engine, for the details of its manifest."""
    return {"cuda_graph": True} if settings.cuda_graph else {}


def routed(settings: BuilderSettings, route: str) -> BuilderSettings:
    """The same settings on another route."""
    return dataclasses.replace(settings, route=route)
