"""Tensors of the Open Inference Protocol: JSON numbers or binary, in and out.

Source: https://github.com/kserve/open-inference-protocol and Triton's binary data extension. Knows
no engine beyond the tensors that it declares, and no HTTP beyond a body and a header's number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engineworks.manifest import TensorSpec
from engineworks.server.bodies import json_object
from engineworks.server.refusals import Refusal, bad_request

Array = np.ndarray[Any, Any]

#: numpy's names to the protocol's.
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip

_MOST_DIMENSIONS = 16
_MOST_ELEMENTS = 2**28


@dataclass(frozen=True, kw_only=True)
class Inference:
    """A request as it was read."""

    feeds: dict[str, Array]
    rows: int
    id: str
    parameters: Mapping[str, Any]
    outputs: tuple[str, ...]
    """Names, in the order they were asked for; empty: all."""
    binary: Mapping[str, bool]
    all_binary: bool


def described(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Tensors as a model's metadata shows them; an open dimension is -1."""
    return [
        {
            "name": spec.name,
            "datatype": DATATYPES.get(spec.dtype, spec.dtype.upper()),
            "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
        }
        for spec in specs
    ]


def read(
    body: bytes, header_length: str | None, inputs: Sequence[TensorSpec], outputs: Sequence[str]
) -> Inference:
    """A request.

    Args:
        body: JSON, then the binary tensors.
        header_length: `Inference-Header-Content-Length`: bytes of the JSON.
        inputs: What the engine takes.
        outputs: Names of what it gives.

    Raises:
        Refusal: 400, with the tensor and the rule.
    """
    whole, end = memoryview(body), _end_of_json(body, header_length)
    data = json_object(whole[:end])
    rest = whole[end:]
    parameters = _mapping(data.get("parameters", {}), "parameters")
    given = data.get("inputs")
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise bad_request('"inputs" is no list of tensors', hint="see the protocol")
    specs = {spec.name: spec for spec in inputs}
    feeds: dict[str, Array] = {}
    for entry in given:
        name = entry.get("name")
        if not isinstance(name, str) or name not in specs or name in feeds:
            raise bad_request(
                f"input {str(name)[:80]!r} is none of this engine's, or stands there twice",
                hint=f"it takes {', '.join(specs)}",
            )
        feeds[name], rest = _tensor(entry, specs[name], rest)
    missing = [name for name in specs if name not in feeds]
    if missing:
        raise bad_request(f"input {missing[0]!r} is missing", hint="send every input")
    if len(rest):
        raise bad_request(
            f"{len(rest)} bytes follow the last binary tensor",
            hint="give binary_data_size for each tensor",
        )
    chosen, binary = _asked(data.get("outputs", []), outputs)
    identity = data.get("id", "")
    if not isinstance(identity, str) or len(identity) > 1024:
        raise bad_request('"id" is no text of up to 1,024 characters', hint="leave it out")
    rows = {name: array.shape[0] if array.ndim else 1 for name, array in feeds.items()}
    if len(set(rows.values())) > 1:
        raise bad_request(f"the inputs have different rows: {rows}", hint="send as many of each")
    return Inference(
        feeds=feeds,
        rows=next(iter(rows.values()), 1),
        id=identity,
        parameters=parameters,
        outputs=chosen,
        binary=binary,
        all_binary=bool(parameters.get("binary_data_output", False)),
    )


def _end_of_json(body: bytes, header_length: str | None) -> int:
    """Bytes of the JSON: all of them where no binary tensors follow."""
    if header_length is None:
        return len(body)
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 12):
        raise bad_request(
            f"Inference-Header-Content-Length is {header_length[:20]!r}",
            hint="give the length of the JSON in bytes",
        )
    end = int(header_length)
    if end > len(body):
        raise bad_request(
            f"Inference-Header-Content-Length is {end}, the body has {len(body)} bytes",
            hint="give the length of the JSON in bytes",
        )
    return end


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f'"{what}" is no object', hint="see the protocol")
    return value


