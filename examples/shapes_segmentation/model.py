"""A small network that names the class of every pixel: four stages down, two up."""

from __future__ import annotations

import torch
from torch import nn


def block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, normalisation, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Segmenter(nn.Module):
    """(n, 3, height, width) -> class scores (n, classes, height / 2, width / 2)."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.first = block(3, 16, 2)
        self.second = nn.Sequential(block(16, 32, 2), block(32, 32))
        self.third = nn.Sequential(block(32, 64, 2), block(64, 64, 1, 2), block(64, 64, 1, 3))
        self.to_quarter = nn.Conv2d(64, 32, 1)
        self.at_quarter = block(32, 32)
        self.to_half = nn.Conv2d(32, 16, 1)
        self.at_half = block(16, 16)
        self.scores = nn.Conv2d(16, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        half = self.first(images)
        quarter = self.second(half)
        eighth = self.third(quarter)
        up = nn.functional.interpolate(self.to_quarter(eighth), scale_factor=2.0)
        quarter = self.at_quarter(quarter + up)
        up = nn.functional.interpolate(self.to_half(quarter), scale_factor=2.0)
        return self.scores(self.at_half(half + up))


def build() -> nn.Module:
    """The network without weights."""
    return Segmenter()
