"""A recipe: the YAML a user writes, read once, checked, and fixed by digests.

The sections are the frozen values of `specs/`; which machine builds what is `plan.py`.
"""

from engineworks.recipe.code import code_in
from engineworks.recipe.labels import read_labels
from engineworks.recipe.load import load, parse
from engineworks.recipe.overrides import Overrides
from engineworks.recipe.pin import pin_model
from engineworks.recipe.rules import refuse_float
from engineworks.recipe.schema import Loaded, Recipe, json_schema, resolved

__all__ = [
    "Loaded",
    "Overrides",
    "Recipe",
    "code_in",
    "json_schema",
    "load",
    "parse",
    "pin_model",
    "read_labels",
    "refuse_float",
    "resolved",
]
