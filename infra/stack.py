"""The whole stack on one machine, no Docker: `make stack`, `make stack-demo`, `make stack-stop`.

Prefect server, MLflow server, an S3 server and one worker per pool, each with a state folder of
its own and no disk in common. All listen on 127.0.0.1. Prefect keeps its data in a PostgreSQL of
the stack's own where this machine has one, else in SQLite, or where
PREFECT_API_DATABASE_CONNECTION_URL says (postgresql+asyncpg://...).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from artifacts.registry.databases import sqlite_url
from engineworks import loopback, streams
from flows.fleet import pools as kinds
from infra import postgres
from infra.ports import free_port
from infra.s3 import S3Server

TOP = Path(__file__).parents[1]
#: One worker each, in the pool of that name.
POOLS = kinds.names()
BUCKET = "engineworks"


class Stack:
    """All processes of one stack, found again by the file `stack.json` in its folder."""

    def __init__(
        self, folder: Path, *, mlflow: bool = True, database: bool = True, password: str = ""
    ) -> None:
        """A stack in a folder, new or as it was left.

        Args:
            folder: Where all of its state lies.
            mlflow: Whether it has an MLflow server; else machines log into files of their own.
            database: Whether Prefect may keep its data in PostgreSQL.
            password: `user:password` that Prefect's API asks for; empty: it asks for none.
        """
        self.folder = folder.absolute()
        self._password = password
        self._with_database = database
        self._with_mlflow = mlflow
        self._file = self.folder / "stack.json"
        self._state: dict[str, Any] = {"processes": {}}
        if self._file.is_file():
            self._state = json.loads(self._file.read_text(encoding="utf-8"))

    @property
    def running(self) -> bool:
        """Whether any of its processes lives."""
        return any(self._process(name) for name in self._state["processes"])

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this stack needs; `PATH` and the like come from the caller."""
        return {
            **self._state["environment"],
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def start(self, pools: tuple[str, ...] = POOLS) -> None:
        """Start everything and wait until every worker is registered."""
        self.start_servers()
        self.deploy()
        for pool in pools:
            self.start_worker(pool)
        self.wait_for_workers(pools)

    def start_servers(self) -> None:
        """Start the servers and wait until they answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._state.get("environment"):
            self._new()
        self._start_s3()
        self._start_servers()

    def reach_by(self, **addresses: str) -> None:
        """Have machines and commands use other addresses of the servers: those of a proxy."""
        self._state["environment"] |= addresses
        self._save()

    def deploy(self) -> None:
        """Register work pools and deployments."""
        (self.folder / "deploy").mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "infra.deploy"], cwd=TOP, check=True, timeout=400,
            env=self._environment(self.folder / "deploy"), stdout=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def ports(self) -> dict[str, int]:
        """Where the servers listen."""
        s3 = self._state["s3"][2]
        return {"prefect": self._state["prefect"], "mlflow": self._state["mlflow"], "s3": s3}

    def dump_database(self) -> bytes:
        """All that Prefect's server keeps in PostgreSQL, as SQL; empty with SQLite."""
        if not self._state.get("postgres"):
            return b""
        return postgres.dump(*self._state["postgres"])

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret of this stack, which no log and no file of a machine may hold."""
        database = self._state.get("postgres") or [0, ""]
        found = (self._state["s3"][1], database[1], self._password.partition(":")[2])
        return tuple(secret for secret in found if secret)

    def _new(self) -> None:
        prefect = free_port(4200)
        key, secret = "stack", secrets.token_hex(16)
        server = S3Server(self.folder / "s3", key=key, secret=secret, bucket=BUCKET)
        self._state |= {
            "postgres": self._new_database(),
            "prefect": prefect,
            "mlflow": free_port(5000) if self._with_mlflow else None,
            "s3": [key, secret, int(server.url.rpartition(":")[2])],
            "environment": {
                **server.environment,
                "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
                "ENGINEWORKS_STORE": f"s3://{BUCKET}/stack",
                **({"PREFECT_API_AUTH_STRING": self._password} if self._password else {}),
            },
        }
        if self._state["mlflow"]:
            url = f"http://127.0.0.1:{self._state['mlflow']}"
            self._state["environment"]["MLFLOW_TRACKING_URI"] = url
        self._save()

    def _new_database(self) -> list[Any] | None:
        """[port, password] of a PostgreSQL, or None: SQLite."""
        given = "PREFECT_API_DATABASE_CONNECTION_URL" in os.environ
        if given or not self._with_database or postgres.programs() is None:
            return None
        password = secrets.token_hex(16)
        try:
            postgres.create(self.folder / "postgres", password)
        except OSError as error:
            self.log("postgres").parent.mkdir(exist_ok=True)
            self.log("postgres").write_text(f"SQLite in its place: {error}\n", encoding="utf-8")
            return None
        return [free_port(), password]

    @property
    def database(self) -> str:
        """What Prefect's server keeps its data in, for people."""
        if self._state.get("postgres"):
            return f"PostgreSQL in {self.folder / 'postgres'}"
        if "PREFECT_API_DATABASE_CONNECTION_URL" in os.environ:
            return "PREFECT_API_DATABASE_CONNECTION_URL"
        return f"SQLite in {self.folder / 'prefect'}"

    def _start_database(self) -> dict[str, str]:
        """Start PostgreSQL where the stack has one; what Prefect's server must know of it."""
        if not self._state.get("postgres"):
            return {}
        port, password = self._state["postgres"]
        self._run(
            "postgres", postgres.command(self.folder / "postgres", port), {}, postgres.account()
        )
        return {"PREFECT_API_DATABASE_CONNECTION_URL": postgres.url(port, password)}

    def _start_s3(self) -> None:
        key, secret, port = self._state["s3"]
        server = S3Server(self.folder / "s3", key=key, secret=secret, bucket=BUCKET, port=port)
        server.start()
        assert server.process is not None  # noqa: S101 - it was just started
        self._note("s3", server.process.pid)

    def _start_servers(self) -> None:
        prefect, mlflow = self._state["prefect"], self._state["mlflow"]
        for name, port in (("prefect", prefect), ("mlflow", mlflow)):
            if port and self._process(name) is None and _answers(port):
                # Its pages would answer in place of ours, and two plants would mix.
                raise RuntimeError(f"port {port} of {name} is taken by another program")
        home = self.folder / "prefect"
        home.mkdir(exist_ok=True)
        database = self._start_database()
        if database:
            self._wait_for_port("postgres", self._state["postgres"][0])
        self._spawn(
            "prefect",
            ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect)],
            {
                "PREFECT_HOME": str(home),
                **database,
                **({"PREFECT_SERVER_API_AUTH_STRING": self._password} if self._password else {}),
                # Without it the page would ask port 4200, whatever port it is served from.
                "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{prefect}/api",
            },
        )
        if mlflow:
            self._start_mlflow(mlflow)
        self._wait("prefect", prefect, "/api/health")
        if mlflow:
            self._wait("mlflow", mlflow, "/health")

    def _start_mlflow(self, mlflow: int) -> None:
        data = self.folder / "mlflow"
        data.mkdir(exist_ok=True)
        self._spawn(
            "mlflow",
            [
                "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow),
                "--workers", "1", "--backend-store-uri", sqlite_url(data / "mlflow.db"),
                "--artifacts-destination", (data / "artifacts").as_uri(),
            ],
            # Its job runners take half a GiB and have nothing to do here.
            {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip

    def start_worker(self, pool: str, before: tuple[str, ...] = ()) -> None:
        """Start the worker of a pool, with its own state folder.

        Args:
            pool: The pool.
            before: Words in front of its command, for example `faketime`.
        """
        home = self.home_of(pool)
        home.mkdir(parents=True, exist_ok=True)
        self._spawn(
            f"worker-{pool}",
            ["flows.worker", "--pool", pool, "--name", self.host_of(pool)],
            {
                **self._environment(home),
                "PREFECT_WORKER_QUERY_SECONDS": "2",
            },
            before,
        )

    def host_of(self, pool: str) -> str:
        """Name of the one machine of a pool."""
        return f"{pool}-1"

    def home_of(self, pool: str) -> Path:
        """State folder of the worker of a pool."""
        return self.folder / "machines" / self.host_of(pool)

    def wait_for_workers(self, pools: tuple[str, ...], limit_s: float = 180) -> None:
        """Wait until they are registered and Prefect has heard of them."""
        wanted = {self.host_of(pool) for pool in pools}
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            heard = set()
            for pool in pools:
                url = f"http://127.0.0.1:{self._state['prefect']}/api/work_pools/{pool}/workers/filter"
                request = urllib.request.Request(url, data=b"{}", headers=self._headers())
                with contextlib.suppress(OSError), urllib.request.urlopen(request) as answer:  # noqa: S310
                    heard |= {worker["name"] for worker in json.load(answer)}
            if wanted <= heard:
                return
            for pool in pools:
                if self._process(f"worker-{pool}") is None:
                    raise RuntimeError(
                        f"the worker of {pool} ended: see {self.log(f'worker-{pool}')}"
                    )
            time.sleep(1)
        raise RuntimeError(f"workers did not come up within {limit_s:.0f} s: see {self.folder}")

    def _headers(self) -> dict[str, str]:
        found = {"Content-Type": "application/json"}
        if self._password:
            token = base64.b64encode(self._password.encode()).decode()
            found["Authorization"] = f"Basic {token}"
        return found

    def log(self, name: str) -> Path:
        """Log file of a process."""
        return self.folder / "logs" / f"{name}.txt"

    def kill(self, name: str, *, whole_tree: bool = True) -> list[int]:
        """SIGKILL a process with everything it started; the pids."""
        process = self._process(name)
        if process is None:
            return []
        victims = [process, *(process.children(recursive=True) if whole_tree else [])]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=10)
        return [victim.pid for victim in victims]

    def restart_server(self, name: str) -> None:
        """Start a server again that was killed, on the same port and data."""
        if name == "s3":
            self._start_s3()
        else:
            self._start_servers()

    def stop(self) -> list[int]:
        """End everything, workers first; pids that would not go (none, one hopes)."""
        # Workers first, and the database after the server that uses it.
        names = sorted(
            self._state["processes"],
            key=lambda name: (not name.startswith("worker"), name == "postgres"),
        )
        alive = []
        for name in names:
            process = self._process(name)
            if process is not None:
                tree = [process, *process.children(recursive=True)]
                with contextlib.suppress(psutil.NoSuchProcess):
                    # To PostgreSQL the usual signal means: wait until all clients are gone.
                    process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
                alive += tree
        _, alive = psutil.wait_procs(alive, timeout=8)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(alive, timeout=10)
        self._state["processes"] = {}
        if self._file.is_file():
            self._save()
        return [process.pid for process in alive]

    def _environment(self, home: Path) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_"))}
        return {
            **kept,
            **self.environment,
            "ENGINEWORKS_HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
        }

    def command_environment(self, name: str = "planner") -> dict[str, str]:
        """Environment of a command that ships over this stack, with a state folder of its own."""
        return self._environment(self.folder / "machines" / name)

    def _spawn(
        self, name: str, words: list[str], extra: dict[str, str], before: tuple[str, ...] = ()
    ) -> None:
        self._run(name, [*before, sys.executable, "-m", *words], extra)

    def _run(
        self,
        name: str,
        command: list[str],
        extra: dict[str, str],
        who: dict[str, Any] | None = None,
    ) -> None:
        """Start a process in the background, unless it runs; perhaps as another user."""
        if self._process(name) is not None:
            return
        self.log(name).parent.mkdir(exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command, env={**kept, **extra}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, **{"cwd": TOP, **(who or {})},
            )  # fmt: skip
        self._note(name, process.pid)

    def _note(self, name: str, pid: int) -> None:
        self._state["processes"][name] = [pid, psutil.Process(pid).create_time()]
        self._save()

    def _save(self) -> None:
        self._file.touch(mode=0o600)  # it holds the S3 secret
        self._file.write_text(json.dumps(self._state, indent=1), encoding="utf-8")

    def _process(self, name: str) -> psutil.Process | None:
        """A process of this stack; never another one that has got its number since."""
        if name not in self._state["processes"]:
            return None
        pid, born = self._state["processes"][name]
        try:
            process = psutil.Process(pid)
            same = abs(process.create_time() - born) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def _wait(self, name: str, port: int, page: str, limit_s: float = 240) -> None:
        """Wait until our own server answers on a port, not one that took it just before us."""
        url = f"http://127.0.0.1:{port}{page}"
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                if self._listens(name, port):
                    return
            if self._process(name) is None:
                raise RuntimeError(f"{name} did not start: see {self.log(name)}")
            time.sleep(0.3)
        raise RuntimeError(f"{name} did not answer within {limit_s:.0f} s: see {self.log(name)}")

    def _wait_for_port(self, name: str, port: int, limit_s: float = 60) -> None:
        """Wait until one of our processes listens."""
        until = time.monotonic() + limit_s
        while not self._listens(name, port):
            if self._process(name) is None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start: see {self.log(name)}")
            time.sleep(0.1)

    def _listens(self, name: str, port: int) -> bool:
        process = self._process(name)
        for one in [process, *process.children(recursive=True)] if process else []:
            with contextlib.suppress(psutil.Error):
                for connection in one.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return True
        return False


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(arguments: list[str] | None = None) -> int:
    """Start, use or stop the stack."""
    streams.tolerate()
    parser = argparse.ArgumentParser(prog="python -m infra.stack", description=__doc__)
    parser.add_argument("verb", choices=["start", "demo", "hosts", "stop"])
    parser.add_argument("--folder", type=Path, default=Path(".engineworks/stack"))
    parser.add_argument("--recipe", default="examples/yolox_nano/recipe.yaml")
    options = parser.parse_args(arguments)
    loopback.spare(os.environ)
    loopback.without_socks(os.environ)
    stack = Stack(options.folder)
    if options.verb == "start":
        try:
            stack.start()
        except (RuntimeError, subprocess.CalledProcessError) as error:
            stack.stop()
            sys.stderr.write(f"{error}\n")
            return 3
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "ENGINEWORKS_STORE"):
            sys.stdout.write(f"{name:<22}{stack.environment[name]}\n")
        sys.stdout.write(f"{'Prefect keeps its data':<22} in {stack.database}\n")
        sys.stdout.write("make stack-demo ships the example over it, make stack-stop ends it.\n")
        return 0
    if options.verb == "stop":
        left = stack.stop()
        sys.stdout.write(f"still there: {left}\n" if left else "nothing is left running\n")
        return 3 if left else 0
    if not stack.running:
        sys.stderr.write("the stack does not run\n  next: make stack\n")
        return 3
    words = ["flows.ship", options.recipe, "--fleet"] if options.verb == "demo" else ["flows.hosts"]
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=TOP, env=stack.command_environment(), check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
