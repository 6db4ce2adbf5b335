"""Fourier geometry of volumes and slices: frequencies, shells, cones, the missing wedge, windows, power spectra.

One place for these conventions, used by tests, figures of merit, viewers and losses alike.  Frequencies are in cycles
per voxel.  Transforms are those of real arrays, of which only half is kept (``rfftn``, last axis halved), and each
stored coefficient is counted once or twice according to how many of the whole transform it stands for.  The missing
wedge follows the tilt geometry ``u = x cos(theta) + z sin(theta)``: by the central-slice theorem a view at theta
measures the plane of (kx, kz) directed along (cos(theta), sin(theta)), for every ky.

Everything here is numpy and scipy on the CPU and single precision; sums are kept in double.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np
from scipy import fft

Terms = Callable[[int], Sequence[np.ndarray]]


def half_transform(values: np.ndarray) -> np.ndarray:
    """The ``rfftn`` of a real array (..., y, x), as complex64 (..., y, x // 2 + 1)."""
    return fft.rfftn(np.asarray(values, dtype=np.float32))


def frequency_axes(shape: Sequence[int], half: bool = True) -> Tuple[np.ndarray, ...]:
    """Frequencies along each axis in cycles per voxel, shaped to broadcast; the last axis is halved when ``half``."""
    axes = []
    for axis, size in enumerate(shape):
        values = np.fft.rfftfreq(size) if half and axis == len(shape) - 1 else np.fft.fftfreq(size)
        position = [1] * len(shape)
        position[axis] = values.size
        axes.append(values.astype(np.float32).reshape(position))
    return tuple(axes)


def frequency_radius(shape: Sequence[int], half: bool = True) -> np.ndarray:
    """Length of the frequency vector at each coefficient, cycles per voxel."""
    axes = frequency_axes(shape, half)
    squares = axes[0] ** 2
    for axis in axes[1:]:
        squares = squares + axis**2
    return np.sqrt(squares)


def hermitian_weights(width: int) -> np.ndarray:
    """How many coefficients of the whole transform each column of the half stands for: 1 or 2, (width // 2 + 1,)."""
    weights = np.full(width // 2 + 1, 2.0)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return weights


def band_index(shape: Sequence[int], bands: int) -> np.ndarray:
    """Which of ``bands`` equal ranges of frequency from 0 to 0.5 each coefficient of the half layout lies in.

    Unlike the shells of :class:`FourierBins` a band has its limits, not its centre, at a multiple of its thickness.
    The corners of the box, beyond 0.5 cycles per voxel, have ``bands`` and more.
    """
    return (frequency_radius(shape) * np.float32(2 * bands)).astype(np.intp)


def cone_index(kz: Any, radius: np.ndarray, cone_bins: int) -> np.ndarray:
    """Which of ``cone_bins`` equal ranges of the angle to kz, 0 to 90 degrees, frequencies of given length lie in."""
    cosine = np.minimum(np.abs(kz) / np.maximum(radius, 1e-12), 1.0)
    return np.minimum((np.degrees(np.arccos(cosine)) / 90.0 * cone_bins).astype(np.intp), cone_bins - 1)


@dataclass(frozen=True)
class FourierBins:
    """Shells of equal thickness, each cut into cones about the z axis (the beam).

    Shell ``i`` holds the frequencies nearest to ``i * step``.  The zero frequency, and what lies beyond the last
    shell (the corners of the box), are left out.

    Parameters
    ----------
    shape
        (z, y, x) of the volume or (y, x) of the slice, before the transform.
    radial_bins
        Number of shells up to 0.5 cycles per voxel; 0 makes them one frequency of the longest side thick.
    cone_bins
        Number of equal ranges of the angle to kz, from 0 (along the beam) to 90 degrees (in the plane).
    """

    shape: Tuple[int, ...]
    radial_bins: int = 0
    cone_bins: int = 1

    @property
    def count(self) -> int:
        """Number of shells."""
        return self.radial_bins or max(self.shape) // 2

    @property
    def step(self) -> float:
        """Thickness of a shell, cycles per voxel."""
        return 0.5 / self.radial_bins if self.radial_bins else 1.0 / max(self.shape)

    @property
    def frequency(self) -> np.ndarray:
        """Centre of each shell, cycles per voxel, (count,)."""
        return self.step * np.arange(1, self.count + 1)

    @property
    def angle_degrees(self) -> np.ndarray:
        """Centre of each cone's range of angles to kz, degrees, (cone_bins,)."""
        return 90.0 * (np.arange(self.cone_bins) + 0.5) / self.cone_bins

    def sums(self, terms: Terms, count_terms: int, inside: Optional[np.ndarray] = None) -> np.ndarray:
        """Sum quantities over the coefficients of each bin, one section of the transform at a time.

        Parameters
        ----------
        terms
            Gives, for the index of a section (along kz; always 0 for a slice), ``count_terms`` real arrays in the
            half layout (y, x // 2 + 1).
        count_terms
            How many quantities there are.
        inside
            Weight of each coefficient, half layout of the whole transform; None is 1 everywhere.

        Returns
        -------
        np.ndarray
            (1 + count_terms, count, cone_bins) float64: the number of coefficients, then the sums.
        """
        shape = (1,) * (3 - len(self.shape)) + tuple(self.shape)
        kz, ky, kx = frequency_axes(shape)
        in_plane = ky[0] ** 2 + kx[0] ** 2
        size = (self.count + 2) * self.cone_bins
        result = np.zeros((1 + count_terms, size))
        for section in range(shape[0]):
            radius = np.sqrt(in_plane + kz[section] ** 2)
            index = self._index(radius, float(kz[section, 0, 0])).ravel()
            weight = np.broadcast_to(hermitian_weights(shape[2]), radius.shape)
            if inside is not None:
                weight = weight * inside.reshape(shape[0], *radius.shape)[section]
            for row, term in enumerate([1.0, *terms(section)]):
                result[row] += np.bincount(index, (weight * term).ravel(), size)
        return result.reshape(1 + count_terms, self.count + 2, self.cone_bins)[:, 1:-1]

    def _index(self, radius: np.ndarray, kz: float) -> np.ndarray:
        shell = np.minimum(np.rint(radius / self.step).astype(np.intp), self.count + 1)
        if self.cone_bins == 1:
            return shell
        return shell * self.cone_bins + cone_index(kz, radius, self.cone_bins)


def radial_average(
    values: np.ndarray, shape: Sequence[int], radial_bins: int = 0, inside: Optional[np.ndarray] = None
) -> Tuple[np.ndarray, np.ndarray]:
    """Average a real quantity of the half transform over shells.

    Parameters
    ----------
    values
        Half layout, (z, y, x // 2 + 1) or (y, x // 2 + 1).
    shape
        Of the array before the transform.
    radial_bins, inside
        As in :class:`FourierBins` and its ``sums``.

    Returns
    -------
    frequency, average
        Both (shells,); NaN where a shell holds no coefficient.
    """
    bins = FourierBins(tuple(shape), radial_bins)
    sections = values.reshape((-1, *values.shape[-2:]))
    count, total = bins.sums(lambda section: [sections[section]], 1, inside)[:, :, 0]
    return bins.frequency, ratio(total, count)


def radial_power_spectrum(
    volume: np.ndarray, radial_bins: int = 0, edge_taper: float = 0.0
) -> Tuple[np.ndarray, np.ndarray]:
    """Power spectrum of a volume or slice, averaged over shells; white noise of variance s has power s everywhere.

    Parameters
    ----------
    volume
        (z, y, x) or (y, x).
    radial_bins
        Number of shells up to 0.5 cycles per voxel; 0 makes them one frequency of the longest side thick.
    edge_taper
        Share of each side (0 to 0.5) over which the values fade to the mean, against the cross that edges draw.

    Returns
    -------
    frequency, power
        Cycles per voxel, and variance per coefficient; both (shells,), the zero frequency left out.
    """
    frequency, _, power = conical_power_spectrum(volume, radial_bins, 1, edge_taper)
    return frequency, power[:, 0]


def conical_power_spectrum(
    volume: np.ndarray, radial_bins: int = 0, cone_bins: int = 9, edge_taper: float = 0.0
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power spectrum by shell and by angle to kz, which shows the missing wedge and what noise does along the beam.

    Returns
    -------
    frequency, angle_degrees, power
        (shells,) cycles per voxel; (cones,) angle to kz, 0 along the beam; (shells, cones), NaN where no coefficient.
    """
    values = np.asarray(volume, dtype=np.float32)
    values = values - values.mean(dtype=np.float64).astype(np.float32)
    energy = 1.0
    if edge_taper > 0:
        window = edge_window(values.shape, edge_taper)
        energy = float(np.mean(window.astype(np.float64) ** 2))
        values = values * window
    transform = half_transform(values)
    sections = sections_of(transform)
    bins = FourierBins(values.shape, radial_bins, cone_bins)
    count, total = bins.sums(lambda section: [np.abs(sections[section]) ** 2], 1)
    return bins.frequency, bins.angle_degrees, ratio(total, count) / (values.size * energy)


def polar_bins(shape: Sequence[int], radial_bins: int, angle_bins: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of the plane of kx and kz, in which the missing wedge is an angle.

    Parameters
    ----------
    shape
        (z, x).
    radial_bins, angle_bins
        Rings up to 0.5 cycles per voxel, and ranges of the angle of the views from -90 to 90 degrees.

    Returns
    -------
    index, frequency, angle_degrees
        (z, x // 2 + 1) the bin ``ring * angle_bins + angle`` of each coefficient, -1 for none; (rings,) cycles per
        voxel; (angles,) centres, 0 along kx.
    """
    kz, kx = frequency_axes(shape)
    ring = np.rint(np.hypot(kz, kx) * 2 * radial_bins).astype(np.intp) - 1
    share = np.arctan2(kz, np.broadcast_to(kx, ring.shape)) / np.pi + 0.5
    angle = np.minimum((share * angle_bins).astype(np.intp), angle_bins - 1)
    index = np.where((ring >= 0) & (ring < radial_bins), ring * angle_bins + angle, -1)
    frequency = np.arange(1, radial_bins + 1) / (2 * radial_bins)
    return index, frequency, 180.0 * (np.arange(angle_bins) + 0.5) / angle_bins - 90.0


def missing_wedge_mask(
    shape: Sequence[int], tilt_min_degrees: float = -60.0, tilt_max_degrees: float = 60.0, half: bool = True
) -> np.ndarray:
    """Which coefficients a single-axis tilt series about y measures.

    Parameters
    ----------
    shape
        (z, y, x).
    tilt_min_degrees, tilt_max_degrees
        The range of the views' angles.
    half
        Half layout of ``rfftn``; otherwise that of ``fftn``.

    Returns
    -------
    np.ndarray
        bool, True where measured; the ky axis, which every view holds, is True.

    Raises
    ------
    ValueError
        When the range is empty or leaves -90 to 90 degrees.
    """
    kz, _, kx = frequency_axes(shape, half)
    measured = is_measured(kz, kx, tilt_min_degrees, tilt_max_degrees)
    full = (shape[0], shape[1], kx.shape[-1])
    return np.ascontiguousarray(np.broadcast_to(measured, full))


def is_measured(
    kz: np.ndarray, kx: np.ndarray, tilt_min_degrees: float = -60.0, tilt_max_degrees: float = 60.0
) -> np.ndarray:
    """Whether views about y from ``tilt_min_degrees`` to ``tilt_max_degrees`` measure given frequencies.

    ``kz`` and ``kx`` broadcast against each other; ky plays no part.  Returns and raises as
    :func:`missing_wedge_mask` does.
    """
    if not -90.0 <= tilt_min_degrees < tilt_max_degrees <= 90.0:
        raise ValueError("the tilt range %g to %g degrees is not one" % (tilt_min_degrees, tilt_max_degrees))
    # k and -k are the same measurement: directions are taken in the half plane kx >= 0.
    angle = np.degrees(np.arctan2(np.where(kx < 0, -kz, kz), np.abs(kx)))
    # Coefficients that lie on the last view belong to it in spite of rounding.
    measured = (angle >= tilt_min_degrees - 1e-3) & (angle <= tilt_max_degrees + 1e-3)
    return measured | ((kx == 0) & (kz == 0))


def crowther_frequency(thickness: float, tilt_step_degrees: float) -> float:
    """Up to where neighbouring views still overlap: 1 / (thickness * tilt step), at most 0.5.

    Crowther, DeRosier and Klug (1970), Proc. R. Soc. Lond. A 317, 319.

    Parameters
    ----------
    thickness
        Of the object along the beam, voxels.
    tilt_step_degrees
        Angle between neighbouring views.

    Returns
    -------
    float
        Cycles per voxel.
    """
    if thickness <= 0 or tilt_step_degrees <= 0:
        raise ValueError("thickness and tilt step must be above 0")
    return min(0.5, 1.0 / (thickness * math.radians(tilt_step_degrees)))


def edge_window(shape: Sequence[int], edge_taper: float = 0.1) -> np.ndarray:
    """A box of ones whose faces fall to 0 along a raised cosine over ``edge_taper`` (0 to 0.5) of each side, float32.

    Unlike a ball it keeps most of a thin volume.
    """
    window = np.ones(tuple(shape), dtype=np.float32)
    for axis, size in enumerate(shape):
        length = edge_taper * size
        depth = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
        if length < 1:
            continue
        position = [1] * len(shape)
        position[axis] = size
        fall = 0.5 - 0.5 * np.cos(np.pi * np.clip(depth / length, 0.0, 1.0))
        window *= fall.astype(np.float32).reshape(position)
    return window


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient that is NaN, without a warning, where the denominator is 0."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) != 0)
    return result


def sections_of(transform: np.ndarray) -> List[np.ndarray]:
    """The sections of a half transform along kz; a slice has one."""
    return list(transform.reshape((-1, *transform.shape[-2:])))
