"""`make bench-fleet`: the store beside plain boto3, the planner on simulated cards.

Starts its own S3 server on 127.0.0.1.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from artifacts.store import s3, transfers
from artifacts.store.remote import RemoteStore
from benchmarks._bars import Bar, finish
from engineworks import hosts
from engineworks.facts.host import RegisteredHost
from engineworks.manifest import Provenance
from engineworks.plan import place
from engineworks.specs import TargetSpec
from infra.s3 import S3Server

SIZE = 300 * 10**6
ROUNDS = 3


def store(folder: Path) -> dict[str, float]:
    """Seconds of our store and of boto3's own multipart, medians of alternating rounds."""
    import boto3
    from boto3.s3.transfer import TransferConfig

    server = S3Server(folder / "s3", key="bench", secret="on-127-0-0-1", bucket="bench")  # noqa: S106
    server.start()
    os.environ.update(server.environment)
    plain = boto3.client("s3")
    parts = TransferConfig(multipart_chunksize=transfers.PART_BYTES, max_concurrency=s3.THREADS)
    found: dict[str, list[float]] = {"up": [], "down": [], "plain up": [], "plain down": []}
    try:
        for number in range(ROUNDS):
            path = folder / f"model-{number}.bin"
            path.write_bytes(os.urandom(SIZE))
            bucket = s3.Bucket(s3.parse("s3://bench/x"))
            mine = RemoteStore(folder / f"a{number}", bucket)
            artifact = super(RemoteStore, mine).put(
                {"model.bin": path}, kind="onnx", name="bench", entry="model.bin",
                provenance=Provenance(stage="bench"),
            )  # fmt: skip
            other = RemoteStore(folder / f"b{number}", bucket)
            steps: dict[str, Callable[[], object]] = {
                "up": partial(mine.push, artifact),
                "plain up": partial(
                    plain.upload_file, str(path), "bench", f"plain-{number}", Config=parts
                ),
                "down": partial(other.fetch, artifact.sha256),
                "plain down": partial(
                    plain.download_file, "bench", f"plain-{number}", str(folder / "plain.bin"),
                    Config=parts,
                ),
            }  # fmt: skip
            for name, step in steps.items():
                begun = time.perf_counter()
                step()
                found[name].append(time.perf_counter() - begun)
            path.unlink()
    finally:
        server.stop(0)
    return {name: statistics.median(times) for name, times in found.items()}


def planner() -> tuple[int, float]:
    """Rows and seconds of a plan over 1,000 simulated machines and 20 variants."""
    card = hosts.probe()
    machines = [
        RegisteredHost(
            card=dataclasses.replace(card, name=f"machine-{n:04}"), pool=f"pool-{n % 4}",
            code_sha256="same", instance=str(n), age_s=1.0,
        )
        for n in range(1000)
    ]  # fmt: skip
    specs = [
        TargetSpec(target=name, precisions=precisions, pool=f"pool-{pool}", devices="all")
        for pool in range(4)
        for name, precisions in (
            ("onnxruntime-cpu", ("fp32", "int8")),
            ("openvino", ("fp32", "fp16", "int8")),
        )
    ]
    begun = time.perf_counter()
    planned = place(specs, machines, "same")
    return len(planned), time.perf_counter() - begun


def main() -> int:
    """Measure, print, compare."""
    rows, plan_s = planner()
    bars = [Bar(f"plan of 1,000 machines, 20 variants, {rows} rows", plan_s, "s", 2.0)]
    with tempfile.TemporaryDirectory() as work:
        times = store(Path(work))
    for way in ("up", "down"):
        # Ours hashes every byte, before it is sent and after it has come.
        ratio = times[way] / times[f"plain {way}"]
        bars.append(Bar(f"300 MB {way} / boto3's own multipart", ratio, "x", 1.3))
    return finish("fleet", bars, {"store_s": times})


if __name__ == "__main__":
    raise SystemExit(main())
