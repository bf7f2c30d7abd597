"""A network of YOLOv8n's shape and cost (3.2 M weights, 8.7 GFLOPs at 640x640), random weights.

Written from the architecture's description (https://docs.ultralytics.com/models/yolov8/): its
speed is that of the real one, its answers mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Module:
    """Convolution and SiLU; the batch normalisation is folded already."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2), nn.SiLU())


class C2f(nn.Module):
    """Split, n bottlenecks one after another, all of them joined."""

    def __init__(self, inputs: int, outputs: int, n: int, *, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.first, self.last = conv(inputs, outputs), conv((2 + n) * half, outputs)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, half, 3), conv(half, half, 3)) for _ in range(n)
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) -> (b, outputs, h, w)."""
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]) if self.shortcut else block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Pool(nn.Module):
    """Spatial pyramid pooling by three poolings in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(256, 128), conv(512, 256)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 256, h, w) unchanged in shape."""
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Shape(nn.Module):
    """(b, 3, 640, 640) -> (b, 84, 8400): centre x, y, width, height in pixels, class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.p3 = nn.Sequential(
            conv(3, 16, 3, 2), conv(16, 32, 3, 2), C2f(32, 32, 1, shortcut=True),
            conv(32, 64, 3, 2), C2f(64, 64, 2, shortcut=True),
        )  # fmt: skip
        self.p4 = nn.Sequential(conv(64, 128, 3, 2), C2f(128, 128, 2, shortcut=True))
        self.p5 = nn.Sequential(conv(128, 256, 3, 2), C2f(256, 256, 1, shortcut=True), Pool())
        self.up = nn.Upsample(scale_factor=2)
        self.top4, self.top3 = (
            C2f(384, 128, 1, shortcut=False), C2f(192, 64, 1, shortcut=False),
        )  # fmt: skip
        self.down3, self.down4 = conv(64, 64, 3, 2), conv(128, 128, 3, 2)
        self.out4, self.out5 = (
            C2f(192, 128, 1, shortcut=False), C2f(384, 256, 1, shortcut=False),
        )  # fmt: skip
        self.boxes = nn.ModuleList(_head(width, 64, 64) for width in (64, 128, 256))
        self.classes = nn.ModuleList(_head(width, 80, 80) for width in (64, 128, 256))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        p3 = self.p3(x)
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        t4 = self.top4(torch.cat([self.up(p5), p4], 1))
        t3 = self.top3(torch.cat([self.up(t4), p3], 1))
        o4 = self.out4(torch.cat([self.down3(t3), t4], 1))
        o5 = self.out5(torch.cat([self.down4(o4), p5], 1))
        levels = [
            _decode(box(level), kind(level), stride)
            for box, kind, level, stride in zip(
                self.boxes, self.classes, (t3, o4, o5), (8, 16, 32), strict=True
            )
        ]
        return torch.cat(levels, 2)


def _head(inputs: int, width: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        conv(inputs, width, 3), conv(width, width, 3), nn.Conv2d(width, outputs, 1)
    )


def _decode(box: Tensor, kind: Tensor, stride: int) -> Tensor:
    batch, _, height, width = box.shape
    bins = box.reshape(batch, 4, 16, height * width).softmax(2)
    sides = (bins * torch.arange(16.0).reshape(1, 1, 16, 1)).sum(2)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centre = torch.stack([x.reshape(-1), y.reshape(-1)])[None]
    start, end = centre - sides[:, :2], centre + sides[:, 2:]
    xywh = torch.cat([(start + end) / 2, end - start], 1) * stride
    return torch.cat([xywh, kind.reshape(batch, 80, -1).sigmoid()], 1)


def export(path: Path) -> Path:
    """Write it as ONNX with batch 1."""
    torch.manual_seed(0)
    torch.onnx.export(
        Shape().eval(),
        (torch.rand(1, 3, 640, 640),),
        str(path),
        dynamo=False,
        input_names=["images"],
        output_names=["detections"],
        opset_version=17,
    )
    return path
