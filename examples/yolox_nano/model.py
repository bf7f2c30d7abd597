"""YOLOX-Nano in plain PyTorch, for weights whose batch norms are folded into the convolutions.

Architecture: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430 (Nano: depth 0.33,
width 0.25, depthwise-separable 3x3 convolutions): a CSP backbone (``stem``, ``d2`` to ``d5``), a
path-aggregation neck (``lat`` to ``n4``) and a decoupled, anchor-free head (``stems`` to ``op``).

Input:  float32 ``[B, 3, H, W]``, colour order BGR, values 0..255 (not normalised); H and W are
        multiples of 32.
Output: float32 ``[B, N, 5 + classes]``; N runs over the cells of stride 8, then 16, then 32, each
        row by row (3549 at 416x416). A row is ``x, y, w, h, objectness, class scores``. Boxes are
        raw: centre ``(xy + cell) * stride``, size ``exp(wh) * stride``, in input pixels. The
        objectness and class scores are probabilities (the sigmoid is applied).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Conv(nn.Module):
    """Convolution with bias and "same" padding, followed by SiLU."""

    def __init__(self, cin: int, cout: int, k: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, cin, H, W]`` to ``[B, cout, H / stride, W / stride]``."""
        return functional.silu(self.conv(x))


def separable(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3 convolution, then a pointwise one, each with its own SiLU."""
    return nn.Sequential(Conv(cin, cin, 3, stride, groups=cin), Conv(cin, cout))


class Bottleneck(nn.Module):
    """Pointwise and separable convolution with an optional residual connection."""

    def __init__(self, ch: int, residual: bool) -> None:
        super().__init__()
        self.a = Conv(ch, ch)
        self.b = separable(ch, ch)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, ch, H, W]`` to the same shape."""
        y = self.b(self.a(x))
        return y + x if self.residual else y


class CSP(nn.Module):
    """Cross-stage partial block: one branch through ``n`` bottlenecks, one around them."""

    def __init__(self, cin: int, cout: int, n: int = 1, residual: bool = False) -> None:
        super().__init__()
        mid = cout // 2
        self.c1 = Conv(cin, mid)
        self.c2 = Conv(cin, mid)
        self.m = nn.Sequential(*(Bottleneck(mid, residual) for _ in range(n)))
        self.c3 = Conv(2 * mid, cout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, cin, H, W]`` to ``[B, cout, H, W]``."""
        return self.c3(torch.cat((self.m(self.c1(x)), self.c2(x)), 1))


class SPP(nn.Module):
    """Spatial pyramid pooling: the input beside its 5x5, 9x9 and 13x13 maxima."""

    def __init__(self, ch: int) -> None:
        super().__init__()
        self.c1 = Conv(ch, ch // 2)
        self.c2 = Conv(ch * 2, ch)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, ch, H, W]`` to the same shape."""
        x = self.c1(x)
        return self.c2(
            torch.cat([x, *(functional.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))], 1)
        )


class YOLOXNano(nn.Module):
    """The whole detector; the module docstring gives its input and output."""

    def __init__(self, num_classes: int = 80) -> None:
        super().__init__()
        self.stem = Conv(12, 16, 3)
        self.d2 = nn.Sequential(separable(16, 32, 2), CSP(32, 32, 1, True))
        self.d3 = nn.Sequential(separable(32, 64, 2), CSP(64, 64, 3, True))
        self.d4 = nn.Sequential(separable(64, 128, 2), CSP(128, 128, 3, True))
        self.d5 = nn.Sequential(separable(128, 256, 2), SPP(256), CSP(256, 256))
        self.lat, self.p4 = Conv(256, 128), CSP(256, 128)
        self.red, self.p3 = Conv(128, 64), CSP(128, 64)
        self.bu2, self.n3 = separable(64, 64, 2), CSP(128, 128)
        self.bu1, self.n4 = separable(128, 128, 2), CSP(256, 256)
        self.stems = nn.ModuleList(Conv(c, 64) for c in (64, 128, 256))
        self.cc, self.rc = (
            nn.ModuleList(nn.Sequential(separable(64, 64), separable(64, 64)) for _ in range(3))
            for _ in range(2)
        )
        self.cp, self.rp, self.op = (
            nn.ModuleList(nn.Conv2d(64, c, 1) for _ in range(3)) for c in (num_classes, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map an image batch ``[B, 3, H, W]`` to raw predictions ``[B, N, 5 + classes]``."""
        top, bottom = x[:, :, 0::2], x[:, :, 1::2]
        x = torch.cat(
            (top[..., 0::2], bottom[..., 0::2], top[..., 1::2], bottom[..., 1::2]), 1
        )  # focus: each 2x2 patch becomes 12 channels
        c3 = self.d3(self.d2(self.stem(x)))
        c4 = self.d4(c3)
        lat = self.lat(self.d5(c4))
        red = self.red(self.p4(torch.cat((functional.interpolate(lat, scale_factor=2.0), c4), 1)))
        p3 = self.p3(torch.cat((functional.interpolate(red, scale_factor=2.0), c3), 1))
        n3 = self.n3(torch.cat((self.bu2(p3), red), 1))
        n4 = self.n4(torch.cat((self.bu1(n3), lat), 1))
        levels = []
        for i, feature in enumerate((p3, n3, n4)):
            feature = self.stems[i](feature)
            classes = self.cp[i](self.cc[i](feature)).sigmoid()
            boxes = self.rc[i](feature)
            level = torch.cat((self.rp[i](boxes), self.op[i](boxes).sigmoid(), classes), 1)
            levels.append(level.flatten(2))
        return torch.cat(levels, 2).permute(0, 2, 1)


def build(num_classes: int = 80) -> nn.Module:
    """Return YOLOX-Nano in eval mode, with random weights, for ``num_classes`` classes."""
    return YOLOXNano(num_classes).eval()
