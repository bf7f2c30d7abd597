"""What was asked of MLflow's embedded database need not be asked again while it is the same bytes.

Asking takes an import of seconds, where a run whose stages all come from the cache takes few. Equal
bytes give equal answers; of the logged files, names and sizes must be equal. A server is always
asked. Knows files, no MLflow.
"""

from __future__ import annotations

import os
from pathlib import Path

from artifacts.registry.ownership import Owner
from engineworks.codec import digest
from engineworks.store import file_sha256

#: Raised when more is asked of a registration than before: what was confirmed then is asked again.
_ASKED = 2


def state(home: Path, name: str, run_id: str, owner: Owner) -> str:
    """Digest of all that an answer about a model depends on; empty where a server must be asked."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return ""
    database_paths = sorted(home.glob("mlflow.db*"))
    if not database_paths:
        return ""
    logged = [
        (str(path.relative_to(home)), path.stat().st_size)
        for folder, _, files in os.walk(home / "mlruns" / name)
        for path in (Path(folder) / file for file in files)
    ]
    databases = [(path.name, file_sha256(path)) for path in database_paths]
    return digest([_ASKED, databases, sorted(logged), run_id, owner])


def is_known(home: Path, name: str, now: str) -> bool:
    """Whether MLflow has confirmed just this state."""
    path = _place(home, name, "confirmed")
    return bool(now) and path.is_file() and path.read_text(encoding="utf-8") == now


def keep(home: Path, name: str, then: str) -> None:
    """Remember a state that MLflow has confirmed: the one before it was asked."""
    _write(_place(home, name, "confirmed"), then)


def owns(home: Path, name: str, owner: Owner) -> bool:
    """Whether this home has registered the model for just this owner before."""
    path = _place(home, name, "owner")
    return path.is_file() and path.read_text(encoding="utf-8") == digest(owner)


def keep_owner(home: Path, name: str, owner: Owner) -> None:
    """Remember for whom this home has registered a model."""
    _write(_place(home, name, "owner"), digest(owner))


def _place(home: Path, name: str, what: str) -> Path:
    return home / "mlflow" / f"{name}.{what}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
