"""`make prove-tls`: a model is shipped over servers that want TLS and passwords; no secret leaks.

nginx with `infra/nginx.conf.template` stands in front of a stack whose Prefect asks for a password.
The planner and two workers know the TLS addresses alone. Afterwards every file that they and the
servers have left, and every object in the bucket, is searched for each secret. Needs nginx and
openssl.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from artifacts.store import s3
from benchmarks._bars import Bar, finish
from benchmarks.chaos import POOLS, prepare
from infra.ports import free_port
from infra.stack import TOP, Stack

MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.txt warn;
events {{}}
http {{
  access_log {folder}/access.txt;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/engineworks.conf;
}}
"""


def main() -> int:
    """Ship, ask without passwords, search; 0 only if all is as it should be."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None or shutil.which("openssl") is None:
        sys.stderr.write("nginx or openssl is not here\n  next: apt install nginx-light openssl\n")
        return 3
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        Path(work).chmod(0o755)  # PostgreSQL's account must get through
        stack = Stack(Path(work, "stack"), password=f"fleet:{secrets.token_hex(16)}")
        mlflow = f"fleet:{secrets.token_hex(16)}"
        proxy = None
        try:
            stack.start_servers()
            proxy, addresses, certificate = _proxy(nginx, Path(work, "nginx"), stack, mlflow)
            stack.reach_by(**_environment(addresses, certificate, mlflow))
            stack.deploy()
            for pool in POOLS:
                stack.start_worker(pool)
            stack.wait_for_workers(POOLS)
            verdicts = _ship(stack, prepare(Path(work, "recipe"), 0))
            refused = _strangers(addresses, certificate, stack, mlflow)
            hidden = (*stack.secrets, mlflow.partition(":")[2])
            leaks, searched = _leaks(stack, Path(work, "nginx"), hidden)
            database = stack.database.partition(" in ")[0]
        finally:
            if proxy is not None:
                proxy.send_signal(signal.SIGTERM)
                proxy.wait()
            left = stack.stop()
    for name, word in refused.items():
        print(f"{name:<42} {word}")
    for leak in leaks:
        print(f"LEAK: {leak}")
    bars = [
        Bar(
            "variants shipped over TLS",
            list(verdicts.values()).count("shipped"),
            "",
            3,
            at_least=True,
        ),
        Bar("questions answered otherwise than they should", _wrong(refused), "", 0),
        Bar("places that hold a secret", len(leaks), "", 0),
        Bar("files and objects searched", searched, "", 100, at_least=True),
        Bar("processes left running", len(left), "", 0),
    ]
    details = {"verdicts": verdicts, "strangers": refused, "database": database}
    return finish("tls", bars, details)


def _proxy(
    nginx: str, folder: Path, stack: Stack, mlflow: str
) -> tuple[subprocess.Popen[bytes], dict[str, str], Path]:
    """Start nginx in front of the stack: (process, server -> TLS address, certificate)."""
    folder.mkdir()
    certificate, key = folder / "fleet.pem", folder / "fleet.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=fleet", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    user, _, password = mlflow.partition(":")
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    (folder / "passwords").write_text(f"{user}:{hashed.stdout.strip()}\n")
    ports = {name: free_port() for name in stack.ports}
    values = {f"{name.upper()}_TLS": port for name, port in ports.items()} | {
        name.upper(): port for name, port in stack.ports.items()
    }
    template = (TOP / "infra" / "nginx.conf.template").read_text(encoding="utf-8")
    text = string.Template(template).safe_substitute(
        values, LISTEN="127.0.0.1", CERTIFICATE=certificate, KEY=key, PASSWORDS=folder / "passwords"
    )
    (folder / "engineworks.conf").write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    process = subprocess.Popen([nginx, "-c", str(folder / "nginx.conf"), "-e", "stderr"])
    addresses = {name: f"https://127.0.0.1:{port}" for name, port in ports.items()}
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError(f"nginx ended with exit code {process.returncode}")
        try:
            httpx.get(f"{addresses['prefect']}/api/health", verify=str(certificate))
            return process, addresses, certificate
        except httpx.HTTPError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError("nginx does not answer")


def _environment(addresses: dict[str, str], certificate: Path, mlflow: str) -> dict[str, str]:
    """What docs/fleet.md tells machines to set."""
    user, _, password = mlflow.partition(":")
    return {
        "PREFECT_API_URL": f"{addresses['prefect']}/api",
        "PREFECT_API_SSL_CERT_FILE": str(certificate),
        "MLFLOW_TRACKING_URI": addresses["mlflow"],
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate),
        "AWS_ENDPOINT_URL_S3": addresses["s3"],
        "AWS_CA_BUNDLE": str(certificate),
    }


def _ship(stack: Stack, recipe: Path) -> dict[str, str]:
    """Variant -> verdict."""
    command = [sys.executable, "-m", "flows.ship", str(recipe), "--fleet", "--json"]
    done = subprocess.run(
        command, cwd=TOP, env=stack.command_environment(), capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    log = stack.folder / "logs" / "planner.txt"
    log.write_text(done.stderr + done.stdout, encoding="utf-8")
    if not done.stdout:
        raise RuntimeError(f"the run gave no summary:\n{done.stderr[-3000:]}")
    return {v["name"]: v["verdict"] for v in json.loads(done.stdout)["variants"]}


def _strangers(
    addresses: dict[str, str], certificate: Path, stack: Stack, mlflow: str
) -> dict[str, str]:
    """What comes of requests without a password, with a wrong one, without TLS, and rightly."""
    right = {"prefect": stack.environment["PREFECT_API_AUTH_STRING"], "mlflow": mlflow}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"fleet:guess").decode()}
    asked = {
        "prefect": "/api/admin/version",
        "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1",
        "s3": "/engineworks",
    }
    found = {}
    for name, path in asked.items():
        asks: list[tuple[str, dict[str, str]]] = [("no password", {}), ("a wrong password", wrong)]
        if name in right:  # the run above has shown that S3 takes signatures
            token = base64.b64encode(right[name].encode()).decode()
            asks.append(("the right password", {"Authorization": f"Basic {token}"}))
        for what, headers in asks:
            answer = httpx.get(f"{addresses[name]}{path}", headers=headers, verify=str(certificate))
            found[f"{name}, {what}"] = str(answer.status_code)
        plain = httpx.get(addresses[name].replace("https:", "http:") + path)
        found[f"{name}, no TLS"] = str(plain.status_code)
        try:
            httpx.get(f"{addresses[name]}{path}")
            found[f"{name}, certificate unknown"] = "answered"
        except httpx.ConnectError as error:
            unknown = "CERTIFICATE_VERIFY_FAILED" in str(error)
            found[f"{name}, certificate unknown"] = "not asked" if unknown else str(error)
    return found


#: Question -> the answers that are right. A server that is down answers nothing of the kind.
RIGHT = {
    "no password": ("401", "403"),
    "a wrong password": ("401", "403"),
    "the right password": ("200",),
    "no TLS": ("400",),
    "certificate unknown": ("not asked",),
}


def _wrong(answers: dict[str, str]) -> int:
    return sum(word not in RIGHT[asked.partition(", ")[2]] for asked, word in answers.items())


def _leaks(stack: Stack, nginx: Path, hidden: tuple[str, ...]) -> tuple[list[str], int]:
    """Files and objects that hold a secret, as it is or in base64; and how many were searched."""
    words = [secret.encode() for secret in hidden]
    words += [base64.b64encode(f"fleet:{secret}".encode()) for secret in hidden]
    found, searched = [], 0
    for path in _files(stack, nginx):
        searched += 1
        data = path.read_bytes()
        found += [f"{path}: {data[:60]!r}" for word in words if word in data]
    dumped = stack.dump_database()
    found += ["Prefect's database" for word in words if word in dumped]
    searched += bool(dumped)
    os.environ.update(stack.environment)
    bucket = s3.Bucket(s3.parse(stack.environment["ENGINEWORKS_STORE"]))
    for item in bucket.list(""):
        read = bucket.read(item.key)
        data = read.data if read else b""
        found += [item.key for word in words if word in data]
        searched += 1
    return found, searched


def _files(stack: Stack, nginx: Path) -> Iterator[Path]:
    """All that machines and servers have left, but for the files whose job it is to hold one."""
    own = {stack.folder / "stack.json"}
    yield from (nginx / name for name in ("access.txt", "error.txt"))
    for name in ("logs", "machines", "mlflow", "prefect", "deploy"):
        for path in (stack.folder / name).rglob("*"):
            if path.is_file() and not path.is_symlink() and path not in own:
                yield path


if __name__ == "__main__":
    raise SystemExit(main())
