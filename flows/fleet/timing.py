"""Timing an engine that was shipped once more: what is asked, and how it is carried out here.

Always measured, never taken from the cache; and never put there, so that a later `ship` of the
same engine finds what it had found before.
"""

from __future__ import annotations

from dataclasses import dataclass

from engineworks import targets
from engineworks.codec import digest
from engineworks.facts.host import HostCard
from engineworks.facts.timing import Benchmark
from engineworks.specs import BenchmarkSpec, LimitsSpec, Size
from engineworks.stages.benchmark import BenchmarkRequest, SizedEngine
from tasks._run import Run
from tasks.benchmark import ANEW, note


@dataclass(frozen=True, kw_only=True)
class TimeOrder:
    """One engine for the machine that it was built on, at batch 1."""

    engine_sha256: str
    name: str
    """Of its variant."""
    target: str
    precision: str
    size: Size
    threads: int
    asked_at: str
    """When, which makes every order one of its own."""
    checkout_sha256: str

    @property
    def sha256(self) -> str:
        """Identity of the order."""
        return digest(self)


def carry_out(run: Run, order: TimeOrder, card: HostCard) -> Benchmark:
    """Time the engine on this machine.

    Raises:
        EngineworksError: It is nowhere, damaged, or does not open.
    """
    engine = run.store.get(order.engine_sha256)
    request = BenchmarkRequest(
        engines=(SizedEngine(size=order.size, engine=engine),),
        spec=BenchmarkSpec(batches=(1,), threads=order.threads),
        tools=targets.tools(order.target),
        host=card,
        store=str(run.store.root),
    )
    return ANEW.call(run, request, LimitsSpec().benchmark_s, order.name, note)
