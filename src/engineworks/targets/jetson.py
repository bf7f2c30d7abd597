"""TensorRT on a Jetson: Nano, TX2, Xavier, Orin and Thor, built on the board itself.

Three ways to the board's own TensorRT: its bindings in this Python; the system's older Python,
which has them where this one has not; `trtexec`. Never run on a board so far. Source:
https://docs.nvidia.com/jetson/archives/
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError
from engineworks.facts.host import HostCard, Jetson
from engineworks.manifest import Requires
from engineworks.targets._base import BuildInput, BuildOutput, Int8Rules, Target
from engineworks.targets._nvidia import baseline, builder, delivered, dla, settings, system, timing
from engineworks.targets._nvidia import network as networks
from engineworks.targets._nvidia.api import WEAK, Api
from engineworks.targets._nvidia.settings import BuilderSettings

PACKAGES = ("tensorrt",)
OPTIONS = {
    **settings.OPTIONS,
    **settings.ON_DEVICE,
    "dla": "number of a DLA core; what it cannot run falls back to the GPU",
    "dla_share": "least share of layers on DLA, 0 to 1; below it the build is refused",
    "builder": "auto (default), python (bindings here), system (the system's Python) or trtexec",
    "system_python": "the system's interpreter; default /usr/bin/python3",
    "trtexec": "path of trtexec; default where JetPack leaves it",
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """What all modules of one name share."""

    workspace_share: int
    """1/n of the memory, which CPU and GPU share, may be scratch space."""
    int8: bool = True


#: Name in the device tree -> family; the first that occurs counts.
FAMILIES = {
    "Thor": Family(workspace_share=4),
    "Orin": Family(workspace_share=4),
    "Xavier": Family(workspace_share=4),
    # Maxwell, and Pascal as it is there, have no 8-bit products.
    "TX2": Family(workspace_share=6, int8=False),
    "Nano": Family(workspace_share=8, int8=False),
}


def family(board: Jetson) -> Family:
    """The family of a board; of a board unknown here, careful guesses."""
    return next(
        (board_family for name, board_family in FAMILIES.items() if name in board.module),
        Family(workspace_share=8),
    )


def missing_requirements(host: HostCard) -> str:
    """See `Target`."""
    if host.jetson is None:
        return "needs a Jetson, whose JetPack brings tensorrt (no pip install does)"
    return ""


def cannot_run(host: HostCard) -> str:
    """See `Target`."""
    if host.jetson is None:
        return "JetPack"
    if PACKAGES[0] not in host.packages:
        return f"TensorRT's bindings for Python {host.python}"
    return ""


def int8(host: HostCard) -> Int8Rules:
    """Symmetric activations, float biases; DLA gets the same ranges through a calibrator."""
    return Int8Rules(scheme=builder.SCHEME)


def unsupported_operators(onnx: Path) -> tuple[str, ...]:
    """Operators that this Python's TensorRT does not know; none where only the system has one."""
    if importlib.util.find_spec("tensorrt") is None:
        return ()
    import tensorrt

    return networks.unsupported_operators(Api(tensorrt), onnx)


def check_options(options: Mapping[str, Any]) -> None:
    """See `Target`. Which DLA cores there are is known on the board only."""
    settings.check(options)
    _least_share(options)
    _asked_way(options)
    core = options.get("dla")
    if core is None:
        return
    if isinstance(core, bool) or not isinstance(core, int) or core < 0:
        raise BuildError(f"options.dla: {core!r} is no number of a core", hint="write dla: 0")
    _one_row(options)


