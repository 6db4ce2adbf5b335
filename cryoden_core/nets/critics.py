"""Critics: networks that score how real a volume looks.

:class:`NoiseCritic3d` is that of a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017); the gradient's norm
is taken over a whole sample (the code published with NMSG takes it voxel by voxel). :class:`PatchCritic3d` scores
patches (Isola et al. 2017) and :class:`SpectralCritic3d` the logarithm of the three-dimensional spectrum, in which the
missing wedge and the colour of the noise have their places. No normalisation layers, so that the score of one sample
does not depend on the others; spectral normalisation of the weights (Miyato et al. 2018) does not either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ..fourier import band_index


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
        shell = torch.from_numpy(band_index(volumes.shape[1:], self.shells)).to(cubes.device)
        index = shell.clamp(max=self.shells - 1).flatten()
        counts = torch.bincount(index, minlength=self.shells)
        sums = power.new_zeros(len(volumes), self.shells).index_add(1, index, power.flatten(1))
        return (sums / counts.clamp_min(1) + 1e-4).log()


class PatchCritic3d(nn.Module):
    """A score for each patch: cubes (batch, 1, z, y, x) -> (batch, 1, z / 4, y / 4, x / 4).

    Parameters
    ----------
    features
        Channels of the first layer; they double twice.
    normalised
        Bound each layer's gain by spectral normalisation.
    """

    def __init__(self, features: int = 64, normalised: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 1
        for level, (kernel, stride) in enumerate(((4, 2), (4, 2), (3, 1))):
            width = features * 2**level
            layers += [nn.Conv3d(previous, width, kernel, stride, padding=1), nn.LeakyReLU(0.2)]
            previous = width
        layers.append(nn.Conv3d(previous, 1, 1))
        self.body = _bounded(nn.Sequential(*layers), normalised)

    def forward(self, cubes: torch.Tensor) -> torch.Tensor:
        """Higher is more real."""
        return self.body(cubes)


class SpectralCritic3d(nn.Module):
    """One score (batch, 1) of cubes (batch, 1, edge, edge, edge) from their log spectra.

    Each frequency is standardised with the mean and spread that real cubes have there (:meth:`measure`), and the
    coordinates of the frequency are given as channels: convolutions do not know where they are, but the missing wedge
    and the fall of the spectrum are defined by place.

    Parameters
    ----------
    edge
        Of the cubes, voxels; larger cubes (twice, four times) are compared at this number of frequencies.
    features
        Channels of the first layer; they double at each.
    mean_free
        Leave out the level of each spectrum, which is for the other critic.
    normalised
        Bound each layer's gain by spectral normalisation.
    """

    def __init__(self, edge: int, features: int = 32, mean_free: bool = True, normalised: bool = True) -> None:
        super().__init__()
        self.edge, self.mean_free = edge, mean_free
        self.centre: torch.Tensor
        self.spread: torch.Tensor
        self.place: torch.Tensor
        shape = (edge, edge, edge // 2)
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(shape))
        k = torch.arange(-(edge // 2), edge // 2) / edge
        kz, ky, kx = torch.meshgrid(k, k, torch.arange(edge // 2) / edge, indexing="ij")
        self.register_buffer("place", torch.stack([kz, ky, kx, (kz**2 + ky**2 + kx**2).sqrt()])[None] * 2, False)
        layers: list[nn.Module] = []
        previous, width = 5, features
        for _ in range(int(math.log2(edge // 4))):
            layers += [nn.Conv3d(previous, width, 4, 2, padding=1), nn.LeakyReLU(0.2)]
            previous, width = width, 2 * width
        layers += [nn.Flatten(), nn.Linear(previous * 4 * 4 * 2, 1)]
        self.body = _bounded(nn.Sequential(*layers), normalised)

    @torch.no_grad()
    def measure(self, batches: Iterable[torch.Tensor]) -> None:
        """Fix mean and spread of each frequency from batches of real cubes, of the size that is to be scored next."""
        spectra = torch.cat([self._spectrum(cubes) for cubes in batches])
        self.centre.copy_(spectra.mean(dim=(0, 1)))
        self.spread.copy_(spectra.std(dim=(0, 1)) + 0.05)

    def forward(self, cubes: torch.Tensor) -> torch.Tensor:
        """Higher is more real."""
        spectrum = self.standardised(cubes)
        return self.body(torch.cat([spectrum, self.place.expand(len(cubes), -1, -1, -1, -1)], 1))

    def standardised(self, cubes: torch.Tensor) -> torch.Tensor:
        """Log spectra (batch, 1, edge, edge, edge / 2) in units of the real ones' spread about their mean."""
        return (self._spectrum(cubes) - self.centre) / self.spread

    def _spectrum(self, cubes: torch.Tensor) -> torch.Tensor:
        spectrum = log_spectrum(cubes, self.mean_free)
        factor = cubes.shape[-1] // self.edge
        return functional.avg_pool3d(spectrum, factor) if factor > 1 else spectrum


def log_spectrum(cubes: torch.Tensor, mean_free: bool = False, smallest: float = 1e-3) -> torch.Tensor:
    """Logarithm of the amplitudes of cubes under a Hann window, always in float32.

    Parameters
    ----------
    cubes
        (batch, 1, z, y, x), even edges.  Without the window the faces would draw a cross that hides the wedge.
    mean_free
        Subtract each cube's mean over all frequencies.
    smallest
        Added to the amplitudes, which are those of an orthonormal transform.

    Returns
    -------
    torch.Tensor
        (batch, 1, z, y, x / 2): zero frequency at (z / 2, y / 2, 0), the last plane along x left out.
    """
    with torch.autocast(cubes.device.type, enabled=False):
        values = cubes.float()
        for axis in (-3, -2, -1):
            size = values.shape[axis]
            window = torch.hann_window(size, periodic=False, device=values.device)
            values = values * window.reshape([-1 if a == axis else 1 for a in (-3, -2, -1)])
        transform = torch.fft.rfftn(values, dim=(-3, -2, -1), norm="ortho")[..., :-1]
        # The modulus has no gradient at zero, where constant cubes have all of their frequencies.
        amplitude = (transform.real.square() + transform.imag.square() + smallest**2).sqrt()
        spectrum = torch.fft.fftshift((amplitude + smallest).log(), dim=(-3, -2))
        return spectrum - spectrum.mean(dim=(-3, -2, -1), keepdim=True) if mean_free else spectrum


def _bounded(layers: nn.Sequential, normalised: bool) -> nn.Sequential:
    """Orthogonal start and, if asked for, spectral normalisation of every layer."""
    for layer in layers:
        if isinstance(layer, nn.Conv3d | nn.Linear):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            if normalised:
                spectral_norm(layer)
    return layers


def gradient_penalty(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Mean squared deviation from 1 of the gradient's norm, over all dimensions of each sample.

    ``share`` (batch, 1, 1, 1, 1) in 0..1 places the samples between ``real`` and ``fake``.
    """
    between = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
