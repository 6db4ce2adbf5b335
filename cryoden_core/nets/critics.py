"""Critics: networks that score how real a volume looks (Wasserstein GAN with gradient penalty).

Gulrajani et al. (2017).  No normalisation layers, so that the score of one sample does not depend on the others, and
the gradient's norm is taken over a whole sample (the code published with NMSG takes it voxel by voxel).
"""

from __future__ import annotations

import torch
from torch import nn


class NoiseCritic3d(nn.Module):
    """Score (batch,) of cubes (batch, 1, z, y, x): a convolutional head, and one on the log power by shell.

    Parameters
    ----------
    features
        Channels of the first layer; they double twice.
    shells
        Number of frequency shells that the second head looks at.
    """

    def __init__(self, features: int = 24, shells: int = 12) -> None:
        super().__init__()
        self.shells = shells
        layers: list[nn.Module] = []
        previous = 1
        for width in (features, 2 * features, 4 * features):
            layers += [nn.Conv3d(previous, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            previous = width
        self.body = nn.Sequential(*layers)
        self.score = nn.Linear(previous, 1)
        self.spectral = nn.Sequential(nn.Linear(shells, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def forward(self, cubes: torch.Tensor) -> torch.Tensor:
        """Higher is more real."""
        features = self.body(cubes).mean(dim=(2, 3, 4))
        return (self.score(features) + self.spectral(self.log_power(cubes)))[:, 0]

    def log_power(self, cubes: torch.Tensor) -> torch.Tensor:
        """Logarithm of the mean power in each shell (batch, shells), in float32."""
        volumes = cubes[:, 0].float()
        power = torch.fft.rfftn(volumes, dim=(1, 2, 3)).abs().square() / volumes[0].numel()
        kz, ky = (torch.fft.fftfreq(n, device=cubes.device) for n in volumes.shape[1:3])
        kx = torch.fft.rfftfreq(volumes.shape[3], device=cubes.device)
        radius = (kz[:, None, None] ** 2 + ky[None, :, None] ** 2 + kx[None, None, :] ** 2).sqrt()
        index = (radius * 2 * self.shells).long().clamp(max=self.shells - 1).flatten()
        counts = torch.bincount(index, minlength=self.shells)
        sums = power.new_zeros(len(volumes), self.shells).index_add(1, index, power.flatten(1))
        return (sums / counts.clamp_min(1) + 1e-4).log()


def gradient_penalty(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Mean squared deviation from 1 of the gradient's norm, over all dimensions of each sample.

    ``share`` (batch, 1, 1, 1, 1) in 0..1 places the samples between ``real`` and ``fake``.
    """
    between = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
