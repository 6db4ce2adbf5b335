"""The noise of one tomogram as a random field that can be drawn afresh at every step.

A voxel of a tomogram is a sum over tens of filtered projections, so its noise is close to Gaussian and its power
spectrum N(k), with the ramp and the missing wedge in it, says nearly all of it.  :class:`SpectralNoiseModel` draws
Gaussian noise of that spectrum; where noise is stronger in some parts of the volume, a map of its level follows.
NMSG's adversarial network (:mod:`cryoden_core.nmsg.gan`) starts from this model and adds what it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from ..spectrum import NoiseShare, resample_spectrum, total_power
from ..tiling import Shape

#: The local noise level is followed when it varies by more than this (standard deviation over the volume).
LEVEL_TOLERANCE = 0.05


class NoiseModel(Protocol):
    """Anything that draws noise of unit scale for a crop; ``kind`` names it in the results."""

    kind: str

    def sample(self, shape: Shape, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """Noise (z, y, x) on the scale of the standardised tomogram."""


class SpectralNoiseModel:
    """Gaussian noise of a given power spectrum.

    Parameters
    ----------
    power
        Spectrum (bz, by, bx//2 + 1) on the half grid of ``block``; unit white noise is 1.
    block
        Shape of the block that the spectrum was measured on.
    """

    kind = "spectral"

    def __init__(self, power: torch.Tensor, block: Shape) -> None:
        self.power, self.block = power, block
        self._amplitudes: dict[tuple[Shape, torch.device], torch.Tensor] = {}

    def amplitude(self, shape: Shape, device: torch.device) -> torch.Tensor:
        """Square root of the spectrum on the grid of another shape."""
        key = (shape, device)
        if key not in self._amplitudes:
            self._amplitudes[key] = resample_spectrum(self.power, shape).sqrt().to(device)
        return self._amplitudes[key]

    def sample(self, shape: Shape, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """A fresh draw (z, y, x); periodic, so it has no seams."""
        noise = self.colour(torch.randn(self.wide(shape), generator=generator).to(device))
        return noise[: shape[0], : shape[1], : shape[2]]

    def wide(self, shape: Shape) -> Shape:
        """The shape of a draw from which one of ``shape`` can be cut.

        A small draw would cut the autocovariance off and leak power into the missing wedge.
        """
        return tuple(  # type: ignore[return-value]
            max(edge + edge % 2, least) for edge, least in zip(shape, self.block, strict=True)
        )

    def colour(self, white: torch.Tensor) -> torch.Tensor:
        """Give the spectrum to white fields (..., z, y, x) of unit variance, whatever their distribution."""
        shape: Shape = tuple(white.shape[-3:])  # type: ignore[assignment]
        transform = torch.fft.rfftn(white, dim=(-3, -2, -1)) * self.amplitude(shape, white.device)
        return torch.fft.irfftn(transform, s=shape, dim=(-3, -2, -1))

    @property
    def sd(self) -> float:
        """Standard deviation of the noise."""
        return float((total_power(self.power, self.block) / math.prod(self.block)).sqrt())


class NoiseLevel:
    """Map of the local noise level relative to its mean, read by crop; 1 everywhere when the noise is uniform."""

    def __init__(self, share: NoiseShare, volume_shape: Shape) -> None:
        self.volume_shape = volume_shape
        self.grid: np.ndarray | None = None
        self.variation = 0.0
        if not len(share.uniformity):
            return
        centres = share.all_corners + np.array(share.block) / 2
        nodes = tuple(max(1, round(size / 64)) for size in volume_shape)
        cell = tuple(
            np.minimum((centres[:, i] / volume_shape[i] * nodes[i]).astype(int), nodes[i] - 1) for i in range(3)
        )
        sums, counts = np.zeros(nodes), np.zeros(nodes)
        np.add.at(sums, cell, share.uniformity)
        np.add.at(counts, cell, 1)
        grid = np.where(counts > 0, sums / np.maximum(counts, 1), share.uniformity.mean())
        grid /= grid.mean()
        self.variation = float(grid.std())
        if self.variation > LEVEL_TOLERANCE:
            self.grid = np.clip(grid, 0.3, 3.0)

    def crop(self, corner: tuple[int, ...], shape: Shape) -> torch.Tensor | float:
        """Level (z, y, x) of a crop, or the number 1."""
        if self.grid is None:
            return 1.0
        lines = [
            np.clip((c + np.arange(s) + 0.5) / size * nodes - 0.5, 0, nodes - 1)
            for c, s, size, nodes in zip(corner, shape, self.volume_shape, self.grid.shape, strict=True)
        ]
        level = self.grid
        for axis, line in enumerate(lines):
            low = np.floor(line).astype(int)
            high = np.minimum(low + 1, self.grid.shape[axis] - 1)
            share = (line - low).reshape([-1 if a == axis else 1 for a in range(3)])
            level = np.take(level, low, axis) * (1 - share) + np.take(level, high, axis) * share
        return torch.from_numpy(level.astype(np.float32))


def excess_kurtosis(samples: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """Excess kurtosis of noise samples, each about its own mean; 0 for a Gaussian."""
    values = torch.cat([(s - s.mean()).flatten() for s in samples]).double()
    return values.pow(4).mean() / values.square().mean().square() - 3
