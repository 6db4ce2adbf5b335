"""Apply a network to a volume of any size, tile by tile.

A tile has three parts: the *core* that is kept whole, a *blend* margin that it shares with its neighbour under a Hann
ramp, and a *halo* of context that is computed and thrown away.  Tiles start on multiples of the network's stride, and
what lies outside the volume is mirrored, so that with a halo of at least the receptive radius the result equals that
of the whole volume in one piece.  The ramps of neighbours add to one, so the identity returns the input and no
normalisation pass is needed.

Input and output may be memory maps: only one tile is held in memory, and the output is added to in place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from .device import free_memory, is_out_of_memory
from .jobs import JobError

Shape = tuple[int, int, int]


class Readable(Protocol):
    """What can be read by region: an array (z, y, x), a memory map, or something computed where it is read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x)."""

    def __getitem__(self, region: tuple[slice, ...], /) -> np.ndarray:
        """The voxels of a region."""


def shape_of(volume: Readable) -> Shape:
    """The three edges (z, y, x) of a volume."""
    z, y, x = volume.shape
    return z, y, x


#: (z, y, x) tile -> (z, y, x) result of the same shape.
TileFunction = Callable[[torch.Tensor], torch.Tensor]

#: Convolutions index with 32 bits in several libraries; no tensor may hold more elements.
MAX_ELEMENTS = 2**31 - 1
#: Usual width of the ramp between two tiles, in voxels.
BLEND = 16


@dataclass(frozen=True)
class TilePlan:
    """How one axis is cut: tile starts (on the padded axis), the tile's length, halo and blend."""

    size: int
    tile: int
    halo: int
    blend: int
    starts: tuple[int, ...]

    def weights(self, index: int) -> np.ndarray:
        """Weight (tile,) of tile ``index``: 0 in the halo, a Hann ramp in the blend, 1 in the core."""
        positions = self.starts[index] + np.arange(self.tile) + 0.5
        weight = np.ones(self.tile)
        if index > 0:
            weight *= self._ramp(positions, self.starts[index - 1], self.starts[index])
        if index < len(self.starts) - 1:
            weight *= 1 - self._ramp(positions, self.starts[index], self.starts[index + 1])
        return weight.astype(np.float32)

    def _ramp(self, positions: np.ndarray, left: int, right: int) -> np.ndarray:
        """0 to 1 across the middle of the overlap of the tiles that start at ``left`` and ``right``."""
        middle = (left + self.tile + right) / 2
        width = min(self.blend, left + self.tile - right - 2 * self.halo)
        if width <= 0:
            return (positions > middle).astype(float)
        phase = np.clip((positions - middle) / width + 0.5, 0, 1)
        return 0.5 - 0.5 * np.cos(math.pi * phase)


