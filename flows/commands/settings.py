"""Where Prefect and MLflow keep their state, set before either is imported.

Prefect reads its settings when it is imported: whoever uses it calls `configure` first, and this
module imports neither.
"""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

from artifacts.registry.databases import plain, sqlite_url
from engineworks import loopback
from engineworks.store import explain_os_error

#: Written by `make ui` beside Prefect's database: where its server listens.
UI_FILE = "server.url"


def running_server(root: Path) -> str | None:
    """API address of the Prefect server that `make ui` runs on this state, if it answers."""
    try:
        url = (root / "prefect" / UI_FILE).read_text(encoding="utf-8").strip()
        with urllib.request.urlopen(f"{url}/api/health", timeout=2):  # noqa: S310 - 127.0.0.1
            return f"{url}/api"
    except (OSError, ValueError):
        return None


def configure(root: Path) -> None:
    """Keep Prefect's and MLflow's state under the state folder. Call before importing Prefect."""
    os.environ["ENGINEWORKS_HOME"] = str(root)
    loopback.spare(os.environ)
    loopback.without_socks(os.environ)
    defaults = {
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A first start creates the database; a slow disk needs more than the usual 20 s.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # Seven tries with growing pauses would keep a person waiting for many minutes.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "DO_NOT_TRACK": "1",
    }
    if not plain(root):  # Prefect would write the path into the address as it is
        url = sqlite_url(root / "prefect" / "prefect.db", "aiosqlite")
        defaults["PREFECT_API_DATABASE_CONNECTION_URL"] = url
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    server = running_server(root)
    if server is not None:
        os.environ.setdefault("PREFECT_API_URL", server)
    if "PREFECT_API_URL" in os.environ:
        # A server that restarts is waited for: 2 + 4 + ... s, eight minutes in all.
        os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "8")
    try:
        (root / "prefect").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, root) from error
