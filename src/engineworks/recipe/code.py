"""What of a recipe is code, or lets code in: for recipes that came from elsewhere.

Reads names only: nothing is imported. Knows where a recipe may name code, not who may.
"""

from __future__ import annotations

from engineworks import packaging, targets
from engineworks.evaluate import tasks
from engineworks.recipe.schema import Recipe
from engineworks.runtime import heads


def code_in(recipe: Recipe) -> list[str]:
    """Every place of a recipe that runs code that is not this project's, in words."""
    named = []
    if recipe.model.form == "factory":
        named.append(f"model.source: {recipe.model.source}")
    if recipe.model.trust:
        named.append("model.trust: true")
    if ":" in recipe.task.layout:
        named.append(f"task.layout: {recipe.task.layout}")
    if recipe.calibration is not None and recipe.calibration.made:
        named.append(f"calibration.images: {recipe.calibration.images}")
    modules = [
        *((f"target: {s.target}", targets.LISTING.foreign(s.target)) for s in recipe.targets),
        *((f"package: {s.package}", packaging.LISTING.foreign(s.package)) for s in recipe.packages),
        *(
            (f"task.kind: {recipe.task.kind}", foreign(recipe.task.kind))
            for foreign in (tasks.LISTING.foreign, heads.LISTING.foreign)
        ),
    ]
    named += [f"{place}, a plug-in of {module}" for place, module in modules if module]
    return list(dict.fromkeys(named))
