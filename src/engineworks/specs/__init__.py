"""What a user asks for: the sections of a recipe, as frozen values that stages receive.

Each section checks itself when made. Knows no YAML (`recipe/` reads that) and no results
(`facts/`). Sizes are always (height, width) in pixels.
"""

from engineworks.specs.ground import STRICT, Size, is_reference
from engineworks.specs.images import MAX_PIXELS, CalibrationSpec, DataSpec, Preprocess
from engineworks.specs.limits import P99_CALLS, BenchmarkSpec, BudgetSpec, LimitsSpec
from engineworks.specs.model import ExportSpec, InputSpec, ModelSpec
from engineworks.specs.packages import PackageSpec
from engineworks.specs.sealed import SealedSpec
from engineworks.specs.targets import Int8Spec, TargetSpec
from engineworks.specs.task import NO_TASK, ScoreKind, TaskSpec

__all__ = [
    "MAX_PIXELS",
    "NO_TASK",
    "P99_CALLS",
    "STRICT",
    "BenchmarkSpec",
    "BudgetSpec",
    "CalibrationSpec",
    "DataSpec",
    "ExportSpec",
    "InputSpec",
    "Int8Spec",
    "LimitsSpec",
    "ModelSpec",
    "PackageSpec",
    "Preprocess",
    "ScoreKind",
    "SealedSpec",
    "Size",
    "TargetSpec",
    "TaskSpec",
    "is_reference",
]
