"""Triton's model configurations, made of its own protobuf types.

Every name, enum and nesting is checked when it is set; the text is the types' own. Source:
https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engineworks.errors import BuildError
from engineworks.manifest import Manifest, TensorSpec
from engineworks.packaging._numbers import Numbers
from engineworks.runtime.remote import MANIFEST, manifest_text

_TYPES = {
    "bool": "TYPE_BOOL", "string": "TYPE_STRING", "bfloat16": "TYPE_BF16",
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
    "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
}  # fmt: skip

#: Columns of an answer: output -> (type, dims).
COLUMNS: dict[str, dict[str, tuple[str, list[int]]]] = {
    "detection": {
        "boxes": ("TYPE_FP32", [-1, 4]),
        "confidence": ("TYPE_FP32", [-1]),
        "class_id": ("TYPE_INT64", [-1]),
        "label": ("TYPE_STRING", [-1]),
    },
    "classification": {
        "confidence": ("TYPE_FP32", [-1]),
        "class_id": ("TYPE_INT64", [-1]),
        "label": ("TYPE_STRING", [-1]),
    },
}


def _pb() -> Any:
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2


def _dtype(spec: TensorSpec) -> int:
    name = _TYPES.get(spec.dtype)
    if name is None:
        raise BuildError(
            f"Triton has no type for {spec.name!r} of dtype {spec.dtype}",
            hint="leave this package out for this variant",
        )
    return int(getattr(_pb(), name))


def _dims(shape: tuple[int | str, ...]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape]


def batches(manifest: Manifest) -> bool:
    """Whether every tensor's first axis is the open batch, as Triton's batching wants it."""
    return manifest.dynamic_batch and by_rows(manifest)


def by_rows(manifest: Manifest) -> bool:
    """Whether every tensor's first axis is the batch, open or fixed."""
    specs = (*manifest.inputs, *manifest.outputs)
    return len({spec.shape[0] if spec.shape else 0 for spec in specs}) == 1


def _base(name: str, max_batch: int, version_note: bool = True) -> Any:
    config = _pb().ModelConfig(name=name, max_batch_size=max_batch)
    config.version_policy.latest.num_versions = 1
    return config


def _parameter(config: Any, key: str, value: str) -> None:
    config.parameters[key].string_value = value


def _instances(config: Any, count: int, *, on_gpu: bool = False) -> None:
    pb = _pb()
    kind = pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=count, kind=kind)


def _queue(config: Any, numbers: Numbers, merged: int) -> None:
    batching = config.dynamic_batching
    batching.preferred_batch_size.append(merged)
    batching.max_queue_delay_microseconds = numbers.delay_us if merged > 1 else 0
    policy = batching.default_queue_policy
    policy.max_queue_size = numbers.queue
    policy.allow_timeout_override = True
    policy.timeout_action = _pb().ModelQueuePolicy.REJECT


def engine_config(
    name: str, manifest: Manifest, numbers: Numbers, *, on_gpu: bool, labels: bool
) -> Any:
    """The engine by itself: tensors in, tensors out. Its backend is still to be said.

    Args:
        name: Of the model, and of its folder.
        manifest: The engine's.
        numbers: As chosen for it.
        on_gpu: Where its instances run.
        labels: Whether `labels.txt` names its one output's classes.
    """
    max_batch = numbers.max_batch if batches(manifest) else 0
    config = _base(name, max_batch)
    start = 1 if max_batch else 0
    for spec in manifest.inputs:
        config.input.add(name=spec.name, data_type=_dtype(spec), dims=_dims(spec.shape[start:]))
    for spec in manifest.outputs:
        output = config.output.add(
            name=spec.name, data_type=_dtype(spec), dims=_dims(spec.shape[start:])
        )
        if labels:
            output.label_filename = "labels.txt"
    _instances(config, numbers.instances, on_gpu=on_gpu)
    if max_batch:
        _queue(config, numbers, numbers.merged)
    _parameter(config, MANIFEST, manifest_text(manifest))
    for batch in sorted({1, numbers.merged}):
        _warm_up(config, manifest, batch if max_batch else 0)
    return config


