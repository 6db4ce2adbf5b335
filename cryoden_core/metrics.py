"""Figures of merit: how close a volume is to the truth, and how far two halves agree.

Against a known truth: correlation, peak signal-to-noise ratio (after the best affine fit, and in the min-max form of
the NMSG paper), structural similarity (Wang et al. 2004, scikit-image's implementation) and visual information
fidelity (Sheikh and Bovik 2006, pixel domain); also the figures of standardised volumes that the DUAL paper gives
(Zeng et al. 2024).  Between halves or against the truth: Fourier shell, ring, cone and wedge correlations (Harauz and
van Heel 1986).  Of what was removed: how white it is.  Of features: how far they lie from where they should.

Volumes are real arrays (z, y, x); masks weight voxels, 0 outside to 1 inside.  Sums are kept in double precision.
Nothing here moves or aligns volumes.
"""

from __future__ import annotations

import math
from typing import Dict, Iterator, Optional, Tuple

import numpy as np

from .fourier import FourierBins, radial_power_spectrum
from .mrc import slabs
from .shell_correlation import Curve as Curve
from .shell_correlation import directional_fsc as directional_fsc
from .shell_correlation import fourier_change as fourier_change
from .shell_correlation import fourier_correlation as fourier_correlation
from .shell_correlation import frc as frc
from .shell_correlation import frequency_at as frequency_at
from .shell_correlation import fsc as fsc
from .shell_correlation import wedge_fsc as wedge_fsc
from .visual_information import vif as vif


def correlation(a: np.ndarray, b: np.ndarray, mask: Optional[np.ndarray] = None) -> float:
    """Pearson correlation of two arrays of one shape, weighted by ``mask``; NaN when either is constant."""
    moments = _moments(a, b, mask)
    if moments["variance_a"] <= 0 or moments["variance_b"] <= 0:
        return math.nan
    return moments["covariance"] / math.sqrt(moments["variance_a"] * moments["variance_b"])


def affine_fit(test: np.ndarray, truth: np.ndarray, mask: Optional[np.ndarray] = None) -> Tuple[float, float]:
    """Gain and offset that bring ``gain * test + offset`` nearest to the truth in least squares.

    A constant test has gain 0 and the truth's mean as offset.
    """
    moments = _moments(test, truth, mask)
    gain = moments["covariance"] / moments["variance_a"] if moments["variance_a"] > 0 else 0.0
    return gain, moments["mean_b"] - gain * moments["mean_a"]


def psnr(
    test: np.ndarray, truth: np.ndarray, data_range: Optional[float] = None, mask: Optional[np.ndarray] = None
) -> float:
    """Peak signal-to-noise ratio in decibels, ``10 log10(data_range^2 / mean square error)``.

    ``data_range`` is by default the truth's maximum less its minimum (over the whole volume); equal arrays give
    infinity.
    """
    if data_range is None:
        data_range = float(np.max(truth)) - float(np.min(truth))
    return _decibels(data_range, _mean_square_error(test, truth, mask))


def psnr_affine(
    test: np.ndarray, truth: np.ndarray, data_range: Optional[float] = None, mask: Optional[np.ndarray] = None
) -> float:
    """:func:`psnr` after the best gain and offset: blind to scale, which a tomogram does not keep anyway."""
    if data_range is None:
        data_range = float(np.max(truth)) - float(np.min(truth))
    return _decibels(data_range, _mean_square_error(test, truth, mask, *affine_fit(test, truth, mask)))


def psnr_minmax(test: np.ndarray, truth: np.ndarray) -> float:
    """:func:`psnr` after each volume is scaled to 0..1 by its own extremes, as the NMSG paper's code has it.

    It is ruled by two extreme voxels of each volume: for comparison with published figures only.
    """
    low_test, range_test = _extremes(test)
    low_truth, range_truth = _extremes(truth)
    # Both are brought to the truth's own scale, where the error is the same share of the range.
    gain = range_truth / range_test
    return _decibels(range_truth, _mean_square_error(test, truth, None, gain, low_truth - gain * low_test))


