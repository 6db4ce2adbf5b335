"""Reconstruction of a tilt series by SIRT, the simultaneous iterative reconstruction technique.

Each iteration adds ``C A^T R (b - A x)``, where ``A`` projects, ``R`` and ``C`` divide by the sums of its rows and
columns (Gilbert, *J. Theor. Biol.* 36, 105, 1972; in this form Gregor and Benson, *IEEE Trans. Med. Imaging* 27, 918,
2008).  Few iterations are smooth, many approach the least-squares solution, noise included.

A specimen extends beyond the image, and tilted views see that outside.  By default a slab wide enough to fill the
detector in every view is reconstructed and cropped; without it the outside's density is forced inside.

The missing wedge stays empty but for what non-negativity puts there.  Sections are independent and are done in blocks
along y, so that memory stays bounded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..jobs import JobError
from .array_checks import check_projections, check_shape, check_weights, finite_block
from .geometry import TiltGeometry, covering_width
from .projector import Projector, sections_at_once


def sirt(
    projections: np.ndarray,
    tilt_angles_degrees: ArrayLike,
    thickness: int,
    iterations: int = 20,
    non_negative: bool = False,
    width: int | None = None,
    relaxation: float = 1.0,
    initial: np.ndarray | None = None,
    cover_every_view: bool = True,
    angle_offset_degrees: float = 0.0,
    tilt_axis_shift: float = 0.0,
    x_shift: float = 0.0,
    z_shift: float = 0.0,
    device: str | torch.device = "cpu",
    out: np.ndarray | None = None,
    report: Callable[[int, int, float], None] | None = None,
    weights: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    residuals: np.ndarray | None = None,
) -> np.ndarray:
    """Reconstruct a tomogram from an aligned tilt series.

    Parameters
    ----------
    projections : array (views, y, x)
        Aligned views, sums of density along the rays in voxels; tilt axis along y; may be memory-mapped.
    tilt_angles_degrees : array (views,)
        Angle of each view, in the order of the views; they need not be sorted.
    thickness : int
        Voxels along z.
    iterations : int
        At least 1.
    non_negative : bool
        Set negative densities to zero after each iteration.  Right for density maps; wrong for data with a transfer
        function or with protein dark.
    width : int, optional
        Voxels along x of the result; that of the projections when not given.
    relaxation : float
        Length of a step, above 0 and below 2.
    initial : array (z, y, x), optional
        Start from this volume instead of zero; the outside starts from its mean.
    cover_every_view : bool
        Reconstruct what tilted views see beside the image too, then crop; takes memory and time for the wider slab.
    angle_offset_degrees, tilt_axis_shift, x_shift, z_shift : float
        See :class:`~cryoden_core.tomography.geometry.TiltGeometry`.
    device : str or torch.device
        Where to compute.
    out : array (z, y, x) float32, optional
        Filled in place by blocks of y and returned; may be a memory-map.
    report : callable, optional
        Called as ``report(done, total, residual)`` after each iteration of each block; ``residual`` is the norm of
        ``b - A x`` before the iteration over the norm of ``b``.
    weights : array (views,), optional
        How much the residual of each view counts, by its dose for example.
    levels : array (views,), optional
        Subtracted from the views: what a ray through nothing gives in each of them.
    residuals : ndarray (views,) float64, optional
        Filled with the relative residual of each view at the end, for one more projection.

    Returns
    -------
    ndarray (z, y, x) float32

    Raises
    ------
    JobError
        When numbers of views, angles and weights differ, a parameter is out of range, a shape is wrong or a pixel is
        not finite.
    """
    angles = np.atleast_1d(np.asarray(tilt_angles_degrees, dtype=np.float64))
    check_projections(projections, angles, thickness, width)
    _, height, detector = projections.shape
    width = width or detector
    shape = (thickness, height, width)
    if iterations < 1:
        raise JobError(f"SIRT needs at least 1 iteration, not {iterations}.")
    if not 0 < relaxation < 2:
        raise JobError(f"the relaxation of SIRT must be above 0 and below 2, not {relaxation:g}: it diverges beyond.")
    check_shape("initial volume", initial, shape)
    check_shape("output", out, shape)
    geometry = TiltGeometry(angles, shape, detector, angle_offset_degrees, tilt_axis_shift, x_shift, z_shift)
    wide = covering_width(geometry) if cover_every_view else width
    geometry = dataclasses.replace(geometry, volume_shape=(thickness, height, wide))
    counts = None if weights is None else check_weights(weights, len(angles))
    solver = SirtSolver(Projector(geometry, device), relaxation, non_negative, counts)
    zero = None if levels is None else torch.from_numpy(np.array(levels, dtype=np.float32))[:, None, None]
    unexplained, seen_power = np.zeros(len(angles)), np.zeros(len(angles))
    out = np.empty(shape, dtype=np.float32) if out is None else out
    side = (wide - width) // 2
    step = sections_at_once(solver.projector.device)
    blocks = [slice(start, min(start + step, height)) for start in range(0, height, step)]
    done, total = 0, iterations * len(blocks)
    for block in blocks:
        views = finite_block(projections, block)
        views = (views if zero is None else views - zero).to(solver.projector.device)
        volume = solver.start(views.shape[1], None if initial is None else initial[:, block], side)
        for _ in range(iterations):
            residual = solver.iterate(volume, views)
            done += 1
            if report is not None:
                report(done, total, residual)
        out[:, block] = volume[:, :, side : side + width].cpu().numpy()
        if residuals is not None:
            unexplained += _power(views - solver.projector.forward(volume))
            seen_power += _power(views)
    if residuals is not None:
        residuals[:] = np.sqrt(unexplained / np.maximum(seen_power, 1e-30))
    return out


def _power(views: torch.Tensor) -> np.ndarray:
    """Sum of squares of each view, (views,)."""
    return (views.double() ** 2).sum(dim=(1, 2)).cpu().numpy()


class SirtSolver:
    """One geometry's projector with the inverse sums of its matrix's rows and columns.

    For those who need the volume between iterations or beyond the tomogram's width; others call :func:`sirt`.
    """

    def __init__(
        self, projector: Projector, relaxation: float, non_negative: bool, weights: np.ndarray | None = None
    ) -> None:
        self.projector = projector
        self._non_negative = non_negative
        depth, _, width = projector.geometry.volume_shape
        views, detector = projector.geometry.views, projector.geometry.detector_width
        rays = projector.forward(torch.ones(depth, 1, width))
        counts = torch.ones(views) if weights is None else torch.from_numpy(weights).float()
        counts = counts.to(projector.device)[:, None, None]
        voxels = projector.adjoint(counts.expand(views, 1, detector))
        self._rows = _inverse(rays) * counts
        self._columns = _inverse(voxels) * relaxation

    def start(self, sections: int, initial: np.ndarray | None, side: int) -> torch.Tensor:
        """The volume before the first iteration, (z, sections, wide x)."""
        depth, _, wide = self.projector.geometry.volume_shape
        volume = torch.zeros((depth, sections, wide), device=self.projector.device)
        if initial is not None:
            inner = torch.from_numpy(np.array(initial, dtype=np.float32)).to(volume.device)
            volume += inner.mean()
            volume[:, :, side : wide - side] = inner
        return volume

    @torch.no_grad()
    def iterate(self, volume: torch.Tensor, views: torch.Tensor) -> float:
        """Improve ``volume`` in place; returns the relative residual from before."""
        difference = views - self.projector.forward(volume)
        residual = float(difference.norm() / views.norm().clamp_min(1e-30))
        volume += self.projector.adjoint(difference * self._rows) * self._columns
        if self._non_negative:
            volume.clamp_(min=0)
        return residual


def _inverse(sums: torch.Tensor) -> torch.Tensor:
    """1 / sums; 0 for a ray that misses the volume and for a voxel that no view sees."""
    # A ray that clips a corner has a tiny sum; dividing by it would let one noisy pixel rule that corner.
    floor = 1e-3 * float(sums.max())
    return torch.where(sums > floor, 1 / sums.clamp_min(floor), torch.zeros_like(sums))
