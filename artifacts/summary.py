"""summary.json: the public result of a run, a versioned schema that other programs may read.

Knows the facts, no Prefect and no MLflow. The schema is docs/summary.schema.json.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import older_summary
from engineworks.codec import from_json, to_json
from engineworks.errors import ArtifactError
from engineworks.facts.data import PinnedData
from engineworks.facts.engine import Accuracy, DeliveredPrecision, DetectionDiff, Meaning, Parity
from engineworks.facts.host import HostCard
from engineworks.facts.int8 import Calibration, Quantized
from engineworks.facts.model import Analysis, Exported, Reference, Simplified
from engineworks.facts.outcome import VariantOutcome
from engineworks.facts.package import Check, Packaged
from engineworks.facts.plan import Outcome
from engineworks.facts.sealed import SealedTest
from engineworks.facts.timing import BenchmarkRow, Comparison, PrecisionComparison
from engineworks.manifest import Artifact
from engineworks.specs import BudgetSpec

#: Raised with every change that a reader of summary.json could notice.
SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """One stage of this run; `elapsed_s` is what this run spent on it."""

    name: str
    variant: str
    elapsed_s: float
    cached: bool
    peak_mib: float
    log: str
    """Folder with request.json, command.txt and log.txt of the run that executed it; empty for
    `log`, which runs in the flow's own process."""

    @classmethod
    def whole(cls, name: str, variant: str, wall_s: float, *, cached: bool) -> StageTiming:
        """All that another machine did for an order."""
        return cls(
            name=name, variant=variant, elapsed_s=wall_s, cached=cached, peak_mib=0.0, log=""
        )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a variant."""

    sha256: str
    size_bytes: int
    uri: str


@dataclass(frozen=True, kw_only=True)
class PackageRow:
    """What one kind of server loads of a variant, and whether a real one has proven it."""

    kind: str
    state: str
    """proven, failed, pending, or skipped where the engine does not fit."""
    reason: str
    server: str = ""
    client: str = ""
    checks: tuple[Check, ...] = ()
    unproven: tuple[str, ...] = ()
    sha256: str = ""
    size_bytes: int = 0
    uri: str = ""
    log: str = ""
    """What the server printed."""


@dataclass(frozen=True, kw_only=True)
class SealedRow:
    """The sealed test of a variant's engine, or why it has none."""

    state: str
    """sealed, failed or skipped."""
    reason: str = ""
    pictures: int = 0
    photos: int = 0
    """How many of the pictures are photos."""
    notes: tuple[str, ...] = ()
    """Whose answers are expected, and what the test says less of."""
    replay_s: float = 0.0
    sha256: str = ""
    size_bytes: int = 0
    uri: str = ""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A variant's version in the model registry."""

    model: str
    version: str
    alias: str
    taken_from: str = ""
    """Whose version the alias was on before, where that was another recipe's."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table: the verdict and the facts behind it."""

    name: str
    target: str
    precision: str
    required: bool
    verdict: Outcome
    reason: str
    recommended: bool = False
    accuracy: Accuracy | None = None
    parity: Parity | None = None
    meaning: Meaning | None = None
    """Where no labels judge: whether its answers mean what the source model's mean."""
    delivered_precision: DeliveredPrecision | None = None
    benchmark: tuple[BenchmarkRow, ...] = ()
    environment: dict[str, Any] | None = None
    engine: Engine | None = None
    predictions: Artifact | None = None
    quantized: Quantized | None = None
    """INT8 only: the search that found its graph."""
    precision_comparison: PrecisionComparison | None = None
    """INT8 only: the next higher precision, timed side by side."""
    difference: DetectionDiff | None = None
    """Detection only: objects seen differently from the source model."""
    registered: Registered | None = None
    package: tuple[PackageRow, ...] = ()
    sealed: SealedRow | None = None
    """The test that goes with the engine; of a shipped variant only."""
    host: HostCard | None = None
    """The machine of the fleet that found all this; None: the one that ran the flow."""


