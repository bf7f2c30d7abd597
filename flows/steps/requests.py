"""Requests that people have written into MLflow: a run for each, and the answer in its place.

Knows the registry's tags and Prefect's deployments; the flows do the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from artifacts.registry import requests
from artifacts.registry.requests import Request
from engineworks.errors import EngineworksError
from flows.commands.outcome import WHO, Promotion
from tasks import _run

PROMOTE, SHIP = "promote/registry", "ship/registered"

#: Runs that may end without an answer before the request is answered with that.
MOST_RUNS = 3

NOT_TOLD = "not told by MLflow"

HOW = "write promote, or ship RECIPE with a recipe of the worker's checkout"


@dataclass(frozen=True, kw_only=True)
class Started:
    """What became of a request when it was looked at."""

    model: str
    version: str
    text: str
    outcome: Literal["started", "answered", "failed"]
    """started: a run is under way, perhaps since an earlier look; failed: none can be made."""
    reason: str


def start_all(model: str = "") -> list[Started]:
    """Have a run made for each request that waits; one that cannot be stops no other.

    Args:
        model: One registered model; empty: all.

    Raises:
        StoreError: MLflow does not answer.
    """
    found = requests.waiting(_run.home())
    return [_start(request) for request in found if model in ("", request.model)]


def _start(request: Request) -> Started:
    def started(outcome: Literal["started", "answered", "failed"], reason: str) -> Started:
        return Started(
            model=request.model, version=request.version, text=request.text, outcome=outcome,
            reason=reason,
        )  # fmt: skip

    if request.kind == "unknown":
        words = f"not understood: {HOW}"
        requests.answer(_run.home(), request, words)
        return started("answered", words)
    name = PROMOTE if request.kind == "promote" else SHIP
    last = ""
    with get_client(sync_client=True) as prefect:
        try:
            deployment = prefect.read_deployment_by_name(name)
        except ObjectNotFound:
            return started("failed", f"there is no deployment {name}: make deploy")
        for number in range(MOST_RUNS):
            run = prefect.create_flow_run_from_deployment(
                deployment.id, parameters=parameters(request),
                idempotency_key=f"request:{request.key}:{number}",
            )  # fmt: skip
            if run.state is None or not run.state.is_final():
                return started("started", f"{name}: {run.name}")
            last = f"{run.name} ended {run.state.name}: {run.state.message or 'no word'}"
    words = f"failed: {MOST_RUNS} runs ended without an answer, the last, {last}"
    requests.answer(_run.home(), request, words)
    return started("answered", words)


def parameters(request: Request) -> dict[str, object]:
    """Of the deployment that a request starts."""
    if request.kind == "promote":
        return {"model": request.model, "version": request.version, "asked": True}
    return {"recipe": request.recipe, "registered": f"{request.model}/{request.version}"}


def stands(model: str, version: str, kind: str, recipe: str = "") -> bool:
    """Whether a version still carries this request."""
    request = requests.of(_run.home(), model, version)
    return request is not None and (request.kind, request.recipe) == (kind, recipe)


def who(*, asked: bool) -> str:
    """Who asks: a command's user; what a tag asks for, MLflow keeps no name with."""
    name = WHO.get()
    return NOT_TOLD if asked and name == "not told" else name


@contextmanager
def answering(model: str, version: str, *, asked: bool) -> Iterator[None]:
    """What stops a run that was asked for is its answer, too."""
    try:
        yield
    except EngineworksError as error:
        if asked:
            _answer(model, version, f"failed: {error.line}")
        raise


def answer(outcomes: Sequence[Promotion]) -> None:
    """Answer requests for promotion, whoever has started the run."""
    for one in outcomes:
        _answer(one.model, one.version, f"{one.outcome}: {one.reason}", "promote")


def answer_ship(model: str, version: str, words: str) -> None:
    """Answer a request to ship."""
    _answer(model, version, words, "ship")


def _answer(model: str, version: str, words: str, kind: str = "") -> None:
    request = requests.of(_run.home(), model, version)
    if request is not None and kind in ("", request.kind):
        requests.answer(_run.home(), request, words)
