"""Where the model shall run, and how far the search for its INT8 engines may go.

Knows no target's rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from engineworks.codec import later, place
from engineworks.specs.ground import STRICT, must


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """One target and the precisions wanted on it."""

    __pydantic_config__ = STRICT

    target: str
    """Name of a target: see `engineworks targets`."""
    precisions: tuple[str, ...] = ("fp32",)
    """Each becomes one variant, for example openvino/fp16."""
    required: bool = True
    """The run fails when a required variant is not shipped."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this target: see `engineworks targets NAME`."""
    label: str = later(default="")
    """Names this set of options, where a target stands there with several: the variant is then
    called for example onnxruntime-cuda/fp16:graph."""
    pool: str = place(default="")
    """With `--fleet`: only machines of this work pool build it. Left out: any that can."""
    devices: Literal["one", "all"] = place(default="one")
    """With `--fleet`: build it on one machine that can, or on all of them, a row each."""

    def __post_init__(self) -> None:
        must(
            len(self.precisions) == len(set(self.precisions)) > 0,
            f"targets: {self.target} has precisions {list(self.precisions)}",
            "name each wanted precision once, for example [fp32, fp16]",
        )
        must(
            not self.label
            or re.fullmatch(r"(?=.{1,31}$)[a-z0-9]+([_-][a-z0-9]+)*", self.label) is not None,
            f"targets: {self.target} has the label {self.label!r}",
            "use up to 31 of a-z and 0-9, with single - or _ between them, for example graph",
        )


@dataclass(frozen=True, kw_only=True)
class Int8Spec:
    """How long the search for an INT8 engine that holds the budget may take."""

    __pydantic_config__ = STRICT

    goal: Literal["latency", "size"] = "latency"
    """What INT8 must gain over the next precision to be shipped, once it is accurate enough."""
    limit_s: float = 600.0
    """Time for one target's search, in seconds; the best found by then is taken."""
    evaluations: int = 200
    """Most candidates that are scored or timed."""
    images: int = 128
    """Images of `data` that score a candidate, spread evenly; the chosen one is then checked on
    all."""
    methods: tuple[str, ...] = (
        "minmax",
        "percentile-99.9",
        "percentile-99.99",
        "percentile-99.999",
        "entropy",
        "mse",
    )
    """How ranges may be chosen from what calibration saw."""

    def __post_init__(self) -> None:
        must(
            0 < self.limit_s <= 1e9 and self.evaluations > 0 and self.images > 0,
            f"int8: limit_s {self.limit_s}, evaluations {self.evaluations} and images "
            f"{self.images} must be greater than 0",
            "leave them out for their defaults",
        )
        must(len(self.methods) > 0, "int8.methods: the list is empty", "leave it out")
