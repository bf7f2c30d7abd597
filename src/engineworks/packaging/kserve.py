"""A service for KServe on Kubernetes: a container's contents, and manifests.

The container runs KServe's own Python server with the engine and this project's runtime, and needs
no engineworks installed. Beside it lie manifests for the package for Triton and for `engineworks
serve`. Source: https://kserve.github.io/website/
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError
from engineworks.manifest import MANIFEST_NAME, Manifest
from engineworks.packaging import _travel
from engineworks.packaging._base import Package, PackageInput, PackageOutput
from engineworks.packaging._environment import ServerEnvironment
from engineworks.packaging._kserve import manifests
from engineworks.packaging._kserve.serve import serve
from engineworks.packaging._numbers import Numbers, choose

_MODEL = Path(__file__).parent / "_kserve" / "model.py"

ENVIRONMENT = ServerEnvironment(name="kserve", size_mib=900)

#: Runtimes that the container opens engines with, from PyPI.
RUNTIMES = ("onnxruntime", "openvino")


def fits(manifest: Manifest, options: Mapping[str, Any]) -> str:
    """See `Package`."""
    runtime = manifest.requires.runtime if manifest.requires else ""
    if runtime not in RUNTIMES:
        return (
            f"its container opens engines of {' and '.join(RUNTIMES)}, not of {runtime or 'none'}"
        )
    return ""


def _check(options: Mapping[str, Any]) -> None:
    least, most = options.get("min_replicas", 1), options.get("max_replicas", 4)
    if not (isinstance(least, int) and isinstance(most, int) and 0 <= least <= most > 0):
        raise BuildError(
            f"packages: kserve's min_replicas {least!r} and max_replicas {most!r} are no range",
            hint="use for example 1 and 4; 0 lets a service that nobody asks go to sleep",
        )


def write(request: PackageInput) -> PackageOutput:
    """See `Package`."""
    import yaml

    manifest, options = request.manifest, request.options
    assert manifest.requires is not None  # noqa: S101 - `fits` has refused it
    runtime = manifest.requires.runtime
    numbers = dataclasses.replace(choose(manifest, request.rows, request.cores), instances=1)
    task = manifest.task
    with_photos = bool(
        task and task.kind in ("detection", "classification") and ":" not in task.layout
    )
    model = manifest.name if with_photos else f"{manifest.name}.engine"
    name = re.sub(r"[^a-z0-9-]+", "-", manifest.name).strip("-")[:50] or "engine"
    files: dict[str, Path] = {"app/model.py": _MODEL}
    for inside, path in _travel.runtime(runtime).items():
        files[f"app/{inside}"] = path
    for entry in manifest.files:
        files[f"app/engine/{entry.path}"] = request.engine / entry.path
    files[f"app/engine/{MANIFEST_NAME}"] = request.engine / MANIFEST_NAME
    needs = ["kserve==0.21.0", "numpy>=1.24", "opencv-python-headless>=5", _need(manifest)]
    sets = {
        "inference-service": manifests.python_server(name, model, numbers, options),
        "triton": manifests.triton(name, model, numbers, options),
        "engineworks-server": manifests.own_server(name, manifest.name, numbers, options),
    }
    texts = {
        f"manifests/{key}.yaml": yaml.safe_dump_all(values, sort_keys=False)
        for key, values in sets.items()
    }
    texts["requirements.txt"] = "".join(f"{need}\n" for need in needs)
    texts["Dockerfile"] = _DOCKERFILE
    texts["README.md"] = _page(manifest, name, model, numbers)
    for inside, text in texts.items():
        path = request.work / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        files[inside] = path
    return PackageOutput(
        files=files,
        entry="manifests/inference-service.yaml",
        details={
            "engine_sha256": manifest.sha256,
            "runtime": runtime,
            "model": manifest.name if with_photos else "",
            "tensors": f"{manifest.name}.engine",
            "numbers": {
                field.name: getattr(numbers, field.name)
                for field in dataclasses.fields(numbers)
                if field.name != "reasons"
            },
            "reasons": dict(numbers.reasons),
            "servers": ["KServe 0.21"],
        },
    )


def _need(manifest: Manifest) -> str:
    requires = manifest.requires
    package, _, version = (requires.package if requires else "").partition("==")
    return f"{package}>={version}" if version else (requires.runtime if requires else "")


_DOCKERFILE = """FROM python:3.11-slim
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir -r /requirements.txt
COPY app /app
USER 1000
ENTRYPOINT ["python", "/app/model.py"]
"""


def _page(manifest: Manifest, name: str, model: str, numbers: Numbers) -> str:
    return f"""# {manifest.name}: {manifest.target}/{manifest.precision} for KServe

Made from engine {manifest.sha256}, for KServe 0.21.

| manifest | image | what it starts |
| --- | --- | --- |
| `inference-service.yaml` | of this folder's Dockerfile | KServe's Python server with this engine |
| `triton.yaml` | Triton and what the package for Triton lists | that package, from `storageUri` |
| `engineworks-server.yaml` | `engineworks[server]`, engine in `/engine` | `engineworks serve` |

```
docker build -t REGISTRY/{name} . && docker push REGISTRY/{name}
kubectl apply -f manifests/inference-service.yaml    # with your image's name in it
```

`{model}` must be ready. {numbers.threads} CPUs: {numbers.reasons["threads"]}. A replica is added
when more than twice as many requests are in work as it runs at once. The pods listen to everybody
in the cluster and ask nobody for a key: KServe's gateway has to.
"""


def unproven(manifest: Manifest) -> tuple[str, ...]:
    """See `Package`."""
    return (
        "the Dockerfile was not built and no manifest was applied to a cluster: the manifests are "
        "held against KServe's published schemas, the container's contents were run",
    )


PACKAGE = Package(
    title="KServe: a container with KServe's own server, and manifests",
    fits=fits,
    write=write,
    environment=ENVIRONMENT,
    serve=serve,
    unproven=unproven,
    packages=("tritonclient", "PyYAML"),
    options={
        "image": "image of this package's Dockerfile",
        "triton_image": "image with Triton and what its package lists",
        "server_image": "image with `engineworks[server]` and the engine in /engine",
        "storage_uri": "where the cluster finds the package for Triton",
        "memory": "memory of a pod (1Gi)",
        "min_replicas": "fewest pods (1); 0 lets an unused service go to sleep",
        "max_replicas": "most pods (4)",
    },
    check_options=_check,
)