def variant(outcome: VariantOutcome) -> Variant:
    """A variant's row: its outcome, flattened."""
    planned, verdict, built = outcome.planned, outcome.verdict, outcome.built
    row = Variant(
        name=planned.name,
        target=planned.target,
        precision=planned.precision,
        required=planned.required,
        verdict=verdict.verdict,
        reason=verdict.reason,
        quantized=outcome.quantized,
        precision_comparison=outcome.compared,
        package=tuple(map(_package, outcome.packages)),
        sealed=_sealed(outcome.sealed) if outcome.sealed is not None else None,
        host=outcome.host,
    )
    if built is None:
        return row
    artifact = built.engine
    engine = Engine(sha256=artifact.sha256, size_bytes=artifact.size_bytes, uri=artifact.uri)
    row = dataclasses.replace(row, delivered_precision=built.delivered_precision, engine=engine)
    if (checked := outcome.checked) is not None:
        facts = ("accuracy", "parity", "meaning", "predictions", "difference")
        row = dataclasses.replace(row, **{name: getattr(checked, name) for name in facts})
    if (timed := outcome.timed) is not None:
        row = dataclasses.replace(row, benchmark=timed.rows, environment=timed.environment)
    return row


def _sealed(sealed: SealedTest) -> SealedRow:
    row = SealedRow(
        state=sealed.state, reason=sealed.reason, pictures=sealed.pictures, photos=sealed.photos,
        notes=sealed.notes, replay_s=sealed.replay_s,
    )  # fmt: skip
    if (artifact := sealed.artifact) is None:
        return row
    return dataclasses.replace(
        row, sha256=artifact.sha256, size_bytes=artifact.size_bytes, uri=artifact.uri
    )


def _package(packaged: Packaged) -> PackageRow:
    proof, artifact = packaged.proof, packaged.artifact
    row = PackageRow(
        kind=packaged.kind,
        state=proof.state,
        reason=proof.reason,
        server=proof.server,
        client=proof.client,
        checks=proof.checks,
        unproven=proof.unproven,
        log=proof.log,
    )
    if artifact is None:
        return row
    return dataclasses.replace(
        row, sha256=artifact.sha256, size_bytes=artifact.size_bytes, uri=artifact.uri
    )


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Where the run is in MLflow."""

    tracking_uri: str
    run_id: str
    experiment_id: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything a run found."""

    schema: int
    run_id: str
    name: str
    recipe: str
    recipe_sha256: str
    host: HostCard
    size: tuple[int, int]
    budget: BudgetSpec
    data: PinnedData | None
    reference: Reference
    exported: Exported
    simplified: Simplified | None
    analysis: Analysis
    variants: tuple[Variant, ...]
    comparison: Comparison | None
    stages: tuple[StageTiming, ...]
    wall_s: float
    overhead_s: float
    """wall_s minus the time inside stages and the time spent waiting for other machines."""
    calibration: Calibration | None = None
    """Only when a variant in integers was asked for."""
    mlflow: Logged | None = None

    @property
    def shipped(self) -> tuple[Variant, ...]:
        """The variants that may go to devices."""
        return tuple(variant for variant in self.variants if variant.verdict == "shipped")

    @property
    def missed(self) -> tuple[Variant, ...]:
        """Required variants that are not shipped and will not be; a pending one still may."""
        return tuple(
            v for v in self.variants if v.required and v.verdict not in ("shipped", "pending")
        )

    @property
    def waiting(self) -> tuple[Variant, ...]:
        """Required variants that wait for another machine."""
        return tuple(v for v in self.pending if v.required)

    @property
    def failed_packages(self) -> tuple[str, ...]:
        """Packages of required variants that no server may load: `onnxruntime-cpu/fp32 triton`."""
        return self._packages("failed")

    @property
    def waiting_packages(self) -> tuple[str, ...]:
        """Packages of required variants that no server has proven yet."""
        return self._packages("pending")

    def _packages(self, state: str) -> tuple[str, ...]:
        return tuple(
            f"{variant.name} {row.kind}"
            for variant in self.variants
            if variant.required
            for row in variant.package
            if row.state == state
        )

    @property
    def pending(self) -> tuple[Variant, ...]:
        """Variants that wait for another machine; a later run completes them."""
        return tuple(v for v in self.variants if v.verdict == "pending")


def write(summary: Summary, path: Path) -> None:
    """Write summary.json whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(to_json(summary), indent=1) + "\n", encoding="utf-8")
    partial.rename(path)


def read(path: Path) -> Summary:
    """Read a summary.json of this schema, or of the one before.

    Raises:
        ArtifactError: It is of another schema.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("schema") == SCHEMA - 1:
        data = older_summary.renamed(data) | {"schema": SCHEMA}
    if data.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path} has schema {data.get('schema')!r}; this version reads {SCHEMA - 1} and "
            f"{SCHEMA}",
            hint="run again, or read it with the version of engineworks that wrote it",
        )
    return from_json(Summary, data)
