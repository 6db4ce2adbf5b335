"""Guidance and sparsity terms of NMSG's loss.

The guidance volume is a Gaussian-filtered copy of the tomogram that the denoised volume must not stray from, and the
sparsity term asks for the gradient magnitude of an over-smoothed copy (Yang et al. 2024, figure 1 and the published
code).  Both are a safety net for a noise model that is off: with a right one they are not needed, so their weights are
small and fall to zero over the second half of the training.

Differences from the published code, which :class:`SparsityExtractor` can still reproduce (``axes="xy"``,
``normalise=False``): the gradient has a z part, and unit white noise gives a response of 1, so that a weight means the
same at any kernel size; all volumes share one standardisation, which keeps the grey scale.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def gaussian_kernel(sigma: float) -> torch.Tensor:
    """Normalised Gaussian line of width ``1 + 2 * ceil(3 * sigma)``."""
    radius = max(1, int(3 * sigma + 0.999))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    return line / line.sum()


def smooth(volumes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian filter of ``volumes`` (batch, 1, z, y, x), mirrored at the borders where they are wide enough."""
    line = gaussian_kernel(sigma).to(volumes)
    radius = len(line) // 2
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(line)
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        mode = "reflect" if volumes.shape[2 + axis] > radius else "replicate"
        volumes = functional.conv3d(functional.pad(volumes, pad, mode=mode), line.reshape(shape))
    return volumes


class SparsityExtractor(nn.Module):
    """Gradient magnitude |Gx| + |Gy| (+ |Gz|) of volumes (batch, 1, z, y, x), without padding.

    Each kernel is a Sobel kernel in its plane repeated over the three planes across it, as in the published code:
    a ramp of slope ``a`` along x gives ``24 * |a|`` before normalisation.

    Parameters
    ----------
    axes
        ``"xy"`` as published, or ``"xyz"``.
    normalise
        Divide by the RMS response to unit white noise.
    """

    def __init__(self, axes: str = "xyz", normalise: bool = True) -> None:
        super().__init__()
        difference, binomial, box = torch.tensor([-1.0, 0, 1]), torch.tensor([1.0, 2, 1]), torch.ones(3)
        kernels = [
            torch.einsum("i,j,k->ijk", box, binomial, difference),
            torch.einsum("i,j,k->ijk", box, difference, binomial),
        ]
        if axes == "xyz":
            kernels.append(torch.einsum("i,j,k->ijk", difference, box, binomial))
        elif axes != "xy":
            raise ValueError(f"axes must be 'xy' or 'xyz', not {axes!r}")
        weight = torch.stack(kernels)[:, None]
        if normalise:
            weight = weight / _response_to_white_noise(weight)
        self.register_buffer("weight", weight)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """(batch, 1, z, y, x) -> (batch, 1, z - 2, y - 2, x - 2)."""
        return functional.conv3d(volumes, self.weight).abs().sum(1, keepdim=True)  # type: ignore[arg-type]


def _response_to_white_noise(weight: torch.Tensor) -> float:
    """RMS of the sum of absolute values of Gaussian responses with the kernels' covariance."""
    flat = weight.flatten(1)
    covariance = flat @ flat.T
    deviations = covariance.diagonal().sqrt()
    correlation = (covariance / torch.outer(deviations, deviations)).clamp(-1, 1)
    # E|a||b| of two Gaussians of correlation r is 2/pi (sqrt(1 - r^2) + r asin r).
    product = 2 / torch.pi * ((1 - correlation**2).sqrt() + correlation * torch.asin(correlation))
    mean_square = (torch.outer(deviations, deviations) * product).sum()
    return float(mean_square.sqrt())


class Guidance(nn.Module):
    """The two terms together.

    Parameters
    ----------
    guidance_sigma, sparsity_sigma
        Widths of the Gaussian filters that make the guidance and the over-smoothed volume, in voxels.
    """

    def __init__(self, guidance_sigma: float, sparsity_sigma: float) -> None:
        super().__init__()
        self.guidance_sigma, self.sparsity_sigma = guidance_sigma, sparsity_sigma
        self.sparsity = SparsityExtractor()

    def forward(self, output: torch.Tensor, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Guidance and sparsity losses of ``output`` for the raw crops ``noisy``, both (batch, 1, z, y, x)."""
        with torch.no_grad():
            guide = smooth(noisy, self.guidance_sigma)
            edges = self.sparsity(smooth(noisy, self.sparsity_sigma))
            # Gradients below the median of the over-smoothed volume are noise: there the target is zero, which is
            # what makes the term ask for sparse edges.
            floor = edges.median()
            edges = torch.where(edges > floor, edges, torch.zeros_like(edges))
        return (output - guide).square().mean(), (self.sparsity(output) - edges).abs().mean()
