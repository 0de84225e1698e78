"""ResNets for images of 32 to 64 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016), with the names of torchvision's ``BasicBlock``.

    It is not torchvision's own, because that library takes as long to import as torch does.
    """

    def __init__(self, channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def forward(self, features: Tensor) -> Tensor:
        """``(N, channels, H, W)`` to ``(N, width, H / stride, W / stride)``."""
        changed: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        changed += features if self.downsample is None else self.downsample(features)
        return self.relu(changed)  # type: ignore[no-any-return]


class SmallResNet(nn.Module):
    """A ResNet for images of 32 to 64 pixels: residual blocks of each width, strides as given.

    Args:
        widths: channels of each stage.
        strides: stride of each stage.
        stem_stride: stride of the 3 x 3 stem, which replaces the 7 x 7 stem and the pooling made for 224 pixels.
        blocks: residual blocks per stage.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], *, stem_stride: int = 1, blocks: int = 1) -> None:
        super().__init__()
        stem = nn.Conv2d(3, widths[0], 3, stride=stem_stride, padding=1, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        channels = widths[0]
        for width, stride in zip(widths, strides, strict=True):
            for index in range(blocks):
                step = stride if index == 0 else 1
                shortcut = None
                if step != 1 or channels != width:
                    projection = nn.Conv2d(channels, width, 1, stride=step, bias=False)
                    shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))
                layers.append(ResidualBlock(channels, width, step, shortcut))
                channels = width
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(N, widths[-1])`` by global average pooling."""
        return self.layers(images).mean((2, 3))  # type: ignore[no-any-return]
