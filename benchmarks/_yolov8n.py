"""A net with the shape of YOLOv8n (layers, channels, strides; 3.2 M parameters), random weights.

For speed only: its answers mean nothing. Written after the published architecture table
(https://docs.ultralytics.com/models/yolov8/ and arXiv:2305.09972, figure 1).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

CLASSES = 80
BINS = 16


class Conv(nn.Sequential):  # type: ignore[misc]
    """Convolution and SiLU; the batch norm is folded already."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2)
        # A gain that keeps the spread of activations about equal from layer to layer.
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.normal_(conv.bias, std=0.1)
        super().__init__(conv, nn.SiLU())


class Bottleneck(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions, with or without a shortcut."""

    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.first, self.second = Conv(width, width, 3), Conv(width, width, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same shape."""
        y = self.second(self.first(x))
        return (x + y) * 0.7 if self.shortcut else y


class C2f(nn.Module):  # type: ignore[misc]
    """A split, bottlenecks one after the other, everything joined."""

    def __init__(self, inputs: int, outputs: int, repeats: int, shortcut: bool) -> None:
        super().__init__()
        self.width = outputs // 2
        self.enter = Conv(inputs, outputs)
        self.blocks = nn.ModuleList(Bottleneck(self.width, shortcut) for _ in range(repeats))
        self.leave = Conv((2 + repeats) * self.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h, w)."""
        parts = list(self.enter(x).split(self.width, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, dim=1))


class Sppf(nn.Module):  # type: ignore[misc]
    """Three poolings of one another, joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = Conv(width, width // 2), Conv(width * 2, width)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same shape."""
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, dim=1))


class Yolov8n(nn.Module):  # type: ignore[misc]
    """Backbone, neck and decoupled head: (n, 3, 640, 640) -> (n, 84, 8400)."""

    def __init__(self) -> None:
        super().__init__()
        self.to_p3 = nn.Sequential(
            Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), C2f(32, 32, 1, True),
            Conv(32, 64, 3, 2), C2f(64, 64, 2, True),
        )  # fmt: skip
        self.to_p4 = nn.Sequential(Conv(64, 128, 3, 2), C2f(128, 128, 2, True))
        self.to_p5 = nn.Sequential(Conv(128, 256, 3, 2), C2f(256, 256, 1, True), Sppf(256))
        self.up = nn.Upsample(scale_factor=2)
        self.up4, self.up3 = C2f(384, 128, 1, False), C2f(192, 64, 1, False)
        self.down4, self.join4 = Conv(64, 64, 3, 2), C2f(192, 128, 1, False)
        self.down5, self.join5 = Conv(128, 128, 3, 2), C2f(384, 256, 1, False)
        self.boxes = nn.ModuleList(self._branch(w, 64, 4 * BINS) for w in (64, 128, 256))
        self.scores = nn.ModuleList(self._branch(w, 80, CLASSES) for w in (64, 128, 256))
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32))

    @staticmethod
    def _branch(width: int, hidden: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            Conv(width, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Boxes (centre, size) in pixels and class scores, anchors last."""
        p3 = self.to_p3(images)
        p4 = self.to_p4(p3)
        p5 = self.to_p5(p4)
        n4 = self.up4(torch.cat([self.up(p5), p4], dim=1))
        n3 = self.up3(torch.cat([self.up(n4), p3], dim=1))
        n4 = self.join4(torch.cat([self.down4(n3), n4], dim=1))
        n5 = self.join5(torch.cat([self.down5(n4), p5], dim=1))
        rows = []
        for level, (boxes, scores, stride) in enumerate(
            zip(self.boxes, self.scores, (8, 16, 32), strict=True)
        ):
            x = (n3, n4, n5)[level]
            sides = boxes(x).flatten(2).unflatten(1, (4, BINS)).softmax(2)
            sides = (sides * self.bins.view(1, 1, BINS, 1)).sum(2) * stride
            centre = (sides[:, 2:] - sides[:, :2]) / 2
            rows.append(
                torch.cat(
                    [centre, sides[:, :2] + sides[:, 2:], scores(x).flatten(2).sigmoid()], dim=1
                )
            )
        return torch.cat(rows, dim=2)


def export(path: Path, size: int = 640) -> None:
    """Write the net as ONNX with an open batch."""
    torch.manual_seed(0)
    model = Yolov8n().eval()
    with torch.no_grad():
        torch.onnx.export(
            model, (torch.rand(1, 3, size, size),), str(path), dynamo=False, opset_version=17,
            input_names=["images"], output_names=["detections"],
            dynamic_axes={"images": {0: "batch"}, "detections": {0: "batch"}},
        )  # fmt: skip
