"""Reads an engine back: the inspector's words on each layer, turned into a delivered precision.

Needs the GPU that the engine was built for. The inspector's JSON differs between versions
(`Bindings` became `I/O Tensors`, layers are objects or bare names), so it is read with patience.
Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/ "Engine Inspector"
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engineworks.errors import BuildError
from engineworks.facts.engine import DeliveredPrecision
from engineworks.targets._base import dtype_word
from engineworks.targets._nvidia.api import Api
from engineworks.targets._nvidia.log import BuildLog

#: `ParameterType` or `LayerType` of layers that multiply.
ARITHMETIC = ("convolution", "deconvolution", "matrixmultiply", "fullyconnected", "gemm", "conv")

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an engine."""

    name: str
    kind: str
    dtype: str
    """In which it multiplies, as far as the inspector says; "" when it does not."""
    weights: int
    """Bytes."""


def text(api: Api, plan: bytes, said: BuildLog) -> str:
    """The inspector's JSON of a plan.

    Raises:
        BuildError: The plan that was just built cannot be opened.
    """
    runtime = api.trt.Runtime(said.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(
            f"the engine that was built cannot be opened: {said.errors() or 'no reason given'}",
            hint="check driver and GPU with: engineworks host",
        )
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(api.trt.LayerInformationFormat.JSON))


def layers(said: str) -> tuple[Layer, ...]:
    """The layers that an inspector's JSON names; bare names of layers tell no type."""
    entries = json.loads(said).get("Layers", [])
    return tuple(_layer(entry) for entry in entries if isinstance(entry, dict))


def _layer(entry: dict[str, Any]) -> Layer:
    weights = entry.get("Weights")
    count = int(weights.get("Count", 0)) if isinstance(weights, dict) else 0
    word = _dtype(str(weights.get("Type", ""))) if count and isinstance(weights, dict) else ""
    word = word or _dtype(_tensor(entry.get("Inputs"))) or _dtype(_tensor(entry.get("Outputs")))
    return Layer(
        name=str(entry.get("Name", "")),
        kind=str(entry.get("ParameterType") or entry.get("LayerType", "")),
        dtype=word,
        weights=count * BYTES.get(word, 0),
    )


def _tensor(tensors: Any) -> str:
    if isinstance(tensors, list) and tensors and isinstance(tensors[0], dict):
        return str(tensors[0].get("Format/Datatype", ""))
    return ""


def _dtype(description: str) -> str:
    """A type in "Half", "Row major linear FP32" or "Thirty-two wide ... Int8 format"."""
    for word in description.replace(",", " ").split():
        dtype = dtype_word(word)
        if dtype in BYTES:
            return dtype
    return ""


def delivered_precision(
    engine_layers: Iterable[Layer], asked: str, wanted: int | None = None
) -> DeliveredPrecision:
    """Judge the layers that multiply.

    On the weak route the builder was only allowed to go narrower: the precision holds when most
    of the weights (for int8: any layer) have it, and the note says how many.

    Args:
        engine_layers: Layers of the engine.
        asked: The precision asked for.
        wanted: Layers that must be integers, on the strong route; None: any.
    """
    computed: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for layer in engine_layers:
        if layer.dtype:
            stored[layer.dtype] += layer.weights
        if any(word in layer.kind.lower() for word in ARITHMETIC):
            computed[layer.dtype or "unknown"] += 1
    share = f"{computed[asked]} of {computed.total()} layers compute in {asked}"
    if asked == "int8":
        holds = computed["int8"] >= max(1, wanted or 1)
    else:
        holds = bool(computed) and computed[asked] * 2 > computed.total()
    narrow = max(computed, key=lambda word: computed[word], default="none")
    return DeliveredPrecision(
        asked=asked,
        delivered=asked if holds else narrow,
        holds=holds,
        stored_bytes={word: size for word, size in stored.items() if size},
        computed_nodes=dict(computed),
        note="" if computed[asked] == computed.total() else share,
    )
