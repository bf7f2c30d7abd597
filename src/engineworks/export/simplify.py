"""onnxsim under supervision: in its own process, checked on real inputs, undone on any doubt.

onnxsim's own `ok` proves nothing with its default of zero checks, and it can crash; so the
caller runs `simplify_file` in a child process and `doubt` judges what came out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engineworks.errors import said
from engineworks.evaluate import parity
from engineworks.export.torch_onnx import runner, signature

Array = np.ndarray[Any, Any]


def simplify_file(source: Path, target: Path) -> None:
    """Write the simplified graph; any failure is the caller's to catch."""
    import onnx
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load(str(source)))
    onnx.save(simplified, str(target))


def node_count(path: Path) -> int:
    """Nodes of the main graph."""
    import onnx

    return len(onnx.load(str(path)).graph.node)


def doubt(
    before: Path, after: Path, samples: Array, wanted: Mapping[str, Array], tolerance: float
) -> tuple[str, float | None]:
    """Why the simplified graph must not be used, or "" when it may, and its largest difference.

    It must keep names, types and open dimensions of inputs and outputs, and answer real inputs
    as the source model does.
    """
    import onnx

    try:
        onnx.checker.check_model(str(after), full_check=True)
        old_inputs, old_outputs, _ = signature(before)
        new_inputs, new_outputs, _ = signature(after)
        infer = runner(after)
    except Exception as error:
        return f"its graph is not valid ({type(error).__name__}: {said(error, 200)})", None
    if new_inputs != old_inputs:
        return f"it changed the inputs from {old_inputs} to {new_inputs}", None
    if [(t.name, t.dtype) for t in new_outputs] != [(t.name, t.dtype) for t in old_outputs]:
        return f"it changed the outputs from {old_outputs} to {new_outputs}", None
    batches = [1] if isinstance(old_inputs[0].shape[0], int) else [1, 3]
    try:
        agreed = parity.compare(infer, samples, wanted, batches, parity.Limit(tolerance))
    except Exception as error:
        return f"it does not run ({type(error).__name__}: {said(error, 200)})", None
    return agreed.reason, agreed.max_abs_diff
