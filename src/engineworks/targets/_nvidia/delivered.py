"""Delivered precision of a network: in which type each layer multiplies, and what its weights are.

Read from the network as the vendor has parsed it, whose types are those of the engine on the
strong route. Knows no way to open an engine.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engineworks.facts.engine import DeliveredPrecision
from engineworks.targets._base import dtype_word, int8_precision
from engineworks.targets._nvidia.api import Api

#: Layer type -> class of the layer, and its attributes that hold weights.
_WEIGHTED = {
    "CONVOLUTION": ("IConvolutionLayer", ("kernel", "bias")),
    "DECONVOLUTION": ("IDeconvolutionLayer", ("kernel", "bias")),
    "FULLY_CONNECTED": ("IFullyConnectedLayer", ("kernel", "bias")),
    "CONSTANT": ("IConstantLayer", ("weights",)),
    "SCALE": ("IScaleLayer", ("scale", "shift", "power")),
}

ARITHMETIC = ("CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY")


def layers(network: Any) -> Iterator[Any]:
    """The layers of a network in its order."""
    for index in range(network.num_layers):
        yield network.get_layer(index)


def of_network(api: Api, network: Any, asked: str, onnx: Path) -> DeliveredPrecision:
    """What the network computes in, layer by layer.

    Args:
        api: The module that made it.
        network: INetworkDefinition.
        asked: The precision asked for.
        onnx: The graph it was parsed from.
    """
    producers = {
        layer.get_output(n).name: layer for layer in layers(network)
        for n in range(layer.num_outputs)
    }  # fmt: skip
    stored: Counter[str] = Counter()
    computed: Counter[str] = Counter()
    for layer in layers(network):
        if layer.type.name in ARITHMETIC:
            computed[_word(layer, producers)] += 1
        for word, size in _weights(api, layer):
            stored[word] += size
    if asked == "int8":
        return int8_precision(onnx, computed["int8"], computed.total(), dict(stored))
    delivered = next(iter(computed)) if len(computed) == 1 else "mixed"
    return DeliveredPrecision(
        asked=asked,
        delivered=delivered if computed else asked,
        holds=set(computed) <= {asked},
        stored_bytes=dict(stored),
        computed_nodes=dict(computed),
    )


def with_note(precision: DeliveredPrecision, note: str) -> DeliveredPrecision:
    """The same precision, with more said about it."""
    return dataclasses.replace(
        precision, note=f"{precision.note}; {note}" if precision.note else note
    )


def _word(layer: Any, producers: dict[str, Any]) -> str:
    """The type in which one layer multiplies: int8 when both of its factors are dequantized."""
    factors = [layer.get_input(n) for n in range(min(2, layer.num_inputs))]
    sources = [producers.get(tensor.name) for tensor in factors if tensor is not None]
    if len(sources) == 2 and all(
        source is not None
        and source.type.name == "DEQUANTIZE"
        and source.get_input(0).dtype.name == "INT8"
        for source in sources
    ):
        return "int8"
    return dtype_word(layer.get_output(0).dtype.name)


def _weights(api: Api, layer: Any) -> Iterator[tuple[str, int]]:
    """(dtype, bytes) of the weights that a layer holds."""
    kind, attributes = _WEIGHTED.get(layer.type.name, ("", ()))
    if not hasattr(api.trt, kind):
        return
    # The bindings give every layer as ILayer; this is their own way to the class it has.
    layer.__class__ = getattr(api.trt, kind)
    for attribute in attributes:
        values = getattr(layer, attribute)
        if values is not None and values.nbytes:
            yield dtype_word(getattr(values.dtype, "name", str(values.dtype))), int(values.nbytes)
