"""What a target's file holds, and the small things that several of them share.

Knows no vendor.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError, RecipeError
from engineworks.facts.engine import DeliveredPrecision
from engineworks.facts.host import HostCard
from engineworks.manifest import Requires, TensorSpec
from engineworks.precisions import PRECISIONS
from engineworks.qdq import accept
from engineworks.qdq.pairs import Scheme


@dataclass(frozen=True, kw_only=True)
class BuildInput:
    """What a build gets."""

    onnx: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str
    options: Mapping[str, Any]
    host: HostCard
    work: Path
    """An empty folder of its own; the engine's files are left here."""
    draft: bool = False
    """A candidate of a search: its precision need not be read back, give `UNREAD`."""
    reference: Path | None = None
    """Recorded inputs and answers (`engineworks.export.reference`), for a target that declares
    `needs_reference`."""
    largest_batch: int = 8
    """What the engine must serve, for a target that declares `profiled`."""
    limit_s: float = 0.0
    """Seconds after which the build is ended from outside; 0: never."""


@dataclass(frozen=True, kw_only=True)
class BuildOutput:
    """What a build gives back."""

    files: Mapping[str, Path]
    """Path inside the engine -> file in `work`."""
    entry: str
    requires: Requires
    delivered_precision: DeliveredPrecision
    details: dict[str, Any] = field(default_factory=dict)
    """Facts that the engine's session needs, into the manifest."""
    whole_from_s: float = 0.0
    """`limit_s` from which more would have been built beside the engine; 0: all of it was. With
    such a limit the build is done again, and not taken from the cache."""


@dataclass(frozen=True, kw_only=True)
class Int8Rules:
    """How a target wants its integers; given by `Target.int8`."""

    scheme: Scheme
    rewrite: Callable[[Any], None] | None = None
    """Last changes to an emitted onnx.ModelProto, in place, that this runtime is faster with."""


def _nothing_missing(host: HostCard) -> str:
    return ""


