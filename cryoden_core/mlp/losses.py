"""What a field is fitted with: the difference from the projections, and what is asked of the volume.

The penalty in the missing wedge beyond the Crowther frequency is Van Veen's idea; its definition here is ours, since
the published code has none: the mean magnitude of the Fourier coefficients of xz slices that no view measured, rising
linearly from the Crowther frequency (Crowther, DeRosier and Klug, 1970) to Nyquist.  Sparsity and total variation are
those of compressed sensing (Leary et al., *Compressed sensing electron tomography*, Ultramicroscopy 131:70, 2013).

Volumes are scaled so that the projections have a standard deviation of 1 for each square root of voxels on a ray;
weights then mean the same for every data set.  Everything is in float32.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..fourier import crowther_frequency, frequency_radius, hermitian_weights, missing_wedge_mask

#: Where Charbonnier and Huber turn from square to straight, in standard deviations of the projections.
BEND = 0.1
HUBER_BEND = 1.0
#: The penalty begins at this frequency at the latest, cycles per voxel; a later one would leave a handful of corners.
LATEST_START = 0.45


def projection_loss(residual: Tensor, kind: str, weights: Tensor | None = None) -> Tensor:
    """Mean over pixels of how much a difference from the projections counts.

    Parameters
    ----------
    residual : Tensor (views, y, u)
        Difference, in standard deviations of the projections; a pixel that is NaN in the data must be 0 here and
        have no weight.
    kind
        ``l2`` (square), ``l1``, ``charbonnier`` (smooth l1) or ``huber``.
    weights : Tensor, broadcasts to (views, y, u), optional
        Of views and pixels; the mean is taken over them.
    """
    if kind == "l2":
        cost = residual.square()
    elif kind == "l1":
        cost = residual.abs()
    elif kind == "charbonnier":
        cost = (residual.square() + BEND**2).sqrt() - BEND
    elif kind == "huber":
        cost = torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=HUBER_BEND)
    else:
        raise ValueError(f"unknown loss {kind!r}")
    if weights is None:
        return cost.mean()
    weights = weights.expand_as(cost)
    return (cost * weights).sum() / weights.sum().clamp_min(1e-12)


class WedgePenalty:
    """Mean magnitude of the coefficients of xz slices in the missing wedge beyond the Crowther frequency.

    Parameters
    ----------
    depth, width
        Voxels of a slice along z and x.
    tilt_angles_degrees : ndarray (views,)
        With the offset added.
    thickness
        Of the object along the beam, voxels; by default the slice's depth.
    device
        Where slices will be.

    Attributes
    ----------
    start
        Crowther frequency, cycles per voxel.
    active
        False when no coefficient is penalised: the views are so close, or the volume is so thin, that neighbouring
        views overlap up to Nyquist, or no direction is missing.
    """

    def __init__(
        self, depth: int, width: int, tilt_angles_degrees: np.ndarray, thickness: float = 0.0,
        device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        angles = np.unique(np.asarray(tilt_angles_degrees, dtype=np.float64))
        shape = (depth, 1, width)
        missing = ~missing_wedge_mask(shape, float(angles[0]), float(angles[-1]))[:, 0]
        radius = frequency_radius(shape)[:, 0]
        step = float(np.median(np.diff(angles)))
        self.start = crowther_frequency(thickness or depth, step)
        rise = np.clip((radius - self.start) / (0.5 - min(self.start, LATEST_START)), 0.0, 1.0)
        weights = np.where(missing, rise, 0.0) if self.start < LATEST_START else np.zeros_like(radius)
        self.active = bool(weights.any())
        weights = weights * hermitian_weights(width)
        self._weights = torch.from_numpy((weights / max(weights.sum(), 1e-12)).astype(np.float32)).to(device)

    def __call__(self, volume: Tensor) -> Tensor:
        """The penalty of sections (z, y, x), any y."""
        coefficients = torch.fft.rfft2(volume.float(), dim=(0, 2), norm="ortho")
        # The magnitude has no gradient at 0, where many coefficients of an empty section are.
        magnitude = (coefficients.real.square() + coefficients.imag.square() + 1e-12).sqrt()
        return (magnitude * self._weights[:, None]).sum() / volume.shape[1]


def sparsity(volume: Tensor) -> Tensor:
    """Mean magnitude of the density: what is nothing but solvent should be at its level, which is 0."""
    return volume.abs().mean()


def total_variation(volume: Tensor, pairs: bool = False) -> Tensor:
    """Mean length of the gradient of the density (Rudin, Osher and Fatemi, 1992), smoothed at zero.

    Parameters
    ----------
    volume : Tensor (z, y, x)
        Sections need not be neighbours: without ``pairs`` only differences along z and x count.
    pairs
        Sections 2 i and 2 i + 1 are neighbours, and their difference counts too.
    """
    along_z = (volume[1:] - volume[:-1])[:, :, :-1]
    along_x = (volume[:, :, 1:] - volume[:, :, :-1])[:-1]
    squares = along_z.square() + along_x.square()
    if pairs:
        even = volume.shape[1] // 2 * 2
        along_y = (volume[:, 1:even:2] - volume[:, 0:even:2])[:-1, :, :-1]
        squares = squares[:, 0:even:2] + along_y.square()
    return ((squares + 1e-6).sqrt() - 1e-3).mean()


def mean_path(thickness: int, tilt_angles_degrees: np.ndarray) -> float:
    """Mean length of the rays through a slab, voxels; angles steeper than 80 degrees count as 80."""
    steep = np.minimum(np.abs(np.asarray(tilt_angles_degrees, dtype=np.float64)), 80.0)
    return float(np.mean(thickness / np.cos(np.radians(steep)))) if len(steep) else math.nan
