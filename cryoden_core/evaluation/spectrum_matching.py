"""Simulated tomograms without learning: a density map in its missing wedge, plus noise.

They are the controls of any learned simulation.  The first adds white noise, the second Gaussian noise with what the
power spectrum of real tomograms has beyond the signal's; nothing that only looks at spectra can tell the second from
the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import fft

from ..fourier import half_transform, missing_wedge_mask
from ..metrics import standardised
from ..spectrum import block_shape, mean_spectrum, resample_spectrum, smooth_spectrum
from ..tiling import Shape, shape_of

#: Largest edge of the blocks on which spectra are measured, voxels; smaller ones blur the edges of the missing wedge.
SPECTRUM_EDGE = 256
#: Coefficients over which a spectrum is smoothed; fewer leave the scatter of single coefficients in it.
_SMOOTHING = 1.5


def spectrum_matched(
    clean: np.ndarray,
    real: Sequence[np.ndarray],
    signal_share: float,
    tilt_range: tuple[float, float] = (-60.0, 60.0),
    seed: int = 0,
) -> np.ndarray:
    """Map and coloured noise, with the power spectrum of real tomograms.

    Parameters
    ----------
    clean
        Density map (z, y, x), with the contrast of the real tomograms.
    real
        Real tomograms (z, y, x), any sizes; their spectra are averaged after standardisation.
    signal_share
        Share of the variance that is signal, 0 to 1.
    tilt_range
        Degrees; the map loses what lies outside.
    seed
        Of the noise.

    Returns
    -------
    np.ndarray
        (z, y, x) float32, standardised.
    """
    signal = _signal(clean, signal_share, tilt_range)
    shape = shape_of(clean)
    measured = missing_wedge_mask(shape, *tilt_range)
    wanted = np.mean([_spectrum(standardised(volume), shape, measured) for volume in real], axis=0)
    # Where the map alone has more power than the real tomograms, no noise is added.
    power = np.maximum(wanted - _spectrum(signal, shape, measured), 0.0)
    white = half_transform(np.random.default_rng(seed).normal(size=shape))
    return standardised(signal + fft.irfftn(white * np.sqrt(power), s=shape).astype(np.float32))


def white_noise_added(
    clean: np.ndarray, signal_share: float, tilt_range: tuple[float, float] = (-60.0, 60.0), seed: int = 0
) -> np.ndarray:
    """Map and white noise; parameters and result as of :func:`spectrum_matched`."""
    signal = _signal(clean, signal_share, tilt_range)
    noise = np.random.default_rng(seed).normal(size=clean.shape) * np.sqrt(1 - signal_share)
    return standardised(signal + noise.astype(np.float32))


def phase_randomised(volume: np.ndarray, seed: int = 0) -> np.ndarray:
    """Gaussian noise with exactly the amplitudes of a volume's Fourier transform: its spectrum, but no structure.

    Theiler et al. (1992).  Mean and variance are kept; float32 (z, y, x).
    """
    white = half_transform(np.random.default_rng(seed).normal(size=volume.shape))
    transform = half_transform(volume)
    # The phases of a real random volume are those of a real volume: odd, and 0 or 180 degrees where they must be.
    phase = white / np.maximum(np.abs(white), 1e-20)
    phase[0, 0, 0] = 1
    amplitude = np.abs(transform)
    amplitude[0, 0, 0] = transform[0, 0, 0].real
    return fft.irfftn(amplitude * phase, s=volume.shape).astype(np.float32)


def voxels_shuffled(volume: np.ndarray, seed: int = 0) -> np.ndarray:
    """The volume's own voxels in random order: its histogram, but neither spectrum nor structure."""
    return np.random.default_rng(seed).permutation(np.asarray(volume, np.float32).ravel()).reshape(volume.shape)


def _signal(clean: np.ndarray, signal_share: float, tilt_range: tuple[float, float]) -> np.ndarray:
    transform = half_transform(standardised(clean)) * missing_wedge_mask(clean.shape, *tilt_range)
    return standardised(fft.irfftn(transform, s=clean.shape)) * np.float32(np.sqrt(signal_share))


def _spectrum(volume: np.ndarray, shape: Shape, measured: np.ndarray) -> np.ndarray:
    """Power of a volume on the half grid of ``shape``, smoothed within the measured region alone.

    There the scatter of single coefficients would make the difference from the map's power too large wherever it is
    cut off at 0; smoothing across the edge of the missing wedge would fill it.
    """
    block = block_shape(shape_of(volume), SPECTRUM_EDGE)
    power = resample_spectrum(mean_spectrum(volume, block), shape)
    weight = torch.from_numpy(measured.astype(np.float32))
    sums, count = (smooth_spectrum(values, _SMOOTHING).numpy() for values in (power * weight, weight))
    return np.where(measured, sums / np.maximum(count, 1e-6), power.numpy())
