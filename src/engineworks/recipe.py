"""Reads a recipe: the YAML a user writes, parsed once, checked, with every path made absolute.

The sections are the frozen values of `specs.py`; this file knows YAML, pydantic and the rules
between sections. Nothing is run and nothing is written.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engineworks import files, fleet, hosts, targets, usercode, yaml_text
from engineworks.calibrate.ranges import METHODS
from engineworks.codec import digest, to_json
from engineworks.errors import DataError, ModelError, RecipeError, said
from engineworks.export import sources
from engineworks.facts.host import HostCard, RegisteredHost
from engineworks.facts.model import PinnedModel
from engineworks.facts.plan import Plan, PlannedVariant
from engineworks.qdq import accept
from engineworks.specs import (
    P99_CALLS,
    BenchmarkSpec,
    BudgetSpec,
    CalibrationSpec,
    DataSpec,
    ExportSpec,
    Int8Spec,
    LimitsSpec,
    ModelSpec,
    Preprocess,
    TargetSpec,
    TaskSpec,
)
from engineworks.store import LocalStore
from engineworks.targets._base import check_request

#: Bytes of a file of labels; 20,000 names have some 300 kB.
_MOST_LABELS = 2**24


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
    """The file that it was read from at first, absolute: whose models are registered."""


def load(path: Path) -> Loaded:
    """Read and check a recipe.

    Raises:
        RecipeError: No YAML, an unknown key, a value out of range, an unknown target.
        DataError: The labels file is missing.
    """
    try:
        text = files.read_text(path, most=yaml_text.MOST_BYTES)
        raw = yaml_text.parse(text)
    except (FileNotFoundError, NotADirectoryError):
        raise RecipeError(
            f"{path} does not exist",
            hint="give a recipe file, for example examples/yolox_nano/recipe.yaml",
        ) from None
    except OSError as error:
        words = getattr(error, "strerror", None) or error
        raise RecipeError(
            f"the recipe {str(path)[:200]!r} cannot be read: {words}",
            hint="give a recipe file, for example examples/yolox_nano/recipe.yaml",
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(
            f"{path} is not YAML: {said(error)}",
            hint="check indentation and colons at the place named",
        ) from error
    if raw is None:
        raise RecipeError(f"{path} is empty", hint="start from examples/yolox_nano/recipe.yaml")
    if not isinstance(raw, dict):
        raise RecipeError(
            f"{path} holds {type(raw).__name__}, not a mapping of sections",
            hint="start from examples/yolox_nano/recipe.yaml",
        )
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise _explain(path, error) from error
    _refuse_booleans(raw, recipe, str(path))
    folder = path.absolute().parent
    recipe = _absolute(recipe, folder)
    labels = read_labels(recipe.task, folder)
    _check_sections(recipe, labels)
    sections = {name: getattr(recipe, name) for name in Recipe.model_fields}
    return Loaded(
        recipe=recipe,
        path=path,
        folder=folder,
        labels=labels,
        sha256=digest({**sections, "labels": labels}),
        text=text,
        origin=str(path.absolute()),
    )


def _explain(path: Path, error: ValidationError) -> RecipeError:
    """The first problems in the user's words: where, what, and the nearest right spelling."""
    lines, hints = [], []
    for problem in _meant(error)[:5]:
        location = [str(part) for part in problem["loc"] if part not in _FORMS]
        where = ".".join(location)
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(f"{where}: unknown key")
            near = difflib.get_close_matches(location[-1], _keys(location[:-1]), 1, 0.5)
            allowed = ", ".join(_keys(location[:-1]))
            hints.append(f"did you mean {near[0]!r}?" if near else f"allowed here: {allowed}")
        elif problem["type"] in ("missing", "missing_keyword_only_argument"):
            lines.append(f"{where}: missing")
            hints.append(f"add {where}")
        elif problem["type"] == "string_type" and not isinstance(problem["input"], list | dict):
            read = json.dumps(problem["input"], default=repr)[:60]
            lines.append(f"{where}: YAML reads {read} there, no text")
            hints.append("put names in quotes that look like numbers, yes, no, on, off or null")
        else:
            got = repr(problem.get("input"))[:60]
            lines.append(f"{where}: {problem['msg'].lower()}, got {got}")
            hints.append(f"correct {where}")
    return RecipeError(
        f"{path}: " + "; ".join(lines),
        hint="; ".join(dict.fromkeys(hints)) + " (all keys: docs/recipe.md)",
    )


