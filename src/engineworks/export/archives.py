"""What a `.pt2` or TorchScript file would run, found before PyTorch opens it.

Both are programs. `torch.export.load` unpickles without limits where its first try fails, gives
texts of the file to `exec` and `sympy.sympify`, looks operators up by dotted name and loads
compiled libraries; TorchScript may write and read files, even while it is loaded. So whatever is
not known to be harmless is refused, unless the user trusts the file. Reads archives with PyTorch's
own reader, so that what was looked at is what is loaded. Knows no model.

Source: torch/export/pt2_archive/_package.py, torch/_export/serde/serialize.py,
torch/export/_unlift.py; https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Unsafe(Exception):
    """A file holds what could run code; the text says what."""


#: Plain names of tensors, layers and versions: nothing that generated source could be broken with.
_PLAIN = re.compile(r"[A-Za-z0-9_.+:-]*", re.ASCII)

_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims|quantized|quantized_decomposed|torchvision)"
    r"\.(?!__)[a-zA-Z0-9_]+(?:\.(?!_)[a-zA-Z0-9_]+)?"
    r"|torch\.ops\.aten\.__i?(?:and|or|xor|lshift|rshift)__(?:\.(?!_)[a-zA-Z0-9_]+)?"
    r"|torch\.ops\.higher_order\.(?:cond|while_loop|map_impl|scan|associative_scan"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\._?sym_[a-z0-9]+|math\.[a-z0-9]+"
    r"|_operator\.(?:add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge"
    r"|and_|or_|not_|xor|lshift|rshift|getitem|index)",
    re.ASCII,
)

#: Operators that write or map files.
_FILES = re.compile(r"\b(?:save|from_file)\b", re.ASCII)

#: Functions in the sizes of a program that was exported with open dimensions.
_SIZE_FUNCTIONS = frozenset(
    {"FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt",
     "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv",
     "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt",
     "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "Max", "Min", "Abs", "Eq", "Ne", "Lt",
     "Le", "Gt", "Ge", "And", "Or", "Not", "Pow", "floor", "ceiling", "sqrt", "Symbol", "Integer",
     "Rational", "Float", "Add", "Mul", "Equality", "Unequality", "StrictLessThan", "LessThan",
     "StrictGreaterThan", "GreaterThan", "Piecewise", "ExprCondPair", "min", "max", "abs"}
)  # fmt: skip

#: Methods of tensors in the conditions that such a program checks.
_SIZE_METHODS = frozenset({"size", "stride", "storage_offset"})

_ARITHMETIC = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Tuple, ast.keyword,
)  # fmt: skip

_SPECS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})

_PT2_PARTS = re.compile(
    r"models/[^/]+\.json|data/sample_inputs/[^/]+\.pt|data/weights/weight_\d+"
    r"|data/constants/tensor_\d+|data/(?:weights|constants)/[^/]+_config\.json"
    r"|extra/.*|archive_format|archive_version|byteorder|\.data/.*"
)


def check_pt2(data: bytes) -> None:
    """Hold a file of torch.export against what such files need.

    Args:
        data: The whole file.

    Raises:
        Unsafe: Something in it is, or may lead to, code.
        Exception: It is no such archive.
    """
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    if any("/" not in name for name in names):
        raise Unsafe("the format of torch before 2.8, which is pickled throughout")
    records = _records(data)
    for name in records:
        if not _PT2_PARTS.fullmatch(name):
            raise Unsafe(f"the part {name!r}, which a plain program does not have")
    for name, read in records.items():
        if name.startswith("models/"):
            _check_program(json.loads(read()), name)
        elif name.endswith("_config.json"):
            _check_stored(json.loads(read()), name)


def check_torchscript(data: bytes) -> None:
    """Hold a TorchScript file against what a network needs.

    Raises:
        Unsafe: Its code reads or writes files, or calls compiled extensions.
        Exception: It is no such archive.
    """
    records = _records(data)
    for name, read in records.items():
        lower = name.lower()
        if lower == "model.json":
            raise Unsafe("the format of torch 1.0, which is not looked through")
        if lower.endswith(".py"):
            _check_script(read().decode("utf-8"), name)
        if lower.endswith((".py", ".pkl")) and re.search(
            rb"torch\.classes\.(?!quantized\.)", read()
        ):
            raise Unsafe(f"objects of a compiled extension, in {name}")
    if not any(name.startswith("code/") for name in records):
        raise ValueError("it has no code")


@contextmanager
def weights_only() -> Iterator[None]:
    """Within it torch.load builds tensors and plain containers only, whatever it is asked."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = {
        name: os.environ.pop(name, None) for name in (key, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    }
    os.environ[key] = "1"
    try:
        yield
    finally:
        del os.environ[key]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _records(data: bytes) -> dict[str, Any]:
    """Name -> a function that reads it, as PyTorch's reader finds them."""
    import torch

    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    names = list(reader.get_all_records())
    if len({name.lower() for name in names}) != len(names):
        raise Unsafe("two parts of one name")
    return {name: lambda name=name: bytes(reader.get_record(name)) for name in names}


