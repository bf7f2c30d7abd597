"""One value of an annotation file, as whatever tool wrote it, turned into its type or refused.

Knows JSON's types and what exporters put in their place; knows no format.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from engineworks.files import read_bytes

#: Bytes of the largest annotation file: COCO's own have 0.5 GB.
MOST = 2**31

#: No id and no pixel is larger; below it every whole number is exact, and so is every product.
LARGEST = 2**53
_DIGITS = 32


def read_json(path: Path) -> Any:
    """A JSON file in UTF-8, UTF-16 or UTF-32, with a byte-order mark or without.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, nested too deeply, or an object holds one key twice: whoever
            takes the last one loses the first without a word.
    """
    try:
        return json.loads(read_bytes(path, MOST), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {doubled!r} stands twice in one object")
    return entries


def whole(value: Any, what: str) -> int:
    """An id or a size: 7, 7.0 or "7".

    Raises:
        ValueError: It is anything else.
    """
    integer = None
    if isinstance(value, int) and not isinstance(value, bool):
        integer = value
    elif (isinstance(value, float) and value.is_integer()) or (
        isinstance(value, str) and value.strip().isdecimal() and len(value) < _DIGITS
    ):
        integer = int(value)
    if integer is None or not 0 <= integer < LARGEST:
        raise ValueError(f"{what} is {_shown(value)}, not a whole number from 0")
    return integer


def number(value: Any, what: str) -> float:
    """A number that is finite and not absurd, or its text.

    Raises:
        ValueError: It is anything else.
    """
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            parsed = float(value)
        except (ValueError, OverflowError):
            parsed = math.nan
        if abs(parsed) < LARGEST:
            return parsed
    raise ValueError(f"{what} is {_shown(value)}, not a number")


def flag(value: Any, what: str) -> int:
    """0 or 1; null and empty text are 0, as an exporter writes what it does not know.

    Raises:
        ValueError: It is anything else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return 0
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return int(value.strip().lower() == "true")
    parsed = number(value, what)
    if parsed not in (0, 1):
        raise ValueError(f"{what} is {_shown(value)}, neither 0 nor 1")
    return int(parsed)


def text(value: Any, what: str) -> str:
    """Text that is not empty; a number is taken as its digits.

    Raises:
        ValueError: It is anything else, or holds half of a character, which no file takes.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{what} is {ascii(value)[:60]}, which is no text") from None
        return value
    raise ValueError(f"{what} is {_shown(value)}, not text")


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
