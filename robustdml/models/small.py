"""ResNets for images of 32 to 64 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class SmallResNet(nn.Module):
    """A ResNet for images of 32 to 64 pixels: one BasicBlock (He et al. 2016) per width, strides as given.

    Args:
        widths: channels of each stage.
        strides: stride of each stage.
        stem_stride: stride of the 3 x 3 stem, which replaces the 7 x 7 stem and the pooling made for 224 pixels.
        blocks: BasicBlocks per stage.
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
                layers.append(BasicBlock(channels, width, step, shortcut))
                channels = width
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(N, widths[-1])`` by global average pooling."""
        return self.layers(images).mean((2, 3))  # type: ignore[no-any-return]
