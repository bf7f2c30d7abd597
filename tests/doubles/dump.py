"""Write the API of a TensorRT bindings wheel as JSON, for `tests.doubles.tensorrt`.

    python -m pip download --no-deps tensorrt-cu12-bindings==10.13.3.9
    python -m tests.doubles.dump tensorrt_cu12_bindings-10.13.3.9-*.whl tests/doubles/trt_10_13.json
    python -m tests.doubles.dump tensorrt_rtx tests/doubles/trt_rtx_1_7.json

The second takes an installed module.

The bindings want NVIDIA's libraries, which are no wheels: empty ones made by `cc` let them be
imported, and nothing more.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

#: Libraries -> symbols that the bindings look up when they are imported.
STUBS = {
    "libnvinfer.so.{major}": (
        "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL", "getPluginRegistry", "getBuilderPluginRegistry",
    ),
    "libnvonnxparser.so.{major}": (
        "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
    "libnvinfer_plugin.so.{major}": ("initLibNvInferPlugins",),
}  # fmt: skip


def undefined(library: Path, pattern: str) -> list[str]:
    """Symbols of a pattern that a library wants from others."""
    done = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True,
                          text=True, check=True)  # fmt: skip
    names = [line.split()[-1].split("@")[0] for line in done.stdout.splitlines()]
    return [name for name in names if re.match(pattern, name)]


def make_stubs(folder: Path, bindings: Path, major: str) -> None:
    """Compile the empty libraries."""
    wanted = {name.format(major=major): symbols for name, symbols in STUBS.items()}
    if major == "8":
        wanted["libnvparsers.so.8"] = tuple(undefined(bindings, r"_ZN\d+nv(caffe|uff)parser"))
    for name, symbols in wanted.items():
        source = "".join(f"void* {symbol}() {{ return 0; }}\n" for symbol in symbols)
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o",
             str(folder / name)],
            input=source, text=True, check=True,
        )  # fmt: skip


def parameters(signature: str) -> list[str]:
    """Parameter names of a pybind11 signature, optional ones with `?`, without self."""
    inside, depth, found = signature[signature.index("(") + 1 : signature.rindex(") ->")], 0, [""]
    for character in inside:
        depth += (character in "[(<{") - (character in "])>}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    names = [part.split(":")[0].strip() + ("?" if " = " in part else "") for part in found if part]
    return [name for name in names if name != "self"]


def signatures(function: object) -> list[list[str]]:
    text = getattr(function, "__doc__", "") or ""
    name = getattr(function, "__name__", "")
    lines = re.findall(rf"^(?:\d+\. )?({re.escape(name)}\(.*\) -> .*)$", text, re.MULTILINE)
    return [parameters(line) for line in lines]


def describe(module: object) -> dict[str, object]:
    """Everything public of a bindings module."""
    classes, enums = {}, {}
    for name in dir(module):
        value = getattr(module, name)
        if not isinstance(value, type) or name.startswith("_"):
            continue
        if hasattr(value, "__members__"):
            enums[name] = {member: int(number) for member, number in value.__members__.items()}
            continue
        methods, properties, nested = {}, {}, {}
        for part, content in vars(value).items():
            if isinstance(content, property):
                properties[part] = content.fset is not None
            elif isinstance(content, type) and hasattr(content, "__members__"):
                nested[part] = {m: int(number) for m, number in content.__members__.items()}
            elif part == "__init__" or (not part.startswith("_") and callable(content)):
                methods[part] = signatures(content)
        bases = [
            b.__name__ for b in value.__bases__ if b.__name__ not in ("object", "pybind11_object")
        ]
        classes[name] = {
            "bases": bases,
            "methods": methods,
            "properties": properties,
            "enums": nested,
        }
    return {"version": module.__version__, "enums": enums, "classes": classes}


def write(module: object, target: Path) -> None:
    text = json.dumps(describe(module), separators=(",", ":"), sort_keys=True)
    target.write_text(text.replace('"classes"', '\n"classes"').replace('},"I', '},\n"I') + "\n")


def main() -> None:
    wheel, target = map(Path, sys.argv[1:3])
    if wheel.suffix != ".whl":
        write(importlib.import_module(str(wheel)), target)
        return
    if len(sys.argv) > 3:  # the child, which sees the stubs
        import tensorrt_bindings

        write(tensorrt_bindings, target)
        return
    with tempfile.TemporaryDirectory() as work:
        zipfile.ZipFile(wheel).extractall(work)
        bindings = next(Path(work).glob("tensorrt_bindings/*.so"), None)
        bindings = bindings or next(Path(work).rglob("tensorrt*.so"))
        major = re.search(r"-(\d+)\.", wheel.name)[1]
        make_stubs(Path(work), bindings, major)
        environment = {**os.environ, "LD_LIBRARY_PATH": work, "PYTHONPATH": work}
        subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), str(wheel), str(target), "child"],
            env=environment, check=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
