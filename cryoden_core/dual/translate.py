"""Apply one of DUAL's networks to a volume of any size, and blend the result with the data.

The denoised volume is brought to the grey scale of the tomogram by a straight line.  How strongly it replaces the data
is a number, the *strength*: y = t + strength * H(d - t), with t the tomogram and d the denoised volume.  H holds the
data: no measured frequency may change by more than the noise that the tomogram has there.  Its weights are
sqrt(noise power / power of d - t), and at most 1: a change that can be noise is taken whole, less of it where the
denoiser removes or invents more than that.  In the missing wedge, where there are no data, the change is taken whole.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ..device import mixed_precision
from ..fourier import frequency_radius, missing_wedge_mask, radial_average
from ..mrc import errors_of_writing, reserve
from ..progress import Progress
from ..spectrum import block_shape, mean_spectrum
from ..tiling import BLEND, Readable, Shape, TileFunction, apply_tiled, choose_tile, shape_of, smallest_tile
from .domains import soft_clip, soft_unclip
from .transfer import Curve, convolve

#: Context around each tile; the networks reach farther, with next to no weight (see cryoden_core.nmsg.denoiser).
HALO = 24
#: Edge of the blocks whose spectra say how much may change; H is then a convolution with a kernel of this edge.
SPECTRUM_EDGE = 32
#: Below this correlation (:func:`grey_scale`) two volumes do not show the same.
LOWEST_CORRELATION = 0.1


def network_function(
    network: Callable[[torch.Tensor], torch.Tensor], device: torch.device, clip: bool = True
) -> TileFunction:
    """A network as a function of standardised tiles (z, y, x), which are clipped as in training."""

    @torch.no_grad()
    def run(data: torch.Tensor) -> torch.Tensor:
        if clip:
            data = torch.from_numpy(np.ascontiguousarray(soft_clip(data.cpu().numpy()), np.float32))
        with mixed_precision(device):
            batch = data.to(device)[None, None].contiguous(memory_format=torch.channels_last_3d)
            return network(batch)[0, 0].float()

    return run


def apply_network(
    function: TileFunction,
    volume: Readable,
    output: np.ndarray,
    *,
    features: int,
    multiple: int,
    device: torch.device,
    progress: Progress,
    stage: str,
    tile: int = 0,
) -> None:
    """Fill ``output`` (zeros) with ``function`` of ``volume``, tile by tile.

    ``features`` is the network's width at full resolution, by which the tile is chosen; ``tile`` is an edge given.
    """
    shape = shape_of(volume)
    if tile:
        edge = max(tile, smallest_tile(HALO, BLEND, multiple))
        edges: Shape = (min(edge, shape[0]), min(edge, shape[1]), min(edge, shape[2]))
    else:
        # Four tensors of the first level's width live at once, in the worst case in float32.
        edges = choose_tile(shape, 4 * 4 * features + 64, device, features, HALO, multiple)
    apply_tiled(
        function, volume, output, edges, halo=HALO, multiple=multiple, device=device,
        on_tiles=lambda count: progress.stage(stage, count), on_tile=progress.advance, warn=progress.warn,
    )  # fmt: skip


def unclipped(function: TileFunction) -> TileFunction:
    """A function with the compression of large values undone in its results."""

    def run(data: torch.Tensor) -> torch.Tensor:
        result = function(data)
        return torch.from_numpy(np.asarray(soft_unclip(result.cpu().numpy()), np.float32)).to(result.device)

    return run


# ---- the denoised volume on the data's terms -------------------------------------------------------------------------


class Difference:
    """``gain * denoised + offset - data``, computed where it is read; (z, y, x)."""

    def __init__(self, data: Readable, denoised: Readable, gain: float, offset: float) -> None:
        self.data, self.denoised, self.gain, self.offset = data, denoised, gain, offset
        self.shape = tuple(data.shape)

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """A region, float32."""
        denoised = np.asarray(self.denoised[region], np.float32)
        return self.gain * denoised + self.offset - np.asarray(self.data[region], np.float32)


def grey_scale(data: Readable, denoised: Readable) -> tuple[float, float, float]:
    """The straight line that brings a denoised volume to the data's grey scale.

    It is fitted to means over 4 x 4 x 4 voxels of at most 64 slabs, in which there is less noise; blocks in which the
    data do not vary are padding and are left out.

    Returns
    -------
    gain, offset, correlation
        ``gain * denoised + offset`` is on the scale of ``data``; ``correlation`` is that of the means.
    """
    depth = shape_of(data)[0]
    edge = min(4, depth)
    pairs = []
    for first in np.unique(np.linspace(0, depth - edge, min(64, max(1, depth // edge))).astype(int)):
        region = (slice(first, first + edge), slice(None), slice(None))
        of_data, of_denoised = (_blocks(np.asarray(volume[region], np.float32)) for volume in (data, denoised))
        varies = np.ptp(of_data, axis=1) > 0
        pairs.append((of_data[varies].mean(axis=1), of_denoised[varies].mean(axis=1)))
    values, fitted = (np.concatenate(parts).astype(np.float64) for parts in zip(*pairs, strict=True))
    if values.size < 2 or fitted.std() == 0 or values.std() == 0:
        return 1.0, float(np.mean(values - fitted)) if values.size else 0.0, 0.0
    gain = float(np.cov(values, fitted)[0, 1] / fitted.var(ddof=1))
    return gain, float(values.mean() - gain * fitted.mean()), float(np.corrcoef(values, fitted)[0, 1])


def _blocks(slab: np.ndarray) -> np.ndarray:
    """The columns of 4 x 4 (y, x) of a slab, each as one row of all of its voxels."""
    depth = slab.shape[0]
    rows, columns = (edge // 4 for edge in slab.shape[1:])
    blocks = slab[:, : 4 * rows, : 4 * columns].reshape(depth, rows, 4, columns, 4)
    return blocks.transpose(1, 3, 0, 2, 4).reshape(rows * columns, depth * 16)


def holding_filter(data: Readable, change: Readable, noise_share: Curve, tilt_range: tuple[float, float]) -> np.ndarray:
    """H of the module's text, the same in all directions: (bz, by, bx // 2 + 1), 0 to 1, on the grid of a block.

    The block has edges of :data:`SPECTRUM_EDGE`; the lowest frequency at which H can differ from its neighbours is the
    inverse of that.

    Parameters
    ----------
    data, change
        (z, y, x): the tomogram, and what is to be added to it.
    noise_share
        Frequencies, cycles per voxel, and noise power over power of the tomogram there.
    tilt_range
        Angles of the first and last view, degrees; only what was measured is looked at.
    """
    block = block_shape(shape_of(data), SPECTRUM_EDGE)
    measured = missing_wedge_mask(block, *tilt_range)
    total, changed = (mean_spectrum(volume, block).numpy() for volume in (data, change))
    frequency, of_data = radial_average(total, block, inside=measured)
    _, of_change = radial_average(changed, block, inside=measured)
    known = np.isfinite(of_data) & (of_change > 0)
    if not known.any():
        return np.ones_like(total)
    noise = np.interp(frequency[known], *noise_share) * of_data[known]
    curve = np.minimum(np.sqrt(noise / of_change[known]), 1)
    weights = np.interp(frequency_radius(block), frequency[known], curve).astype(np.float32)
    # A brightness that differs is no noise; the fit has matched the means.
    weights[0, 0, 0] = 0.0
    return weights


def filter_function(weights: np.ndarray, device: torch.device) -> TileFunction:
    """A filter as a function of tiles (z, y, x): see :func:`cryoden_core.dual.transfer.convolve`."""
    amplitudes = torch.from_numpy(weights).to(device)
    return lambda data: convolve(data[None, None], amplitudes)[0, 0]


def filter_volume(
    volume: Readable, output: np.ndarray, weights: np.ndarray, device: torch.device, progress: Progress, stage: str
) -> None:
    """Fill ``output`` (zeros) with a volume under the filter of :func:`holding_filter`."""
    halo = max(weights.shape[0], weights.shape[1], 2 * (weights.shape[2] - 1)) // 2
    # Tile, response, product and result: complex numbers of a padded tile.
    edges = choose_tile(shape_of(volume), 64, device, 8, halo, 1)
    apply_tiled(
        filter_function(weights, device), volume, output, edges, halo=halo, device=device,
        on_tiles=lambda count: progress.stage(stage, count), on_tile=progress.advance, warn=progress.warn,
    )  # fmt: skip


# ---- mirrored copies -------------------------------------------------------------------------------------------------

Mirrors = Sequence[tuple[int, ...]]


def mirrored_mean(function: TileFunction, mirrors: Mirrors) -> TileFunction:
    """Mean of a function's results on mirrored copies of a tile, each mirrored back; ``mirrors`` lists axes."""

    def run(data: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(data)
        for axes in mirrors:
            total += function(data.flip(axes)).flip(axes)
        return total / len(mirrors)

    return run


def mirrored_spread(function: TileFunction, mirrors: Mirrors) -> TileFunction:
    """Standard deviation, voxel by voxel, of a function's results on mirrored copies of a tile."""

    def run(data: torch.Tensor) -> torch.Tensor:
        return torch.stack([function(data.flip(axes)).flip(axes) for axes in mirrors]).std(dim=0)

    return run


@contextlib.contextmanager
def scratch_volume(folder: str, shape: Shape) -> Iterator[np.ndarray]:
    """A float32 volume of zeros (z, y, x) on disk, in a file of ``folder`` that is gone when the block ends."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="scratch", suffix=".tmp") as stream:
        with errors_of_writing(stream.name):
            reserve(stream.name, 4 * math.prod(shape))
        yield np.memmap(stream.name, np.float32, "r+", shape=shape)