def standardised(volume: np.ndarray) -> np.ndarray:
    """The volume with mean 0 and standard deviation 1, float32.

    Raises
    ------
    ValueError
        When it is constant.
    """
    mean, sd = float(np.mean(volume, dtype=np.float64)), float(np.std(volume, dtype=np.float64))
    if sd == 0:
        raise ValueError("a constant volume cannot be standardised")
    return ((volume - np.float32(mean)) / np.float32(sd)).astype(np.float32)


def standardised_square_error(test: np.ndarray, truth: np.ndarray) -> float:
    """Mean square error of the two volumes after each is standardised, which is ``2 (1 - correlation)``."""
    return 2.0 * max(1.0 - correlation(test, truth), 0.0)


def psnr_standardised(test: np.ndarray, truth: np.ndarray) -> Tuple[float, float]:
    """:func:`psnr` of the two volumes after each is standardised, as in the DUAL paper, and the peak it rests on.

    The peak is the range of the standardised truth, which a few gold beads rule: only differences of this figure
    between methods mean anything.

    Returns
    -------
    decibels, peak
        The peak in standard deviations of the truth.
    """
    peak = _extremes(truth)[1] / float(np.std(truth, dtype=np.float64))
    return _decibels(peak, standardised_square_error(test, truth)), peak