#: What pydantic calls the two forms that a value may have (`task.labels`) in its places.
_FORMS = ("tuple[str, ...]", "str")


def _meant(error: ValidationError) -> list[Any]:
    """The problems, those of the form left out that a value does not have."""
    return [
        problem
        for problem in error.errors()
        if not (problem["loc"][-1:] == ("str",) and isinstance(problem["input"], list))
        and not (problem["loc"][-1:] == ("tuple[str, ...]",) and problem["type"] == "tuple_type")
    ]


def _refuse_booleans(raw: Any, made: Any, path: str, where: str = "") -> None:
    """Refuse true where a number belongs, which pydantic takes for 1.

    Raises:
        RecipeError: Names the place.
    """
    if isinstance(raw, bool) and not isinstance(made, bool):
        raise RecipeError(
            f"{path}: {where}: {json.dumps(raw)} is no number",
            hint=f"correct {where} (yes, no, on and off are true or false in YAML)",
        )
    if isinstance(raw, dict):
        for key, value in raw.items():
            part = made.get(key) if isinstance(made, dict) else getattr(made, key)
            _refuse_booleans(value, part, path, f"{where}.{key}".lstrip("."))
    elif isinstance(raw, list):
        for number, (value, part) in enumerate(zip(raw, made, strict=True)):
            _refuse_booleans(value, part, path, f"{where}.{number}")


def _keys(location: list[str]) -> list[str]:
    """Keys that the recipe allows at a place such as ["model", "input"]."""
    kind: Any = Recipe
    for part in location:
        if not part.isdigit():
            hint = typing.get_type_hints(kind).get(part)
            options = (hint, *typing.get_args(hint))
            kind = next((option for option in options if dataclasses.is_dataclass(option)), None)
        if kind is None:
            return []
    return [name for name in typing.get_type_hints(kind) if name in getattr(
        kind, "model_fields", getattr(kind, "__dataclass_fields__", ())
    )]  # fmt: skip


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """Paths relative to the recipe become absolute."""

    def place(value: str | None) -> str | None:
        return None if value is None else str((folder / Path(value).expanduser()).absolute())

    model = dataclasses.replace(recipe.model, weights=place(recipe.model.weights))
    data = recipe.data
    if data is not None:
        data = dataclasses.replace(
            data, images=place(data.images) or "", annotations=place(data.annotations)
        )
    calibration = recipe.calibration
    if calibration is not None:
        calibration = dataclasses.replace(
            calibration,
            images=calibration.images if calibration.made else place(calibration.images) or "",
            annotations=place(calibration.annotations),
        )
    return recipe.model_copy(update={"model": model, "data": data, "calibration": calibration})


def read_labels(task: TaskSpec, folder: Path) -> tuple[str, ...]:
    """Class names in index order; a class without a name is called by its number."""
    if not isinstance(task.labels, str):
        if task.labels and not any(name.strip() for name in task.labels):
            raise RecipeError(
                f"task.labels: all {len(task.labels)} names are empty",
                hint="name the classes in the model's order, or leave task.labels out",
            )
        return _numbered(task.labels)
    path = folder / task.labels
    try:
        # Lines as editors show them: `splitlines` ends one at a dozen other characters, too.
        lines = files.read_text(path, "utf-8-sig", _MOST_LABELS).rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"task.labels: {path} cannot be read ({getattr(error, 'strerror', None) or error})",
            hint="give a text file with one class name per line, or a list of names",
        ) from error
    names = [line.strip() for line in lines]
    labels = _numbered(names) if any(names) else ()
    doubled = [name for name, count in Counter(map(_spelled, labels)).items() if count > 1]
    if doubled:
        raise DataError(
            f"task.labels: {path} names the class {doubled[0]!r} twice",
            hint="name every class once",
        )
    strange = [name for name in labels if any(unicodedata.category(c) == "Cc" for c in name)]
    if strange:
        raise DataError(
            f"task.labels: {path} holds {strange[0][:40]!r}, which is no readable name",
            hint="give a text file with one class name per line, or a list of names",
        )
    return labels


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """An empty line holds the place of a class without a name."""
    return tuple(name or str(number) for number, name in enumerate(names))