def smallest_tile(halo: int, blend: int, multiple: int) -> int:
    """The least edge of a tile of which something is kept."""
    return -(-(2 * halo + blend) // multiple) * multiple + multiple


def plan_axis(size: int, tile: int, halo: int, blend: int, multiple: int) -> TilePlan:
    """Cut an axis of ``size`` voxels; the tile is rounded to ``multiple`` and may cover the whole axis."""
    padded = -(-size // multiple) * multiple
    tile = min(padded, -(-tile // multiple) * multiple)
    if tile == padded:
        return TilePlan(size, tile, halo, blend, (0,))
    shared = smallest_tile(halo, blend, multiple) - multiple
    step = tile - shared
    if step < multiple:
        raise JobError(f"a tile of {tile} voxels is too small for a halo of {halo}; use at least {shared + multiple}.")
    steps = -(-(padded - tile) // step)
    # The same number of tiles with as little overlap as they need: nothing is computed twice for want of rounding.
    tile = min(tile, -(-(padded + steps * shared) // ((steps + 1) * multiple)) * multiple)
    last = (padded - tile) // multiple
    starts = tuple(multiple * (index * last // steps) for index in range(steps + 1))
    # Ramps of a tile's two sides must not meet, or they would no longer add to one.
    blend = min(blend, min(right - left for left, right in itertools.pairwise(starts)))
    return TilePlan(size, tile, halo, blend, starts)


def _mirror(start: int, length: int, size: int) -> np.ndarray:
    """Indices of ``length`` voxels from ``start``, mirrored at the end of an axis of ``size``."""
    index = np.arange(start, start + length)
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.where(index >= size, period - index, index)


def read_tile(volume: Readable, starts: Shape, shape: Shape) -> np.ndarray:
    """A float32 copy of a region that may reach beyond the volume's end, where it is mirrored."""
    if all(start + length <= size for start, length, size in zip(starts, shape, volume.shape, strict=True)):
        region = tuple(slice(start, start + length) for start, length in zip(starts, shape, strict=True))
        return np.array(volume[region], np.float32)
    index = [_mirror(*axis) for axis in zip(starts, shape, volume.shape, strict=True)]
    return np.asarray(volume[np.ix_(*index)], np.float32)  # type: ignore[index]


def choose_tile(
    volume_shape: Shape, bytes_per_voxel: float, device: torch.device, widest_channels: int, halo: int, multiple: int
) -> Shape:
    """The largest tile that half of the free memory holds: the whole z where it fits, and y and x equal.

    ``bytes_per_voxel`` is what the network needs for one voxel of input, ``widest_channels`` the number of channels
    of its widest tensor at full resolution.
    """
    budget = min(0.5 * free_memory(device) / bytes_per_voxel, MAX_ELEMENTS / widest_channels)
    z, y, x = volume_shape
    # Smaller tiles are nearly all context; if this one does not fit, running out of memory will halve it.
    smallest = 2 * smallest_tile(halo, BLEND, multiple)
    lateral = math.sqrt(budget / z)
    if lateral >= min(smallest, y, x):
        tile = (z, min(y, int(lateral)), min(x, int(lateral)))
    else:
        edge = max(int(budget ** (1 / 3)), smallest)
        tile = (min(z, edge), min(y, edge), min(x, edge))
    return tile


def apply_tiled(
    function: TileFunction,
    volume: Readable,
    output: np.ndarray,
    tile: Shape,
    *,
    halo: int,
    multiple: int = 1,
    blend: int = BLEND,
    device: torch.device | None = None,
    on_tiles: Callable[[int], None] | None = None,
    on_tile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Fill ``output`` with ``function`` of ``volume``.

    Parameters
    ----------
    function
        Maps a tile (z, y, x) on ``device`` to a result of the same shape.
    volume, output
        (z, y, x); ``output`` is float32 and zero, and is added to.
    tile
        Largest tile; halved when memory runs out.
    halo, multiple, blend
        Context around what is kept, the network's stride, and the width of the ramps, in voxels.
    on_tiles, on_tile
        Called with the number of tiles, and after each tile.

    Raises
    ------
    JobError
        When the smallest tile still does not fit into memory.
    """
    device = device or torch.device("cpu")
    while True:
        plans = [plan_axis(size, edge, halo, blend, multiple) for size, edge in zip(volume.shape, tile, strict=True)]
        if on_tiles:
            on_tiles(math.prod(len(plan.starts) for plan in plans))
        try:
            for index in _order(plans):
                _one_tile(function, volume, output, plans, index, device)
                if on_tile:
                    on_tile()
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        tile = _halve(tile, volume.shape, halo, blend, multiple)
        if warn:
            warn(f"memory ran out; going on with tiles of {tile[0]} x {tile[1]} x {tile[2]} voxels.")
        output[...] = 0
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _order(plans: list[TilePlan]) -> Iterator[Shape]:
    for z in range(len(plans[0].starts)):
        for y in range(len(plans[1].starts)):
            for x in range(len(plans[2].starts)):
                yield z, y, x


def _one_tile(
    function: TileFunction, volume: Readable, output: np.ndarray, plans: list[TilePlan], index: Shape,
    device: torch.device,
) -> None:  # fmt: skip
    starts = tuple(plan.starts[i] for plan, i in zip(plans, index, strict=True))
    shape = tuple(plan.tile for plan in plans)
    data = torch.from_numpy(read_tile(volume, starts, shape)).to(device)  # type: ignore[arg-type]
    result = function(data).float().cpu().numpy()
    region, inside = [], []
    for axis, (plan, i) in enumerate(zip(plans, index, strict=True)):
        weight = plan.weights(i)
        used = np.flatnonzero(weight)
        first, last = used[0], min(used[-1] + 1, plan.size - starts[axis])
        inside.append(slice(first, last))
        region.append(slice(starts[axis] + first, starts[axis] + last))
        result = result * weight.reshape([-1 if a == axis else 1 for a in range(3)])
    output[tuple(region)] += result[tuple(inside)]


def _halve(tile: Shape, volume_shape: tuple[int, ...], halo: int, blend: int, multiple: int) -> Shape:
    """Halve the longest axis that can still be halved."""
    smallest = smallest_tile(halo, blend, multiple)
    actual = [min(edge, size) for edge, size in zip(tile, volume_shape, strict=True)]
    for axis in sorted(range(3), key=lambda a: -actual[a]):
        half = -(-(actual[axis] // 2) // multiple) * multiple
        if half >= smallest and half < actual[axis]:
            actual[axis] = half
            return tuple(actual)  # type: ignore[return-value]
    raise JobError(
        f"memory ran out with the smallest tile of {actual[0]} x {actual[1]} x {actual[2]} voxels; free some memory, "
        "use fewer threads or another device."
    )
