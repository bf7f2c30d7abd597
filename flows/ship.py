"""Ship one model: from a recipe to checked, timed, registered engines on this machine.

`python -m flows.ship RECIPE` runs it from the command line; a Prefect worker by the dotted
entrypoint `flows.ship.ship`.
"""

from __future__ import annotations

if __name__ == "__main__":
    # Before Prefect is imported: it reads its settings then, and the command makes them.
    from flows.commands.ship import main
    from flows.commands.signals import end

    end(main())

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from artifacts.prefect_ui import ProgressBar
from artifacts.summary import Summary
from engineworks import plan as planning
from engineworks import precisions, targets, usercode
from engineworks import recipe as recipes
from engineworks.errors import EngineworksError
from engineworks.evaluate import datasets
from engineworks.facts.plan import Plan
from engineworks.recipe import Loaded, Overrides
from engineworks.recipe.overrides import NONE
from flows.fleet import elsewhere, trigger, waiting
from flows.fleet.attachments import pack
from flows.fleet.fanout import AWAY
from flows.fleet.machine import marked_as_running
from flows.fleet.waiting import Waiting
from flows.steps import publish, recipe_from, requests
from flows.steps import registered as from_registry
from flows.steps.prepare import calibration_data, prepare
from flows.steps.variant import compare_shipped, job_of, ship_variant
from tasks import _run
from tasks._job import Job


def _name() -> str:
    """Of the run, in Prefect's lists: a recipe may be pages of text."""
    return f"ship {recipe_from.title(str(flow_run.parameters.get('recipe', '')))}"


@flow(name="ship", flow_run_name=_name, validate_parameters=True)
def ship(
    recipe: str, fleet: bool = False, overrides: Overrides = NONE, registered: str = ""
) -> State[Any]:
    """Export, simplify, analyze; build, check and time every variant; decide; log.

    Args:
        recipe: Recipe file, relative to the checkout of the machine that runs it; or the recipe's
            own text; or s3://bucket/folder/recipe.yaml; or
            git+https://host/repository@COMMIT#folder/recipe.yaml.
        fleet: Build every variant on a registered machine that can, not here.
        overrides: What is another than in the recipe, for this run.
        registered: NAME/VERSION in MLflow that asks for it: its ONNX file is the model, and the
            recipe is a file of the checkout.

    Returns:
        Completed, or Failed when a required variant is not shipped or its package failed its proof
        (what is pending, for a machine or for its server, may come later); either way the run's
        folder holds summary.json and report.html.

    Raises:
        EngineworksError: The recipe, the model or the data cannot be used.
    """
    if not registered:
        return _state(_shipped(*preflight(recipe, fleet=fleet, overrides=overrides), fleet=fleet))
    model, version = from_registry.parts(registered)
    with requests.answering(model, version, asked=True):
        if not requests.stands(model, version, "ship", recipe):
            return Completed(message="nothing is asked for any more")
        with from_registry.loaded(recipe, registered) as loaded:
            summary = _shipped(loaded, planned(loaded, fleet=fleet), fleet=fleet)
        state = _state(summary)
        requests.answer_ship(model, version, f"{summary.name}, {state.message}")
    return state


def _shipped(loaded: Loaded, plan: Plan, *, fleet: bool) -> Summary:
    with marked_as_running():
        publish.refuse_another(loaded, plan.host)
        run = _run.open_run(loaded.recipe.name)
        run.on_stage = ProgressBar(loaded.recipe.name, _stages(loaded, plan)).step
        job = Job(run=run, loaded=loaded, host=plan.host)
        return _ship_fleet(job, plan) if fleet else _ship(job, plan)


