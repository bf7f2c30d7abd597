"""A chain as a CycloneDX bill of materials, with the model card of its engine.

Source: https://cyclonedx.org/docs/1.6/json/. Hashes are those of files' bytes; an artifact's own
identity is the property `engineworks:identity`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from engineworks import __version__
from engineworks.manifest import Manifest, TensorSpec
from engineworks.provenance.lineage import Lineage, Link
from engineworks.provenance.run_facts import RunFacts
from engineworks.runtime import engines

#: Kinds of artifacts that are models in some form; others are data.
_MODELS = ("source", "onnx", "engine")

_WORDS = {
    "source": "the trained model as it was given",
    "onnx": "the graph",
    "reference": "inputs, and what the trained model answers to them",
    "calibration": "which values occur, for engines in integers",
    "engine": "what a device opens",
    "package": "what a server loads",
    "sealed": "pictures and the answers that the engine must give",
}

_DATA, _CALIBRATION = "data:evaluation", "data:calibration"


def bom(lineage: Lineage, facts: RunFacts | None) -> dict[str, Any]:
    """The bill of materials of one engine.

    Args:
        lineage: Its chain.
        facts: What its run found; None: the card has no numbers and no data.
    """
    data = _data_sets(facts)
    engine = _component(lineage.engine)
    engine["modelCard"] = _card(lineage.engine, facts, [item["bom-ref"] for item in data])
    engine["properties"] += _verdict(facts)
    others = [_component(link) for link in (*lineage.before, *lineage.after)]
    tools = _tools(lineage)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {
                "components": [
                    {"type": "application", "name": "engineworks", "version": __version__}
                ]
            },
            "component": engine,
        },
        "components": [*others, *data, *tools.values()],
        "dependencies": [
            {"ref": _ref(link), "dependsOn": _needs(lineage, link, tools)} for link in lineage.chain
        ],
    }


def _ref(link: Link) -> str:
    return f"artifact:{link.sha256}"


def _component(link: Link) -> dict[str, Any]:
    manifest = link.manifest
    identity = [_property("identity", link.sha256)]
    if manifest is None:
        return {
            "type": "data", "bom-ref": _ref(link), "name": f"artifact {link.sha256[:16]}",
            "description": "its manifest is not at hand: only its identity is known",
            "properties": identity,
        }  # fmt: skip
    made = manifest.provenance
    properties = [
        *identity, _property("kind", manifest.kind), _property("stage", made.stage),
        _property("machine", made.host), _property("recipe-sha256", made.recipe_sha256),
        _property("target", manifest.target), _property("precision", manifest.precision),
    ]  # fmt: skip
    component: dict[str, Any] = {
        "type": "machine-learning-model" if manifest.kind in _MODELS else "data",
        "bom-ref": _ref(link),
        "name": manifest.name or manifest.kind,
        "version": link.sha256[:16],
        "description": _WORDS.get(manifest.kind, manifest.kind),
        "properties": [item for item in properties if item["value"]],
        "components": [
            {
                "type": "file", "bom-ref": f"{_ref(link)}#{quote(entry.path)}", "name": entry.path,
                "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
            }
            for entry in manifest.files
        ],
    }  # fmt: skip
    if len(manifest.files) == 1:
        component["hashes"] = [{"alg": "SHA-256", "content": manifest.files[0].sha256}]
    return component


def _property(name: str, value: Any) -> dict[str, str]:
    return {"name": f"engineworks:{name}", "value": str(value)}


def _tools(lineage: Lineage) -> dict[str, dict[str, Any]]:
    """Every tool of every link, once: its reference -> the component."""
    tools = {}
    for link in lineage.chain:
        made = link.manifest.provenance.tools if link.manifest else {}
        for name, version in made.items():
            tools[_tool_ref(name, version)] = {
                "type": "library", "bom-ref": _tool_ref(name, version), "name": name,
                "version": version, "purl": f"pkg:pypi/{quote(name)}@{quote(version, safe='')}",
            }  # fmt: skip
    return tools


def _tool_ref(name: str, version: str) -> str:
    return f"tool:{name}@{version}"


def _needs(lineage: Lineage, link: Link, tools: dict[str, Any]) -> list[str]:
    made = link.manifest.provenance.tools if link.manifest else {}
    used = [_tool_ref(name, version) for name, version in made.items()]
    return [*(_ref(lineage.of(name)) for name in link.made_of), *(n for n in used if n in tools)]


def _data_sets(facts: RunFacts | None) -> list[dict[str, Any]]:
    """The pictures that judged the engine, and those that its ranges come from."""
    if facts is None:
        return []
    sets = []
    data = facts.run.get("data") or {}
    if data:
        spec = data.get("spec") or {}
        sets.append(
            _data_set(
                _DATA, spec.get("images", ""), f"{len(data.get('files') or ())} images, "
                f"{data.get('objects', 0)} labels: the engine was judged on them",
                {"data-sha256": data.get("sha256", "")},
            )
        )  # fmt: skip
    calibration = facts.run.get("calibration") or {}
    if calibration and facts.row.get("quantized"):
        images = (calibration.get("coverage") or {}).get("images", "")
        words = f"{images} images: ranges of engines in integers come from them".strip()
        sets.append(
            _data_set(
                _CALIBRATION, "calibration", words,
                {"identity": (calibration.get("artifact") or {}).get("sha256", "")},
            )
        )  # fmt: skip
    return sets


def _data_set(ref: str, place: Any, words: str, digests: dict[str, Any]) -> dict[str, Any]:
    name = PurePath(str(place)).name or ref  # no path of this machine
    properties = [_property(key, value) for key, value in digests.items() if value]
    return {
        "type": "data", "bom-ref": ref, "name": name, "description": words,
        "data": [
            {
                "type": "dataset", "name": name, "description": words,
                "contents": {"properties": properties},
            }
        ],
    }  # fmt: skip


def _card(link: Link, facts: RunFacts | None, data: list[str]) -> dict[str, Any]:
    manifest = link.manifest
    assert manifest is not None  # noqa: S101 - the engine's own is always at hand
    task = manifest.task
    parameters: dict[str, Any] = {
        "inputs": [{"format": _format(spec)} for spec in manifest.inputs],
        "outputs": [{"format": _format(spec)} for spec in manifest.outputs],
        "datasets": [{"ref": ref} for ref in data],
    }
    if task is not None and task.judged:
        parameters["task"] = task.kind
    labels = task.labels if task is not None and isinstance(task.labels, tuple) else ()
    card: dict[str, Any] = {
        "bom-ref": f"card:{link.sha256}",
        "modelParameters": parameters,
        "properties": [_property(f"class:{at}", name) for at, name in enumerate(labels)],
    }
    metrics = _metrics(facts)
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    limits = _limitations(manifest, facts)
    if limits:
        card["considerations"] = {"technicalLimitations": limits}
    return card


def _format(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _metrics(facts: RunFacts | None) -> list[dict[str, Any]]:
    if facts is None:
        return []
    metrics: list[dict[str, Any]] = []
    accuracy = facts.row.get("accuracy") or {}
    if accuracy:
        slice_ = f"{accuracy.get('images', 0)} images"
        values = {str(accuracy.get("metric", "")): accuracy.get("value")}
        values |= accuracy.get("detail") or {}
        values["drop against the source model"] = accuracy.get("drop")
        metrics += _known(values, slice_)
    for row in facts.row.get("benchmark") or ():
        where = (
            f"{row.get('height')}x{row.get('width')}, batch {row.get('batch')}, "
            f"{row.get('threads')} threads, {facts.machine}"
        )
        rows = _known(
            {
                "latency p50 ms": row.get("p50_ms"), "latency p95 ms": row.get("p95_ms"),
                "latency p99 ms": row.get("p99_ms"), "images per s": row.get("throughput_per_s"),
            },
            where,
        )  # fmt: skip
        low, high = (row.get("ci95_ms") or (None, None))[:2]
        if rows and low is not None:
            rows[0]["confidenceInterval"] = {
                "lowerBound": f"{low:.6g}",
                "upperBound": f"{high:.6g}",
            }
        metrics += rows
    return metrics


def _known(values: dict[str, Any], slice_: str) -> list[dict[str, Any]]:
    return [
        {"type": name, "value": f"{value:.6g}", "slice": slice_}
        for name, value in values.items()
        if name and isinstance(value, int | float)
    ]


def _limitations(manifest: Manifest, facts: RunFacts | None) -> list[str]:
    said: list[str] = []
    if why := engines.simulated(manifest.target):
        said.append(f"simulated: {why}")
    if facts is None:
        return [*said, "no summary of its run is at hand: it is not known how it was judged"]
    rows: Iterable[dict[str, Any]] = facts.row.get("benchmark") or ()
    said += sorted({f"times: {row['inconclusive']}" for row in rows if row.get("inconclusive")})
    for package in facts.row.get("package") or ():
        if package.get("state") != "proven":
            said.append(f"package {package.get('kind')}: {package.get('state')}")
    return said


def _verdict(facts: RunFacts | None) -> list[dict[str, str]]:
    if facts is None:
        return []
    named = {
        "variant": facts.row.get("name"), "verdict": facts.row.get("verdict"),
        "reason": facts.row.get("reason"), "run": facts.run_id,
    }  # fmt: skip
    return [_property(name, value) for name, value in named.items() if value]
