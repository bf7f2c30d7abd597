"""Versions that carry an alias in MLflow's registry, and how fast they still are.

`candidate-<variant>` is set by `registry` when a variant ships, `champion-<variant>` by the flow
`promote`; `production-<variant>`, which people set by hand before that flow, counts where a variant
has no champion. A later latency becomes a point of a time series on the MLflow run that the version
came from, so that its page draws a chart, and tags of the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from artifacts.registry.mlflow_log import client, public_uri, speaking
from engineworks.errors import StoreError
from engineworks.facts.plan import slug
from engineworks.facts.timing import BenchmarkRow
from engineworks.specs import Size

Stage = Literal["champion", "candidate", "production"]
"""`production` is the older word for `champion`, and means the same."""

#: Aliases of a stage; a later one counts where there is no earlier one of the variant.
PREFIXES = {
    "candidate": ("candidate-",),
    "champion": ("champion-", "production-"),
    "production": ("champion-", "production-"),
}


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """A registered version, by what `registry` has written on it; empty: it has not."""

    model: str
    version: str
    run_id: str
    variant: str
    target: str = ""
    precision: str = ""
    sha256: str = ""
    machine: str = ""
    """Name of the machine that built and timed it."""
    size: Size | None = None
    threads: int = 0
    p50_ms: float = 0.0
    """Median latency at batch 1 when it was registered; 0: there is none."""


def promoted(home: Path, stage: Stage, model: str = "") -> list[Promoted]:
    """All versions with an alias of a stage, by model and variant.

    Args:
        home: State folder.
        stage: Which alias.
        model: Name of one registered model; empty: all.

    Raises:
        StoreError: MLflow does not answer, or has no such model.
    """
    with speaking(home):
        mlflow = client(home)
        names = _names(mlflow)
        if model and model not in names:
            raise StoreError(
                f"MLflow at {public_uri(home)} has no registered model {model!r}",
                hint=f"it has: {', '.join(sorted(names)) or 'none'}",
            )
        versions = []
        for name in [model] if model else sorted(names):
            aliases = mlflow.get_registered_model(name).aliases
            for variant, version in _chosen(aliases, stage):
                versions.append(_read(mlflow.get_model_version(name, version), variant))
    return versions


def _chosen(aliases: Mapping[str, Any], stage: Stage) -> list[tuple[str, Any]]:
    """(variant as the alias has it, version), by variant."""
    chosen: dict[str, Any] = {}
    for prefix in PREFIXES[stage]:
        for alias, version in aliases.items():
            if alias.startswith(prefix):
                chosen.setdefault(alias.removeprefix(prefix), version)
    return sorted(chosen.items())


def _names(mlflow: Any) -> list[str]:
    names, token = [], None
    while True:
        page = mlflow.search_registered_models(max_results=1000, page_token=token)
        names += [model.name for model in page]
        token = page.token
        if not token:
            return names


def _read(version: Any, variant: str) -> Promoted:
    tags = version.tags
    height, _, width = tags.get("size", "").partition("x")
    return Promoted(
        model=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        variant=tags.get("variant") or variant,
        target=tags.get("target", ""),
        precision=tags.get("precision", ""),
        sha256=tags.get("sha256", ""),
        machine=tags.get("machine", ""),
        size=(int(height), int(width)) if height and width else None,
        threads=int(tags.get("threads") or 0),
        p50_ms=float(tags.get("p50_ms") or 0),
    )


def note(home: Path, version: Promoted, row: BenchmarkRow, ratio: float, at: datetime) -> None:
    """Add a latency to a version's time series, and put it on the version.

    Args:
        home: State folder.
        version: The version.
        row: The measurement.
        ratio: Median latency now / when it was registered.
        at: When it was measured.

    Raises:
        StoreError: MLflow does not answer, or the version's run was deleted.
    """
    from mlflow.entities import Metric

    with speaking(home):
        mlflow = client(home)
        series = f"nightly/{slug(version.variant)}"
        step = len(mlflow.get_metric_history(version.run_id, f"{series}/p50_ms")) + 1
        facts = {
            "p50_ms": row.p50_ms, "p95_ms": row.p95_ms, "throughput_per_s": row.throughput_per_s
        }  # fmt: skip
        at_ms = int(at.timestamp() * 1000)
        mlflow.log_batch(
            version.run_id, [Metric(f"{series}/{k}", v, at_ms, step) for k, v in facts.items()]
        )
        tags = {
            "nightly.p50_ms": f"{row.p50_ms:.6g}",
            "nightly.at": at.isoformat(timespec="seconds"),
            "nightly.ratio": f"{ratio:.3f}",
        }
        for name, value in tags.items():
            mlflow.set_model_version_tag(version.model, version.version, name, value)
