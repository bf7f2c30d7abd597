"""Where an engine comes from, in the forms that others read: CycloneDX, in-toto and SLSA.

Made from the manifests of the engine and of what it was made of, and from its run's summary.json.
Knows files and digests; opens no engine and reads no key: what signs is given.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engineworks.errors import ArtifactError
from engineworks.provenance import mlbom, slsa
from engineworks.provenance.lineage import Lineage, trace
from engineworks.provenance.run_facts import RunFacts, facts_of
from engineworks.store import explain_os_error

#: A model's bill of materials; the engine's statement; a statement for each link of the chain.
BOM, ENGINE, CHAIN = "bom.cdx.json", "engine.intoto.json", "chain.statements.jsonl"

#: All statements in signed envelopes, the engine's first: what in-toto calls a bundle.
SIGNED = "attestations.intoto.jsonl"

#: Bytes -> the name of the key and the signature.
Sign = Callable[[bytes], tuple[str, bytes]]

_PAYLOAD = "application/vnd.in-toto+json"


def write(
    lineage: Lineage, facts: RunFacts | None, output: Path, sign: Sign | None = None
) -> dict[str, Any]:
    """Write the files.

    Args:
        lineage: The engine and what it was made of.
        facts: What its run found; None: not known, and the model card has no numbers.
        output: A folder that does not exist yet; it appears whole or not at all.
        sign: Signs the statements; None: they are not signed.

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
    if sign is not None:
        said[SIGNED] = [envelope(item, sign) for item in (said[ENGINE], *said[CHAIN])]
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


def envelope(statement: dict[str, Any], sign: Sign) -> dict[str, Any]:
    """A statement as DSSE signs it (https://github.com/secure-systems-lab/dsse, version 1)."""
    payload = json.dumps(statement, ensure_ascii=False).encode()
    said = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    key, signature = sign(said)
    return {
        "payloadType": _PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key, "sig": base64.b64encode(signature).decode()}],
    }


def _text(value: Any) -> str:
    if isinstance(value, Sequence):
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in value)
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


__all__ = [
    "BOM",
    "CHAIN",
    "ENGINE",
    "SIGNED",
    "Lineage",
    "RunFacts",
    "envelope",
    "facts_of",
    "trace",
    "write",
]
