"""Stage `analyze`: what the graph consists of, and what each target lacks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from engineworks import child, targets
from engineworks.codec import place, to_json
from engineworks.errors import EngineworksError, said
from engineworks.facts.model import (
    Analysis,
)
from engineworks.manifest import Artifact
from engineworks.specs import (
    Size,
)
from engineworks.stages._stage import Stage
from engineworks.store import LocalStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AnalyzeRequest:
    """Count a graph, and ask each planned target what it lacks."""

    onnx: Artifact
    size: Size
    targets: tuple[str, ...]
    tools: dict[str, str]
    limit_s: float
    folder: str = place()
    store: str = place()


def analyze(request: AnalyzeRequest) -> Analysis:
    """Stage `analyze`."""
    from engineworks.export import analyze as statistics

    path = LocalStore(Path(request.store)).entry(request.onnx)
    unsupported_operators = {name: _ask(request, name, path) for name in request.targets}
    try:
        return statistics.analyze(path, request.size, unsupported_operators)
    except Exception as error:
        log.exception("the graph was not counted")
        return statistics.nothing(f"nothing was counted: {said(error)}", unsupported_operators)


def _ask(request: AnalyzeRequest, target: str, path: Path) -> tuple[str, ...]:
    """What a target lacks, asked in a process of its own: one vendor's crash sinks no other."""
    try:
        answer = child.run(
            "unsupported",
            to_json(UnsupportedRequest(target=target, onnx=str(path))),
            folder=Path(request.folder, target),
            limit_s=request.limit_s,
        )
    except EngineworksError as error:
        return (f"unknown: {said(error.message)}",)
    return tuple(answer["value"]["operators"])


@dataclass(frozen=True, kw_only=True)
class UnsupportedRequest:
    """Ask one target which operators of a graph it cannot run."""

    target: str
    onnx: str


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Operators that a target cannot run."""

    operators: tuple[str, ...]


def unsupported(request: UnsupportedRequest) -> Unsupported:
    """Part of `analyze`: a vendor's own answer."""
    return Unsupported(
        operators=targets.load(request.target).unsupported_operators(Path(request.onnx))
    )


STAGE = Stage("analyze", analyze, AnalyzeRequest, Analysis, ("onnx",))
UNSUPPORTED = Stage("unsupported", unsupported, UnsupportedRequest, Unsupported)
