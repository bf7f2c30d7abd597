"""The page inside a Triton package: what it is, for which servers, what a user must add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engineworks.manifest import Manifest
from engineworks.packaging._numbers import Numbers


def requirements(manifest: Manifest, *, in_python: bool, with_photos: bool) -> list[str]:
    """What the Python inside the server needs, as requirement lines."""
    needs = []
    if with_photos:
        needs += ["numpy>=1.24", "opencv-python-headless>=5"]
    if in_python and manifest.requires and manifest.requires.package:
        name, _, version = manifest.requires.package.partition("==")
        needs.append(f"{name}>={version}")
    elif in_python and manifest.requires:
        needs.append(manifest.requires.runtime)
    return needs


def readme(
    manifest: Manifest, numbers: Numbers, facts: Mapping[str, Any], needs: Sequence[str]
) -> str:
    """The page's text."""
    cache = facts["cache_mib"]
    flags = f" --cache-config local,size={cache * 2**20}" if cache else ""
    install = f"pip install {' '.join(f'{need!r}' for need in needs)} && " if needs else ""
    gpu = "--gpus all " if facts["on_gpu"] else ""
    chosen = "\n".join(
        f"| {name.replace('_', ' ')} | {facts['numbers'][name]} | {why} |"
        for name, why in numbers.reasons.items()
    )
    photo = (
        f"`{facts['model']}` takes an encoded picture (`photo`, BYTES [1, 1]) and answers for it; "
        if facts["model"]
        else "This engine has no answers for pictures, only tensors: "
    )
    return f"""# {manifest.name}: {manifest.target}/{manifest.precision} for Triton

{photo}`{facts["tensors"]}` takes the engine's own tensors. Made from engine
{facts["engine_sha256"]}.

For {", ".join(facts["servers"])}. To a stock image (`nvcr.io/nvidia/tritonserver:<version>-py3`)
{"nothing is to be added." if not needs else "add: " + ", ".join(needs) + "."}
The Python backend of Triton 2.51 and 2.52 gives empty outputs with numpy 2: there, install
numpy 1.26.4 and opencv-python-headless with `--no-deps`. Newer ones take either.

```
docker run --rm {gpu}-p 8000:8000 -p 8001:8001 -p 8002:8002 -v $PWD/model_repository:/models:ro \\
  nvcr.io/nvidia/tritonserver:<version>-py3 \\
  sh -c "{install}exec tritonserver --model-repository=/models \\
    --disable-auto-complete-config{flags}"
```

| number | value | why |
| --- | --- | --- |
{chosen}

Triton itself asks no client for a password and has no TLS over HTTP: put it behind a proxy, and
its ports 8000 to 8002 on no public address.
"""
