"""Power spectra of a tomogram and of its noise, measured on the tomogram.

The tomogram's own spectrum Y(k) is averaged over large windowed blocks, so that it keeps the sharp edges of the
missing wedge.  The share of it that is noise, rho(k) = N(k) / Y(k), is measured either from the half difference
(even - odd) / 2, or on the emptiest small blocks of the volume.  Because rho is a ratio of two spectra of the same
blurring it is smooth, and N = rho * Y keeps the edges.

Emptiness is judged on one half of the Fourier coefficients and the spectrum is read on the other half (and the other
way round): choosing the blocks with the least power and then measuring their power on the same coefficients would
underestimate the noise.  The window makes neighbouring coefficients alike, so a little of this is left: in a volume of
noise alone the lowest shells are measured 10 to 25 % low.  A gap between the two halves removes that, but judges
emptiness on so few coefficients that tomograms with a specimen are measured worse.  The idea of taking noise from
smooth regions is that of Chen et al. (CVPR 2018), used by NMSG.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from .fourier import band_index, frequency_radius, hermitian_weights
from .tiling import Readable, Shape, shape_of

#: Upper bound on the number of blocks that a spectrum is averaged over; more changes nothing but the time.
MAX_BLOCKS = 600


def block_shape(volume_shape: Shape, edge: int) -> Shape:
    """An even block of at most ``edge`` voxels an axis that fits into the volume."""
    return tuple(min(edge, size - size % 2) for size in volume_shape)  # type: ignore[return-value]


def block_corners(volume_shape: Shape, block: Shape, maximum: int = MAX_BLOCKS) -> np.ndarray:
    """Corners (n, 3) of half-overlapping blocks that cover the volume; an even subset when there are too many."""
    axes = [
        np.unique(
            np.linspace(0, size - edge, max(1 + (size > edge), 1 + round((size - edge) / (edge / 2)))).astype(int)
        )
        for size, edge in zip(volume_shape, block, strict=True)
    ]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    if len(corners) > maximum:
        corners = corners[np.random.default_rng(0).permutation(len(corners))[:maximum]]
    return corners


def hann_window(shape: Shape) -> torch.Tensor:
    """Separable Hann window of mean square 1."""
    window = torch.ones(())
    for axis, size in enumerate(shape):
        line = torch.hann_window(size, periodic=True) + 1e-3
        window = window * line.reshape([-1 if i == axis else 1 for i in range(3)])
    return window / window.square().mean().sqrt()


def read_block(volume: Readable, corner: Sequence[int] | np.ndarray, block: Shape) -> torch.Tensor:
    """Copy a block out of an array or memory map as float32."""
    region = tuple(slice(int(c), int(c) + b) for c, b in zip(corner, block, strict=True))
    return torch.from_numpy(np.array(volume[region], np.float32, order="C"))


def periodograms(
    volume: Readable, block: Shape, corners: np.ndarray, mean: float = 0.0, scale: float = 1.0
) -> Iterator[torch.Tensor]:
    """Windowed periodograms (bz, by, bx//2 + 1) of ``(volume - mean) / scale``; unit white noise gives 1."""
    window = hann_window(block)
    for corner in corners:
        data = (read_block(volume, corner, block) - mean) / scale
        data = data - (data * window).mean() / window.mean()
        yield torch.fft.rfftn(data * window).abs().square() / window.numel()


def mean_spectrum(volume: Readable, block: Shape, mean: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    """Average periodogram of the whole volume."""
    corners = block_corners(shape_of(volume), block)
    total = torch.zeros(block[0], block[1], block[2] // 2 + 1)
    for power in periodograms(volume, block, corners, mean, scale):
        total += power
    return total / len(corners)


def resample_spectrum(power: torch.Tensor, shape: Shape) -> torch.Tensor:
    """A spectrum on the frequency grid of another block ``shape``, by way of its autocovariance.

    The autocovariance is cropped or padded with zeros, which neither shifts nor scales the spectrum.
    """
    old = (power.shape[0], power.shape[1], 2 * (power.shape[2] - 1))
    if tuple(old) == tuple(shape):
        return power
    covariance = torch.fft.fftshift(torch.fft.irfftn(power, s=old))
    for axis, (have, want) in enumerate(zip(old, shape, strict=True)):
        if want < have:
            covariance = covariance.narrow(axis, have // 2 - want // 2, want)
        elif want > have:
            pad = [0, 0, 0, 0, 0, 0]
            pad[2 * (2 - axis)] = want // 2 - have // 2
            pad[2 * (2 - axis) + 1] = want - have - pad[2 * (2 - axis)]
            covariance = torch.nn.functional.pad(covariance, pad)
    return torch.fft.rfftn(torch.fft.ifftshift(covariance)).real.clamp_min(0)


def without_peaks(total: torch.Tensor, rho: torch.Tensor, block: Shape, width: int = 9) -> torch.Tensor:
    """The spectrum of a volume without the sharp peaks in it that are signal: layer lines, reflections.

    The share of noise rho is measured with small blocks, which smear such a peak: rho times the peak would pass most of
    it for noise.  Where rho says that there is signal, what rises to twice the median of its surroundings is brought
    down to it.  A median keeps the straight edges of the missing wedge.  At low frequency, where every specimen has
    its power, peaks are not sharp and are left.
    """
    half = width // 2
    values = np.pad(total.numpy(), ((half, half), (half, half), (0, 0)), mode="wrap")
    values = np.pad(values, ((0, 0), (0, 0), (half, half)), mode="reflect")
    candidates = (rho.numpy() < 0.9) & (frequency_radius(block) > 0.1)
    result = total.clone()
    for plane in range(block[0]):
        chosen = candidates[plane]
        surroundings = np.lib.stride_tricks.sliding_window_view(values[plane : plane + width], (width,) * 3)[0]
        median = torch.from_numpy(np.median(surroundings[chosen].reshape(-1, width**3), axis=1))
        found = result[plane][chosen]
        result[plane][torch.from_numpy(chosen)] = torch.where(found > 2 * median, median, found)
    return result


def total_power(power: torch.Tensor, block: Shape) -> torch.Tensor:
    """Sum of a half-grid spectrum of real data over the full grid."""
    return (power * torch.from_numpy(hermitian_weights(block[2])).to(power)).sum()


def bands(block: Shape, count: int) -> torch.Tensor:
    """:func:`cryoden_core.fourier.band_index` as a tensor, to index spectra with."""
    return torch.from_numpy(band_index(block, count))


def band_means(power: torch.Tensor, block: Shape, count: int) -> torch.Tensor:
    """Mean power in ``count`` equal bands between 0 and Nyquist; what lies beyond is left out."""
    index = bands(block, count).flatten()
    inside = index < count
    sums = torch.bincount(index[inside], power.flatten()[inside], count)
    return sums / torch.bincount(index[inside], minlength=count).clamp_min(1)


def smooth_spectrum(power: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian smoothing over neighbouring frequencies, periodic in z and y, mirrored in x."""
    mode = ("wrap", "wrap", "reflect")
    return torch.from_numpy(ndimage.gaussian_filter(power.numpy(), sigma, mode=mode))


@dataclass
class NoiseShare:
    """rho(k) = noise power / total power on the grid of ``block``, and where it was measured.

    ``corners`` are the background blocks (empty when halves were used), ``uniformity`` the noise level of every
    block of the volume relative to the mean (for volumes whose noise varies in space) with ``all_corners``.  ``level``
    is the power of the background at high frequency over that of all blocks, to which rho was normalised: about 1 in
    a tomogram, much less in a volume that was denoised.
    """

    rho: torch.Tensor
    block: Shape
    source: str
    corners: np.ndarray
    all_corners: np.ndarray
    uniformity: np.ndarray
    contrast: float
    level: float = 1.0


def share_from_halves(volume: Readable, difference: Readable, mean: float, scale: float, edge: int = 32) -> NoiseShare:
    """rho from the spectra of the volume and of its half difference, which holds no signal.

    Where there is next to no signal rho is set to one: the noise then has the very spectrum of the volume, and the
    scatter of two measured spectra does not pass for signal.
    """
    block = block_shape(shape_of(volume), edge)
    total = mean_spectrum(volume, block, mean, scale)
    noise = mean_spectrum(difference, block, 0.0, scale)
    rho = smooth_spectrum(noise, 1.0) / smooth_spectrum(total, 1.0).clamp_min(1e-12)
    rho = torch.where(rho > 0.97, torch.ones_like(rho), rho)
    empty = np.zeros((0, 3), int)
    return NoiseShare(rho, block, "halves", empty, empty, np.ones(0), 1.0)


def share_from_background(
    volume: Readable,
    mean: float,
    scale: float,
    edge: int = 24,
    fraction: float = 0.08,
) -> NoiseShare:
    """rho measured on the emptiest ``fraction`` of the blocks of ``edge`` voxels (see the module's text)."""
    block = block_shape(shape_of(volume), edge)
    corners = block_corners(shape_of(volume), block, maximum=4000)
    shape = (block[0], block[1], block[2] // 2 + 1)
    stack = np.empty((len(corners), *shape), np.float32)
    for index, power in enumerate(periodograms(volume, block, corners, mean, scale)):
        stack[index] = power.numpy()
    average = stack.mean(0)
    relative = stack / np.maximum(average, 1e-12)
    radius = frequency_radius(block)
    cells = _checkerboard(shape)
    weight = _contrast_weight(relative, block)
    chosen: list[np.ndarray] = []
    background = np.zeros(shape, np.float64)
    contrast = 0.0
    count = max(6, int(fraction * len(corners)))
    for half in (0, 1):
        judge, read = cells == half, cells != half
        score = (relative[:, judge] * weight[judge]).sum(1) / weight[judge].sum()
        order = np.argsort(score)[:count]
        chosen.append(order)
        background[read] = relative[order][:, read].mean(0)
        contrast += float(np.median(score) / np.mean(score[order])) / 2
    rho = torch.from_numpy(background.astype(np.float32))
    rho = smooth_spectrum(rho, 1.0)
    # Beyond the band where the emptiest blocks differ from the rest there is only noise: their mean level there is the
    # local noise level, by which the ratio is normalised.
    noise_band = radius > 0.35
    level = float(rho[torch.from_numpy(noise_band)].mean())
    rho = (rho / max(level, 1e-6)).clamp(0.0, 1.0)
    uniformity = relative[:, noise_band].mean(1)
    both = np.unique(np.concatenate(chosen))
    return NoiseShare(rho, block, "background", corners[both], corners, np.sqrt(uniformity), contrast, level)


def _checkerboard(shape: tuple[int, ...], edge: int = 3) -> np.ndarray:
    """Cells of ``edge`` coefficients, alternately 0 and 1; wider than the correlation that the window makes."""
    index = np.indices(shape) // edge
    return index.sum(0) % 2


def _contrast_weight(relative: np.ndarray, block: Shape) -> np.ndarray:
    """Weight of each frequency in judging emptiness: how much more the blocks differ there than noise alone would."""
    # Pure noise has a relative variance of 1 (exponential law) in every coefficient.
    excess = np.maximum(relative.var(0) - 1.0, 0.0)
    shells = np.minimum(band_index(block, 24), 23)
    sums = np.bincount(shells.ravel(), excess.ravel(), 24) / np.maximum(np.bincount(shells.ravel(), minlength=24), 1)
    sums[0] = 0
    weight = sums[shells] + 1e-6
    return np.where(frequency_radius(block) < 0.35, weight, 1e-6)
