"""Weighted back-projection of a single-axis tilt series, as IMOD's ``tilt`` does it.

Each line of a view is filtered by a ramp that falls off as a Gaussian beyond a cutoff (Radermacher, *Weighted
back-projection methods*, in *Electron Tomography*, 2006), and the views are summed with linear interpolation.  Three
details follow what IMOD was measured to do on the golden series: lines are padded by a straight ramp from their right
end to their left end, so that the circular filter meets no step; the zero frequency gets a fifth of the first
frequency's weight; a voxel that falls off the detector in a view gets nothing from that view.  Views beside a gap
count for more, by the mean tilt increment around them.

Cosine stretching, tilts about x and local alignments are not done.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.fft import next_fast_len

from ..jobs import JobError
from .array_checks import check_projections, check_shape, check_weights, finite_block
from .geometry import TiltGeometry
from .projector import back_projection_rows, row_slabs, sections_at_once

#: Weight of the zero frequency in units of the first frequency's; 0.2 removes the constant between IMOD's golden
#: reconstruction and ours (0.0 and 0.3 leave an offset of 8 and 4 percent of the standard deviation).
ZERO_FREQUENCY_WEIGHT = 0.2


def padded_length(width: int) -> int:
    """Length to which lines are padded for the filter: an eighth more, at least 15 pixels, fast for the FFT.

    IMOD was measured to take 144 for 128 pixels and 112 for 96 and 97, which this gives too.
    """
    return next_fast_len(width + max(15, width // 8))


def radial_filter(length: int, cutoff: float = 0.35, falloff: float = 0.035) -> np.ndarray:
    """The ramp with a Gaussian fall-off.

    Parameters
    ----------
    length : int
        Samples of a padded line.
    cutoff : float
        Frequency where the ramp ends, cycles/pixel.
    falloff : float
        Standard deviation of the Gaussian beyond the cutoff, cycles/pixel; 0 cuts sharply.

    Returns
    -------
    ndarray (length // 2 + 1,) float32
        Weights for the non-negative frequencies, equal to the frequency in cycles/pixel up to the cutoff.
    """
    frequency = np.arange(length // 2 + 1) / length
    weights = np.minimum(frequency, cutoff)
    weights[0] = ZERO_FREQUENCY_WEIGHT / length
    beyond = frequency > cutoff
    weights[beyond] *= np.exp(-0.5 * ((frequency[beyond] - cutoff) / falloff) ** 2) if falloff > 0 else 0.0
    return weights.astype(np.float32)


def view_weights(tilt_angles_degrees: ArrayLike) -> np.ndarray:
    """How much each view counts, so that unevenly spaced views fill Fourier space evenly.

    The weight is the mean of the two tilt increments on each side of the view, the nearer counting 3/4 and the farther
    1/4 (measured on IMOD's reconstruction of a series with excluded views); the weights are scaled to a mean of 1.

    Parameters
    ----------
    tilt_angles_degrees : array (views,)
        Degrees, in any order.

    Returns
    -------
    ndarray (views,) float64
        In the order of the angles given.
    """
    angles = np.asarray(tilt_angles_degrees, dtype=np.float64)
    order = np.argsort(angles, kind="stable")
    increments = np.diff(angles[order])
    weights = np.ones(len(angles))
    if not increments.any():
        return weights
    for rank, view in enumerate(order):
        around = [(rank - 1, 0.75), (rank, 0.75), (rank - 2, 0.25), (rank + 1, 0.25)]
        known = [(increments[index], share) for index, share in around if 0 <= index < len(increments)]
        weights[view] = sum(step * share for step, share in known) / sum(share for _, share in known)
    return weights / weights.mean()


def filter_projections(projections: torch.Tensor, cutoff: float = 0.35, falloff: float = 0.035) -> torch.Tensor:
    """Filter the lines of some views along u, without ramps at the ends.

    Parameters
    ----------
    projections : Tensor (..., u) float32
    cutoff, falloff : float
        See :func:`radial_filter`.

    Returns
    -------
    Tensor (..., u) float32
    """
    width = projections.shape[-1]
    length = padded_length(width)
    steps = torch.arange(1, length - width + 1, device=projections.device) / (length - width + 1)
    left, right = projections[..., :1], projections[..., -1:]
    padded = torch.cat([projections, right + (left - right) * steps], dim=-1)
    weights = torch.from_numpy(radial_filter(length, cutoff, falloff)).to(projections.device)
    return torch.fft.irfft(torch.fft.rfft(padded) * weights, n=length)[..., :width]


def weighted_back_projection(
    projections: np.ndarray,
    tilt_angles_degrees: ArrayLike,
    thickness: int,
    width: int | None = None,
    radial_cutoff: float = 0.35,
    radial_falloff: float = 0.035,
    angle_offset_degrees: float = 0.0,
    tilt_axis_shift: float = 0.0,
    x_shift: float = 0.0,
    z_shift: float = 0.0,
    density_weighting: bool = True,
    imod_scale: bool = False,
    device: str | torch.device = "cpu",
    out: np.ndarray | None = None,
    weights: ArrayLike | None = None,
    report: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Reconstruct a tomogram from an aligned tilt series.

    Parameters
    ----------
    projections : array (views, y, x)
        Aligned views, tilt axis along y; may be memory-mapped.
    tilt_angles_degrees : array (views,)
        Angle of each view, in the order of the views; they need not be sorted.
    thickness : int
        Voxels along z.
    width : int, optional
        Voxels along x; that of the projections when not given.
    radial_cutoff, radial_falloff : float
        Cycles/pixel; IMOD's ``RADIAL`` with ``FalloffIsTrueSigma``.
    angle_offset_degrees, tilt_axis_shift, x_shift, z_shift : float
        See :class:`~cryoden_core.tomography.geometry.TiltGeometry`.
    density_weighting : bool
        Weight the views by :func:`view_weights`.
    imod_scale : bool
        Grey values as IMOD writes them: ``padded length / pi`` times the textbook's, which are those of the density
        (projections being sums of density along the ray, in voxels).
    device : str or torch.device
        Where to compute.
    out : array (z, y, x) float32, optional
        Filled in place, by slabs of z, and returned; may be a memory-map.
    weights : array (views,), optional
        How much each view counts besides, by its dose for example; scaled so that the weights' mean stays 1.
    report : callable, optional
        Called with the steps done and their total: blocks filtered, then slabs back-projected.

    Returns
    -------
    ndarray (z, y, x) float32

    Raises
    ------
    JobError
        When numbers of views, angles and weights differ, a size or frequency is out of range, or a pixel is not finite.
    """
    angles = np.atleast_1d(np.asarray(tilt_angles_degrees, dtype=np.float64))
    check_projections(projections, angles, thickness, width)
    if not (0 < radial_cutoff <= 0.5 and 0 <= radial_falloff <= 1):
        raise JobError(
            f"radial cutoff {radial_cutoff:g} must be above 0 and at most 0.5 cycles/pixel "
            f"and the fall-off {radial_falloff:g} from 0 to 1."
        )
    views, height, detector = projections.shape
    geometry = TiltGeometry(
        angles, (thickness, height, width or detector), detector, angle_offset_degrees, tilt_axis_shift, x_shift,
        z_shift,
    )  # fmt: skip
    check_shape("output", out, geometry.volume_shape)
    out = np.empty(geometry.volume_shape, dtype=np.float32) if out is None else out
    counts = view_weights(angles) if density_weighting else np.ones(views)
    if weights is not None:
        counts = counts * check_weights(weights, views)
        counts = counts / counts.mean()
    counts = counts / views * (padded_length(detector) if imod_scale else math.pi)
    where = torch.device(device)
    blocks, slabs = -(-height // sections_at_once(where)), len(list(row_slabs(geometry)))
    done = itertools.count(1)

    def advance() -> None:
        if report is not None:
            report(next(done), blocks + slabs)

    filtered = _filtered_sections(projections, counts, radial_cutoff, radial_falloff, where, advance)
    _back_project(filtered, geometry, where, out, advance)
    return out


def _filtered_sections(
    projections: np.ndarray,
    weights: np.ndarray,
    cutoff: float,
    falloff: float,
    device: torch.device,
    advance: Callable[[], None],
) -> list[torch.Tensor]:
    """Filtered views times their weights, cut along y into dense operands (views * u, sections)."""
    step = sections_at_once(device)
    scale = torch.from_numpy(weights.astype(np.float32)).to(device)[:, None, None]
    pieces = []
    for start in range(0, projections.shape[1], step):
        lines = finite_block(projections, slice(start, start + step)).to(device)
        lines = filter_projections(lines, cutoff, falloff) * scale
        pieces.append(lines.transpose(1, 2).reshape(-1, lines.shape[1]).contiguous())
        advance()
    return pieces


def _back_project(
    filtered: list[torch.Tensor], geometry: TiltGeometry, device: torch.device, out: np.ndarray,
    advance: Callable[[], None],
) -> None:  # fmt: skip
    """Sum the filtered views into ``out``, one slab of z rows after the other."""
    width = geometry.volume_shape[2]
    for rows in row_slabs(geometry):
        matrix = back_projection_rows(geometry, rows).to_torch(device)
        start = 0
        for piece in filtered:
            stop = start + piece.shape[1]
            values = (matrix @ piece).reshape(rows.stop - rows.start, width, -1).transpose(1, 2)
            out[rows, start:stop] = values.cpu().numpy()
            start = stop
        advance()
