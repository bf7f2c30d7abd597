"""What an ONNX file stores and computes in; for runtimes whose engine is an optimised graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from engineworks.targets._base import dtype_word

FLOATS = {"fp32", "fp16", "bf16", "int8"}


def types(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Read a graph.

    Returns:
        (bytes of constants by dtype, nodes by the dtypes of their inputs).
    """
    import onnx

    model = onnx.load(str(path))
    stored: Counter[str] = Counter()
    known = {}
    for tensor in model.graph.initializer:
        word = dtype_word(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name)
        known[tensor.name] = word
        stored[word] += len(tensor.raw_data) or tensor.ByteSize()
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        element = value.type.tensor_type.elem_type
        if element:
            known[value.name] = dtype_word(onnx.helper.tensor_dtype_to_np_dtype(element).name)
    computed: Counter[str] = Counter()
    for node in model.graph.node:
        floats = {known[name] for name in node.input if name in known} & FLOATS
        if floats:
            computed["/".join(sorted(floats))] += 1
    return dict(stored), dict(computed)
