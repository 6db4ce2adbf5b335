"""The noise of one tomogram as a random field that can be drawn afresh at every step.

A voxel of a tomogram is a sum over tens of filtered projections, so its noise is close to Gaussian and its power
spectrum N(k), with the ramp and the missing wedge in it, says nearly all of it.  :class:`SpectralNoiseModel` draws
Gaussian noise of that spectrum; where noise is stronger in some parts of the volume, a map of its level follows.
NMSG's adversarial network (:mod:`cryoden_core.nmsg.gan`) starts from this model and adds what it lacks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..tiling import Shape, shape_of
from .spectrum import (
    NoiseShare,
    block_shape,
    frequency_radius,
    mean_spectrum,
    resample_spectrum,
    share_from_background,
    share_from_halves,
    smooth_spectrum,
)

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
        return float((_full_sum(self.noise, self.block) / _full_sum(self.total, self.block)).clamp(0, 1))

    def best_gaussian_sigma(self) -> float:
        """Width (voxels) of the Gaussian filter with the least expected error, for the guidance volume."""
        signal = (self.total - self.noise).clamp_min(0)
        radius = frequency_radius(self.block)
        best, least = 1.0, float("inf")
        for sigma in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0):
            response = torch.exp(-2 * (torch.pi * radius * sigma) ** 2)
            error = float(_full_sum((1 - response) ** 2 * signal + response**2 * self.noise, self.block))
            if error < least:
                best, least = sigma, error
        return best

    def empty_shells(self) -> float:
        """Share of the shells up to Nyquist that hold next to nothing (a volume that was low-pass filtered)."""
        profile = _shell_means(self.total, self.block, 16)
        return float((profile < 1e-4 * profile.max()).float().mean())


def _full_sum(power: torch.Tensor, block: Shape) -> torch.Tensor:
    """Sum over the full grid of a half-grid spectrum of real data."""
    twice = power[..., 1 : (block[2] + 1) // 2].sum()
    return power.sum() + twice


def _shell_means(power: torch.Tensor, block: Shape, shells: int) -> torch.Tensor:
    """Mean power in ``shells`` equal shells between 0 and Nyquist; what lies beyond is left out."""
    index = (frequency_radius(block) * 2 * shells).long().flatten()
    inside = index < shells
    sums = torch.bincount(index[inside], power.flatten()[inside], shells)
    return sums / torch.bincount(index[inside], minlength=shells).clamp_min(1)


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
    return Spectra(total, rho * total, block, share)


class HalfDifference:
    """``gain * (even - odd) / 2`` of two arrays, computed only where it is read."""

    def __init__(self, even: np.ndarray, odd: np.ndarray, gain: float = 1.0) -> None:
        self.even, self.odd, self.gain = even, odd, gain
        self.shape = even.shape

    def __getitem__(self, region: tuple[slice, ...], /) -> np.ndarray:
        even = np.asarray(self.even[region], np.float32)
        return (0.5 * self.gain) * (even - np.asarray(self.odd[region], np.float32))


def _ramp_correction(total: torch.Tensor, rho: torch.Tensor, block: Shape) -> torch.Tensor:
    """Factor (by shell) that takes the signal out of the noise at low frequency.

    Even the emptiest blocks hold some signal, most of it at low frequency, where a back-projected tomogram has the
    least noise: its spectrum falls with a power of the frequency (the ramp filter).  The power law is fitted just above
    the frequency where noise takes over, and caps the measured noise below it.
    """
    shells = 32
    radius = (torch.arange(shells) + 0.5) / (2 * shells)
    noise = _shell_means(total * rho, block, shells)
    share = noise / _shell_means(total, block, shells).clamp_min(1e-12)
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
    index = (frequency_radius(block) * 2 * shells).long().clamp(max=shells - 1)
    return factor[index]


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
        # A small draw would cut the autocovariance off and leak power into the missing wedge: cut it from a larger one.
        even = tuple(max(edge + edge % 2, least) for edge, least in zip(shape, self.block, strict=True))
        white = torch.randn(even, generator=generator).to(device)
        noise = torch.fft.irfftn(torch.fft.rfftn(white) * self.amplitude(even, device), s=even)  # type: ignore[arg-type]
        return noise[: shape[0], : shape[1], : shape[2]]

    @property
    def sd(self) -> float:
        """Standard deviation of the noise."""
        return float((_full_sum(self.power, self.block) / math.prod(self.block)).sqrt())


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


def excess_kurtosis(samples: list[torch.Tensor]) -> float:
    """Excess kurtosis of noise samples; 0 for a Gaussian."""
    values = torch.cat([(s - s.mean()).flatten() for s in samples]).double()
    return float((values**4).mean() / (values**2).mean() ** 2 - 3)


def robust_statistics(volume: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation without the 0.1 % extremes (gold, hot pixels), from an even subset of voxels."""
    step = tuple(max(1, size // 128) for size in volume.shape)
    sample = np.asarray(volume[:: step[0], :: step[1], :: step[2]], np.float32).ravel()
    low, high = np.percentile(sample, (0.1, 99.9))
    kept = sample[(sample >= low) & (sample <= high)]
    return float(kept.mean()), float(kept.std()) or float(sample.std()) or 1.0
