"""Figures of merit: how close a volume is to the truth, and how far two halves agree.

Against a known truth: correlation, peak signal-to-noise ratio (after the best affine fit, and in the min-max form of
the NMSG paper), structural similarity (Wang et al. 2004, scikit-image's implementation) and visual information
fidelity (Sheikh and Bovik 2006, pixel domain); also the figures of standardised volumes that the DUAL paper gives
(Zeng et al. 2024).  Between halves or against the truth: Fourier shell, ring, cone and wedge correlations (Harauz and
van Heel 1986).  Of what was removed: how white it is.

Volumes are real arrays (z, y, x); masks weight voxels, 0 outside to 1 inside.  Sums are kept in double precision.
Nothing here moves or aligns volumes.
"""

from __future__ import annotations

import math
from typing import Dict, Iterator, Optional, Tuple

import numpy as np

from .fourier import FourierBins, half_transform, missing_wedge_mask, radial_power_spectrum, ratio, sections_of
from .mrc import slabs
from .visual_information import vif as vif

Curve = Tuple[np.ndarray, np.ndarray]


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


def fourier_correlation(a: np.ndarray, b: np.ndarray, inside: Optional[np.ndarray] = None) -> float:
    """Correlation of two volumes over some of their Fourier coefficients, up to 0.5 cycles per voxel.

    Parameters
    ----------
    a, b
        (z, y, x).
    inside
        Weight of each coefficient in the half layout, (z, y, x // 2 + 1); None takes all.
    """
    cross, power_a, power_b = _region_sums(a, b, inside)
    return float(cross / math.sqrt(power_a * power_b)) if power_a * power_b > 0 else math.nan


def fourier_change(a: np.ndarray, b: np.ndarray, inside: Optional[np.ndarray] = None) -> float:
    """How far ``a`` departs from ``b`` over some Fourier coefficients: root mean square change over that of ``b``.

    Nothing is rescaled first: 0 is equality, and a wrong gain counts as change.  Parameters as in
    :func:`fourier_correlation`.
    """
    cross, power_a, power_b = _region_sums(a, b, inside)
    return math.sqrt(max(power_a + power_b - 2 * cross, 0.0) / power_b) if power_b > 0 else math.nan


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


def frequency_at(
    frequency: np.ndarray, curve: np.ndarray, threshold: float, from_highest: bool = False
) -> float:  # fmt: skip
    """Where a curve first falls below a threshold, interpolated linearly.

    Between halves this is the field's convention.  Against a truth without contrast transfer the lowest frequencies of
    a tomogram, of which transfer leaves little, can lie below the threshold though all that follows agrees:
    ``from_highest`` looks from the curve's highest value on.

    A curve that never falls below gives the last frequency (the sampling is the limit); one that begins below, or with
    ``from_highest`` never reaches the threshold, gives 0 (there is no agreement).  NaN values are passed over.
    """
    known = np.isfinite(curve)
    frequency, curve = np.asarray(frequency)[known], np.asarray(curve)[known]
    if from_highest and curve.size:
        top = int(np.argmax(curve))
        frequency, curve = frequency[top:], curve[top:]
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


def _region_sums(a: np.ndarray, b: np.ndarray, inside: Optional[np.ndarray]) -> Tuple[float, float, float]:
    cross, power_a, power_b = _shell_sums(FourierBins(a.shape), *_transforms(a, b, None), inside).sum(axis=(1, 2))
    return float(cross), float(power_a), float(power_b)


def _shell_correlation(
    bins: FourierBins, a: np.ndarray, b: np.ndarray, inside: Optional[np.ndarray] = None
) -> np.ndarray:
    cross, power_a, power_b = _shell_sums(bins, a, b, inside)
    return ratio(cross, np.sqrt(power_a * power_b))
