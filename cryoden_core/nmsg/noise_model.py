"""The noise of one tomogram as a random field that can be drawn afresh at every step.

A voxel of a tomogram is a sum over tens of filtered projections, so its noise is close to Gaussian and its power
spectrum N(k), with the ramp and the missing wedge in it, says nearly all of it.  :class:`SpectralNoiseModel` draws
Gaussian noise of that spectrum; where noise is stronger in some parts of the volume, a map of its level follows.
NMSG's adversarial network (:mod:`cryoden_core.nmsg.gan`) starts from this model and adds what it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..fourier import frequency_radius
from ..spectrum import (
    NoiseShare,
    band_means,
    bands,
    block_shape,
    mean_spectrum,
    resample_spectrum,
    share_from_background,
    share_from_halves,
    smooth_spectrum,
    total_power,
    without_peaks,
)
from ..tiling import Shape, shape_of
from ..tomogram import HalfDifference

#: Edge of the blocks on which the spectra are stored.
SPECTRUM_EDGE = 64
#: The local noise level is followed when it varies by more than this (standard deviation over the volume).
LEVEL_TOLERANCE = 0.05


class NoiseModel(Protocol):
    """Anything that draws noise of unit scale for a crop; ``kind`` names it in the results."""

    kind: str

    def sample(self, shape: Shape, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """Noise (z, y, x) on the scale of the standardised tomogram."""


@dataclass
class Spectra:
    """Total spectrum ``total`` and noise spectrum ``noise`` of the standardised volume, on the grid of ``block``."""

    total: torch.Tensor
    noise: torch.Tensor
    block: Shape
    share: NoiseShare

    @property
    def noise_fraction(self) -> float:
        """Share of the volume's variance that is noise."""
        return float((total_power(self.noise, self.block) / total_power(self.total, self.block)).clamp(0, 1))

    def best_gaussian_sigma(self) -> float:
        """Width (voxels) of the Gaussian filter with the least expected error, for the guidance volume."""
        signal = (self.total - self.noise).clamp_min(0)
        radius = torch.from_numpy(frequency_radius(self.block))
        best, least = 1.0, float("inf")
        for sigma in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0):
            response = torch.exp(-2 * (torch.pi * radius * sigma) ** 2)
            error = float(total_power((1 - response) ** 2 * signal + response**2 * self.noise, self.block))
            if error < least:
                best, least = sigma, error
        return best

    def empty_shells(self) -> float:
        """Share of the shells up to Nyquist that hold next to nothing (a volume that was low-pass filtered)."""
        profile = band_means(self.total, self.block, 16)
        return float((profile < 1e-4 * profile.max()).float().mean())


def measure_spectra(
    volume: np.ndarray,
    mean: float,
    scale: float,
    difference: HalfDifference | None = None,
) -> Spectra:
    """Spectra of a volume and of its noise, the noise from the half difference when given, else from empty blocks.

    ``volume`` (z, y, x) may be a memory map; ``mean`` and ``scale`` standardise it.
    """
    block = block_shape(shape_of(volume), SPECTRUM_EDGE)
    total = smooth_spectrum(mean_spectrum(volume, block, mean, scale), 0.7)
    if difference is not None:
        share = share_from_halves(volume, difference, mean, scale)
    else:
        share = share_from_background(volume, mean, scale)
    rho = resample_spectrum(share.rho, block).clamp(0, 1)
    if difference is None:
        rho = rho * _ramp_correction(total, rho, block)
        return Spectra(total, rho * without_peaks(total, rho, block), block, share)
    return Spectra(total, rho * total, block, share)


def _ramp_correction(total: torch.Tensor, rho: torch.Tensor, block: Shape) -> torch.Tensor:
    """Factor (by shell) that takes the signal out of the noise at low frequency.

    Even the emptiest blocks hold some signal, most of it at low frequency, where a back-projected tomogram has the
    least noise: its spectrum falls with a power of the frequency (the ramp filter).  The power law is fitted just above
    the frequency where noise takes over, and caps the measured noise below it.
    """
    shells = 32
    radius = (torch.arange(shells) + 0.5) / (2 * shells)
    noise = band_means(total * rho, block, shells)
    share = noise / band_means(total, block, shells).clamp_min(1e-12)
    above = (share > 0.6).nonzero()
    if not len(above) or int(above[0]) > shells - 8 or int(above[0]) < 2:
        return torch.ones_like(rho)
    first = int(above[0])
    window = slice(first, first + 7)
    design = torch.stack([torch.ones(7), radius[window].log()], 1)
    slope = float(torch.linalg.lstsq(design, noise[window].log()[:, None]).solution[1, 0])
    slope = min(max(slope, 0.0), 1.5)
    level = (noise[window].log() - slope * radius[window].log()).mean()
    law = torch.exp(level + slope * radius.log())
    factor = torch.minimum(torch.ones(shells), 1.2 * law / noise.clamp_min(1e-12))
    factor[first + 3 :] = 1
    return factor[bands(block, shells).clamp(max=shells - 1)]


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