def build(request: BuildInput) -> BuildOutput:
    """See `Target`."""
    board = request.host.jetson
    if board is None:
        raise BuildError("this machine is no Jetson", hint="build it on the board itself")
    options = with_defaults(request.options, request.host, request.precision)
    core, least = _dla(options, board, request.precision)
    checked = settings.read(options, 1 if core is not None else request.largest_batch)
    way = _way(options)
    started = time.perf_counter()
    built = _make(way, request, checked, options, core, least)
    placement = built.placement
    files, precision, whole_from_s = built.files, built.delivered_precision, 0.0
    took_s = time.perf_counter() - started
    if placement is not None and not request.draft:
        timed, _ = baseline.attempt(
            lambda: _time(way, built, request, checked, options, core, True)
        )
        files = {**files, dla.NAME: dla.write(placement, timed, request.work)}
        precision = delivered.with_note(precision, placement.words(timed))
    other = _baseline(checked, core)
    if other is not None and checked.baseline and not request.draft:
        cost = _cost(way, built, request, checked, options, core, other, took_s)
        files = {**files, baseline.NAME: baseline.write(cost, request.work)}
        whole_from_s = cost.needs_s
        precision = delivered.with_note(precision, cost.words())
    return BuildOutput(
        files=files,
        entry="engine.plan",
        requires=Requires(runtime="tensorrt", arch=request.host.arch),
        delivered_precision=precision,
        whole_from_s=whole_from_s,
        details={
            "module": "tensorrt",
            "version": built.version,
            "any_version": checked.version_compatible,
            "jetson": board.module,
            "l4t": board.l4t,
            "built_by": way,
            "profile": built.profile,
            **settings.for_session(checked),
            **({"dla": core, "dla_share": placement.share} if placement is not None else {}),
        },
    )


def _asked_way(options: Mapping[str, Any]) -> str:
    asked = options.get("builder", "auto")
    if asked not in ("auto", "python", "system", "trtexec"):
        raise BuildError(
            f"options.builder: {asked!r} is not auto, python, system or trtexec",
            hint="leave it out",
        )
    return str(asked)


def _make(
    way: str, request: BuildInput, checked: BuilderSettings, options: Mapping[str, Any],
    core: int | None, least: float,
) -> system.Made:  # fmt: skip
    if way == "python":
        return _by_bindings(request, checked, core, least)
    return system.build(way, request, checked, options, core, least)


def _time(
    way: str, built: system.Made, request: BuildInput, checked: BuilderSettings,
    options: Mapping[str, Any], core: int | None, layers: bool = False,
) -> timing.Timed:  # fmt: skip
    """Times of a plan, by whatever can open it here."""
    plan = built.files["engine.plan"]
    if way == "python":
        compatible = checked.version_compatible
        return timing.by_session(
            plan, request, built.profile, any_version=compatible, layers=layers
        )
    tool = system.trtexec(options)
    if tool is None:
        raise BuildError("there is no trtexec to time it with", hint="give options.trtexec")
    return timing.by_trtexec(tool, plan, built.profile, core, plan.parent)


def _baseline(checked: BuilderSettings, core: int | None) -> tuple[str, BuilderSettings] | None:
    """What an engine is held against: the GPU alone, or one without compatibility."""
    if core is not None:
        return "on the GPU alone", checked
    flags = settings.compatibility(checked)
    return (f"without {' and '.join(flags)}", settings.plain(checked)) if flags else None


def _cost(
    way: str, built: system.Made, request: BuildInput, checked: BuilderSettings,
    options: Mapping[str, Any], core: int | None, other: tuple[str, BuilderSettings], took_s: float,
) -> baseline.Cost:  # fmt: skip
    """What DLA or compatibility costs or spares, beside an engine of the GPU alone."""
    what, plain = other

    def build_baseline() -> tuple[Path, Callable[[], timing.Timed]]:
        work = request.work / "baseline"
        work.mkdir()
        alone = dataclasses.replace(request, work=work, draft=True)
        second = _make(way, alone, plain, options, None, 0.0)
        timed = partial(_time, way, second, request, plain, options, None)
        return second.files["engine.plan"], timed

    return baseline.weigh(
        what, built.files["engine.plan"],
        lambda: _time(way, built, request, checked, options, core), build_baseline,
        took_s=took_s, limit_s=request.limit_s,
    )  # fmt: skip


