"""What a search has measured so far, on disk line by line, so that an interrupted one goes on.

Knows keys and JSON, not what they mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines, each {"key": ..., "value": ...}; the last line of a key counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if path.exists():
            text = path.read_bytes()
            whole = text.rfind(b"\n") + 1  # a last line cut short by a crash is measured again
            for line in text[:whole].splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = entry["value"]
            with path.open("r+b") as stream:
                stream.truncate(whole)

    def get(self, key: str) -> dict[str, Any] | None:
        """What was measured for a key, or None."""
        return self._known.get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a measurement, at once."""
        self._known[key] = value
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, "value": value}) + "\n")

    def __len__(self) -> int:
        return len(self._known)
