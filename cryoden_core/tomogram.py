"""A tomogram that is to be restored, its halves and its mask, opened and checked; every refusal is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import mrc
from .excerpts import central_block, robust_statistics
from .jobs import JobError
from .tilt_series import sign_of_tilt_series

MIN_SLICES = 16
MIN_WIDTH = 32
#: More voxels of a mask than this are not needed to draw crops from it.
MAX_CENTRES = 200_000


class HalfDifference:
    """``gain * (even - odd) / 2`` of two arrays, computed only where it is read."""

    def __init__(self, even: np.ndarray, odd: np.ndarray, gain: float = 1.0) -> None:
        self.even, self.odd, self.gain = even, odd, gain
        self.shape = even.shape

    def __getitem__(self, region: tuple[slice, ...], /) -> np.ndarray:
        """The voxels of a region, float32."""
        even = np.asarray(self.even[region], np.float32)
        return (0.5 * self.gain) * (even - np.asarray(self.odd[region], np.float32))


@dataclass
class Tomogram:
    """A checked tomogram: ``data`` and its halves are memory maps (z, y, x); ``mean`` and ``sd`` leave out extremes."""

    path: str
    data: np.ndarray
    voxel_size: float
    origin: tuple[float, float, float]
    mean: float
    sd: float
    halves: tuple[np.ndarray, np.ndarray] | None = None
    difference: HalfDifference | None = None
    centres: np.ndarray | None = None


def open_tomogram(path: str, voxel_size: float, warn: Callable[[str], None]) -> Tomogram:
    """Open a tomogram and refuse what cannot be denoised.

    Raises
    ------
    JobError
        File missing or unreadable, NaN, constant, too thin or too small.
    """
    header = mrc.read_header(path)
    data = mrc.open_volume(path)
    z, y, x = data.shape
    if z < MIN_SLICES:
        raise JobError(f"{path} has {z} slices; a tomogram of at least {MIN_SLICES} is needed.")
    if min(y, x) < MIN_WIDTH:
        raise JobError(f"{path} is {x} x {y} voxels wide; at least {MIN_WIDTH} x {MIN_WIDTH} are needed.")
    mrc.check_finite_and_varying(data, path)
    if reason := sign_of_tilt_series(path):
        warn(f"{path} looks like a tilt series ({reason}); what is wanted is the tomogram reconstructed from it.")
    size = mrc.voxel_size_of(path, voxel_size, warn)
    if not size:
        warn(f"{path} has no voxel size and none was given; the output will have none either.")
    return Tomogram(path, data, size, header.origin, *robust_statistics(data))


def add_halves(tomogram: Tomogram, even: str, odd: str, warn: Callable[[str], None]) -> None:
    """Open the halves of a tomogram, bring their difference to its scale, and check that they are halves.

    Raises
    ------
    JobError
        Shapes differ, the halves are identical, or they are not halves of this tomogram.
    """
    volumes = []
    for path in (even, odd):
        data = mrc.open_volume(path)
        if data.shape != tomogram.data.shape:
            raise JobError(
                f"{path} is {mrc.size_text(data.shape)} voxels but {tomogram.path} is "
                f"{mrc.size_text(tomogram.data.shape)}."
            )
        mrc.check_finite_and_varying(data, path)
        volumes.append(data)
    first, second = (central_block(volume).astype(np.float64) for volume in volumes)
    if np.array_equal(first, second):
        raise JobError(f"the halves {even} and {odd} are identical; give two independent halves.")
    mean, whole = (first + second) / 2, central_block(tomogram.data).astype(np.float64)
    match = float(np.corrcoef(mean.ravel(), whole.ravel())[0, 1])
    if match < 0.9:
        raise JobError(
            f"{even} and {odd} are not the halves of {tomogram.path}: their mean correlates with it by {match:.2f}."
        )
    gain = float(np.cov(mean.ravel(), whole.ravel())[0, 1] / mean.var())
    tomogram.halves = (volumes[0], volumes[1])
    tomogram.difference = HalfDifference(volumes[0], volumes[1], gain=gain)
    leak = float(np.corrcoef((first - second).ravel(), mean.ravel())[0, 1])
    if abs(leak) > 0.05:
        warn(
            f"the difference of the halves correlates with their mean by {leak:.2f}: they differ in noise level or are "
            "not aligned, and the noise may be measured too high."
        )


def add_mask(tomogram: Tomogram, path: str) -> None:
    """Restrict training crops to the inside (> 0.5) of a mask.

    Raises
    ------
    JobError
        The mask has another shape or is empty.
    """
    mask = mrc.open_volume(path)
    if mask.shape != tomogram.data.shape:
        raise JobError(
            f"the mask {path} is {mrc.size_text(mask.shape)} voxels but {tomogram.path} is "
            f"{mrc.size_text(tomogram.data.shape)}."
        )
    chunks = []
    step = max(1, round((mask.size / MAX_CENTRES / 4) ** (1 / 3)))
    for z in range(0, mask.shape[0], step):
        inside = np.argwhere(np.asarray(mask[z, ::step, ::step]) > 0.5) * step
        chunks.append(np.column_stack([np.full(len(inside), z), inside]))
    centres = np.concatenate(chunks)
    if not len(centres):
        raise JobError(f"the mask {path} is empty: no voxel is above 0.5.")
    if len(centres) > MAX_CENTRES:
        centres = centres[np.random.default_rng(0).permutation(len(centres))[:MAX_CENTRES]]
    tomogram.centres = centres
