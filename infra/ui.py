"""`make ui`: Prefect's and MLflow's pages on the state that runs left on this machine.

Both listen on 127.0.0.1 only. While they run, `make demo` uses this Prefect server instead of
starting its own. Ctrl-C stops both.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from artifacts.registry.databases import sqlite_url
from engineworks import streams
from engineworks.errors import StoreError
from engineworks.store import explain_os_error
from flows.commands.settings import UI_FILE, configure
from infra.ports import free_port


def _commands(root: Path, prefect: int, mlflow: int) -> dict[str, tuple[list[str], dict[str, str]]]:
    host, python = "127.0.0.1", sys.executable
    return {
        f"http://{host}:{prefect}": (
            [python, "-m", "prefect", "server", "start", "--host", host, "--port", str(prefect)],
            # Without it the page would ask port 4200, whatever port it is served from.
            {"PREFECT_SERVER_UI_API_URL": f"http://{host}:{prefect}/api"},
        ),
        f"http://{host}:{mlflow}": (
            [
                python, "-m", "mlflow", "server", "--host", host, "--port", str(mlflow),
                "--workers", "1", "--backend-store-uri", sqlite_url(root / "mlflow.db"),
                "--default-artifact-root", (root / "mlruns").as_uri(),
            ],
            # Its job runners take half a GiB and have nothing to do here.
            {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        ),
    }  # fmt: skip


def _wait(url: str, server: subprocess.Popen[bytes], log: Path, limit_s: float = 180) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if server.poll() is not None:
            raise RuntimeError(f"{url} did not start: see {log}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    raise RuntimeError(f"{url} did not answer within {limit_s:.0f} s: see {log}")


def _stop(servers: list[subprocess.Popen[bytes]]) -> None:
    for server in servers:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
    until = time.monotonic() + 10
    for server in servers:
        try:
            server.wait(timeout=max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def main(arguments: list[str] | None = None) -> int:
    """Start both, say where they are, wait for Ctrl-C."""
    streams.tolerate()
    parser = argparse.ArgumentParser(prog="python -m infra.ui", description=__doc__)
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    options = parser.parse_args(arguments)
    root = Path(os.environ.get("ENGINEWORKS_HOME") or ".engineworks").absolute()
    try:
        configure(root)
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    commands = _commands(root, free_port(options.prefect_port), free_port(options.mlflow_port))
    servers: list[subprocess.Popen[bytes]] = []
    marker = root / "prefect" / UI_FILE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for name, (command, extra) in zip(("prefect", "mlflow"), commands.values(), strict=True):
            log = root / "prefect" / f"{name}-server.log"
            with log.open("wb") as stream:
                environment = {**os.environ, **extra}
                environment.pop("PREFECT_API_URL", None)
                servers.append(
                    subprocess.Popen(
                        command, env=environment, stdout=stream, stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL, start_new_session=True,
                    )
                )  # fmt: skip
        for name, url, server in zip(("Prefect", "MLflow"), commands, servers, strict=True):
            _wait(url, server, root / "prefect" / f"{name.lower()}-server.log")
            sys.stdout.write(f"{name:<8}{url}\n")
            sys.stdout.flush()
        marker.write_text(next(iter(commands)), encoding="utf-8")
        sys.stdout.write("Ctrl-C stops both.\n")
        sys.stdout.flush()
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        sys.stderr.write(f"a server has ended by itself: see the logs in {root / 'prefect'}\n")
        return 3
    except OSError as error:
        sys.stderr.write(f"{explain_os_error(error, root)}\n")
        return 3
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except KeyboardInterrupt:
        return 0
    finally:
        # A second signal must not stop the stopping.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        marker.unlink(missing_ok=True)
        _stop(servers)


if __name__ == "__main__":
    raise SystemExit(main())
