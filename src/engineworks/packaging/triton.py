"""A Triton model repository: the engine, and an ensemble that takes a JPEG and gives boxes.

NAME takes a picture and answers for it (`NAME.decode`, `NAME.engine`, `NAME.answer`, one after
another); NAME.engine alone takes tensors. Decoding and suppression are this project's runtime,
which travels inside. Source: https://github.com/triton-inference-server/server/blob/main/docs/
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engineworks.errors import BuildError
from engineworks.manifest import MANIFEST_NAME, Manifest
from engineworks.packaging import _travel
from engineworks.packaging._base import Package, PackageInput, PackageOutput
from engineworks.packaging._environment import ServerEnvironment
from engineworks.packaging._numbers import Numbers, choose
from engineworks.packaging._triton import config, page
from engineworks.packaging._triton.serve import serve

_STEPS = Path(__file__).parent / "_triton"

ENVIRONMENT = ServerEnvironment(name="triton", size_mib=1000, pythons=("3.11",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backend:
    """How Triton opens the engines of one runtime by the vendor's own library."""

    platform: str = ""
    backend: str = ""
    file: str
    """What Triton calls the model's file, of the engine's `entry`."""
    beside: str = ""
    """A second file that belongs to it."""
    on_gpu: bool = False
    threads: str = ""
    """Parameter that says how many threads one call may use."""
    parameters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Others that every such engine has."""


_ONNX = Backend(
    platform="onnxruntime_onnx",
    file="model.onnx",
    threads="intra_op_thread_count",
    parameters={"inter_op_thread_count": 1},
)
#: Runtime of an engine -> how Triton opens it.
BACKENDS = {
    "onnxruntime": _ONNX,
    "onnxruntime_cuda": dataclasses.replace(_ONNX, on_gpu=True),
    "openvino": Backend(
        backend="openvino", file="model.xml", beside="model.bin", threads="INFERENCE_NUM_THREADS"
    ),
    "tensorrt": Backend(platform="tensorrt_plan", file="model.plan", on_gpu=True),
}

#: Runtimes that have a package on PyPI, which the Python backend opens engines with.
PYTHON = {"onnxruntime": "onnxruntime", "openvino": "openvino"}


def fits(manifest: Manifest, options: Mapping[str, Any]) -> str:
    """See `Package`."""
    runtime = manifest.requires.runtime if manifest.requires else ""
    if runtime not in BACKENDS:
        return f"Triton has no backend that opens engines of {runtime or 'no runtime'}"
    if manifest.details.get("module", runtime) not in BACKENDS:
        return "Triton's TensorRT backend opens no engines of TensorRT for RTX"
    if options.get("backend") == "python" and runtime not in PYTHON:
        return f"backend: python opens engines of {', '.join(PYTHON)}, this is one of {runtime}"
    return ""


def _check(options: Mapping[str, Any]) -> None:
    if options.get("backend", "vendor") not in ("vendor", "python"):
        raise BuildError(
            f"packages: triton has no backend {options['backend']!r}",
            hint="use vendor (Triton's own library for the engine's runtime) or python",
        )
    cache_mib = options.get("cache_mib", 0)
    if not isinstance(cache_mib, int) or not 0 <= cache_mib <= 2**20:
        raise BuildError(
            f"packages: triton's cache_mib {cache_mib!r} is no number of MiB",
            hint="use 0 for no response cache, or for example 64",
        )


def pending(manifest: Manifest) -> str:
    """See `Package`."""
    if manifest.details.get("on_gpu"):
        return (
            f"Triton's {manifest.details['backend']} backend needs an NVIDIA GPU and NVIDIA's own "
            "server image; no server here can load it"
        )
    return ""


def unproven(manifest: Manifest) -> tuple[str, ...]:
    """See `Package`."""
    if manifest.details.get("vendor_backend"):
        return (
            "configuration, core and clients proven; the vendor's backend library "
            f"({manifest.details['backend']}) was not run: its place was taken by the same "
            "runtime's package from PyPI",
        )
    return ()


def write(request: PackageInput) -> PackageOutput:
    """See `Package`."""
    manifest, options = request.manifest, request.options
    assert manifest.requires is not None  # noqa: S101 - `fits` has refused it
    runtime = manifest.requires.runtime
    in_python = options.get("backend") == "python"
    backend = BACKENDS[runtime]
    numbers = choose(manifest, request.rows, request.cores, on_gpu=backend.on_gpu)
    task = manifest.task
    with_photos = (
        task is not None
        and task.kind in config.COLUMNS
        and ":" not in task.layout
        and config.by_rows(manifest)
    )
    name = manifest.name
    labels = _labels(manifest)
    engine = config.engine_config(
        f"{name}.engine", manifest, numbers, on_gpu=backend.on_gpu, labels=bool(labels)
    )
    cache_mib = int(options.get("cache_mib", 0))
    if cache_mib:
        engine.response_cache.enable = True
    files = _Files(request.work, request.engine)
    if in_python:
        _python_engine(engine, numbers)
        files.write(f"{name}.engine", engine, _reasons(engine, numbers), labels)
        files.python(f"{name}.engine", "engine.py", runtime, whole=manifest)
    else:
        _vendor_engine(engine, backend, manifest, numbers)
        files.write(f"{name}.engine", engine, _reasons(engine, numbers), labels)
        files.take(f"{name}.engine/1/{backend.file}", manifest.entry)
        if backend.beside:
            beside = Path(manifest.entry).with_suffix(Path(backend.beside).suffix)
            files.take(f"{name}.engine/1/{backend.beside}", str(beside))
    if with_photos:
        _write_photo_models(files, manifest, numbers, runtime)
    facts = {
        "engine_sha256": manifest.sha256,
        "runtime": runtime,
        "model": name if with_photos else "",
        "tensors": f"{name}.engine",
        "backend": "python" if in_python else engine.backend or backend.platform,
        "vendor_backend": not in_python,
        "on_gpu": backend.on_gpu,
        "cache_mib": cache_mib,
        "numbers": {
            field.name: getattr(numbers, field.name)
            for field in dataclasses.fields(numbers)
            if field.name != "reasons"
        },
        "reasons": dict(numbers.reasons),
        "servers": ["Triton 2.51 (24.10) and newer"],
    }
    needs = page.requirements(manifest, in_python=in_python, with_photos=with_photos)
    files.root("requirements.txt", "".join(f"{line}\n" for line in needs))
    files.root("README.md", page.readme(manifest, numbers, facts, needs))
    return PackageOutput(
        files=files.files, entry=f"model_repository/{name}.engine/config.pbtxt", details=facts
    )


def _write_photo_models(files: _Files, manifest: Manifest, numbers: Numbers, runtime: str) -> None:
    """The models around the engine that take a photo and give what it shows."""
    name = manifest.name
    decode = config.decode_config(f"{name}.decode", manifest, numbers)
    files.write(f"{name}.decode", decode, {"max_batch_size": "one photo a request"})
    files.python(f"{name}.decode", "decode.py", runtime)
    files.write(f"{name}.answer", config.answer_config(f"{name}.answer", manifest), {})
    files.python(f"{name}.answer", "answer.py", runtime)
    files.write(name, config.ensemble_config(name, manifest), {})
    files.note(
        f"{name}/1/README", "An ensemble has no file of its own; Triton wants this folder.\n"
    )


def _labels(manifest: Manifest) -> tuple[str, ...]:
    """Class names for Triton's classification extension: of a classifier's one output."""
    task = manifest.task
    if task is None or task.kind != "classification" or len(manifest.outputs) != 1:
        return ()
    return task.labels if isinstance(task.labels, tuple) else ()


def _python_engine(engine: Any, numbers: Numbers) -> None:
    engine.backend = "python"
    engine.parameters["threads"].string_value = str(numbers.threads)


def _vendor_engine(engine: Any, backend: Backend, manifest: Manifest, numbers: Numbers) -> None:
    """What the vendor's library reads beside the common fields."""
    engine.platform, engine.backend = backend.platform, backend.backend
    engine.default_model_filename = backend.file
    if manifest.details.get("optimized"):
        engine.optimization.graph.level = 2  # none: the file is the optimised graph
    threads = {backend.threads: numbers.threads} if backend.threads else {}
    for key, value in {**threads, **backend.parameters}.items():
        engine.parameters[key].string_value = str(value)


