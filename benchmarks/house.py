"""`make bench-house`: the shape of the source, counted from its syntax trees; prints its bars.

Counts what grows where nobody looks: keyword arguments by hand, long modules and functions, names
that mean two things, knowledge of one target outside its own files, packages in a circle.
Runs nothing of the project.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Bar, finish

TOP = Path(__file__).parents[1]
PARTS = ("src", "flows", "tasks", "artifacts")

#: A call with as many keyword arguments or more spells a value out by hand.
MANY = 5
LONG_MODULE, LONG_FUNCTION = 400, 60
#: Lines of src, flows, tasks and artifacts before this bench existed, and what may come on top.
LINES_THEN, LINES_MORE = 28_660, 1_500
#: Class names that a vendor's server looks for: every file that it loads has one.
GIVEN = ("TritonPythonModel",)


class Source:
    """One parsed module."""

    def __init__(self, path: Path) -> None:
        self.path = path.relative_to(TOP)
        text = path.read_text(encoding="utf-8")
        self.lines = text.count("\n")
        self.tree = ast.parse(text)

    @property
    def module(self) -> str:
        """Dotted name."""
        parts = self.path.with_suffix("").parts
        parts = parts[1:] if parts[0] == "src" else parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Source]:
    """Every module of the product."""
    return [Source(path) for part in PARTS for path in sorted((TOP / part).rglob("*.py"))]


def keywords(source: Source) -> Iterator[tuple[int, int]]:
    """(line, keyword arguments) of calls that have `MANY` or more.

    `**` of a dict or of a `dict(...)` made for the call counts its entries.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            count = sum(_spelled(keyword) for keyword in node.keywords)
            if count >= MANY:
                yield node.lineno, count


def _spelled(keyword: ast.keyword) -> int:
    value = keyword.value
    if keyword.arg is None and isinstance(value, ast.Dict):
        return len(value.keys)
    if keyword.arg is None and isinstance(value, ast.Call) and _name(value.func) == "dict":
        return len(value.keywords)
    return 1


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def functions(source: Source) -> Iterator[tuple[str, int]]:
    """(name, lines) of functions longer than one screen."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONG_FUNCTION:
                yield node.name, lines


def doubled(found: list[Source]) -> dict[str, list[str]]:
    """Public classes of one name in several modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in found:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith(("_", *GIVEN)):
                places[node.name].append(source.module)
    return {name: where for name, where in places.items() if len(where) > 1}


def name_tests(source: Source, names: set[str]) -> Iterator[tuple[int, str]]:
    """(line, name) where a value is compared with, or looked up by, a target's or precision's name.

    A comparison whose other side is a constant of a scheme's fields (`activation`, `bias`) is none.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Compare) and _field(node.left) not in ("activation", "bias"):
            for side in (node.left, *node.comparators):
                for leaf in side.elts if isinstance(side, ast.Tuple | ast.Set) else (side,):
                    if isinstance(leaf, ast.Constant) and leaf.value in names:
                        yield node.lineno, str(leaf.value)


def _field(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""


def circles(found: list[Source]) -> list[str]:
    """Pairs of packages of the library that import each other, directly or through others."""
    edges: dict[str, set[str]] = defaultdict(set)
    for source in found:
        here = _package(source.module)
        for node in ast.walk(source.tree):
            wanted = []
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            for name in wanted:
                other = _package(name)
                if here and other and other != here:
                    edges[here].add(other)
    return sorted(
        f"{one} <-> {other}"
        for one in edges
        for other in _reach(edges, one)
        if one < other and one in _reach(edges, other)
    )


def _package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "engineworks" and len(parts) > 1 else ""


def _reach(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(edges.get(start, ()))
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges.get(name, ())
    return seen


def main() -> int:
    """Count, say where, print the bars."""
    from engineworks import targets

    found = sources()
    names = {*targets.names(), "fp32", "fp16", "bf16", "int8", "w8a16"}
    orchestrating = [s for s in found if s.path.parts[0] != "src"]
    spelled = Counter[str]()
    for source in orchestrating:
        spelled[str(source.path)] += sum(count for _, count in keywords(source))
    long_modules = {str(s.path): s.lines for s in found if s.lines > LONG_MODULE}
    long_functions = {f"{s.path} {name}": lines for s in found for name, lines in functions(s)}
    twice = doubled(found)
    tests = [
        f"{source.path}:{line} {name}"
        for source in found
        if "targets" not in source.path.parts and "engines" not in source.path.parts
        for line, name in name_tests(source, names)
    ]
    rings = circles(found)
    lines = sum(s.lines for s in found)
    rows: dict[str, dict[str, Any] | list[str]] = {
        "keyword arguments in long calls": dict(spelled.most_common(8)),
        "long modules": long_modules,
        "long functions": long_functions,
        "public classes defined twice": twice,
        "tests of a name outside its files": tests,
        "circles": rings,
    }
    for title, content in rows.items():
        print(f"{title}:")
        items = content if isinstance(content, dict) else dict.fromkeys(content, "")
        for key, value in items.items():
            print(f"  {key} {value}".rstrip())
    bars = [
        Bar("keyword arguments in calls of five or more", sum(spelled.values()), "", 150),
        Bar("modules over 400 lines", len(long_modules), "", 0),
        Bar("functions over 60 lines", len(long_functions), "", 0),
        Bar("public classes defined twice", len(twice), "", 0),
        Bar("tests of a name outside its own files", len(tests), "", 0),
        Bar("circles between packages", len(rings), "", 0),
        Bar("lines more than then", lines - LINES_THEN, "lines", LINES_MORE),
    ]
    return finish("house", bars, {"lines": lines, "where": rows})


if __name__ == "__main__":
    sys.exit(main())
