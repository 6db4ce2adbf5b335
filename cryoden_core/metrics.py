"""Figures of merit: how close a volume is to the truth, and how far two halves agree.

Against a known truth: correlation, peak signal-to-noise ratio (after the best affine fit, and in the min-max form of
the NMSG paper), structural similarity (Wang et al. 2004, scikit-image's implementation) and visual information
fidelity (Sheikh and Bovik 2006, pixel domain).  Between halves or against the truth: Fourier shell, ring, cone and
wedge correlations (Harauz and van Heel 1986).  Of what was removed: how white it is.

Volumes are real arrays (z, y, x); masks weight voxels, 0 outside to 1 inside.  Sums are kept in double precision.
Nothing here moves or aligns volumes.
"""

from __future__ import annotations

import math
from typing import Dict, Iterator, Optional, Tuple

import numpy as np

from .fourier import FourierBins, half_transform, missing_wedge_mask, radial_power_spectrum, ratio, sections_of
from .mrc import slabs

Curve = Tuple[np.ndarray, np.ndarray]

_VIF_SCALES = 4
#: Variance of the eye's noise for grey levels 0 to 255, as published.
_VIF_NOISE = 2.0


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


def ssim3d(
    test: np.ndarray, truth: np.ndarray, data_range: Optional[float] = None, mask: Optional[np.ndarray] = None
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
        Averages the local similarities with these weights, faces included; None leaves 5 voxels at each face out.
    """
    from skimage.metrics import structural_similarity

    if data_range is None:
        data_range = float(np.max(truth)) - float(np.min(truth))
    # The window has 11 voxels; where a thin volume has fewer, its faces reflect and only fewer of them are left out.
    window = min(11, min(test.shape) - 1 + min(test.shape) % 2)
    mean, local = structural_similarity(
        np.asarray(test, dtype=np.float32), np.asarray(truth, dtype=np.float32), win_size=window,
        data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    return float(mean) if mask is None else float(np.average(local, weights=mask))


def vif(test: np.ndarray, truth: np.ndarray) -> float:
    """Visual information fidelity in the pixel domain, of a slice or averaged over the slices of a volume.

    Sheikh and Bovik (2006), IEEE Trans. Image Process. 15, 430, equation 9 at four scales with scalar Gaussian
    mixtures.  Both volumes are scaled by the truth's range to 0..255, for which the published noise variance holds.
    1 is equality; noise and blur lower it, added contrast can raise it above 1.  Small slices use fewer scales.

    Raises
    ------
    ValueError
        When a slice is smaller than 17 pixels.
    """
    if min(truth.shape[-2:]) < 17:
        raise ValueError("visual information fidelity needs slices of at least 17 x 17 pixels")
    low, high = float(np.min(truth)), float(np.max(truth))
    scale = 255.0 / (high - low) if high > low else 1.0
    pairs = [(test, truth)] if truth.ndim == 2 else [(test[i], truth[i]) for i in range(len(truth))]
    grey = ([scale * (np.asarray(image, dtype=np.float64) - low) for image in pair] for pair in pairs)
    return float(np.mean([_vif_slice(*pair) for pair in grey]))


def fsc(a: np.ndarray, b: np.ndarray, mask: Optional[np.ndarray] = None, radial_bins: int = 0) -> Curve:
    """Fourier shell correlation of two volumes (ring correlation of two slices).

    Harauz and van Heel (1986), Optik 73, 146.  The mean inside the mask is taken off before masking, so that the
    mask's own shape does not correlate.

    Returns
    -------
    frequency, fsc
        Cycles per voxel and -1..1, both (shells,), without the zero frequency; NaN where a shell is empty.
    """
    frequency, _, curve = directional_fsc(a, b, 1, mask, radial_bins)
    return frequency, curve[:, 0]


def directional_fsc(
    a: np.ndarray, b: np.ndarray, cone_bins: int = 3, mask: Optional[np.ndarray] = None, radial_bins: int = 0
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fourier shell correlation in ranges of the angle to kz.

    Returns
    -------
    frequency, angle_degrees, fsc
        (shells,); (cones,) centres of the ranges, 0 along the beam; (shells, cones).
    """
    bins = FourierBins(a.shape, radial_bins, cone_bins)
    return bins.frequency, bins.angle_degrees, _shell_correlation(bins, *_transforms(a, b, mask))


def wedge_fsc(
    a: np.ndarray,
    b: np.ndarray,
    tilt_min_degrees: float = -60.0,
    tilt_max_degrees: float = 60.0,
    mask: Optional[np.ndarray] = None,
    radial_bins: int = 0,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fourier shell correlation of what the views measured and of what they did not.

    Returns
    -------
    frequency, measured, missing
        All (shells,); ``missing`` is the correlation inside the missing wedge.
    """
    bins = FourierBins(a.shape, radial_bins)
    transforms = _transforms(a, b, mask)
    measured = missing_wedge_mask(a.shape, tilt_min_degrees, tilt_max_degrees)
    inside = _shell_correlation(bins, *transforms, measured)
    outside = _shell_correlation(bins, *transforms, ~measured)
    return bins.frequency, inside[:, 0], outside[:, 0]


def frc(a: np.ndarray, b: np.ndarray, axis: int = 0, radial_bins: int = 0) -> Curve:
    """Fourier ring correlation of two slices, or of all slices of two volumes across ``axis`` taken together.

    Returns
    -------
    frequency, frc
        Cycles per voxel and -1..1, both (rings,).
    """
    if a.ndim == 2:
        return fsc(a, b, radial_bins=radial_bins)
    bins = FourierBins(tuple(size for number, size in enumerate(a.shape) if number != axis), radial_bins)
    total = np.zeros((3, bins.count))
    for number in range(a.shape[axis]):
        slices = (np.take(a, number, axis), np.take(b, number, axis))
        total += _shell_sums(bins, *_transforms(*slices, None))[:, :, 0]
    return bins.frequency, ratio(total[0], np.sqrt(total[1] * total[2]))


def frequency_at(frequency: np.ndarray, curve: np.ndarray, threshold: float) -> float:
    """Where a curve first falls below a threshold, interpolated linearly.

    A curve that never does gives the last frequency (the sampling is the limit); one that begins below gives 0 (there
    is no agreement at all).  NaN values are passed over.
    """
    known = np.isfinite(curve)
    frequency, curve = np.asarray(frequency)[known], np.asarray(curve)[known]
    below = np.flatnonzero(curve < threshold)
    if curve.size == 0 or (below.size and below[0] == 0):
        return 0.0
    if below.size == 0:
        return float(frequency[-1])
    after = below[0]
    before = after - 1
    share = (curve[before] - threshold) / (curve[before] - curve[after])
    return float(frequency[before] + share * (frequency[after] - frequency[before]))


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


def _transforms(a: np.ndarray, b: np.ndarray, mask: Optional[np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape or (mask is not None and mask.shape != a.shape):
        raise ValueError("the volumes (and the mask) must have one shape")
    centred = []
    for values in (a, b):
        values = np.asarray(values, dtype=np.float32)
        mean = values.mean(dtype=np.float64) if mask is None else np.average(values, weights=mask)
        values = values - np.float32(mean)
        centred.append(half_transform(values if mask is None else values * mask))
    return centred[0], centred[1]


def _shell_sums(bins: FourierBins, a: np.ndarray, b: np.ndarray, inside: Optional[np.ndarray] = None) -> np.ndarray:
    """Sums of Re(A conj B), |A|^2 and |B|^2 over each bin, (3, shells, cones)."""
    of_a, of_b = sections_of(a), sections_of(b)

    def terms(section: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        first, second = of_a[section].astype(np.complex128), of_b[section].astype(np.complex128)
        return (first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2

    return bins.sums(terms, 3, inside)[1:]


def _shell_correlation(
    bins: FourierBins, a: np.ndarray, b: np.ndarray, inside: Optional[np.ndarray] = None
) -> np.ndarray:
    cross, power_a, power_b = _shell_sums(bins, a, b, inside)
    return ratio(cross, np.sqrt(power_a * power_b))


def _vif_slice(test: np.ndarray, truth: np.ndarray) -> float:
    """Information that the test keeps over the information of the truth, both (y, x) in grey levels 0..255."""
    kept = available = 0.0
    for scale in range(1, _VIF_SCALES + 1):
        size = 2 ** (_VIF_SCALES - scale + 1) + 1
        if scale > 1:
            if min(truth.shape) < size:
                break
            test, truth = (_gaussian_mean(values, size)[::2, ::2] for values in (test, truth))
        if min(truth.shape) < size:
            break
        mean_test, mean_truth = _gaussian_mean(test, size), _gaussian_mean(truth, size)
        var_test = np.maximum(_gaussian_mean(test * test, size) - mean_test**2, 0.0)
        var_truth = np.maximum(_gaussian_mean(truth * truth, size) - mean_truth**2, 0.0)
        covariance = _gaussian_mean(test * truth, size) - mean_test * mean_truth
        gain = covariance / (var_truth + 1e-10)
        distortion = var_test - gain * covariance
        # A negative gain carries no information, and where the truth is flat all that the test shows is distortion.
        lost = (var_truth < 1e-10) | (gain < 0)
        gain = np.where(lost, 0.0, gain)
        distortion = np.maximum(np.where(lost, var_test, distortion), 1e-10)
        kept += float(np.log10(1.0 + gain**2 * var_truth / (distortion + _VIF_NOISE)).sum())
        available += float(np.log10(1.0 + var_truth / _VIF_NOISE).sum())
    return kept / available if available > 0 else 1.0


def _gaussian_mean(values: np.ndarray, size: int) -> np.ndarray:
    """Local mean with a Gaussian window of ``size`` pixels and a standard deviation of a fifth of it, valid part."""
    from scipy.ndimage import convolve1d

    half = size // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / (size / 5.0)) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        values = convolve1d(values, weights, axis=axis)
    return values[half : values.shape[0] - half, half : values.shape[1] - half]
