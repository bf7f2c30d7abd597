"""Shipped variants in MLflow's model registry: a version each, and the alias of the candidate.

An engine that is registered already keeps its version: a version stands for bytes, and newer
measurements only renew its tags. What was registered once may be gone or moved by now:
`contradiction` asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifacts.registry import flavour, logged_files, ownership
from artifacts.registry.logged_files import is_finished, missing
from artifacts.registry.mlflow_log import client, engine_path
from artifacts.registry.ownership import Owner
from artifacts.summary import Logged, Registered, Summary, Variant
from artifacts.table import main_row
from engineworks.facts.plan import slug

_DESCRIPTION = "Registered by engineworks."


def alias_of(variant: str) -> str:
    """Alias of the newest version of a variant that passed, not yet promoted."""
    return f"candidate-{slug(variant)}"


def register(summary: Summary, logged: Logged, home: Path, owner: Owner) -> dict[str, Registered]:
    """Register every shipped variant: variant name -> version and alias.

    Raises:
        StoreError: The model of this name is another one.
    """
    mlflow = client(home)
    refuse_another(mlflow, summary.name, owner)
    if summary.shipped:
        _model(mlflow, summary.name)
        ownership.claim(mlflow, _found(mlflow, summary.name), summary.name, owner)
    versions = _versions(mlflow, summary)
    for variant in summary.variants:
        if variant.verdict != "shipped" and variant.engine is not None:
            _withdraw(mlflow, summary.name, variant, versions.get(_key(variant)))
    return {
        variant.name: _register(mlflow, summary, logged, variant, versions, owner)
        for variant in summary.shipped
    }


def refuse_another(mlflow: Any, name: str, owner: Owner) -> None:
    """Refuse a recipe whose name is that of another model.

    Raises:
        StoreError: The model of this name is another one.
    """
    model = _found(mlflow, name)
    if model is None:
        return
    if not ownership.is_said(model) and not _is_ours(mlflow, model):
        raise ownership.stranger(name, owner)
    ownership.check(model, name, owner)


def _is_ours(mlflow: Any, model: Any) -> bool:
    """Whether a model that does not say whose it is was made here, or is shared knowingly."""
    if model.description == _DESCRIPTION:
        return True
    versions = mlflow.search_model_versions(f"name = '{model.name}'", max_results=10000)
    return any(
        {"sha256", "variant"} <= set(version.tags)
        or any(tag.startswith("engineworks.") for tag in version.tags)
        for version in versions
    )


def contradiction(
    summary: Summary, logged: Logged, registered: dict[str, Registered], home: Path, owner: Owner
) -> str:
    """What of an earlier registration is true no more; empty when all of it stands.

    Args:
        summary: The facts.
        logged: Where they were logged.
        registered: What was registered of them.
        home: State folder.
        owner: Who registers.
    """
    mlflow = client(home)
    finished = is_finished(mlflow, logged.run_id)
    if not finished or not logged_files.are_whole(mlflow, logged.run_id, ""):
        return f"MLflow has no whole run {logged.run_id} any more"
    model = _found(mlflow, summary.name)
    if model is None:
        return f"MLflow has no registered model {summary.name} any more" if registered else ""
    versions = _versions(mlflow, summary)
    for variant in summary.variants:
        if variant.engine is None:
            continue
        version, alias = versions.get(_key(variant)), alias_of(variant.name)
        carries = str(model.aliases.get(alias, ""))
        if variant.verdict == "shipped":
            claimed = registered.get(variant.name)
            if claimed is None or version != claimed.version:
                return f"version {claimed.version if claimed else '?'} is gone"
            if carries != version:
                return f"{alias} is on version {carries or 'none'}, not on {version}"
            known = mlflow.get_model_version(summary.name, version)
            if any(known.tags.get(k) != v for k, v in _tags(summary, variant, owner).items()):
                return f"the tags of version {version} are of another run"
            if not flavour.has(mlflow, *_place(known)):
                return f"version {version} is from before MLflow could load it"
        elif version is not None and carries == version:
            return f"{alias} is on version {version}, which is {variant.verdict}"
    return ""


def _found(mlflow: Any, name: str) -> Any:
    """The registered model, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_registered_model(name)
    except MlflowException as error:
        if not missing(error):
            raise
        return None


#: The identity of an engine, and the variant that it is registered as: two sets of options may give
#: the same bytes.
Key = tuple[str, str]


def _key(variant: Variant) -> Key:
    return (variant.engine.sha256 if variant.engine is not None else "", variant.name)


def _versions(mlflow: Any, summary: Summary) -> dict[Key, str]:
    """Version by its engine and variant, for a run's engines, where its files still are."""
    wanted = {_key(variant) for variant in summary.variants if variant.engine is not None}
    known = mlflow.search_model_versions(f"name = '{summary.name}'", max_results=10000)
    numbers: dict[Key, str] = {}
    for version in sorted(known, key=lambda item: int(item.version)):
        tags = version.tags
        # One that does not say whose it is stands for its bytes.
        keys = [key for key in wanted if key == (tags.get("sha256"), tags.get("variant", key[1]))]
        if not keys:
            continue
        if version.run_id and logged_files.are_whole(mlflow, *_place(version)):
            numbers |= dict.fromkeys(keys, str(version.version))
    return numbers


def _place(version: Any) -> tuple[str, str]:
    """The run that a version's files are in, and their folder there."""
    run_id = str(version.run_id or "")
    return run_id, str(version.source or "").removeprefix(f"runs:/{run_id}/")


def _model(mlflow: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name, description=_DESCRIPTION)
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


def _tags(summary: Summary, variant: Variant, owner: Owner) -> dict[str, str]:
    """What a version says of itself."""
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
        "recipe": owner.recipe,
    }
    if variant.sealed is not None and variant.sealed.sha256:
        tags["sealed"] = variant.sealed.sha256
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
    return tags


def _register(
    mlflow: Any,
    summary: Summary,
    logged: Logged,
    variant: Variant,
    versions: dict[Key, str],
    owner: Owner,
) -> Registered:
    assert variant.engine is not None  # noqa: S101 - it is shipped
    tags = _tags(summary, variant, owner)
    version = versions.get(_key(variant))
    if version is None:
        created = mlflow.create_model_version(
            summary.name,
            source=f"runs:/{logged.run_id}/{engine_path(variant.name)}",
            run_id=logged.run_id,
            tags=tags,
            description=variant.reason,
        )
        version = versions[_key(variant)] = str(created.version)
    else:
        for name, value in tags.items():
            mlflow.set_model_version_tag(summary.name, version, name, value)
    flavour.add(mlflow, *_place(mlflow.get_model_version(summary.name, version)))
    alias = alias_of(variant.name)
    taken_from = _taken_from(mlflow, summary.name, alias, version, owner)
    mlflow.set_registered_model_alias(summary.name, alias, version)
    return Registered(model=summary.name, version=version, alias=alias, taken_from=taken_from)


def _taken_from(mlflow: Any, name: str, alias: str, version: str, owner: Owner) -> str:
    """Whose version an alias is on, where that is another recipe's; else empty."""
    before = str(mlflow.get_registered_model(name).aliases.get(alias, ""))
    if before in ("", version):
        return ""
    recipe = mlflow.get_model_version(name, before).tags.get("recipe", "")
    if recipe == owner.recipe:
        return ""
    return f"version {before} of {recipe}" if recipe else f"version {before}, of no recipe"
