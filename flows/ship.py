"""Ship one model: from a recipe to checked, timed, registered engines on this machine.

`python -m flows.ship RECIPE` runs it from the command line; a Prefect worker by the dotted
entrypoint `flows.ship.ship`.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows._command import main

    raise SystemExit(main())

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from artifacts.prefect_ui import ProgressBar
from artifacts.summary import Summary
from engineworks import recipe as recipes
from engineworks import usercode
from engineworks.evaluate import datasets
from engineworks.recipe import Loaded
from engineworks.values import Plan
from flows import _publish
from flows._common import calibration_data, prepare_model, prepare_size
from flows._variant import compare_shipped, ship_variant
from tasks import _run
from tasks._run import Run


@flow(name="ship", flow_run_name="ship {recipe}", validate_parameters=True)
def ship(recipe: str) -> State[Any]:
    """Export, simplify, analyze; build, check and time every variant; decide; log.

    Args:
        recipe: Path of a recipe file, relative to the working folder.

    Returns:
        Completed, or Failed when a required variant is not shipped; either way the run's
        folder holds summary.json and report.html.

    Raises:
        EngineworksError: The recipe, the model or the data cannot be used.
    """
    loaded, plan = preflight(recipe)
    run = _run.open_run(loaded)
    run.on_stage = ProgressBar(loaded.recipe.name, _stages(loaded, plan)).step
    summary = _ship(run, loaded, plan)
    if summary.missed:
        names = ", ".join(f"{v.name} is {v.verdict}" for v in summary.missed)
        return Failed(message=f"required but not shipped: {names}")
    return Completed(message=f"{len(summary.shipped)} of {len(summary.variants)} shipped")


def _ship(run: Run, loaded: Loaded, plan: Plan) -> Summary:
    model = prepare_model(run, loaded, plan)
    extra_sizes = [size for size in loaded.recipe.benchmark.sizes if size != model.size]
    sized = [prepare_size(run, loaded, model, size) for size in extra_sizes]
    variants = [ship_variant(run, loaded, plan, v, model, sized) for v in plan.variants]
    comparison = compare_shipped(run, loaded, plan, variants, model)
    summary = _publish.assemble(run, loaded, plan, model, variants, comparison)
    return _publish.publish(run, loaded, summary)


def _stages(loaded: Loaded, plan: Plan) -> int:
    """How many stages a run has, for its progress bar."""
    sizes = len({*loaded.recipe.benchmark.sizes, loaded.recipe.model.input.size})
    running = sum(variant.action == "run" for variant in plan.variants)
    shared = 3 if loaded.recipe.export.simplify else 2
    int8 = [v for v in plan.variants if v.action == "run" and v.precision == "int8"]
    searching = len(int8) * (sizes + 2)
    if int8 and loaded.recipe.calibration is not None:
        searching += 2 + loaded.recipe.calibration.made
    known = 3 + (loaded.recipe.data is not None)
    return sizes * shared + running * (sizes + 2) + searching + known


def preflight(recipe: str) -> tuple[Loaded, Plan]:
    """Everything that can be known in a second: recipe, files, targets, plan.

    Raises:
        EngineworksError: As `ship`, before anything is run or written.
    """
    loaded = recipes.load(Path(recipe))
    recipes.pin_model(loaded)
    if loaded.recipe.data is not None:
        datasets.list_images(loaded.recipe.data)
    recipes.refuse_float(loaded)
    spec = loaded.recipe.calibration
    if spec is not None and spec.made:
        usercode.code_sha256(spec.images, loaded.folder)
    elif spec is not None:
        datasets.list_images(calibration_data(spec))
    return loaded, recipes.plan(loaded)


__all__ = ["preflight", "ship"]
