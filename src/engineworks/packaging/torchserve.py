"""A TorchServe model archive (`.mar`) with a handler of our own, and its configuration.

TorchServe is in limited maintenance upstream (https://github.com/pytorch/serve/issues/3396); this
is for those who run it. The handler needs neither torch nor torchvision.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engineworks.manifest import MANIFEST_NAME, Manifest
from engineworks.packaging import _travel
from engineworks.packaging._base import Package, PackageInput, PackageOutput
from engineworks.packaging._environment import ServerEnvironment
from engineworks.packaging._numbers import Numbers, choose
from engineworks.packaging._torchserve import archive
from engineworks.packaging._torchserve.serve import serve

_HANDLER = Path(__file__).parent / "_torchserve" / "handler.py"

VERSION = "1.0"

ENVIRONMENT = ServerEnvironment(
    name="torchserve",
    size_mib=1000,
    programs=("java (apt install openjdk-17-jre-headless)",),
    index="https://download.pytorch.org/whl/cpu",
)

#: Runtimes that a worker opens engines with, from PyPI.
RUNTIMES = ("onnxruntime", "openvino")

#: Bytes of one request and of one answer.
MOST_REQUEST = 16 * 2**20
MOST_RESPONSE = 4 * 2**20


def fits(manifest: Manifest, options: Mapping[str, Any]) -> str:
    """See `Package`."""
    runtime = manifest.requires.runtime if manifest.requires else ""
    if runtime not in RUNTIMES:
        return f"its handler opens engines of {' and '.join(RUNTIMES)}, not of {runtime or 'none'}"
    kind = manifest.task.kind if manifest.task else "none"
    if kind not in ("detection", "classification"):
        return f"its handler answers for pictures, and the task {kind} has no such answers"
    if manifest.task and ":" in manifest.task.layout:
        return f"the layout {manifest.task.layout} is code that is in no engine"
    return ""


def write(request: PackageInput) -> PackageOutput:
    """See `Package`."""
    manifest = request.manifest
    assert manifest.requires is not None  # noqa: S101 - `fits` has refused it
    numbers = choose(manifest, request.rows, request.cores)
    inside: dict[str, Path] = {archive.HANDLER: _HANDLER}
    inside.update(_travel.runtime(manifest.requires.runtime))
    for entry in manifest.files:
        inside[f"engine/{entry.path}"] = request.engine / entry.path
    inside[f"engine/{MANIFEST_NAME}"] = request.engine / MANIFEST_NAME
    name = manifest.name
    files = {
        f"model_store/{name}.mar": request.work / f"{name}.mar",
        "config.properties": request.work / "config.properties",
        "requirements.txt": request.work / "requirements.txt",
        "README.md": request.work / "README.md",
    }
    mar, properties, requirements, readme = files.values()
    archive.write(mar, name, VERSION, inside, _settings(numbers))
    needs = ["numpy>=1.24", "opencv-python-headless>=5", _runtime_need(manifest), "pyyaml"]
    properties.write_text(_properties(name, request.cores), encoding="utf-8")
    requirements.write_text("".join(f"{need}\n" for need in needs), encoding="utf-8")
    readme.write_text(_page(manifest, numbers, needs), encoding="utf-8")
    return PackageOutput(
        files=files,
        entry=f"model_store/{name}.mar",
        details={
            "engine_sha256": manifest.sha256,
            "runtime": manifest.requires.runtime,
            "model": name,
            "numbers": {
                field.name: getattr(numbers, field.name)
                for field in dataclasses.fields(numbers)
                if field.name != "reasons"
            },
            "reasons": dict(numbers.reasons),
            "servers": ["TorchServe 0.12.0"],
        },
    )


def _runtime_need(manifest: Manifest) -> str:
    requires = manifest.requires
    package, _, version = (requires.package if requires else "").partition("==")
    return f"{package}>={version}" if version else (requires.runtime if requires else "")


def _settings(numbers: Numbers) -> dict[str, Any]:
    """The model's own settings, which travel in the archive. Times in the units of their names."""
    return {
        "minWorkers": numbers.instances,
        "maxWorkers": numbers.instances,
        "batchSize": numbers.merged,
        "maxBatchDelay": max(1, math.ceil(numbers.delay_us / 1e3)),  # milliseconds
        "responseTimeout": 60,  # seconds
        "startupTimeout": 120,  # seconds
        "jobQueueSize": numbers.queue,
        "deviceType": "cpu",
        "handler": {"threads": numbers.threads},
    }


def _properties(name: str, cores: int) -> str:
    """TorchServe's own configuration: local addresses, tokens on, limits, no models from URLs."""
    values = {
        "inference_address": "http://127.0.0.1:8080",
        "management_address": "http://127.0.0.1:8081",
        "metrics_address": "http://127.0.0.1:8082",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "grpc_inference_port": 7070,
        "grpc_management_port": 7071,
        "initial_worker_port": 9000,
        "model_store": "model_store",
        "load_models": f"{name}.mar",
        "disable_token_authorization": "false",
        "enable_model_api": "false",
        "enable_envvars_config": "false",
        "install_py_dep_per_model": "false",
        "allowed_urls": "file:///nothing/.*",
        "use_env_allowed_urls": "false",
        "number_of_netty_threads": cores,
        "netty_client_threads": cores,
        "job_queue_size": 100,
        "default_workers_per_model": 1,
        "default_response_timeout": 60,
        "max_request_size": MOST_REQUEST,
        "max_response_size": MOST_RESPONSE,
        "decode_input_request": "false",
        "limit_max_image_pixels": "true",
        "enable_metrics_api": "true",
        "metrics_mode": "prometheus",
        "disable_system_metrics": "true",
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _page(manifest: Manifest, numbers: Numbers, needs: list[str]) -> str:
    chosen = "\n".join(f"| {key} | {why} |" for key, why in numbers.reasons.items())
    return f"""# {manifest.name}: {manifest.target}/{manifest.precision} for TorchServe

Made from engine {manifest.sha256}. TorchServe is in limited maintenance upstream: for a new
service take the package for Triton or for KServe.

For TorchServe 0.12.0 with Java 17. Its Python needs, beside TorchServe and torch:
{", ".join(needs)} (TorchServe needs PyYAML and does not say so). In this folder:

```
pip install -r requirements.txt
torchserve --foreground --ncs --ts-config config.properties --model-store model_store
```

It writes `key_file.json`: send `Authorization: Bearer <the inference key>`.

```
curl -H "Authorization: Bearer $KEY" -H 'Content-Type: image/jpeg' -T photo.jpg \\
  http://127.0.0.1:8080/predictions/{manifest.name}
```

Ready is what `GET :8081/models/{manifest.name}` says of each worker; `/ping` is Healthy while
workers crash.

| number | why |
| --- | --- |
{chosen}
"""


def unproven(manifest: Manifest) -> tuple[str, ...]:
    """See `Package`."""
    return ("TorchServe's gRPC ends were not asked",)


PACKAGE = Package(
    title="TorchServe: model archive with a handler of our own (upstream in limited maintenance)",
    fits=fits,
    write=write,
    environment=ENVIRONMENT,
    serve=serve,
    unproven=unproven,
)
