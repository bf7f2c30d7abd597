"""What one installed TensorRT module can do, asked of the module itself.

Two routes lead to a precision. `weak`: the graph stays float32 and the builder may choose
narrower types (flags, calibrators; TensorRT 8 to 10). `strong`: the types of the graph are the
types of the engine (TensorRT 10 and newer, TensorRT-RTX). Knows no graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engineworks.errors import BuildError

WEAK, STRONG = "weak", "strong"


@dataclass(frozen=True)
class Api:
    """One TensorRT module."""

    trt: Any

    @property
    def version(self) -> str:
        """As the module says, for example "10.13.3.9"."""
        return str(self.trt.__version__)

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes this module has, the better first."""
        routes = []
        if hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            routes.append(STRONG)
        if hasattr(self.trt.BuilderFlag, "FP16"):
            routes.append(WEAK)
        return tuple(routes)

    def route(self, asked: str = "") -> str:
        """The route to take.

        Raises:
            BuildError: This TensorRT does not have the one asked for.
        """
        if not asked:
            return self.routes[0]
        if asked not in self.routes:
            raise BuildError(
                f"options.route: TensorRT {self.version} has no route {asked!r}",
                hint=f"it has: {', '.join(self.routes)}; leave the option out",
            )
        return asked

    def network_flags(self, route: str) -> int:
        """Argument of `create_network`."""
        flags = self.trt.NetworkDefinitionCreationFlag
        # Where there is one route only, the flag is a deprecated word without effect.
        wanted = "STRONGLY_TYPED" if route == STRONG else "EXPLICIT_BATCH"
        if self.routes == (STRONG,) or not hasattr(flags, wanted):
            return 0
        return 1 << int(getattr(flags, wanted))

    def member(self, enumeration: str, name: str, why: str) -> Any:
        """A member of an enumeration.

        Raises:
            BuildError: This TensorRT does not have it.
        """
        value = getattr(getattr(self.trt, enumeration, None), name, None)
        if value is None:
            raise BuildError(
                f"{why}: TensorRT {self.version} has no {enumeration}.{name}",
                hint="leave the option out, or use a TensorRT that has it",
            )
        return value

    def set_flag(self, config: Any, name: str, why: str) -> None:
        """Set a builder flag.

        Raises:
            BuildError: This TensorRT does not have it.
        """
        config.set_flag(self.member("BuilderFlag", name, why))
