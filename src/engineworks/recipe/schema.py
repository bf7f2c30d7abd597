"""What a recipe holds: its sections, its place on this machine, its JSON forms.

Knows neither YAML nor the rules between sections.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from engineworks.codec import digest, to_json
from engineworks.evaluate import tasks
from engineworks.specs import (
    BenchmarkSpec,
    BudgetSpec,
    CalibrationSpec,
    DataSpec,
    ExportSpec,
    Int8Spec,
    LimitsSpec,
    ModelSpec,
    PackageSpec,
    Preprocess,
    SealedSpec,
    TargetSpec,
    TaskSpec,
)


class Recipe(BaseModel):
    """One trained model, the data that judges it, the targets it goes to, what it may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    version: Literal[1] = 1
    """Version of the recipe format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    """Name of the model: of its runs, and of the registered model in MLflow."""
    model: ModelSpec
    """The trained model."""
    preprocess: Preprocess = Preprocess()
    """How an image becomes the model's input; travels with every engine."""
    task: TaskSpec = TaskSpec()
    """What the outputs mean."""
    data: DataSpec | None = None
    """Labelled images that judge every engine. Without them engines are compared with the
    source model on synthetic images only."""
    calibration: CalibrationSpec | None = None
    """Images that INT8 is calibrated with; needed when a target asks for int8."""
    int8: Int8Spec = Int8Spec()
    """How far the search for an accurate and fast INT8 engine may go."""
    export: ExportSpec = ExportSpec()
    """How the model becomes ONNX."""
    targets: tuple[TargetSpec, ...] = Field(min_length=1)
    """Where it shall run."""
    benchmark: BenchmarkSpec = BenchmarkSpec()
    """What is timed."""
    budget: BudgetSpec = BudgetSpec()
    """What a variant may cost to be shipped."""
    packages: tuple[PackageSpec, ...] = ()
    """What servers shall load: each is made of every shipped variant that it fits, and proven."""
    sealed: SealedSpec | None = None
    """The test that goes with every shipped engine; left out: none is made."""
    limits: LimitsSpec = LimitsSpec()
    """Time limits of stages."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A recipe with its place on this machine."""

    recipe: Recipe
    path: Path
    folder: Path
    labels: tuple[str, ...]
    sha256: str
    """Of the recipe's meaning, without paths and comments."""
    text: str = ""
    """As its author wrote it, read once: the file may be edited while a run goes on."""
    origin: str = ""
    """The file that it was read from at first, absolute, or the place elsewhere that it came from:
    whose models are registered."""
    address: str = ""
    """What a recipe from elsewhere was asked for by; empty: it is a file of this machine."""

    @property
    def own_decoder(self) -> bool:
        """Whether a function beside the recipe says what the outputs mean."""
        return bool(tasks.own_layout(self.recipe.task))


def sections(recipe: Recipe) -> dict[str, Any]:
    """Every section by its name."""
    return {name: getattr(recipe, name) for name in Recipe.model_fields}


def meaning_sha256(recipe: Recipe, labels: tuple[str, ...]) -> str:
    """Digest of what a recipe means, without paths and comments."""
    said = sections(recipe)
    if not recipe.packages:  # recipes of before there were any keep their digest
        del said["packages"]
    if recipe.sealed is None:  # likewise
        del said["sealed"]
    return digest({**said, "labels": labels})


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors; committed as docs/recipe.schema.json."""
    schema = TypeAdapter(Recipe).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "engineworks recipe"
    return dict(schema)


def resolved(loaded: Loaded) -> str:
    """The recipe as it was understood, defaults filled in, as JSON."""
    return json.dumps(to_json(sections(loaded.recipe)), indent=1)
