"""A tilt series made ready for the fit: standardised, freed of what lies outside the tomogram, section by section.

A tilted view sees more of the specimen than the tomogram holds.  What lies beside it is reconstructed once by SIRT, in
a slab wide enough to fill the detector in every view, and its projection is taken off; the network then explains the
rest.  The inner part of the same slab is what the network can be fitted to first.

The prepared projections lie in one file of the run folder, with the sections first, so that a step reads a few
contiguous pieces however large the series is.  Masked pixels are NaN there.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..jobs import JobError
from ..mrc import errors_of_writing, reserve
from ..progress import Progress
from ..tomography.geometry import covering_width
from ..tomography.inputs import AlignedSeries
from ..tomography.projector import Projector, sections_at_once
from ..tomography.sirt import SirtSolver
from ..tomography.wbp import weighted_back_projection
from .fields import grid_axes
from .losses import mean_path


@dataclass(frozen=True)
class Scale:
    """How projections become dimensionless.

    ``levels`` (views,) are the grey values that count as empty, without binning; ``density`` is the density whose
    projection through the mean path has the standard deviation of the projections if it changed sign at random from
    voxel to voxel.
    """

    levels: np.ndarray
    density: float

    def of(self, views: np.ndarray) -> Scale:
        """The same for some of the views (boolean mask)."""
        return Scale(self.levels[views], self.density)


@dataclass(eq=False)
class FitData:
    """A series at one binning, ready to be fitted.

    Attributes
    ----------
    series
        What it was made from.
    projections : ndarray (y, views, u) float32
        Standardised, without what lies outside; NaN where masked; a memory map.
    start : ndarray (y, z, x) float32 or None
        What the network is fitted to first; a memory map.
    sd
        Standard deviation of ``projections``.
    axes
        Coordinates of the voxels along z, y and x.
    projector, weights
        Of the tomogram's own width; weight of each view, (views, 1, 1).
    binning
        Relative to the tomogram that is wanted.
    """

    series: AlignedSeries
    projections: np.ndarray
    start: np.ndarray | None
    sd: float
    axes: tuple[Tensor, Tensor, Tensor]
    projector: Projector
    weights: Tensor
    binning: int

    @property
    def sections(self) -> int:
        """Number of y sections."""
        return len(self.projections)

    def views_of(self, sections: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (views, sections, u) on the device, 0 where masked, and the weights of their pixels."""
        block = torch.from_numpy(np.ascontiguousarray(np.swapaxes(self.projections[sections.numpy()], 0, 1)))
        block = block.to(self.projector.device)
        known = torch.isfinite(block)
        return torch.where(known, block, torch.zeros_like(block)), known * self.weights

    def start_of(self, sections: Tensor) -> Tensor:
        """The start's sections, (z, sections, x) on the device."""
        if self.start is None:
            raise ValueError("there is no start")
        block = torch.from_numpy(np.ascontiguousarray(np.swapaxes(self.start[sections.numpy()], 0, 1)))
        return block.to(self.projector.device)


def measure_scale(series: AlignedSeries, background: str, mask: np.ndarray | None = None) -> Scale:
    """Levels and scale of a series, from every fourth pixel along each side.

    Raises
    ------
    JobError
        When the projections do not vary.
    """
    levels = series.levels if background == "median" else np.zeros(series.views, np.float32)
    total = squares = count = 0.0
    for number, view in enumerate(series.projections):
        sample = np.asarray(view[::4, ::4], np.float64) - levels[number]
        if mask is not None:
            sample = sample[~mask[number][::4, ::4]]
        total, squares, count = total + sample.sum(), squares + np.square(sample).sum(), count + sample.size
    variance = squares / max(count, 1) - (total / max(count, 1)) ** 2
    if not variance > 0:
        raise JobError("the projections do not vary; check that the stack holds images.")
    angles = np.degrees(series.geometry().angles_radians)
    return Scale(levels, math.sqrt(variance / mean_path(series.thickness, angles)))


@dataclass(frozen=True)
class Preparation:
    """How series are prepared: see :func:`prepare`."""

    scale: Scale
    start: str
    iterations: int
    non_negative: bool
    outside: bool
    longest: int
    device: torch.device
    folder: str
    progress: Progress


