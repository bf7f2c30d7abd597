"""Shipped variants in MLflow's model registry: a version each, and the alias of the candidate.

An engine that is registered already keeps its version: a version stands for bytes, and newer
measurements only renew its tags.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.mlflow_log import client, engine_path, slug
from artifacts.summary import Logged, Registered, Summary, Variant, main_row


def alias_of(variant: str) -> str:
    """Alias of the newest version of a variant that passed, not yet promoted."""
    return f"candidate-{slug(variant)}"


def register(summary: Summary, logged: Logged, home: Path) -> dict[str, Registered]:
    """Register every shipped variant: variant name -> version and alias."""
    mlflow = client(home)
    if summary.shipped:
        _model(mlflow, summary.name)
    known = mlflow.search_model_versions(f"name = '{summary.name}'", max_results=10000)
    versions = {version.tags.get("sha256", ""): str(version.version) for version in known}
    for variant in summary.variants:
        if variant.verdict != "shipped" and variant.engine is not None:
            _withdraw(mlflow, summary.name, variant, versions.get(variant.engine.sha256))
    return {
        variant.name: _register(mlflow, summary, logged, variant, versions)
        for variant in summary.shipped
    }


def _model(mlflow: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name, description="Registered by engineworks.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _withdraw(mlflow: Any, name: str, variant: Variant, version: str | None) -> None:
    """A version that would not ship any more says so, and is no candidate."""
    if version is None:
        return
    mlflow.set_model_version_tag(name, version, "verdict", variant.verdict)
    known = mlflow.get_registered_model(name)
    if str(known.aliases.get(alias_of(variant.name), "")) == version:
        mlflow.delete_registered_model_alias(name, alias_of(variant.name))


def _register(
    mlflow: Any, summary: Summary, logged: Logged, variant: Variant, versions: dict[str, str]
) -> Registered:
    assert variant.engine is not None  # noqa: S101 - it is shipped
    machine = variant.host or summary.host
    tags = {
        "variant": variant.name,
        "target": variant.target,
        "precision": variant.precision,
        "sha256": variant.engine.sha256,
        "verdict": variant.verdict,
        "machine": machine.name,
        "host": machine.cpu,
    }
    if variant.accuracy is not None:
        tags["metric"] = variant.accuracy.metric
        tags[variant.accuracy.metric] = f"{variant.accuracy.value:.4f}"
        tags["drop"] = f"{variant.accuracy.drop:.4f}"
    first = main_row(variant, summary.size)
    if first is not None:
        # All that a later benchmark needs to be of the same thing, and to compare.
        tags["size"] = f"{first.height}x{first.width}"
        tags["threads"] = str(first.threads)
        tags["p50_ms"] = f"{first.p50_ms:.6g}"
    version = versions.get(variant.engine.sha256)
    if version is None:
        created = mlflow.create_model_version(
            summary.name,
            source=f"runs:/{logged.run_id}/{engine_path(variant.name)}",
            run_id=logged.run_id,
            tags=tags,
            description=variant.reason,
        )
        version = versions[variant.engine.sha256] = str(created.version)
    else:
        for name, value in tags.items():
            mlflow.set_model_version_tag(summary.name, version, name, value)
    alias = alias_of(variant.name)
    mlflow.set_registered_model_alias(summary.name, alias, version)
    return Registered(model=summary.name, version=version, alias=alias)
