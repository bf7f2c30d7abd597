"""What stages write beside their artifacts: provenance, and predictions as an artifact."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from engineworks import hosts
from engineworks.facts.prepared import Shared
from engineworks.manifest import Artifact, Provenance
from engineworks.store import LocalStore


def provenance(
    stage: str, shared: Shared, parents: tuple[Artifact, ...], *packages: str
) -> Provenance:
    """Who made an artifact, from what and with which tools."""
    return Provenance(
        stage=stage,
        parents=tuple(parent.sha256 for parent in parents),
        recipe_sha256=shared.recipe_sha256,
        tools=hosts.versions("engineworks", *packages),
        host=hosts.probe().name,
    )


def put_predictions(
    store: LocalStore, shared: Shared, predictions: list[Any], stage: str, parent: Artifact | None
) -> Artifact:
    """Keep a model's answers on the data: COCO results, or [file, class index, score] each."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "predictions.json")
        path.write_text(json.dumps(predictions), encoding="utf-8")
        return store.put(
            {"predictions.json": path},
            kind="predictions",
            name=shared.name,
            entry="predictions.json",
            provenance=provenance(stage, shared, (parent,) if parent else ()),
        )
