"""YAML as people write it by hand, and nothing that would take a machine down.

A file of 300 bytes can stand for gigabytes by its references, and a line of brackets for a stack
without end: both are counted while they are read. Knows no recipe.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

#: Of a file that a person writes. PyYAML reads some 200 kB a second.
MOST_BYTES = 2**20

#: Values, each reference counted as what it stands for; and how deep they lie in one another.
MOST_VALUES, DEEPEST = 100_000, 64

#: A zero byte, or half of a character, which no file and no terminal takes.
_STRANGE = re.compile("[\0\ud800-\udfff]")

_TEXT, _INT, _FLOAT = (f"tag:yaml.org,2002:{word}" for word in ("str", "int", "float"))

#: Digits behind a zero, which YAML 1.1 takes for octal; and a number with an exponent, of which it
#: wants both a point and a sign.
_ZERO_FIRST = re.compile(r"[-+]?0[0-9_]+")
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def parse(text: str) -> Any:
    """The value that a YAML text stands for: dates stay text, and a key may stand once.

    Raises:
        yaml.YAMLError: No YAML, or more of it than anybody writes; says where.
        ValueError: A number that is none.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - is safe


def foreign(value: Any, at: str = "") -> tuple[str, str]:
    """(where, what) of the first thing in a value that JSON has not; both empty without one.

    YAML knows keys that are numbers, sets and bytes. As JSON, which stages receive, they would be
    something else than what was written.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                return at, f"YAML reads the key {json.dumps(key, default=repr)} there, no text"
            if (problem := foreign(part, f"{at}.{key}".lstrip(".")))[1]:
                return problem
    elif isinstance(value, list):
        for number, part in enumerate(value):
            if (problem := foreign(part, f"{at}.{number}"))[1]:
                return problem
    elif value is not None and not isinstance(value, str | int | float | bool):
        return at, f"YAML reads {type(value).__name__} there"
    return "", ""


class _Loader(yaml.SafeLoader):
    """Plain scalars only, counted."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._weight: dict[int, tuple[int, int]] = {}
        """Node -> the values it stands for, and how deep they lie."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, unless it is too deep, too large, or holds itself."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._level += 1
        if self._level > DEEPEST:
            raise yaml.composer.ComposerError(
                None, None, f"values lie more than {DEEPEST} deep in one another", mark
            )
        node = super().compose_node(parent, index)
        self._level -= 1
        if id(node) not in self._weight:
            if isinstance(event, yaml.AliasEvent):
                raise yaml.composer.ComposerError(None, None, "a value holds itself", mark)
            self._weight[id(node)] = self._weigh(node)
        count, depth = self._weight[id(node)]
        if count > MOST_VALUES or depth > DEEPEST:
            raise yaml.composer.ComposerError(
                None, None, f"its references stand for {count:,} values, {depth} deep", mark
            )
        return node

    def _weigh(self, node: Any) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1, 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        weights = [self._weight[id(part)] for part in parts]
        count = 1 + sum(part for part, _ in weights)
        return count, 1 + max((depth for _, depth in weights), default=0)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node, as everybody reads it and YAML 1.1 does not.

        1:30 is text, not ninety; 010 is text, not eight; 1e-3 is a number, not text.
        """
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if tag in (_INT, _FLOAT):
            return _TEXT if ":" in value or _ZERO_FIRST.fullmatch(value) else tag
        plain = kind is yaml.ScalarNode and implicit[0]
        return _FLOAT if plain and tag == _TEXT and _EXPONENT.fullmatch(value) else tag

    def construct_scalar(self, node: Any) -> Any:
        """A scalar that is text."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and _STRANGE.search(value):
            raise yaml.constructor.ConstructorError(
                None, None, "it holds a zero byte or half of a character", node.start_mark
            )
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are words, all different."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
