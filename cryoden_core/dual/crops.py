"""Random crops of a domain: where they may lie, which symmetries they may be turned by, how many may be empty.

A tomogram may only be turned in ways that map its missing wedge to itself, a density map in any way.  The share of
crops without structure is kept alike in the two domains: otherwise the critics learn how densely particles lie, and the
denoiser invents or deletes some to please them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from ..training import random_integer
from .domains import DomainVolume, soft_clip

#: A standardised crop whose means over 4 x 4 x 4 voxels spread less than this holds no structure.
EMPTY_SPREAD = 0.05
#: Crops whose means are compared to find the emptiest of a noisy domain.
SAMPLED_CROPS = 256
_TRIES = 20

#: New order of the axes (z, y, x), then the axes that are mirrored.
Symmetry = tuple[tuple[int, int, int], tuple[int, ...]]


def all_symmetries() -> list[Symmetry]:
    """The 48 ways to turn and mirror a cube."""
    orders = list(itertools.permutations(range(3)))
    mirrors = [axes for count in range(4) for axes in itertools.combinations(range(3), count)]
    return [(order, axes) for order in orders for axes in mirrors]  # type: ignore[misc]


def wedge_preserving_symmetries(tilt_min_degrees: float, tilt_max_degrees: float) -> list[Symmetry]:
    """The ways to turn and mirror a tomogram (tilt axis y, beam z) that leave its missing wedge where it is.

    For a range symmetric about 0 all mirrors of the axes; otherwise the mirror of y, half a turn about y, and both.
    """
    symmetric = math.isclose(-tilt_min_degrees, tilt_max_degrees, abs_tol=2.0)
    mirrors = [axes for _, axes in all_symmetries()[:8]] if symmetric else [(), (1,), (0, 2), (0, 1, 2)]
    return [((0, 1, 2), axes) for axes in mirrors]


@dataclass
class CropSource:
    """Draws crops of the volumes of one domain, each volume as often as its size says.

    Parameters
    ----------
    volumes
        Their regions are read standardised.
    symmetries
        One is applied to each crop at random.
    clip
        Compress values beyond 6 standard deviations.
    keep_empty
        Share of the crops below ``empty_below`` that are kept.
    empty_below
        Spread of the means over 4 x 4 x 4 voxels under which a crop counts as empty.
    """

    volumes: list[DomainVolume]
    symmetries: list[Symmetry]
    clip: bool = True
    keep_empty: float = 1.0
    empty_below: float = EMPTY_SPREAD
    _corners: dict[tuple[int, int], np.ndarray | None] = field(default_factory=dict)

    def draw(self, count: int, edge: int, generator: torch.Generator) -> torch.Tensor:
        """``count`` crops (count, 1, edge, edge, edge), float32."""
        crops = []
        for _ in range(count):
            for _ in range(_TRIES):
                crop = self._one(edge, generator)
                if self.keep_empty >= 1 or structure(crop) >= self.empty_below:
                    break
                if float(torch.rand((), generator=generator)) < self.keep_empty:
                    break
            order, mirrored = self.symmetries[random_integer(generator, len(self.symmetries))]
            crops.append(crop.permute(order).flip(mirrored))
        return torch.stack(crops)[:, None].contiguous()

    def spreads(self, edge: int, generator: torch.Generator) -> np.ndarray:
        """How much structure random crops hold (see :func:`structure`), empty ones included."""
        return np.array([structure(self._one(edge, generator)) for _ in range(SAMPLED_CROPS)])

    def without_room(self, edge: int) -> DomainVolume | None:
        """The first volume in which no crop of this edge finds a place, if there is one."""
        for number, volume in enumerate(self.volumes):
            corners = self._allowed(number, edge)
            if min(volume.shape) < edge or (corners is not None and not len(corners)):
                return volume
        return None

    def _one(self, edge: int, generator: torch.Generator) -> torch.Tensor:
        sizes = torch.tensor([float(math.prod(volume.shape)) for volume in self.volumes])
        number = int(torch.multinomial(sizes, 1, generator=generator))
        volume, corners = self.volumes[number], self._allowed(number, edge)
        if corners is None:
            corner = [random_integer(generator, size - edge + 1) for size in volume.shape]
        else:
            corner = corners[random_integer(generator, len(corners))].tolist()
        values = volume[tuple(slice(first, first + edge) for first in corner)]
        return torch.from_numpy(np.ascontiguousarray(soft_clip(values) if self.clip else values, np.float32))

    def _allowed(self, number: int, edge: int) -> np.ndarray | None:
        """Corners (n, 3) of the crops of a restricted volume that lie at least half inside; None: anywhere."""
        key = (number, edge)
        if key not in self._corners:
            inside = self.volumes[number].inside
            self._corners[key] = None if inside is None else _corners_inside(inside, edge)
        return self._corners[key]


def match_empty_shares(noisy: CropSource, clean: CropSource, edge: int, generator: torch.Generator) -> float:
    """Let as many of the noisy domain's crops count as empty as are empty in the clean domain; returns that share.

    What is empty cannot be told in noise, but the crops with the least structure can.
    """
    share = float(np.mean(clean.spreads(edge, generator) < clean.empty_below))
    spreads = noisy.spreads(edge, generator)
    noisy.empty_below = float(np.quantile(spreads, share)) if share else -math.inf
    return share


def structure(crop: torch.Tensor) -> float:
    """Standard deviation of the means over 4 x 4 x 4 voxels of a crop (z, y, x)."""
    return float(torch.nn.functional.avg_pool3d(crop[None, None], 4).std())


def batches(source: CropSource, count: int, batch: int, edge: int, seed: int) -> Iterator[torch.Tensor]:
    """The same ``count`` batches of crops for a seed, whatever was drawn before."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield source.draw(batch, edge, generator)


def _corners_inside(inside: np.ndarray, edge: int) -> np.ndarray:
    if min(inside.shape) < edge:
        return np.zeros((0, 3), int)
    share = ndimage.uniform_filter(inside.astype(np.float32), edge, mode="constant")
    # The filter's value at corner + edge // 2 is the mean of the crop that begins at the corner.
    half = edge // 2
    of_corner = share[tuple(slice(half, half + size - edge + 1) for size in inside.shape)]
    corners = np.argwhere(of_corner > 0.95)
    if not len(corners):
        # The mask is thinner than a crop.
        centres = inside[tuple(slice(half, half + size - edge + 1) for size in inside.shape)]
        corners = np.argwhere(centres)
    return corners if len(corners) <= 200_000 else corners[:: len(corners) // 200_000 + 1]