def _asked(entries: Any, known: Sequence[str]) -> tuple[tuple[str, ...], dict[str, bool]]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise bad_request('"outputs" is no list of tensors', hint="leave it out for all")
    names: list[str] = []
    binary: dict[str, bool] = {}
    for entry in entries:
        name = entry.get("name")
        if name not in known or name in names:
            raise bad_request(
                f"output {str(name)[:80]!r} is none of this engine's, or stands there twice",
                hint=f"it gives {', '.join(known)}",
            )
        asked = _mapping(entry.get("parameters", {}), "parameters")
        if "classification" in asked:
            raise bad_request(
                "outputs are not sorted into classes here", hint="use /classify, or the raw output"
            )
        names.append(name)
        if "binary_data" in asked:
            binary[name] = bool(asked["binary_data"])
    return tuple(names), binary


def _tensor(
    entry: Mapping[str, Any], spec: TensorSpec, rest: memoryview
) -> tuple[Array, memoryview]:
    name, shape = spec.name, entry.get("shape")
    datatype = DATATYPES.get(spec.dtype, spec.dtype.upper())
    if entry.get("datatype") != datatype:
        raise bad_request(
            f"input {name!r} is {str(entry.get('datatype'))[:20]!r}", hint=f"it must be {datatype}"
        )
    if (
        not isinstance(shape, list)
        or len(shape) > _MOST_DIMENSIONS
        or not all(type(size) is int and 0 < size < 2**31 for size in shape)
        or math.prod(shape) > _MOST_ELEMENTS
    ):
        raise bad_request(
            f"input {name!r} has the shape {str(shape)[:80]}",
            hint=f"a shape is a list of at most {_MOST_DIMENSIONS} whole numbers above 0, "
            f"{_MOST_ELEMENTS:,} elements at most",
        )
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(want, int) or want == size
        for want, size in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        wanted = [size if isinstance(size, int) else -1 for size in spec.shape]
        raise bad_request(f"input {name!r} has the shape {shape}", hint=f"it must be {wanted}")
    dtype, count = np.dtype(spec.dtype), math.prod(shape)
    size = _mapping(entry.get("parameters", {}), "parameters").get("binary_data_size")
    if size is None:
        return _of_numbers(entry.get("data"), name, dtype, count).reshape(shape), rest
    if "data" in entry:
        raise bad_request(
            f"input {name!r} has both data and binary_data_size", hint="send one of them"
        )
    if type(size) is not int or size != count * dtype.itemsize or size > len(rest):
        raise bad_request(
            f"input {name!r} has binary_data_size {str(size)[:20]}, {len(rest)} bytes are left in "
            "the body",
            hint=f"its shape and type are {count * dtype.itemsize} bytes",
        )
    return np.frombuffer(rest[:size], dtype).reshape(shape), rest[size:]


def _of_numbers(data: Any, name: str, dtype: np.dtype[Any], count: int) -> Array:
    if not isinstance(data, list):
        raise bad_request(
            f"input {name!r} has no data", hint="send numbers, or binary with binary_data_size"
        )
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError, RecursionError):
        array = np.empty(0, object)
    kinds = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in kinds or array.size != count:
        raise bad_request(
            f"input {name!r}: its data are not {count} numbers of {DATATYPES[dtype.name]}",
            hint="send them flat or nested by the shape, or as binary",
        )
    flat = array.reshape(-1)
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        if flat.min() < limits.min or flat.max() > limits.max:
            raise bad_request(
                f"input {name!r}: a number does not fit into {DATATYPES[dtype.name]}",
                hint=f"from {limits.min} to {limits.max}",
            )
    with np.errstate(over="ignore"):
        return flat.astype(dtype)


def write(
    inference: Inference, outputs: Mapping[str, Array], model: str, version: str
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where binary tensors follow it."""
    entries: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name in inference.outputs or tuple(outputs):
        array = np.asarray(outputs[name], order="C")
        if array.dtype.name not in DATATYPES:
            raise Refusal(
                500, "engine_error", f"output {name!r} is {array.dtype}, no type of the protocol",
                hint="export the model with another type of output",
            )  # fmt: skip
        entry: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPES[array.dtype.name],
            "shape": list(array.shape),
        }
        if inference.binary.get(name, inference.all_binary):
            data = array.tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            values = array.reshape(-1)
            if array.dtype.kind == "f" and not np.isfinite(values).all():
                raise Refusal(
                    500, "engine_error", f"output {name!r} holds numbers that are not finite, "
                    "which JSON cannot say", hint="ask for it as binary",
                )  # fmt: skip
            entry["data"] = values.tolist()
        entries.append(entry)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if inference.id:
        answer["id"] = inference.id
    head = json.dumps(answer, separators=(",", ":")).encode()
    return b"".join([head, *tail]), len(head) if tail else None