def _reasons(engine: Any, numbers: Numbers) -> dict[str, str]:
    """Top-level field of the engine's configuration -> why."""
    why = numbers.reasons
    reasons = {
        "max_batch_size": why["max_batch"],
        "instance_group": why["instances"],
        "dynamic_batching": f"{why['merged']}. Waiting: {why['delay_us']}. Queue: {why['queue']}",
        "version_policy": "a new version's folder takes the place of the old one",
        "model_warmup": "the first call of a size is slow: it is made before the model is ready",
        "optimization": "the file is the graph after optimisation: what was checked is what runs",
        "response_cache": "asked for: cache_mib",
    }
    if numbers.max_batch and not engine.max_batch_size:
        reasons["max_batch_size"] = "a tensor's first axis is not the batch: nothing is merged"
    return reasons


class _Files:
    """Gathers the files of a package: path inside -> file."""

    def __init__(self, work: Path, engine: Path) -> None:
        self._work = work
        self._engine = engine
        self.files: dict[str, Path] = {}

    def root(self, inside: str, content: str) -> None:
        """A text beside the repository."""
        path = self._work / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        self.files[inside] = path

    def note(self, inside: str, content: str) -> None:
        """A text inside the repository."""
        self.root(f"model_repository/{inside}", content)

    def write(
        self, model: str, proto: Any, reasons: Mapping[str, str], labels: tuple[str, ...] = ()
    ) -> None:
        """A model's configuration, and its labels."""
        self.note(f"{model}/config.pbtxt", config.text(proto, reasons))
        if labels:
            self.note(f"{model}/labels.txt", "".join(f"{label}\n" for label in labels))

    def take(self, inside: str, entry: str) -> None:
        """A file of the engine."""
        self.files[f"model_repository/{inside}"] = self._engine / entry

    def python(self, model: str, step: str, runtime: str, *, whole: Manifest | None = None) -> None:
        """A step's code, the runtime beside it, and the engine or its manifest alone."""
        folder = f"model_repository/{model}/1"
        self.files[f"{folder}/model.py"] = _STEPS / step
        if whole is not None:
            for entry in whole.files:
                self.files[f"{folder}/engine/{entry.path}"] = self._engine / entry.path
        for inside, path in _travel.runtime(runtime if whole else "").items():
            self.files[f"{folder}/{inside}"] = path
        self.files[f"{folder}/engine/{MANIFEST_NAME}"] = self._engine / MANIFEST_NAME


PACKAGE = Package(
    title="Triton Inference Server: model repository with an ensemble from JPEG to boxes",
    fits=fits,
    write=write,
    environment=ENVIRONMENT,
    serve=serve,
    unproven=unproven,
    pending=pending,
    packages=("tritonclient",),
    options={
        "backend": "vendor (default): Triton's own library for the engine's runtime; python: the "
        "engine in Triton's Python backend, opened by this project's runtime",
        "cache_mib": "MiB of Triton's response cache for equal inputs; 0 (default): none",
    },
    check_options=_check,
)
