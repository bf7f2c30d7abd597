"""A detector whose answers can be computed by hand: the extents of pure red, green and blue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = ("red", "green", "blue")


def _module() -> Any:
    import torch

    class Extents(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            height, width = x.shape[2], x.shape[3]
            columns = torch.arange(width, dtype=torch.float32)
            rows = torch.arange(height, dtype=torch.float32)
            found = []
            for kind in range(3):
                first, second = (other for other in range(3) if other != kind)
                mask = (x[:, kind] > 0.7) & (x[:, first] < 0.3) & (x[:, second] < 0.3)
                mask = mask.float()
                across, down = mask.amax(dim=1), mask.amax(dim=2)
                there = (mask.sum((1, 2)) > 8).float()
                left = width - (across * (width - columns)).amax(1)
                top = height - (down * (height - rows)).amax(1)
                right = (across * (columns + 1)).amax(1)
                bottom = (down * (rows + 1)).amax(1)
                sides = [side * there for side in (left, top, right, bottom)]
                found.append(
                    torch.stack([*sides, 0.9 * there, torch.full_like(there, float(kind))], 1)
                )
            return torch.stack(found, 1)

    return Extents()


def export(path: Path, size: tuple[int, int] = (320, 320)) -> Path:
    """Write it as ONNX with an open batch: float32 RGB in 0..1, layout `end2end`."""
    import torch

    torch.onnx.export(
        _module().eval(),
        (torch.zeros(1, 3, *size),),
        str(path),
        dynamo=False,
        input_names=["images"],
        output_names=["detections"],
        dynamic_axes={"images": {0: "batch"}, "detections": {0: "batch"}},
        opset_version=17,
    )
    return path