def _warm_up(config: Any, manifest: Manifest, batch: int) -> None:
    """The first call of a size is the slow one: it is made before the model is ready."""
    sample = config.model_warmup.add(name=f"batch {batch or 'as built'}", batch_size=batch or 1)
    for spec in manifest.inputs:
        shape = spec.shape[1:] if batch else spec.shape
        item = sample.inputs[spec.name]
        item.data_type = _dtype(spec)
        item.dims.extend(size if isinstance(size, int) else 1 for size in shape)
        item.zero_data = True


def decode_config(name: str, manifest: Manifest, numbers: Numbers) -> Any:
    """The step from an encoded picture to the engine's input."""
    pb = _pb()
    config = _base(name, 1)
    config.backend = "python"
    config.input.add(name="photo", data_type=pb.TYPE_STRING, dims=[1])
    spec = manifest.inputs[0]
    # One picture is one row of this step; an engine of a fixed batch needs all of its rows.
    fixed = isinstance(spec.shape[0], int) and spec.shape[0] > 1
    if fixed:
        config.max_batch_size = 0
        config.input[0].dims[:] = [1, 1]
    start = 0 if fixed else 1
    config.output.add(name=spec.name, data_type=_dtype(spec), dims=_dims(spec.shape[start:]))
    config.output.add(name="placement", data_type=pb.TYPE_FP64, dims=[1, 6][start:])
    _instances(config, 1)
    if not fixed:
        _queue(config, numbers, 1)
    return config


def answer_config(name: str, manifest: Manifest) -> Any:
    """The step from the engine's outputs to boxes or classes."""
    pb = _pb()
    config = _base(name, 0)
    config.backend = "python"
    for spec in manifest.outputs:
        config.input.add(name=spec.name, data_type=_dtype(spec), dims=_dims(spec.shape))
    config.input.add(name="placement", data_type=pb.TYPE_FP64, dims=[1, 6])
    _columns(config, manifest)
    _instances(config, 1)
    return config


def _columns(config: Any, manifest: Manifest) -> None:
    pb = _pb()
    kind = manifest.task.kind if manifest.task else "none"
    for column, (dtype, dims) in COLUMNS[kind].items():
        config.output.add(name=column, data_type=getattr(pb, dtype), dims=dims)


def ensemble_config(name: str, manifest: Manifest) -> Any:
    """What a client posts a picture to: decode, engine, answer."""
    pb = _pb()
    config = _base(name, 0)
    config.platform = "ensemble"
    config.input.add(name="photo", data_type=pb.TYPE_STRING, dims=[1, 1])
    _columns(config, manifest)
    source = manifest.inputs[0].name
    steps = config.ensemble_scheduling.step
    decode = steps.add(model_name=f"{name}.decode", model_version=-1)
    decode.input_map["photo"] = "photo"
    decode.output_map[source] = "input"
    decode.output_map["placement"] = "placement"
    engine = steps.add(model_name=f"{name}.engine", model_version=-1)
    engine.input_map[source] = "input"
    answer = steps.add(model_name=f"{name}.answer", model_version=-1)
    for position, spec in enumerate(manifest.outputs):
        engine.output_map[spec.name] = f"output {position}"
        answer.input_map[spec.name] = f"output {position}"
    answer.input_map["placement"] = "placement"
    for column in config.output:
        answer.output_map[column.name] = column.name
    _parameter(config, MANIFEST, manifest_text(manifest))
    return config


def text(config: Any, reasons: Mapping[str, str]) -> str:
    """A configuration as `config.pbtxt`, each reason as a comment before its field.

    Args:
        config: A ModelConfig.
        reasons: Name of a top-level field -> why it has its value.
    """
    from google.protobuf import text_format

    lines = []
    told = set()
    if not config.max_batch_size and "max_batch_size" in reasons:  # 0 is not written
        lines.append(f"# max_batch_size is 0: {reasons['max_batch_size']}")
    for line in text_format.MessageToString(config).splitlines():
        field = line.split(":")[0].split(" ")[0]
        if field in reasons and field not in told:
            told.add(field)
            lines.append(f"# {reasons[field]}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def parse(content: str) -> Any:
    """A configuration out of its text, by Triton's own types.

    Raises:
        google.protobuf.text_format.ParseError: It is none.
    """
    from google.protobuf import text_format

    return text_format.Parse(content, _pb().ModelConfig())
