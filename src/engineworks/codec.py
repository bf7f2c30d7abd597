"""JSON for frozen dataclasses: out, strictly back in, and a digest of what a value means.

Knows only dataclasses and type hints. A field with ``metadata={"key": False}`` (a path, a time)
is where or when something is, not what it is: it is written to JSON and left out of `digest`.
A field with ``metadata={"later": True}`` came when values without it existed: at its default it is
left out of both, so that those keep their digests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union

from engineworks.errors import ArtifactError

T = TypeVar("T")


def place(**options: Any) -> Any:
    """Declare a dataclass field that says where or when, and is no part of a cache key."""
    return dataclasses.field(metadata={"key": False}, **options)


def later(**options: Any) -> Any:
    """Declare a dataclass field that older values lack; at its default it is not written.

    Args:
        options: `default` or `default_factory`, as of `dataclasses.field`.
    """
    return dataclasses.field(metadata={"later": True}, **options)


def to_json(value: Any) -> Any:
    """Turn a value of dataclasses, mappings, sequences and scalars into plain JSON types."""
    return _encode(value, key_only=False)


def meaning(value: Any) -> Any:
    """Plain JSON of what a value is: without the fields made by `place`."""
    return _encode(value, key_only=True)


def digest(value: Any) -> str:
    """sha256 (hex) of a value's canonical JSON, without the fields made by `place`."""
    text = json.dumps(meaning(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _encode(value: Any, *, key_only: bool) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _encode(getattr(value, field.name), key_only=key_only)
            for field in dataclasses.fields(value)
            if (not key_only or field.metadata.get("key", True))
            and not (field.metadata.get("later") and getattr(value, field.name) == _default(field))
        }
    if isinstance(value, Mapping):
        strange = next((key for key in value if not isinstance(key, str)), "")
        if not isinstance(strange, str):  # as text, 1 and "1" would be one key of one digest
            raise TypeError(f"the key {strange!r} is not text")
        return {key: _encode(item, key_only=key_only) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item, key_only=key_only) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form here: {value!r}")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def from_json(kind: type[T], data: Any, *, at: str = "") -> T:
    """Rebuild a dataclass from `to_json` output, refusing unknown, missing or mistyped fields.

    Raises:
        ArtifactError: The data is not what `kind` declares; the message names the field.
    """
    return typing.cast(T, _decode(kind, data, at or kind.__name__))


def _refuse(at: str, rule: str, data: Any) -> ArtifactError:
    return ArtifactError(
        f"{at}: {rule}, got {str(data)[:80]!r}",
        hint="the file was written by another version of engineworks or changed by hand: "
        "make it anew",
    )


def _decode(kind: Any, data: Any, at: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, data, at)
    if origin in (Union, types.UnionType):
        return _decode_union(args, data, at)
    if origin is Literal:
        if data not in args:
            raise _refuse(at, f"must be one of {', '.join(map(str, args))}", data)
        return data
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise _refuse(at, "must be a list", data)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item, f"{at}[{i}]") for i, item in enumerate(data))
        if len(args) != len(data):
            raise _refuse(at, f"must have {len(args)} entries", data)
        return tuple(
            _decode(a, d, f"{at}[{i}]") for i, (a, d) in enumerate(zip(args, data, strict=True))
        )
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(data, dict):
            raise _refuse(at, "must be a mapping", data)
        return {key: _decode(args[1], item, f"{at}.{key}") for key, item in data.items()}
    if kind is Any:
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError:
            raise _refuse(at, "must be a number that fits", "a longer one") from None
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise _refuse(at, f"must be {kind.__name__}", data)
    return data


def _decode_union(options: tuple[Any, ...], data: Any, at: str) -> Any:
    if data is None and type(None) in options:
        return None
    problems = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _decode(option, data, at)
        except ArtifactError as error:
            problems.append(error)
    raise problems[-1]


def _decode_dataclass(kind: type, data: Any, at: str) -> Any:
    if not isinstance(data, dict):
        raise _refuse(at, "must be a mapping", data)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise _refuse(at, f"has no field {unknown[0]!r}", unknown)
    hints = _hints(kind)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], f"{at}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _refuse(at, f"needs the field {name!r}", sorted(data))
    return kind(**values)
