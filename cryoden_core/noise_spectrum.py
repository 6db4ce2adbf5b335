"""The spectrum of a tomogram and of the noise in it, by one measurement for all systems.

The share of noise comes from halves or from the emptiest parts of the tomogram (:mod:`cryoden_core.spectrum`); here
what is known of signal and of back-projected noise corrects it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .fourier import frequency_radius
from .spectrum import (
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
from .tiling import Shape, shape_of
from .tomogram import HalfDifference

#: Edge of the blocks on which the spectra are stored.
SPECTRUM_EDGE = 64


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