def _spelled(name: str) -> str:
    """A name as one sees it: macOS writes letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def _check_sections(recipe: Recipe, labels: tuple[str, ...]) -> None:
    """Rules between sections, all of them before anything is run."""
    for spec in recipe.targets:
        check_request(spec.target, targets.load(spec.target), spec.precisions, spec.options)
    names = [(spec.target, precision) for spec in recipe.targets for precision in spec.precisions]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise RecipeError(
            f"targets: {'/'.join(doubled[0])} stands there twice", hint="name each variant once"
        )
    if recipe.task.kind == "classification" and not labels:
        raise RecipeError(
            "task.labels is empty: a classification needs the class names",
            hint="give a list of names or a text file, in the model's order",
        )
    if max(recipe.benchmark.batches) > 1 and not recipe.export.dynamic_batch:
        raise RecipeError(
            f"benchmark.batches: {max(recipe.benchmark.batches)} needs an open batch, "
            "but export.dynamic_batch is false",
            hint="set export.dynamic_batch: true or benchmark.batches: [1]",
        )
    latencies = recipe.budget.latencies
    if latencies and 1 not in recipe.benchmark.batches:
        raise RecipeError(
            f"budget.max_{next(iter(latencies))}_ms is judged at batch 1, which is not in "
            f"benchmark.batches {list(recipe.benchmark.batches)}",
            hint="add 1 to benchmark.batches",
        )
    if "p99" in latencies and recipe.benchmark.calls < P99_CALLS:
        raise RecipeError(
            f"budget.max_p99_ms: p99 is not known from fewer than {P99_CALLS} calls, "
            f"benchmark.calls is {recipe.benchmark.calls}",
            hint=f"write benchmark.calls: {P99_CALLS}; a row then takes that many calls, however "
            "long they take",
        )
    if max(recipe.benchmark.batches) > recipe.export.largest_batch:
        raise RecipeError(
            f"benchmark.batches: {max(recipe.benchmark.batches)} is above export.largest_batch, "
            f"{recipe.export.largest_batch}",
            hint=f"set export.largest_batch: {max(recipe.benchmark.batches)}, so that parity is "
            "checked there too, or leave that batch out",
        )
    _check_int8(recipe)
    gray = recipe.preprocess.color == "gray"
    if gray != (recipe.model.input.channels == 1):
        raise RecipeError(
            f"preprocess.color {recipe.preprocess.color} gives {1 if gray else 3} channels, "
            f"model.input.channels is {recipe.model.input.channels}",
            hint="use color: gray with channels: 1, else rgb or bgr with channels: 3",
        )
    others = [size for size in recipe.benchmark.sizes if size != recipe.model.input.size]
    if others and recipe.model.form != "factory":
        raise RecipeError(
            f"benchmark.sizes: a {recipe.model.form} source has one size, "
            f"{list(recipe.model.input.size)}; {list(others[0])} is asked for too",
            hint="leave benchmark.sizes out, or use a module:factory source",
        )


def _check_int8(recipe: Recipe) -> None:
    if _wants_int8(recipe) and recipe.calibration is None and recipe.model.form != "onnx":
        raise _no_calibration(recipe)
    unknown = [name for name in recipe.int8.methods if name not in METHODS]
    if unknown:
        raise RecipeError(
            f"int8.methods: there is no method {unknown[0]!r}",
            hint=f"the methods are: {', '.join(METHODS)}",
        )


def _wants_int8(recipe: Recipe) -> tuple[str, ...]:
    return tuple(spec.target for spec in recipe.targets if "int8" in spec.precisions)


def _no_calibration(recipe: Recipe) -> RecipeError:
    return RecipeError(
        f"calibration is missing: {_wants_int8(recipe)[0]}/int8 must see which values occur",
        hint="add calibration.images, at least 16 photos like those in use (other ones than in "
        "data), or remove int8",
    )


def refuse_float(loaded: Loaded) -> None:
    """Without calibration, int8 needs an ONNX source that is a Q/DQ model already.

    Raises:
        RecipeError: It is a float model.
    """
    if loaded.recipe.calibration is not None or not _wants_int8(loaded.recipe):
        return
    path = loaded.folder / Path(loaded.recipe.model.source).expanduser()
    try:
        quantized = accept.is_quantized(accept.load(path))
    except Exception:
        return  # the stage `reference` says what is wrong with it
    if not quantized:
        raise _no_calibration(loaded.recipe)


def pin_model(loaded: Loaded, store: LocalStore | None = None) -> PinnedModel:
    """Fix the model source by digests.

    Args:
        loaded: The recipe.
        store: Keeps the copy of the model file that stages read; None: they read the file itself.

    Raises:
        ModelError: A file is missing or empty, or the factory's module is nowhere.
    """
    spec, task = loaded.recipe.model, loaded.recipe.task
    path = (
        spec.weights or ""
        if spec.form == "factory"
        else str(loaded.folder / Path(spec.source).expanduser())
    )
    key = "model.source" if spec.form != "factory" else "model.weights"
    if path and not Path(path).is_file():
        raise ModelError(
            f"{key}: {path} does not exist", hint="give a path relative to the recipe's folder"
        )
    if path and Path(path).stat().st_size == 0:
        raise ModelError(f"{key}: {path} is empty", hint="copy the file again")
    references = [spec.source] if spec.form == "factory" else []
    references += [task.layout] if task.kind == "detection" and ":" in task.layout else []
    code = tuple(usercode.pin(reference, loaded.folder) for reference in references)
    model = PinnedModel(
        spec=spec,
        folder=str(loaded.folder),
        path=path,
        code=code,
        code_sha256=usercode.sha256(code),
        bytes_sha256="",
    )
    if not path:
        return model
    if store is None:
        return dataclasses.replace(model, bytes_sha256=sources.file_digest(Path(path), spec.form))
    stored = sources.hold(Path(path), spec.form, store, loaded.recipe.name)
    return dataclasses.replace(model, stored=stored, bytes_sha256=sources.bytes_sha256(stored))


def plan(
    loaded: Loaded,
    host: HostCard | None = None,
    *,
    registered: Sequence[RegisteredHost] | None = None,
    code_sha256: str = "",
) -> Plan:
    """Every variant: where it runs, or skipped and why. Touches no device.

    Args:
        loaded: The recipe.
        host: Card of this machine.
        registered: The machines of the fleet; None: everything runs here.
        code_sha256: Of the library here; a machine with another one gets no work.
    """
    card = host or hosts.probe()
    if registered is not None:
        variants = fleet.place(loaded.recipe.targets, registered, code_sha256)
        return Plan(host=card, variants=variants)
    here = []
    for spec in loaded.recipe.targets:
        reason = targets.load(spec.target).missing(card)
        here += [
            PlannedVariant(
                target=spec.target,
                precision=precision,
                options=dict(spec.options),
                required=spec.required,
                action="skip" if reason else "run",
                reason=reason,
            )
            for precision in spec.precisions
        ]
    return Plan(host=card, variants=tuple(here))


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors; committed as docs/recipe.schema.json."""
    schema = TypeAdapter(Recipe).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "engineworks recipe"
    return dict(schema)


def resolved(loaded: Loaded) -> str:
    """The recipe as it was understood, defaults filled in, as JSON."""
    sections = {name: getattr(loaded.recipe, name) for name in Recipe.model_fields}
    return json.dumps(to_json(sections), indent=1)
