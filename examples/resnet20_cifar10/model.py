"""ResNet-20 for CIFAR-10 in plain PyTorch.

Architecture: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section
4.2, with parameter-free shortcuts (option A).

Input:  float32 ``[B, 3, 32, 32]``, colour order RGB, scaled to 0..1, then normalised with the
        ImageNet mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225).
Output: float32 logits ``[B, 10]``, classes in the order of ``labels.txt``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.stride = stride
        self.pad = (cout - cin) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, cin, H, W]`` to ``[B, cout, H / stride, W / stride]``."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad:  # option A: subsample, and centre the channels between zeros
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad)
            )
        return functional.relu(y + x)


def stage(cin: int, cout: int, stride: int) -> nn.Sequential:
    """Three blocks, the first of which changes the width and the resolution."""
    return nn.Sequential(Block(cin, cout, stride), Block(cout, cout), Block(cout, cout))


class ResNet20(nn.Module):
    """The whole classifier; the module docstring gives its input and output."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image batch ``[B, 3, 32, 32]`` to logits ``[B, classes]``."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def build() -> nn.Module:
    """Return ResNet-20 for the ten CIFAR-10 classes in eval mode, with random weights."""
    return ResNet20().eval()
