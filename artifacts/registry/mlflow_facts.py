"""A run's facts as MLflow takes them: numbers, parameters, tags and data sets. Asks no server.

Every number of summary.json is a metric named by its path. A list whose entries have no name of
their own becomes the steps of one metric: the trials of a search are a curve.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.summary import Summary, Variant
from artifacts.table import main_row, markdown
from engineworks.codec import to_json
from engineworks.facts.data import PinnedData
from engineworks.facts.plan import slug

#: (name, value, step)
Number = tuple[str, float, int]

#: Parts of summary.json that describe files, machines and the format, and measure nothing.
_OTHER = ("manifest", "host", "environment", "schema", "budget", "spec")

#: Fields by which the entries of a list are called, the first that all of them have.
_SHAPE = ("height", "width", "batch")
_NAMED_BY = (
    ("name", "variant"), ("variant",), ("name",), _SHAPE, ("output", "batch"), ("part",), ("kind",),
    ("exporter",), ("tensor",), ("file",),
)  # fmt: skip

#: What MLflow takes in the name of a metric or a parameter, and how much of it.
_STRANGE = re.compile(r"[^\w.\- :/]", re.ASCII)
_LONGEST_NAME, _LONGEST_VALUE = 250, 6000

#: MLflow keeps so many characters of a data set's digest.
_DIGEST = 36


def numbers(summary: Summary) -> list[Number]:
    """Every number, and the handful that a table of runs is read by."""
    facts: dict[str, Any] = to_json(summary)
    variants = facts.pop("variants")
    figures = [(name, value, 0) for name, value in _handy(summary)]
    figures += _walk(facts, "", 0)
    for row in variants:
        figures += _walk(row, slug(row["name"]), 0)
    return figures


def _walk(value: Any, path: str, step: int) -> Iterator[Number]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _OTHER:
                yield from _walk(item, f"{path}/{key}", step)
    elif isinstance(value, list):
        names = _names(path.rpartition("/")[2], value)
        for number, item in enumerate(value):
            if names:
                yield from _walk(item, f"{path}/{names[number]}", step)
            else:
                yield from _walk(item, path, number)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield _clean(path), float(value), step


def _names(key: str, items: list[Any]) -> list[str]:
    """A name for each entry of a list; empty: they have none, and are steps."""
    if len(items) == 2 and ("ci95" in key or key == "size"):
        return ["low", "high"] if "ci95" in key else ["height", "width"]
    if not items or not all(isinstance(item, dict) for item in items):
        return []
    for fields in _NAMED_BY:
        if all(field in item for item in items for field in fields):
            return _numbered([_name(item, fields) for item in items])
    return []


def _name(item: dict[str, Any], fields: tuple[str, ...]) -> str:
    if fields == _SHAPE:
        return f"{item['height']}x{item['width']}/batch{item['batch']}"
    parts = [f"batch{item[field]}" if field == "batch" else str(item[field]) for field in fields]
    return "/".join(slug(word) for word in parts if word)


def _numbered(names: list[str]) -> list[str]:
    """The same, the second of a name with a 2 behind it."""
    counts: Counter[str] = Counter()
    told = []
    for name in names:
        counts[name] += 1
        told.append(name if counts[name] == 1 else f"{name}-{counts[name]}")
    return told


def _clean(name: str) -> str:
    parts = [part.strip() for part in _STRANGE.sub("_", name).split("/")]
    return "/".join(part for part in parts if part.strip("."))[:_LONGEST_NAME]


def _handy(summary: Summary) -> Iterator[tuple[str, float]]:
    """What people sort runs by, under short names."""
    if summary.reference.value is not None:
        yield "reference", summary.reference.value
    yield "flops", float(summary.analysis.flops)
    yield "parameters", float(summary.analysis.parameters)
    for variant in summary.variants:
        for name, value in _of_variant(variant, summary).items():
            if value is not None and math.isfinite(value):
                yield _clean(f"{slug(variant.name)}/{name}"), float(value)


def _of_variant(variant: Variant, summary: Summary) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    if variant.accuracy is not None:
        figures.update(variant.accuracy.detail)
        figures["drop"] = variant.accuracy.drop
    if variant.engine is not None:
        figures["size_mib"] = variant.engine.size_bytes / 2**20
    if (first := main_row(variant, summary.size)) is not None:
        figures["p50_ms"] = first.p50_ms
    return figures


def tags(summary: Summary) -> dict[str, str]:
    """Words: the table, verdicts with their reasons, what servers have proven."""
    labels = {
        "mlflow.note.content": markdown(summary),
        "engineworks.recipe_sha256": summary.recipe_sha256,
        "engineworks.recommended": summary.comparison.recommended if summary.comparison else "",
        "engineworks.host": summary.host.cpu,
    }
    for variant in summary.variants:
        name = slug(variant.name)
        labels[f"verdict.{name}"] = variant.verdict
        labels[f"reason.{name}"] = variant.reason[:5000]
        labels |= {f"package.{name}.{package.kind}": package.state for package in variant.package}
    return labels


def parameters(summary: Summary, resolved: Path | None) -> dict[str, str]:
    """What was asked: every key of the recipe, with its defaults.

    Args:
        summary: The run's facts.
        resolved: The recipe as it was understood, JSON; None: it is not there.
    """
    texts = {
        "recipe": summary.name,
        "size": f"{summary.size[0]}x{summary.size[1]}",
        "exporter": summary.exported.chosen,
        "opset": str(summary.exported.opset),
        "simplified": str(bool(summary.simplified and summary.simplified.kept)),
        "variants": ", ".join(variant.name for variant in summary.variants),
        "images": str(summary.reference.images),
        "cpu": summary.host.cpu,
    }
    if resolved is not None:
        recipe = json.loads(resolved.read_text(encoding="utf-8"))
        texts |= dict(_keys(recipe, "recipe"))
    return {_clean(name): text[:_LONGEST_VALUE] for name, text in texts.items()}


def _keys(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _keys(item, f"{path}.{key}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _keys(item, f"{path}.{number}")
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def data_sets(summary: Summary) -> list[dict[str, str]]:
    """The data sets of a run: name, digest, source, profile and what it was used for."""
    if summary.data is None:
        return []
    return [_data_set(summary.data, "evaluation")]


def _data_set(data: PinnedData, use: str) -> dict[str, str]:
    profile = {"images": len(data.files), "objects": data.objects, "bad": len(data.bad)}
    source = {"images": data.spec.images, "annotations": data.spec.annotations}
    return {
        "name": Path(data.spec.images).name or "data",
        "digest": data.sha256[:_DIGEST],
        "source": json.dumps(source),
        "profile": json.dumps(profile),
        "use": use,
    }
