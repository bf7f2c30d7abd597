"""Stage `compare`: the shipped variants timed against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engineworks.codec import place
from engineworks.facts.host import HostCard
from engineworks.facts.timing import Comparison
from engineworks.manifest import Artifact
from engineworks.specs import (
    Size,
)
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore


@dataclass(frozen=True, kw_only=True)
class NamedEngine:
    """The engine of one variant."""

    variant: str
    engine: Artifact


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """Shipped variants against each other."""

    engines: tuple[NamedEngine, ...]
    size: Size
    threads: int
    tools: dict[str, str]
    host: HostCard
    store: str = place()


def compare(request: CompareRequest) -> Comparison:
    """Stage `compare`."""
    from engineworks.bench import compare as duel

    store = LocalStore(Path(request.store))
    engines = {
        named.variant: (store.open(named.engine), named.engine.manifest)
        for named in request.engines
    }
    return duel.run(engines, request.size, request.threads)


STAGE = Stage("compare", compare, CompareRequest, Comparison)
