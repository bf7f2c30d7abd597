"""A small network that finds figures and their points, with a YOLO-pose output."""

from __future__ import annotations

import torch
from torch import nn

POINTS = 5
STRIDE = 8


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Pose(nn.Module):
    """(n, 3, height, width) -> (n, 5 + 3 * points, cells): a column for every cell of stride 8.

    Rows: centre x, centre y, width, height in pixels, score, then x, y in pixels and confidence of
    each point.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(3, 16, 2), block(16, 32, 2), block(32, 32), block(32, 64, 2),
            block(64, 64), block(64, 64), block(64, 64), block(64, 64),
        )  # fmt: skip
        self.head = nn.Conv2d(64, 5 + 3 * POINTS, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        raw = self.head(self.body(images))
        rows, columns = raw.shape[2:]
        y, x = torch.meshgrid(
            torch.arange(rows, dtype=raw.dtype), torch.arange(columns, dtype=raw.dtype),
            indexing="ij",
        )  # fmt: skip
        cell = torch.stack([x, y]).reshape(1, 2, -1) + 0.5
        raw = raw.flatten(2)
        centre = (cell + raw[:, 0:2]) * STRIDE
        size = torch.exp(raw[:, 2:4].clamp(-4, 4)) * 4 * STRIDE
        score = torch.sigmoid(raw[:, 4:5])
        points = raw[:, 5:].reshape(raw.shape[0], POINTS, 3, -1)
        places = (cell[:, None] + 4 * points[:, :, :2]) * STRIDE
        sure = torch.sigmoid(points[:, :, 2:])
        poses = torch.cat([places, sure], dim=2).flatten(1, 2)
        return torch.cat([centre, size, score, poses], dim=1)


def build() -> nn.Module:
    """The network without weights."""
    return Pose()
