"""A 3-D U-Net for volumes of any size.

Ronneberger et al. (2015) in three dimensions, with two convolutions a level, max or average pooling, nearest
up-sampling and, unless asked for, no normalisation layers (the statistics of a crop differ from those of a tomogram).
The convolution after each concatenation is applied to its two parts in turn, so that no tensor with the sum of the
channels is ever made.
"""

from __future__ import annotations

from typing import Any

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
    norm
        After each convolution: ``none``; ``rms``, which scales each voxel's channels to unit power and so
        depends on nothing else; ``batch`` or ``instance``, whose result depends on the crop.
    pooling
        ``max`` or ``average``.
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
        norm: str = "none",
        pooling: str = "max",
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "in_channels": in_channels, "out_channels": out_channels, "features": features, "depth": depth,
            "base_kernel": base_kernel, "max_features": max_features, "norm": norm, "pooling": pooling,
        }  # fmt: skip
        widths = [min(features * 2**level, max_features) for level in range(depth + 1)]
        self.depth = depth
        self.encoder = nn.ModuleList()
        previous = in_channels
        for level, width in enumerate(widths):
            self.encoder.append(_TwoConvolutions(previous, width, base_kernel if level == 0 else 3, norm))
            previous = width
        self.decoder = nn.ModuleList(
            _UpAndJoin(widths[level + 1], widths[level], norm) for level in reversed(range(depth))
        )
        self.pool = functional.max_pool3d if pooling == "max" else functional.avg_pool3d
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
                volume = self.pool(volume, 2)
            volume = block(volume)
            if level < self.depth:
                skips.append(volume)
        for block in self.decoder:
            volume = block(volume, skips.pop())
        return self.last(volume)


def _activate(values: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(values, 0.1, inplace=True)


class _TwoConvolutions(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, norm: str = "none") -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, kernel)
        self.second = _convolution(channels_out, channels_out, 3)
        self.first_norm, self.second_norm = (normalisation(norm, channels_out) for _ in range(2))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        volume = _activate(self.first_norm(self.first(volume)))
        return _activate(self.second_norm(self.second(volume)))


class _UpAndJoin(nn.Module):
    def __init__(self, channels_below: int, channels: int, norm: str = "none") -> None:
        super().__init__()
        # Channels are reduced before up-sampling, where there are eight times fewer voxels.
        self.reduce = nn.Conv3d(channels_below, channels, 1)
        self.from_below = _convolution(channels, channels, 3)
        self.from_skip = _convolution(channels, channels, 3)
        self.second = _convolution(channels, channels, 3)
        self.first_norm, self.second_norm = (normalisation(norm, channels) for _ in range(2))

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        below = functional.interpolate(self.reduce(below), scale_factor=2, mode="nearest")
        joined = _activate(self.first_norm(self.from_below(below) + self.from_skip(skip)))
        return _activate(self.second_norm(self.second(joined)))


class RmsNorm3d(nn.Module):
    """Scale the channels of each voxel to unit mean square (Zhang and Sennrich 2019), with one learned gain each.

    Unlike batch or instance normalisation it sees neither other samples nor the edges of a tile.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """(batch, channels, z, y, x) in and out."""
        power = volume.square().mean(dim=1, keepdim=True, dtype=torch.float32)
        return volume * (power + 1e-6).rsqrt().to(volume.dtype) * self.gain.to(volume.dtype)[:, None, None, None]


def normalisation(kind: str, channels: int) -> nn.Module:
    """The normalisation layer called ``none``, ``rms``, ``batch`` or ``instance``."""
    makers = {"none": lambda _: nn.Identity(), "rms": RmsNorm3d, "batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d}
    return makers[kind](channels)


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
