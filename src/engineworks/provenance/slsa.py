"""A link of the chain as an in-toto statement with SLSA's provenance.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://slsa.dev/spec/v1.0/provenance. Digests under `sha256` are those of files' bytes; an
artifact's own identity, which covers all of its files and its meaning, stands under `engineworks`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from engineworks import __version__
from engineworks.manifest import MANIFEST_NAME
from engineworks.provenance.lineage import Lineage, Link
from engineworks.provenance.run_facts import RunFacts

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"

#: Name of the digest that is an artifact's identity.
IDENTITY = "engineworks"


def statement(
    lineage: Lineage, link: Link, facts: RunFacts | None, *, whole: bool = False
) -> dict[str, Any]:
    """What was made, of what, with what and where.

    Args:
        lineage: The chain.
        link: One of it whose manifest is at hand.
        facts: What the run of the engine found.
        whole: Name everything that it was made of down to the trained model, not only its parents.
    """
    manifest = link.manifest
    assert manifest is not None  # noqa: S101 - the caller has looked
    made_of = lineage.ancestors(link) if whole else tuple(map(lineage.of, link.made_of))
    made = manifest.provenance
    external: dict[str, Any] = {"model": manifest.name}
    if manifest.target:
        external |= {"target": manifest.target, "precision": manifest.precision}
    if made.recipe_sha256:
        external["recipeSha256"] = made.recipe_sha256
    run_id = facts.run_id if facts and made.stage != "pin" else ""
    return {
        "_type": STATEMENT,
        "subject": _subjects(link),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"urn:engineworks:stage:{quote(made.stage, safe='')}:v1",
                "externalParameters": external,
                "resolvedDependencies": [
                    described for other in made_of for described in _dependencies(other)
                ],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:engineworks:machine:{quote(made.host or 'not-told', safe='')}",
                    "version": {"engineworks": __version__, **made.tools},
                },
                **({"metadata": {"invocationId": run_id}} if run_id else {}),
            },
        },
    }


def _title(link: Link) -> str:
    manifest = link.manifest
    if manifest is None:
        return f"artifact {link.sha256[:16]}"
    variant = f" {manifest.target}/{manifest.precision}" if manifest.target else ""
    return f"{manifest.kind} {manifest.name}{variant}"


def _subjects(link: Link) -> list[dict[str, Any]]:
    """The artifact by its identity, and every file by its bytes."""
    assert link.manifest is not None  # noqa: S101 - `statement` has looked
    files = {entry.path: entry.sha256 for entry in link.manifest.files}
    files[MANIFEST_NAME] = link.manifest_sha256
    return [
        {"name": _title(link), "digest": {IDENTITY: link.sha256}},
        *({"name": name, "digest": {"sha256": sha256}} for name, sha256 in files.items()),
    ]


def _dependencies(link: Link) -> list[dict[str, Any]]:
    if link.manifest is None:
        return [{"name": _title(link), "digest": {IDENTITY: link.sha256}}]
    made = link.manifest.provenance
    told: dict[str, Any] = {
        "kind": link.manifest.kind, "artifact": link.sha256, "stage": made.stage,
        "madeOf": list(link.made_of), "tools": dict(made.tools), "machine": made.host,
    }  # fmt: skip
    return [
        {
            "name": f"{_title(link)}: {entry.path}",
            "digest": {"sha256": entry.sha256},
            "annotations": told,
        }
        for entry in link.manifest.files
    ]