def with_defaults(options: Mapping[str, Any], host: HostCard, precision: str) -> dict[str, Any]:
    """The recipe's options, and what fits this board where they are silent.

    Raises:
        BuildError: The board cannot compute in this precision.
    """
    board = host.jetson or Jetson(module="", l4t="")
    kin = family(board)
    if precision == "int8" and not kin.int8:
        raise BuildError(
            f"int8: the GPU of {board.module} multiplies no 8-bit integers",
            hint="use fp16 on this board",
        )
    defaults = dict(options)
    workspace = max(64, host.memory_mib // kin.workspace_share)
    defaults.setdefault("workspace_mib", 2 ** int(math.log2(workspace)))
    if "dla" in defaults:
        # DLA wants one shape; and before TensorRT 11 its ranges beside the graph.
        defaults.setdefault("batch", [1, 1, 1])
        defaults.setdefault("ranges", "cache")
    return defaults


def _dla(options: Mapping[str, Any], board: Jetson, precision: str) -> tuple[int | None, float]:
    """(number of the core or None, least share of layers on it)."""
    core, least = options.get("dla"), _least_share(options)
    if core is None:
        return None, 0.0
    if isinstance(core, bool) or not isinstance(core, int) or not 0 <= core < board.dla_cores:
        raise BuildError(
            f"options.dla: {core!r} is no DLA core of {board.module}, which has {board.dla_cores}",
            hint="leave options.dla out" if not board.dla_cores else "write dla: 0",
        )
    if precision == "fp32":
        raise BuildError("options.dla: DLA computes in fp16 and int8", hint="ask for fp16")
    _one_row(options)
    return core, least


def _one_row(options: Mapping[str, Any]) -> None:
    batch = options.get("batch", [1, 1, 1])
    if list(batch) != [1, 1, 1]:
        raise BuildError(
            f"options.batch: {batch} with DLA, which has no dynamic shapes: one row at a time",
            hint="leave options.batch out",
        )


def _least_share(options: Mapping[str, Any]) -> float:
    least = options.get("dla_share", 0.0)
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise BuildError(
            f"options.dla_share: {least!r} is no share in 0..1", hint="write dla_share: 0.8"
        )
    return float(least)


def _way(options: Mapping[str, Any]) -> str:
    """How to reach the board's TensorRT."""
    asked = _asked_way(options)
    if asked != "auto":
        return asked
    if importlib.util.find_spec("tensorrt") is not None:
        return "python"
    if system.python_version(str(options.get("system_python", system.PYTHON))):
        return "system"
    if system.trtexec(options) is not None:
        return "trtexec"
    raise BuildError(
        "no TensorRT: neither this Python nor the system's has its bindings, and there is no "
        "trtexec",
        hint="install JetPack's package nvidia-jetpack, or give options.trtexec",
    )


def _by_bindings(
    request: BuildInput, checked: BuilderSettings, core: int | None, least: float
) -> system.Made:
    import tensorrt

    api = Api(tensorrt)
    names: list[str] = []

    def adjust(api: Api, config: Any, network: Any) -> None:
        if core is None:
            return
        config.default_device_type = api.member("DeviceType", "DLA", "options.dla")
        config.DLA_core = core
        api.set_flag(config, "GPU_FALLBACK", "options.dla")
        layers = list(delivered.layers(network))
        names.extend(layer.name for layer in layers)
        able = {layer.name: config.can_run_on_DLA(layer) for layer in layers}
        dla.demand(dla.split(able), least, "would run")

    route = checked.route or (WEAK if core is not None and WEAK in api.routes else "")
    if core is not None and api.route(route) != WEAK and "ranges" not in request.options:
        checked = dataclasses.replace(checked, ranges="graph")  # there is no other way
    built = builder.build(
        tensorrt, request, settings.routed(checked, route), adjust=adjust, on_device=True
    )
    placement = None
    if core is not None:
        log = built.files["build.log"].read_text(encoding="utf-8")
        placement = dla.from_log(log, names)
        dla.demand(placement, least, "runs")
    return system.Made(
        files=built.files,
        profile=built.profile,
        delivered_precision=built.delivered_precision,
        version=api.version,
        placement=placement,
    )


TARGET = Target(
    title="TensorRT, NVIDIA Jetson",
    precisions=("fp32", "fp16", "int8"),
    packages=PACKAGES,
    host_bound=True,
    missing_requirements=missing_requirements,
    unsupported_operators=unsupported_operators,
    build=build,
    options=OPTIONS,
    profiled=True,
    check_options=check_options,
    int8=int8,
    cannot_run=cannot_run,
)
