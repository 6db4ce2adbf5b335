"""A 3-D U-Net for volumes of any size.

Ronneberger et al. (2015) in three dimensions, with two convolutions a level, max pooling, nearest up-sampling and no
normalisation layers (the statistics of a crop differ from those of a tomogram).  The convolution after each
concatenation is applied to its two parts in turn, so that no tensor with the sum of the channels is ever made.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class UNet3d(nn.Module):
    """U-Net (batch, in_channels, z, y, x) -> (batch, out_channels, z, y, x).

    Parameters
    ----------
    in_channels, out_channels
        Channels of input and output.
    features
        Channels at full resolution; level ``i`` has ``min(features * 2**i, max_features)``.
    depth
        Number of poolings; sizes must be multiples of ``2**depth``.
    base_kernel
        Edge of the first convolution's kernel.
    zero_last
        Start with an output of exactly zero.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        features: int = 16,
        depth: int = 3,
        base_kernel: int = 3,
        max_features: int = 128,
        zero_last: bool = True,
    ) -> None:
        super().__init__()
        self.architecture = {
            "in_channels": in_channels, "out_channels": out_channels, "features": features, "depth": depth,
            "base_kernel": base_kernel, "max_features": max_features,
        }  # fmt: skip
        widths = [min(features * 2**level, max_features) for level in range(depth + 1)]
        self.depth = depth
        self.encoder = nn.ModuleList()
        previous = in_channels
        for level, width in enumerate(widths):
            self.encoder.append(_TwoConvolutions(previous, width, base_kernel if level == 0 else 3))
            previous = width
        self.decoder = nn.ModuleList(_UpAndJoin(widths[level + 1], widths[level]) for level in reversed(range(depth)))
        self.last = nn.Conv3d(widths[0], out_channels, 1)
        if zero_last:
            nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    @property
    def multiple(self) -> int:
        """Sizes of the input must be multiples of this."""
        return 2**self.depth

    @property
    def receptive_radius(self) -> int:
        """Voxels around a voxel that can change its value."""
        base = self.architecture["base_kernel"] // 2
        radius = base + 1
        for level in range(1, self.depth + 1):
            radius += 2**level * 2 + 2 ** (level - 1)
        for level in range(self.depth):
            radius += 2**level * 2 + 2**level
        return radius

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Map ``volume`` (batch, in_channels, z, y, x)."""
        skips = []
        for level, block in enumerate(self.encoder):
            if level:
                volume = functional.max_pool3d(volume, 2)
            volume = block(volume)
            if level < self.depth:
                skips.append(volume)
        for block in self.decoder:
            volume = block(volume, skips.pop())
        return self.last(volume)


def _activate(values: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(values, 0.1, inplace=True)


class _TwoConvolutions(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, kernel)
        self.second = _convolution(channels_out, channels_out, 3)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return _activate(self.second(_activate(self.first(volume))))


class _UpAndJoin(nn.Module):
    def __init__(self, channels_below: int, channels: int) -> None:
        super().__init__()
        # Channels are reduced before up-sampling, where there are eight times fewer voxels.
        self.reduce = nn.Conv3d(channels_below, channels, 1)
        self.from_below = _convolution(channels, channels, 3)
        self.from_skip = _convolution(channels, channels, 3)
        self.second = _convolution(channels, channels, 3)

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        below = functional.interpolate(self.reduce(below), scale_factor=2, mode="nearest")
        return _activate(self.second(_activate(self.from_below(below) + self.from_skip(skip))))


class _Convolution(nn.Conv3d):
    """A convolution that leaves bfloat16 where the CPU's library computes it wrongly.

    Measured with torch 2.x and its oneDNN: where the volume has two slices, the bfloat16 gradient of the kernel holds
    what happened to lie in memory (20 times the true gradient was seen), and differs from call to call.
    """

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        if volume.shape[2] == 2 and volume.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return super().forward(volume.float())
        return super().forward(volume)


def _convolution(channels_in: int, channels_out: int, kernel: int) -> nn.Conv3d:
    layer = _Convolution(channels_in, channels_out, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(layer.weight, a=0.1, nonlinearity="leaky_relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