def _check_script(code: str, name: str) -> None:
    access = _FILES.search(code)
    if access is not None:
        raise Unsafe(f"code that reads or writes files ({access[0]!r} in {name})")
    for space in re.findall(r"\bops\.(\w+)", code):
        if space not in {"aten", "prim", "prims", "quantized", "torchvision", "mkldnn"}:
            raise Unsafe(f"operators of {space!r}, in {name}")


def _check_stored(config: Any, name: str) -> None:
    """Tensors by name: where they lie, and nothing but tensors."""
    for entry in config["config"].values():
        stored = str(entry["path_name"])
        if not re.fullmatch(r"(?:weight|tensor)_\d+", stored):
            raise Unsafe(f"the stored object {stored!r}, which is no tensor")
    _check_plain(config, name)


def _check_program(value: Any, where: str) -> None:
    """Walk a program; every text must be harmless in the place where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            (_check_size if where.endswith("/range_constraints") else _check_plain)(key, where)
            place = f"{where}/{key}"
            if key == "metadata" and isinstance(inner, dict) and _texts(inner):
                continue  # where each operator came from: is only kept, and shown
            if key in _RULES:
                for text in inner if isinstance(inner, list) else [inner]:
                    if text is not None:
                        _RULES[key](text, place)
            else:
                _check_program(inner, place)
    elif isinstance(value, list):
        for inner in value:
            _check_program(inner, where)
    else:
        _check_plain(value, where)


def _texts(entries: dict[str, Any]) -> bool:
    return all(isinstance(text, str) for text in entries.values())


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_plain(key, where)
            _check_plain(inner, where)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, where)
    elif isinstance(value, str) and not _PLAIN.fullmatch(value):
        raise Unsafe(f"the text {value[:60]!r} in the place of a name ({where[:80]})")


def _check_operator(target: Any, where: str) -> None:
    if not _OPERATOR.fullmatch(str(target)) or _FILES.search(str(target)):
        raise Unsafe(f"a call of {str(target)[:60]!r}, which is no operator of a network")


def _check_size(text: Any, where: str) -> None:
    """A size, `FloorDiv(Symbol('s0'), 2)`, or a condition, `L['x'].size()[0] <= 8`."""
    unsafe = Unsafe(f"the text {str(text)[:60]!r} in the place of a size")
    if not re.fullmatch(r"[^#\n\r\\]{1,20000}", str(text)):
        raise unsafe
    try:
        tree = ast.parse(str(text), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise unsafe from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func
            if not (
                (isinstance(name, ast.Name) and name.id in _SIZE_FUNCTIONS)
                or (isinstance(name, ast.Attribute) and name.attr in _SIZE_METHODS)
            ):
                raise unsafe
        elif isinstance(node, ast.Attribute):
            if node.attr not in _SIZE_METHODS or not isinstance(node.value, ast.Subscript):
                raise unsafe
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not _PLAIN.fullmatch(node.value):
                raise unsafe
        elif not isinstance(node, (*_ARITHMETIC, ast.Subscript)):
            raise unsafe


def _check_spec(text: Any, where: str) -> None:
    """How inputs or outputs nest: tuples, lists and dicts of tensors, by plain names."""

    def walk(spec: Any) -> None:
        kind = spec["type"]
        if kind is not None and kind not in _SPECS:
            raise Unsafe(f"inputs or outputs of the type {str(kind)[:60]!r}")
        if not where.endswith("/out_spec"):  # its names are part of no source
            _check_plain(json.loads(spec["context"] or "null"), where)
        if "__enum__" in str(spec["context"]):
            raise Unsafe("inputs or outputs named by an enumeration")
        for inner in spec["children_spec"]:
            walk(inner)

    if text:
        walk(json.loads(text)[1])


def _check_nothing(value: Any, where: str) -> None:
    """A text that is an operator's argument, such as the mode of an interpolation."""


_RULES = {
    "target": _check_operator,
    "expr_str": _check_size,
    "guards_code": _check_size,
    "in_spec": _check_spec,
    "out_spec": _check_spec,
    "as_string": _check_nothing,
    "as_strings": _check_nothing,
}