def contrast_to_noise(volume: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """Difference of the means inside and outside over the standard deviation outside; its sign is the contrast's.

    Parameters
    ----------
    volume
        (z, y, x).
    inside, outside
        bool (z, y, x): particles, and background.
    """
    particle, background = np.asarray(volume[inside], np.float64), np.asarray(volume[outside], np.float64)
    if particle.size == 0 or background.size == 0 or background.std() == 0:
        return math.nan
    return float((particle.mean() - background.mean()) / background.std())


def ssim3d(
    test: np.ndarray,
    truth: np.ndarray,
    data_range: Optional[float] = None,
    mask: Optional[np.ndarray] = None,
    uniform_window: int = 0,
) -> float:
    """Mean structural similarity with a three-dimensional Gaussian window of 1.5 voxels.

    It depends on gain and offset: bring the test to the truth's scale first (:func:`affine_fit`).

    Parameters
    ----------
    test, truth
        (z, y, x).
    data_range
        By default the truth's maximum less its minimum.
    mask
        Averages the local similarities with these weights, faces included; None leaves half a window at each face out.
    uniform_window
        Edge of a box in place of the Gaussian window, voxels, odd, with the sample covariance; 0 keeps the Gaussian.
    """
    from skimage.metrics import structural_similarity

    if data_range is None:
        data_range = float(np.max(truth)) - float(np.min(truth))
    # The Gaussian window has 11 voxels; where a thin volume has fewer, its faces reflect and fewer are left out.
    window = min(uniform_window or 11, min(test.shape) - 1 + min(test.shape) % 2)
    kind = (
        {"use_sample_covariance": True}
        if uniform_window
        else {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    )
    mean, local = structural_similarity(
        np.asarray(test, dtype=np.float32), np.asarray(truth, dtype=np.float32), win_size=window,
        data_range=data_range, full=True, **kind,
    )  # fmt: skip
    return float(mean) if mask is None else float(np.average(local, weights=mask))


def displacement(volume: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far what a small volume shows lies from where it is expected: (z, y, x) in voxels.

    The highest point of the (periodic) cross-correlation, refined by a parabola along each axis.

    Parameters
    ----------
    volume, expected
        (z, y, x) of one shape, a feature with some room around it.
    """
    spectra = [np.fft.fftn(values - values.mean()) for values in (volume, expected)]
    surface = np.fft.fftshift(np.fft.ifftn(spectra[0] * spectra[1].conj()).real)
    peak = np.unravel_index(surface.argmax(), surface.shape)
    shift = []
    for axis, place in enumerate(peak):
        around = [(*peak[:axis], (place + step) % surface.shape[axis], *peak[axis + 1 :]) for step in (-1, 0, 1)]
        low, middle, high = (surface[position] for position in around)
        shift.append(place + 0.5 * (low - high) / (low - 2 * middle + high) - volume.shape[axis] // 2)
    return np.array(shift)


def residual_whiteness(residual: np.ndarray, noise: Optional[np.ndarray] = None, radial_bins: int = 0) -> float:
    """Spectral flatness of what a denoiser removed: 1 when it is as white as white noise, towards 0 when it is not.

    The geometric over the arithmetic mean of the radial power spectrum, each shell weighted by its coefficients
    (Gray and Markel 1974).  With ``noise``, a sample of the true noise, the spectrum is first divided by the noise's:
    then 1 says that the residual has the noise's colour, and structure that was removed with it shows as less.

    Parameters
    ----------
    residual
        Before minus after, (z, y, x).
    noise
        Of any shape; its spectrum is taken over the same frequencies.
    radial_bins
        Shells; 0 takes a quarter of the longest side, so that each holds enough coefficients.
    """
    radial_bins = radial_bins or max(4, max(residual.shape) // 4)
    _, power = radial_power_spectrum(residual, radial_bins)
    if noise is not None:
        power = power / radial_power_spectrum(noise, radial_bins)[1]
    count = FourierBins(residual.shape, radial_bins).sums(lambda section: [], 0)[0, :, 0]
    known = np.isfinite(power) & (count > 0)
    power, weight = power[known], count[known] / count[known].sum()
    arithmetic = float((weight * power).sum())
    if arithmetic <= 0:
        return math.nan
    return float(np.exp((weight * np.log(np.maximum(power, 1e-30))).sum()) / arithmetic)


def _sections(
    a: np.ndarray, b: np.ndarray, mask: Optional[np.ndarray]
) -> Iterator[Tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Volumes and weights piece by piece in double precision; no mask weighs 1."""
    if a.shape != b.shape or (mask is not None and mask.shape != a.shape):
        raise ValueError("the volumes (and the mask) must have one shape")
    for slab in slabs(a):
        part_a, part_b = np.asarray(a[slab], dtype=np.float64), np.asarray(b[slab], dtype=np.float64)
        yield part_a, part_b, np.ones_like(part_a) if mask is None else np.asarray(mask[slab], dtype=np.float64)


def _moments(a: np.ndarray, b: np.ndarray, mask: Optional[np.ndarray]) -> Dict[str, float]:
    total = sum_a = sum_b = variance_a = variance_b = covariance = 0.0
    for part_a, part_b, weight in _sections(a, b, mask):
        total += float(np.sum(weight))
        sum_a += float(np.sum(weight * part_a))
        sum_b += float(np.sum(weight * part_b))
    if total <= 0:
        raise ValueError("the mask is empty")
    mean_a, mean_b = sum_a / total, sum_b / total
    for part_a, part_b, weight in _sections(a, b, mask):
        part_a, part_b = part_a - mean_a, part_b - mean_b
        variance_a += float(np.sum(weight * part_a * part_a))
        variance_b += float(np.sum(weight * part_b * part_b))
        covariance += float(np.sum(weight * part_a * part_b))
    return {
        "mean_a": mean_a,
        "mean_b": mean_b,
        "variance_a": variance_a / total,
        "variance_b": variance_b / total,
        "covariance": covariance / total,
    }


def _mean_square_error(
    test: np.ndarray, truth: np.ndarray, mask: Optional[np.ndarray], gain: float = 1.0, offset: float = 0.0
) -> float:
    total = squares = 0.0
    for part, wanted, weight in _sections(test, truth, mask):
        total += float(np.sum(weight))
        squares += float(np.sum(weight * (gain * part + offset - wanted) ** 2))
    return squares / total


def _decibels(data_range: float, error: float) -> float:
    return math.inf if error == 0 else 10.0 * math.log10(data_range**2 / error)


def _extremes(values: np.ndarray) -> Tuple[float, float]:
    """Minimum and range; the range of a constant volume counts as 1."""
    low, high = float(np.min(values)), float(np.max(values))
    return low, high - low or 1.0
