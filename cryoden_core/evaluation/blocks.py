"""Blocks cut from sets of tomograms, and what is measured on each, for comparing one set with another.

Every volume is standardised as a whole, as the DUAL paper does; blocks are then taken as they are, so that a wrong
level of noise is not hidden.  A block knows in which half of its volume along y it lies: classifiers learn on one half
and are tested on the other, and no voxel is in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage, sparse

from ..fourier import edge_window, frequency_radius, hermitian_weights, polar_bins, ratio
from ..metrics import standardised

Shape = tuple[int, int, int]

#: Share of a block's sides over which it fades, in spectra: all of it, or its faces would draw a cross.
_TAPER = 0.5
#: Lags of the autocorrelation, voxels.
LAGS = 8
#: Gaussian filters before the moments that describe a block, voxels.
_SCALES = (0.0, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured on each of n blocks.

    Attributes
    ----------
    frequency, angle_degrees
        (shells,) cycles per voxel and (angles,), 0 along kx.
    radial, polar
        Power (n, shells), and (n, shells, angles) in the plane of kx and kz.
    autocorrelation
        (n, 3, lags) along z, y, x.
    moments
        (n, 3 * scales): log standard deviation, skewness and excess kurtosis after each Gaussian filter.
    """

    frequency: np.ndarray
    angle_degrees: np.ndarray
    radial: np.ndarray
    polar: np.ndarray
    autocorrelation: np.ndarray
    moments: np.ndarray

    def where(self, chosen: np.ndarray) -> Measurements:
        """Those of some of the blocks."""
        kept = (values[chosen] for values in (self.radial, self.polar, self.autocorrelation, self.moments))
        return Measurements(self.frequency, self.angle_degrees, *kept)

    def features(self) -> np.ndarray:
        """(n, features): log spectra by shell and by direction, autocorrelation and moments of each block."""
        parts = (_log(self.radial), _log(self.polar), self.autocorrelation, self.moments)
        table = np.concatenate([part.reshape(len(self.radial), -1) for part in parts], axis=1)
        return table[:, np.isfinite(table).all(axis=0)]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks and where they come from.

    Attributes
    ----------
    data
        (n, z, y, x) float32, of standardised volumes.
    fold
        (n,) 0 or 1, the half along y.
    side
        (n,) 0 or 1, the half along x; splits one set in two to be compared with itself.
    apart
        (n,) bool, True for those that do not overlap each other: only these are tested on.
    measured
        What was measured on each.
    """

    data: np.ndarray
    fold: np.ndarray
    side: np.ndarray
    apart: np.ndarray
    measured: Measurements

    def __len__(self) -> int:
        return len(self.data)

    def where(self, chosen: np.ndarray) -> Blocks:
        """Some of the blocks, by index or mask."""
        fold, side, apart = self.fold[chosen], self.side[chosen], self.apart[chosen]
        return Blocks(self.data[chosen], fold, side, apart, self.measured.where(chosen))


def cut_blocks(volumes: list[np.ndarray], edge: Shape, most: int = 400, seed: int = 0) -> Blocks:
    """Half-overlapping blocks of every quarter (y by x) of every volume; none crosses from one quarter to another.

    Parameters
    ----------
    volumes
        (z, y, x) each, of any sizes.
    edge
        Of a block (z, y, x), at most half of y and x of the smallest volume.
    most
        When there are more, so many are drawn: at most half of them of those that do not overlap.
    seed
        Of the draw.
    """
    standard = [standardised(volume) for volume in volumes]
    found = [(index, *place) for index, volume in enumerate(standard) for place in _places(volume.shape, edge)]
    random = np.random.default_rng(seed)
    alone = [item for item in found if item[-1]]
    chosen = [alone[i] for i in random.permutation(len(alone))[: most // 2]]
    others = [item for item in found if not item[-1]]
    chosen += [others[i] for i in random.permutation(len(others))[: most - len(chosen)]]
    data = np.stack([
        standard[index][tuple(slice(c, c + e) for c, e in zip(corner, edge, strict=True))]
        for index, corner, _, _, _ in chosen
    ])  # fmt: skip
    fold, side, apart = (np.array([item[column] for item in chosen]) for column in (2, 3, 4))
    return Blocks(data, fold, side, apart, measure(data))


def _places(shape: tuple[int, ...], edge: Shape) -> Iterator[tuple[Shape, int, int, bool]]:
    """Corner, half along y, half along x, and whether the block lies on the grid of whole edges."""
    middle = shape[1] // 2, shape[2] // 2
    room = (shape[0], *middle)
    counts = [(size - length) // (length // 2) + 1 for size, length in zip(room, edge, strict=True)]
    for half_y, half_x in np.ndindex(2, 2):
        for step in np.ndindex(*counts):
            z, y, x = (number * length // 2 for number, length in zip(step, edge, strict=True))
            corner = (z, y + half_y * middle[0], x + half_x * middle[1])
            yield corner, half_y, half_x, all(number % 2 == 0 for number in step)


def measure(data: np.ndarray) -> Measurements:
    """Spectra, autocorrelation and moments of every block (n, z, y, x)."""
    shape = data.shape[1:]
    shells = min(shape) // 2
    angles = 18 if shells >= 12 else 12
    window = edge_window(shape, _TAPER)
    energy = float(np.mean(window.astype(np.float64) ** 2)) * window.size
    centred = data - data.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
    power = np.abs(fft.rfftn(centred * window, axes=(1, 2, 3))) ** 2 / energy
    shell = np.rint(frequency_radius(shape) * 2 * shells).astype(np.intp) - 1
    radial = _binned(power, np.where(shell < shells, shell, -1), shells)
    index, frequency, degrees = polar_bins((shape[0], shape[2]), shells, angles)
    # What is taken together along the tilt axis is the same in each of its frequencies.
    polar = _binned(power.mean(axis=2), index, shells * angles).reshape(-1, shells, angles)
    return Measurements(frequency, degrees, radial, polar, _autocorrelation(centred), _moments(data))


def _binned(power: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """Mean of the power (n, ...) over each bin (n, count); ``index`` (...) in the half layout, -1 for none."""
    weight = np.broadcast_to(hermitian_weights(2 * (index.shape[-1] - 1)), index.shape).ravel()
    inside = np.flatnonzero(index.ravel() >= 0)
    place = (inside, index.ravel()[inside])
    sums = sparse.csr_matrix((weight[inside], place), (index.size, count))
    total = (sums.T @ power.reshape(len(power), -1).T).T
    return ratio(total, np.broadcast_to(np.asarray(sums.sum(axis=0)), total.shape))


def _autocorrelation(centred: np.ndarray) -> np.ndarray:
    """Covariance at lags 1 to 8 along z, y and x, over the variance, (n, 3, 8)."""
    variance = np.mean(centred**2, axis=(1, 2, 3))
    result = np.zeros((len(centred), 3, LAGS))
    for axis in range(3):
        moved = np.moveaxis(centred, axis + 1, 1)
        for lag in range(1, min(LAGS + 1, moved.shape[1])):
            result[:, axis, lag - 1] = np.mean(moved[:, :-lag] * moved[:, lag:], axis=(1, 2, 3))
    return result / np.maximum(variance, 1e-12)[:, None, None]


def _moments(data: np.ndarray) -> np.ndarray:
    """Log standard deviation, skewness and excess kurtosis of each block after each filter, (n, 3 * scales)."""
    columns = []
    for scale in _SCALES:
        values = ndimage.gaussian_filter(data, (0, scale, scale, scale)) if scale else data
        values = values.reshape(len(data), -1)
        values = values - values.mean(axis=1, keepdims=True)
        sd = np.maximum(values.std(axis=1), 1e-6)
        values = values / sd[:, None]
        squares = values * values
        columns += [np.log(sd), np.mean(squares * values, axis=1), np.mean(squares * squares, axis=1) - 3]
    return np.stack(columns, axis=1)


def _log(power: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(power, 1e-12))
