"""Where an engine comes from, in the forms that others read: CycloneDX, in-toto and SLSA.

Made from the manifests of the engine and of what it was made of, and from its run's summary.json.
Knows files and digests; opens no engine, signs nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engineworks.errors import ArtifactError
from engineworks.provenance import mlbom, slsa
from engineworks.provenance.lineage import Lineage, trace
from engineworks.provenance.run_facts import RunFacts, facts_of
from engineworks.store import explain_os_error

#: A model's bill of materials; the engine's statement; a statement for each link of the chain.
BOM, ENGINE, CHAIN = "bom.cdx.json", "engine.intoto.json", "chain.intoto.jsonl"


def write(lineage: Lineage, facts: RunFacts | None, output: Path) -> dict[str, Any]:
    """Write the three files.

    Args:
        lineage: The engine and what it was made of.
        facts: What its run found; None: not known, and the model card has no numbers.
        output: A folder that does not exist yet; it appears whole or not at all.

    Returns:
        What each file says, by its name.

    Raises:
        ArtifactError: `output` is there already.
        StoreError: The disk is full or cannot be written.
    """
    if output.exists():
        raise ArtifactError(f"{output} is there already", hint="give a new folder, or remove it")
    said: dict[str, Any] = {
        BOM: mlbom.bom(lineage, facts),
        ENGINE: slsa.statement(lineage, lineage.engine, facts, whole=True),
        CHAIN: [slsa.statement(lineage, link, facts) for link in lineage.chain if link.manifest],
    }
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent) as work:
            folder = Path(work, "provenance")
            folder.mkdir()
            for name, value in said.items():
                (folder / name).write_text(_text(value), encoding="utf-8")
            folder.rename(output)
    except OSError as error:
        raise explain_os_error(error, output) from error
    return said


def _text(value: Any) -> str:
    if isinstance(value, Sequence):
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in value)
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


__all__ = ["BOM", "CHAIN", "ENGINE", "Lineage", "RunFacts", "facts_of", "trace", "write"]
