"""What shipped variants are packaged as. Knows no kind of package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engineworks.specs.ground import STRICT, must


@dataclass(frozen=True, kw_only=True)
class PackageSpec:
    """One kind of package, made of every shipped variant that it fits, and proven."""

    __pydantic_config__ = STRICT

    package: str
    """Kind of package: triton, torchserve (docs/packages.md)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this kind."""
    photos: int = 8
    """Images of `data` that the proof sends to the real server, spread evenly over the names."""

    def __post_init__(self) -> None:
        must(
            1 <= self.photos <= 1000,
            f"packages: {self.package} has photos {self.photos}",
            "use 1 to 1000, for example 8",
        )
