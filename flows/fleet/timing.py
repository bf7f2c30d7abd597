"""Timing an engine that was shipped once more: what is asked, and how it is carried out here.

Always measured, never taken from the cache; and never put there, so that a later `ship` of the
same engine finds what it had found before.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from engineworks import targets
from engineworks.codec import digest, later
from engineworks.evaluate.paired import Paired
from engineworks.facts.data import PinnedData
from engineworks.facts.host import HostCard
from engineworks.facts.prepared import Shared
from engineworks.facts.timing import Benchmark, Comparison
from engineworks.manifest import Artifact
from engineworks.specs import BenchmarkSpec, LimitsSpec, Size
from engineworks.stages.benchmark import BenchmarkRequest, SizedEngine
from engineworks.stages.compare import CompareRequest, NamedEngine
from engineworks.stages.pair import PairRequest
from flows.fleet.attachments import settled
from tasks import benchmark, compare, pair
from tasks._run import Run

#: The two engines of a race.
ASKED, BESIDE = "asked", "beside"

#: What an order finds: the latency of one engine, a race of two, or their answers to photos.
Timed = Benchmark | Comparison | Paired


@dataclass(frozen=True, kw_only=True)
class AskedPhotos:
    """Labelled photos that two engines are to answer."""

    shared: Shared
    """Task, labels and preprocessing."""
    data: PinnedData
    files: Artifact | None
    """The photos and labels for a machine that has none; None: they lie where `data` says."""
    max_drop: float


@dataclass(frozen=True, kw_only=True)
class TimeOrder:
    """One engine at batch 1, or two in a race or on photos, for the machine that built it."""

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
    beside_sha256: str = later(default="")
    """Another engine of the same variant, to be raced against; empty: none."""
    photos: AskedPhotos | None = later(default=None)
    """Both answer these instead."""

    @property
    def sha256(self) -> str:
        """Identity of the order."""
        return digest(self)


def carry_out(run: Run, order: TimeOrder, card: HostCard) -> Timed:
    """Measure on this machine: an engine alone, two in a race, or two on photos.

    Raises:
        EngineworksError: An engine is nowhere, damaged, or does not open; photos are not here.
    """
    if order.photos is not None:
        return _pair(run, order, order.photos, card)
    return _race(run, order, card) if order.beside_sha256 else _latency(run, order, card)


def _latency(run: Run, order: TimeOrder, card: HostCard) -> Benchmark:
    request = BenchmarkRequest(
        engines=(SizedEngine(size=order.size, engine=run.store.get(order.engine_sha256)),),
        spec=BenchmarkSpec(batches=(1,), threads=order.threads),
        tools=targets.tools(order.target),
        host=card,
        store=str(run.store.root),
    )
    limit_s = LimitsSpec().benchmark_s
    return benchmark.ANEW.call(run, request, limit_s, order.name, benchmark.note)


def _race(run: Run, order: TimeOrder, card: HostCard) -> Comparison:
    engines = {ASKED: order.engine_sha256, BESIDE: order.beside_sha256}
    request = CompareRequest(
        engines=tuple(
            NamedEngine(variant=name, engine=run.store.get(sha256))
            for name, sha256 in engines.items()
        ),
        size=order.size,
        threads=order.threads,
        tools=targets.tools(order.target),
        host=card,
        store=str(run.store.root),
    )
    return compare.TASK.anew.call(run, request, LimitsSpec().benchmark_s, order.name, words)


def _pair(run: Run, order: TimeOrder, photos: AskedPhotos, card: HostCard) -> Paired:
    request = PairRequest(
        shared=dataclasses.replace(photos.shared, store=str(run.store.root)),
        candidate=run.store.get(order.engine_sha256),
        champion=run.store.get(order.beside_sha256),
        data=settled(run.store, photos.data, photos.files),
        size=order.size,
        max_drop=photos.max_drop,
        threads=order.threads,
        tools=targets.tools(order.target),
        host=card,
    )
    return pair.pair(run, request, order.name)


def words(timed: Timed) -> str:
    """What was found, in a few words."""
    if isinstance(timed, Benchmark):
        return f"p50 {timed.rows[0].p50_ms:.3g} ms"
    if isinstance(timed, Paired):
        return pair.note(timed)
    return ", ".join(
        f"{contender.variant} {contender.p50_ms:.3g} ms" for contender in timed.contenders
    )
