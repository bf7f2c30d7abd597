"""What every section of a recipe stands on: how it is validated and how it refuses.

Knows no section.
"""

from __future__ import annotations

import re

from engineworks.errors import RecipeError

#: (height, width) in pixels.
Size = tuple[int, int]

#: Read by pydantic when it validates these classes from YAML: unknown keys are refused, and the
#: text under a field is its description in the JSON Schema.
STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


def is_reference(text: str) -> bool:
    """Whether it says `module:name` (and not a path, not even one with a drive letter)."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text) is not None


def must(rule_holds: bool, message: str, hint: str) -> None:
    """Refuse a value that breaks a rule.

    Raises:
        RecipeError: The rule does not hold.
    """
    if not rule_holds:
        raise RecipeError(message, hint=hint)