def _state(summary: Summary) -> State[Any]:
    if summary.missed:
        names = ", ".join(f"{v.name} is {v.verdict}" for v in summary.missed)
        return Failed(message=f"required but not shipped: {names}")
    if summary.failed_packages:
        return Failed(message=f"packages without a proof: {', '.join(summary.failed_packages)}")
    words = f"{len(summary.shipped)} of {len(summary.variants)} shipped"
    words += f", {len(summary.pending)} pending" if summary.pending else ""
    return Completed(message=words)


def _ship(job: Job, plan: Plan) -> Summary:
    prepared = prepare(job, plan)
    outcomes = [
        ship_variant(job_of(job, planned, plan.variants), prepared) for planned in plan.variants
    ]
    comparison = compare_shipped(job, outcomes, prepared.model)
    return publish.publish(job, publish.assemble(job, prepared, outcomes, comparison))


def _ship_fleet(job: Job, plan: Plan) -> Summary:
    prepared = pack(job.run.store, job.loaded, prepare(job, plan))
    built = elsewhere.build_elsewhere(job, prepared)
    summary = publish.assemble(job, prepared, built.outcomes, None)
    record = waiting.of(prepared, built.waiting)
    # Before anything is registered: a run that completes an older record stops when it sees this.
    waiting.keep(elsewhere.shared(job.run.store).bucket, record)
    summary = publish.publish(job, summary)
    if built.waiting:
        _ask_if_back(job, record)
    return summary


def _ask_if_back(job: Job, record: Waiting) -> None:
    """A machine that came back while this run went on has found no record to speak up for."""
    try:
        now = elsewhere.plan(job.loaded, job.run.store, record.prepared.host)
        if waiting.ready(record, now) and trigger.ask():
            get_run_logger().info("a machine is back: a run of `complete` goes on with what waits")
    except (EngineworksError, *AWAY) as error:  # all is done but this; any machine's start does it
        get_run_logger().warning("no run of `complete`: %s", type(error).__name__)


def _stages(loaded: Loaded, plan: Plan) -> int:
    """How many stages a run has, for its progress bar."""
    sizes = len({*loaded.recipe.benchmark.sizes, loaded.recipe.model.input.size})
    mine = [v for v in plan.variants if v.action == "run" and not v.host]
    running = len(mine)
    shared = 3 if loaded.recipe.export.simplify else 2
    wanted = [precisions.get(v.precision) for v in mine]
    searching = sum(precision.searched for precision in wanted) * (sizes + 2)
    if any(precision.calibrated for precision in wanted) and loaded.recipe.calibration is not None:
        searching += 2 + loaded.recipe.calibration.made
    known = 3 + (loaded.recipe.data is not None)
    packages = running * len(loaded.recipe.packages)
    sealing = sum(not targets.load(v.target).replays for v in mine)
    packages += sealing * (loaded.recipe.sealed is not None)
    return sizes * shared + running * (sizes + 2) + searching + known + packages


def preflight(
    recipe: str, *, fleet: bool = False, overrides: Overrides = NONE
) -> tuple[Loaded, Plan]:
    """Everything that can be known in a second: recipe, files, targets, plan.

    Raises:
        EngineworksError: As `ship`, before anything is run or written.
    """
    loaded = recipe_from.load(recipe, overrides)
    return loaded, planned(loaded, fleet=fleet)


def planned(loaded: Loaded, *, fleet: bool) -> Plan:
    """The plan of a recipe, when all that can be known in a second was looked at.

    Raises:
        EngineworksError: As `ship`.
    """
    recipes.pin_model(loaded)
    if loaded.recipe.data is not None:
        datasets.look(loaded.recipe.data)
    recipes.refuse_float(loaded)
    spec = loaded.recipe.calibration
    if spec is not None and spec.made:
        usercode.pin(spec.images, loaded.folder)
    elif spec is not None:
        datasets.look(calibration_data(spec))
    datasets.photo_files(loaded.recipe.sealed)
    if fleet:
        return elsewhere.plan(loaded, _run.open_home_store())
    return planning.plan(loaded.recipe.targets)


__all__ = ["preflight", "ship"]
