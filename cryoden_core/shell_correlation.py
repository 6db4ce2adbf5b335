"""Correlations of two volumes by frequency: shells, rings, cones, the missing wedge, any part of the Fourier transform.

Harauz and van Heel (1986), Optik 73, 146.  Part of :mod:`cryoden_core.metrics`, from where it is to be imported.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple

import numpy as np

from .fourier import FourierBins, half_transform, missing_wedge_mask, ratio, sections_of

Curve = Tuple[np.ndarray, np.ndarray]


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
