"""Rules between the sections of a recipe, checked before anything is run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from engineworks import packaging, plan, precisions, targets
from engineworks.calibrate.ranges import METHODS
from engineworks.codec import digest
from engineworks.errors import BuildError, RecipeError
from engineworks.evaluate import tasks
from engineworks.qdq import accept
from engineworks.recipe.schema import Loaded, Recipe
from engineworks.specs import P99_CALLS
from engineworks.targets._base import check_request


def check_sections(recipe: Recipe, labels: tuple[str, ...]) -> None:
    """Rules between sections, all of them before anything is run."""
    for spec in recipe.targets:
        check_request(spec.target, targets.load(spec.target), spec.precisions, spec.options)
    _check_variants(recipe)
    tasks.check(recipe.task, labels, recipe.preprocess)
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
    _check_packages(recipe)
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


def _check_variants(recipe: Recipe) -> None:
    """A name for every variant, a label for every set of options, and none that means the same."""
    rows = [(spec, row) for spec in recipe.targets for row in plan.rows(spec)]
    counts = Counter(row.name for _, row in rows)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise RecipeError(
            f"targets: {name} stands there twice",
            hint="name each variant once; two sets of options of one target need a label each",
        )
    options: dict[tuple[str, str], dict[str, Any]] = {}
    for spec in recipe.targets:
        if options.setdefault((spec.target, spec.label), spec.options) != spec.options:
            raise RecipeError(
                f"targets: {spec.target} stands there with two sets of options",
                hint="give one of them a label: precisions of one set are held against each other",
            )
    first: dict[str, str] = {}
    for spec, row in rows:
        meaning = digest((row.target, row.precision, row.options, spec.pool, spec.devices))
        other = first.setdefault(meaning, row.name)
        if other != row.name:
            raise RecipeError(
                f"targets: {other} and {row.name} have the same options",
                hint="labels tell sets of options apart: change the options, or leave one out",
            )


def _check_packages(recipe: Recipe) -> None:
    """Kinds that there are, each once, with options that they have."""
    kinds = [spec.package for spec in recipe.packages]
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), "")
    if twice:
        raise RecipeError(f"packages: {twice} stands there twice", hint="name every kind once")
    for spec in recipe.packages:
        kind = packaging.load(spec.package)
        try:
            packaging.check_options(spec.package, kind, spec.options)
        except BuildError as error:
            raise RecipeError(error.message, hint=error.hint) from error


def _check_int8(recipe: Recipe) -> None:
    if _calibrated(recipe) and recipe.calibration is None and recipe.model.form != "onnx":
        raise _no_calibration(recipe)
    unknown = [name for name in recipe.int8.methods if name not in METHODS]
    if unknown:
        raise RecipeError(
            f"int8.methods: there is no method {unknown[0]!r}",
            hint=f"the methods are: {', '.join(METHODS)}",
        )


def _calibrated(recipe: Recipe) -> tuple[str, ...]:
    return tuple(
        f"{spec.target}/{name}"
        for spec in recipe.targets
        for name in spec.precisions
        if precisions.get(name).calibrated
    )


def _no_calibration(recipe: Recipe) -> RecipeError:
    return RecipeError(
        f"calibration is missing: {_calibrated(recipe)[0]} must see which values occur",
        hint="add calibration.images, at least 16 photos like those in use (other ones than in "
        "data), or remove int8",
    )


def refuse_float(loaded: Loaded) -> None:
    """Without calibration, int8 needs an ONNX source that is a Q/DQ model already.

    Raises:
        RecipeError: It is a float model.
    """
    if loaded.recipe.calibration is not None or not _calibrated(loaded.recipe):
        return
    path = loaded.folder / Path(loaded.recipe.model.source).expanduser()
    try:
        quantized = accept.is_quantized(accept.load(path))
    except Exception:
        return  # the stage `reference` says what is wrong with it
    if not quantized:
        raise _no_calibration(loaded.recipe)
