"""The prepared model at one input size, and the files that travel with it to other machines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from engineworks.codec import later, place
from engineworks.facts.data import PinnedData
from engineworks.facts.int8 import Calibration
from engineworks.facts.model import Analysis, Exported, PinnedModel, Reference, Simplified
from engineworks.manifest import Artifact
from engineworks.specs import Preprocess, Size, TaskSpec


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What several stages need of a recipe."""

    name: str = place()
    """Of the model. Two recipes for one model share all of its stages but those that make engines,
    which bear it."""
    preprocess: Preprocess
    task: TaskSpec
    labels: tuple[str, ...]
    recipe_sha256: str = place()
    """For the record only: a key that held it would make every change re-run everything."""
    store: str = place()


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """The model at one input size: pinned, answered, exported, counted."""

    size: Size
    shared: Shared
    pinned: PinnedModel
    data: PinnedData | None
    reference: Reference
    exported: Exported
    simplified: Simplified | None
    analysis: Analysis | None = None
    calibration: Calibration | None = None
    leaving: Artifact | None = later(default=None)
    """Photos that may leave the house, for sealed tests."""
    graph: Artifact | None = None
    """Another graph to build from: the one that was quantized."""

    @property
    def onnx(self) -> Artifact:
        """The graph that is built from."""
        if self.graph is not None:
            return self.graph
        return self.simplified.onnx if self.simplified else self.exported.onnx

    @property
    def quantized(self) -> bool:
        """Whether the source itself is a Q/DQ model."""
        operators = self.analysis.operators if self.analysis else {}
        return bool({"QuantizeLinear", "DequantizeLinear"} & set(operators))

    @property
    def statistics(self) -> Artifact | None:
        """What calibration saw."""
        return self.calibration.artifact if self.calibration else None

    @property
    def samples(self) -> Artifact | None:
        """Images that judge what answers mean where there are no labels."""
        return self.calibration.samples if self.calibration else None

    def with_graph(self, onnx: Artifact) -> PreparedModel:
        """The same model, built from another graph."""
        return dataclasses.replace(self, graph=onnx)


@dataclass(frozen=True, kw_only=True)
class Attachments:
    """Files that travel with a prepared run to another machine."""

    data: Artifact | None = None
    """The photos, when engines are judged on some."""
    code: Artifact | None = None
    """The Python files beside the recipe, when it has a decoder of its own."""
