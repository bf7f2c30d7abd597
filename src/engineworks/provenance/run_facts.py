"""What a run's summary.json says of one engine: its scores, times, data, packages.

Reads what `ship` wrote, of any version: what is not there is left out. Knows no document's form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks import files
from engineworks.errors import ArtifactError
from engineworks.runtime import engines
from engineworks.store import is_identity

#: Bytes of a summary: the largest known has some 5 MB.
_MOST_BYTES = 2**26


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run, and the row of one engine in it."""

    run: dict[str, Any]
    row: dict[str, Any]

    @property
    def run_id(self) -> str:
        """Its name."""
        return str(self.run.get("run_id", ""))

    @property
    def machine(self) -> str:
        """What built and timed the engine, in words."""
        host = self.row.get("host") or self.run.get("host") or {}
        return " ".join(filter(None, (str(host.get("name", "")), str(host.get("cpu", "")))))

    @property
    def made_of_it(self) -> list[str]:
        """Identities of its packages and of its sealed test."""
        rows = [*(self.row.get("package") or ()), self.row.get("sealed") or {}]
        return [row["sha256"] for row in rows if is_identity(str(row.get("sha256", "")))]

    @property
    def simulated(self) -> bool:
        """Whether its engine is a double of a real one."""
        return bool(engines.simulated(str(self.row.get("target", ""))))


def facts_of(sha256: str, summaries: Iterable[Path], *, must: bool = False) -> RunFacts | None:
    """What a run says of an engine.

    Args:
        sha256: The engine's identity.
        summaries: Files to look in, the first that speaks of it counts.
        must: Whether one of them must.

    Raises:
        ArtifactError: It must, and does not; or it is no summary.
    """
    for path in summaries:
        try:
            run = json.loads(files.read_bytes(path, _MOST_BYTES))
            rows = [row for row in run["variants"] if row.get("engine")]
            row = next((row for row in rows if row["engine"].get("sha256") == sha256), None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if must:
                raise ArtifactError(
                    f"{path} is no summary of a run ({type(error).__name__})",
                    hint="give a run's summary.json",
                ) from error
            continue
        if row is not None:
            return RunFacts(run=run, row=row)
        if must:
            raise ArtifactError(
                f"{path} knows no engine {sha256[:16]}...", hint="it is of another run"
            )
    return None