def prepare(
    series: AlignedSeries, how: Preparation, name: str, binning: int = 1, mask: np.ndarray | None = None
) -> FitData:
    """Make a series ready.

    Parameters
    ----------
    series
        At this binning.
    how
        Scale; start (``sirt``, ``wbp`` or ``none``); iterations of SIRT and whether density may fall below zero in it;
        whether something may lie outside; longest edge of the tomogram without binning; device, run folder, reports.
    name
        Of the files in the run folder.
    binning
        Relative to the tomogram that is wanted.
    mask : ndarray (views, y, u) bool, optional
        Pixels to leave out.
    """
    depth, height, width = series.volume_shape
    detector = series.projections.shape[2]
    projections = _create(_file(how.folder, name, "projections"), (height, series.views, detector))
    start = None if how.start == "none" else _create(_file(how.folder, name, "start"), (height, depth, width))
    slab = _Slab(series, how)
    step = sections_at_once(how.device)
    blocks = [slice(first, min(first + step, height)) for first in range(0, height, step)]
    squares = 0.0
    for block in how.progress.track(blocks, "preparing the projections", len(blocks)):
        views = _standardised(series, how.scale, block, binning)
        hidden = None if mask is None else torch.from_numpy(np.ascontiguousarray(mask[:, block]))
        if hidden is not None:
            views[hidden] = 0.0
        inside, outside = slab.split(views)
        views = views - outside
        squares += float(views.double().square().sum())
        if hidden is not None:
            views[hidden] = math.nan
        projections[block] = views.transpose(0, 1).numpy()
        if start is not None:
            inner = _back_projection(series, views, how.device) if how.start == "wbp" else inside.numpy()
            start[block] = np.swapaxes(inner, 0, 1)
    weights = torch.from_numpy(np.asarray(series.weights, np.float32)).to(how.device)[:, None, None]
    return FitData(
        series, projections, start, math.sqrt(squares / projections.size),
        grid_axes(series.volume_shape, how.longest, binning, how.device),
        Projector(series.geometry(), how.device), weights, binning,
    )  # fmt: skip


class _Slab:
    """SIRT of a slab that fills the detector in every view, split into the tomogram and what lies beside it."""

    def __init__(self, series: AlignedSeries, how: Preparation) -> None:
        self._iterations = how.iterations
        wide = covering_width(series.geometry()) if how.outside else series.width
        self._side = (wide - series.width) // 2
        self.needed = self._side > 0 or how.start == "sirt"
        if self.needed:
            projector = Projector(series.geometry(width=wide), how.device)
            self._solver = SirtSolver(projector, 1.0, how.non_negative, np.asarray(series.weights))

    def split(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """The inside (z, y, x) and the projection (views, y, u) of the outside, of projections (views, y, u)."""
        if not self.needed:
            return torch.zeros(()), torch.zeros_like(views)
        on_device = views.to(self._solver.projector.device)
        volume = self._solver.start(views.shape[1], None, 0)
        for _ in range(self._iterations):
            self._solver.iterate(volume, on_device)
        end = volume.shape[2] - self._side
        inside = volume[:, :, self._side : end].cpu().clone()
        if not self._side:
            return inside, torch.zeros_like(views)
        volume[:, :, self._side : end] = 0
        return inside, self._solver.projector.forward(volume).cpu()


def _back_projection(series: AlignedSeries, views: Tensor, device: torch.device) -> np.ndarray:
    return weighted_back_projection(
        views.nan_to_num().numpy(), series.tilt_angles_degrees, series.thickness, series.width,
        angle_offset_degrees=series.angle_offset_degrees, tilt_axis_shift=series.tilt_axis_shift,
        x_shift=series.x_shift, z_shift=series.z_shift, device=device, weights=series.weights,
    )  # fmt: skip


def _standardised(series: AlignedSeries, scale: Scale, block: slice, binning: int) -> Tensor:
    views = np.array(series.projections[:, block], dtype=np.float32, order="C", subok=False)
    # Rays cross fewer voxels of a binned tomogram, and the level is that of a ray.
    levels = scale.levels[:, None, None] / np.float32(binning)
    return torch.from_numpy((views - levels) / np.float32(scale.density))


def remove_prepared(folder: str, *names: str) -> None:
    """Remove the files that :func:`prepare` made."""
    for name in names:
        for what in ("projections", "start"):
            path = _file(folder, name, what)
            if os.path.exists(path):
                os.remove(path)


def _file(folder: str, name: str, what: str) -> str:
    return os.path.join(folder, f"{name}_{what}.tmp")


def _create(path: str, shape: tuple[int, ...]) -> np.ndarray:
    with errors_of_writing(path):
        reserve(path, 4 * math.prod(shape))
    return np.memmap(path, np.float32, "r+", shape=shape)