def _any_value(options: Mapping[str, Any]) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Target:
    """Everything that is to be known of a runtime on a kind of device: `TARGET` of its file.

    Raises:
        ValueError: A precision is unknown, or one that is searched for is listed without `int8`,
            or the reverse.
    """

    title: str
    """One line for people."""
    precisions: tuple[str, ...]
    """From high to low."""
    packages: tuple[str, ...]
    """Distributions whose version is part of an engine's cache key; the first is needed."""
    host_bound: bool
    """Whether the engine depends on the machine that builds it."""
    missing_requirements: Callable[[HostCard], str]
    """What a host lacks to build the target, for the plan; "" when nothing."""
    unsupported_operators: Callable[[Path], tuple[str, ...]]
    """Operators of an ONNX graph that this target cannot run, asked of the vendor's package."""
    build: Callable[[BuildInput], BuildOutput]
    """Build an engine and read its precision back. Raises BuildError when the vendor's builder
    refuses the graph, with its own words."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Option name -> description; anything else is refused."""
    check_options: Callable[[Mapping[str, Any]], None] = _any_value
    """Rules of the options' values: raises BuildError, touches no device and no file."""
    int8: Callable[[HostCard], Int8Rules] | None = None
    """How it wants its integers; with a precision that is searched for, and only then."""
    cannot_run: Callable[[HostCard], str] = _nothing_missing
    """Where engines can be built and not always opened: what a host lacks to open one, or ""."""
    replayed: Callable[[Path, Path], Path] | None = None
    """Writes the engine file (first) as ONNX, batch 1, to a path (second), so that a host that
    cannot open the engine can check it with ONNX Runtime in its place."""
    needs_reference: bool = False
    """Whether `build` needs the recorded answers of the source model."""
    replays: bool = False
    """Whether its engines only replay recorded answers: no device is ever listed for it."""
    profiled: bool = False
    """Whether an engine takes no batch beyond the `largest_batch` it was built for."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.precisions if name not in PRECISIONS]
        if unknown:
            raise ValueError(
                f"{self.title}: there is no precision {unknown[0]!r}; the precisions are "
                f"{', '.join(PRECISIONS)} (engineworks/precisions.py)"
            )
        searched = any(PRECISIONS[name].searched for name in self.precisions)
        if searched != (self.int8 is not None):
            raise ValueError(
                f"{self.title}: precisions {', '.join(self.precisions)} and "
                f"{'an' if self.int8 else 'no'} int8: they go together"
            )


#: The next step when a vendor refuses a graph, whatever the source was.
GRAPH_REFUSED = (
    "where the report's analysis names operators that this target lacks, replace those in the "
    "model; else export the model with another opset (export.opset; an .onnx source: where it was "
    "made), or leave this target out"
)

#: The delivered precision of a draft, which nobody asks for.
UNREAD = DeliveredPrecision(asked="", delivered="", holds=False, stored_bytes={}, computed_nodes={})


def int8_precision(
    asked_of: Path, integers: int, arithmetic: int, stored: dict[str, int], *, others: str = "fp32"
) -> DeliveredPrecision:
    """What an INT8 engine delivers: integer kernels against the layers that were asked for.

    Args:
        asked_of: The Q/DQ graph that was built.
        integers: Layers that multiply integers in the engine.
        arithmetic: All layers that multiply.
        stored: Bytes of constants by dtype.
        others: What the other layers compute in.
    """
    wanted = accept.integer_layers(accept.load(asked_of))
    holds = 0 < wanted <= integers
    mixed = f"{integers} of {arithmetic} layers compute in integers, the others in {others}"
    return DeliveredPrecision(
        asked="int8",
        delivered="int8" if holds else f"int8 in {integers} of {wanted} layers",
        holds=holds,
        stored_bytes=stored,
        computed_nodes={"int8": integers, others: arithmetic - integers},
        note="" if integers == arithmetic else mixed,
    )


def missing_package(host: HostCard, package: str, extra: str) -> str:
    """The usual `missing_requirements`: one distribution."""
    if package in host.packages:
        return ""
    return f"needs the package {package} (pip install 'engineworks[{extra}]')"


def package_version(package: str) -> str:
    """`name==version` of an installed distribution."""
    return f"{package}=={importlib.metadata.version(package)}"


def check_request(
    name: str, target: Target, precisions: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    """Refuse precisions and options that a target does not have.

    Raises:
        RecipeError: Names the value and what there is.
    """
    for precision in precisions:
        if precision not in target.precisions:
            raise RecipeError(
                f"targets: {name} has no precision {precision!r}",
                hint=f"it has: {', '.join(target.precisions)}",
            )
    for option in options:
        if option not in target.options:
            raise RecipeError(
                f"targets: {name} has no option {option!r}",
                hint=f"it has: {', '.join(target.options) or 'none'}",
            )
    try:
        target.check_options(options)
    except BuildError as error:
        raise RecipeError(f"targets: {name}: {error.message}", hint=error.hint) from error
    except Exception as error:  # a target's file may come from elsewhere
        raise RecipeError(
            f"targets: {name} cannot read its options {dict(options)} "
            f"({type(error).__name__}: {error})",
            hint=f"its options are: {', '.join(target.options) or 'none'}",
        ) from error


#: numpy and vendor dtype names -> the word used in precisions and delivered.
_DTYPES = {
    "float32": "fp32", "f32": "fp32", "float": "fp32",
    "float16": "fp16", "f16": "fp16", "half": "fp16",
    "bfloat16": "bf16", "bf16": "bf16",
    "int8": "int8", "i8": "int8", "uint8": "int8", "u8": "int8",
}  # fmt: skip


def dtype_word(name: str) -> str:
    """A dtype's name in this project's words; names of no precision (int64) stay."""
    cleaned = re.sub(r"tensor\(|\)|[<>']|type:? ?", "", name.lower()).strip()
    return _DTYPES.get(cleaned, cleaned)
