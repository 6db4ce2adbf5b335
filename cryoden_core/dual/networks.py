"""The six networks of DUAL, as far as they are its own: noise encoder and decoder, simulator, two-headed critics.

Zeng et al. (2024), bioRxiv 2024.03.02.583135.  The denoiser Dn maps noisy to clean; the simulator Gs maps clean plus
unstructured noise to noisy; the encoder E finds the noise code of a noisy volume, and the decoder Gn makes noise of a
code.  The paper does not give the architectures: the U-Nets are :class:`~cryoden_core.nets.unet3d.UNet3d`, and the code
is either a ``vector`` for each crop, as the paper reads, or a ``map`` with one code for each 2 x 2 x 2 voxels, which
can hold the noise of every voxel.  A vector cannot, and then noise is hidden in the denoised volume instead.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..nets.critics import PatchCritic3d, SpectralCritic3d
from ..nets.unet3d import UNet3d
from ..tiling import Shape
from .transfer import Transfer

#: Edge of the blocks in which whole volumes of noise are permuted, so that memory stays bounded.
PERMUTED_BLOCK = 64
#: Standard deviations of noise for one of the clean volume when training begins without measured filters: tomograms
#: are about that noisy.
NOISE_AT_START = 3.0


@dataclass(frozen=True)
class Architecture:
    """What is needed to build Dn, Gs, Gn and E again.

    ``features``, ``depth`` and ``norm`` are those of the U-Nets; ``code`` is map or vector, ``code_channels`` its
    length K; ``patch`` is the edge of the training crops, which fixes the size of a vector code's networks;
    ``transfer`` says that the simulator begins with filters that were measured.
    """

    features: int = 32
    depth: int = 3
    norm: str = "none"
    code: str = "map"
    code_channels: int = 8
    patch: int = 32
    transfer: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


class Simulator(nn.Module):
    """Gs: clean and noise (batch, 1, z, y, x) -> noisy, as what a U-Net adds to a linear mixture of the two.

    The mixture is H * clean + N * noise with measured filters (see :mod:`cryoden_core.dual.transfer`), or, as in the
    paper, a gain times the sum; the gain makes its spread with that of the clean volume 1.  So noise passes from the
    first step on, which gives the critics something to compare.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.network = _unet(architecture)
        self.transfer = Transfer() if architecture.transfer else None
        self.gain = nn.Parameter(torch.tensor(1.0 if architecture.transfer else (1 + NOISE_AT_START**2) ** -0.5))

    def forward(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Sizes must be multiples of the U-Net's stride."""
        return self.refine(self.mix(clean, noise))

    def mix(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The linear mixture, without the gain."""
        signal, coloured = self.parts(clean, noise)
        return signal + coloured

    def parts(self, clean: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the mixture is the sum of: the clean volume and the noise, each under its filter."""
        return (clean, noise) if self.transfer is None else self.transfer(clean, noise)

    def refine(self, mixture: torch.Tensor) -> torch.Tensor:
        """The noisy volume of a mixture."""
        return self.gain * mixture + self.network(mixture)

    @property
    def multiple(self) -> int:
        """Sizes of the input must be multiples of this."""
        return self.network.multiple


class MapEncoder(nn.Module):
    """E with a map: volumes (batch, 1, z, y, x) -> codes (batch, K, z / 2, y / 2, x / 2); even sizes."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, 2 * width, 2, stride=2), nn.LeakyReLU(0.1),
            nn.Conv3d(2 * width, 2 * width, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv3d(2 * width, channels, 1),
        )  # fmt: skip

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """The code of each position."""
        return self.body(volume)


class MapDecoder(nn.Module):
    """Gn with a map: codes (batch, K, z, y, x) -> noise (batch, 1, 2 z, 2 y, 2 x).

    Eight channels at half resolution become the eight voxels of a block, so that each voxel can have its own value.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, 2 * width, 3, padding=1), nn.LeakyReLU(0.1),
            nn.Conv3d(2 * width, 8, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Noise; without a bias at the end, as an offset would be structure."""
        blocks = self.body(code)
        batch, _, z, y, x = blocks.shape
        voxels = blocks.reshape(batch, 2, 2, 2, z, y, x).permute(0, 4, 1, 5, 2, 6, 3)
        return voxels.reshape(batch, 1, 2 * z, 2 * y, 2 * x)


class VectorEncoder(nn.Module):
    """E with a vector: crops (batch, 1, patch, patch, patch) -> codes (batch, K)."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 1
        for level in range(int(math.log2(patch // 4))):
            layers += [nn.Conv3d(previous, width * 2**level, 4, 2, padding=1), nn.LeakyReLU(0.1)]
            previous = width * 2**level
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(previous * 64, channels))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """The code of each crop."""
        return self.body(volume)


class VectorDecoder(nn.Module):
    """Gn with a vector: codes (batch, K) -> noise (batch, 1, patch, patch, patch)."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__()
        levels = int(math.log2(patch // 4))
        self.start = width * 2 ** (levels - 1)
        self.linear = nn.Linear(channels, self.start * 64)
        widths = [self.start // 2**level for level in range(levels)] + [width]
        self.levels = nn.ModuleList(
            nn.Conv3d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)
        )
        self.last = nn.Conv3d(widths[-1], 1, 3, padding=1, bias=False)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Noise of the training crop's size."""
        volume = functional.leaky_relu(self.linear(code).reshape(-1, self.start, 4, 4, 4), 0.1)
        for layer in self.levels:
            volume = functional.leaky_relu(layer(functional.interpolate(volume, scale_factor=2)), 0.1)
        return self.last(volume)


class TwoHeadedCritic(nn.Module):
    """Dt or Dv: what a volume looks like, and what its spectrum looks like.

    Returns the scores of the two heads; each is to be averaged on its own.
    """

    def __init__(self, patch: int, features: int = 64, mean_free: bool = True, normalised: bool = True) -> None:
        super().__init__()
        self.spatial = PatchCritic3d(features, normalised)
        self.spectral = SpectralCritic3d(patch, max(8, features // 2), mean_free, normalised)

    def forward(self, cubes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of cubes (batch, 1, n, n, n): spatial (batch, 1, n/4, n/4, n/4) and spectral (batch, 1)."""
        return self.spatial(cubes), self.spectral(cubes)


def build_networks(architecture: Architecture) -> dict[str, nn.Module]:
    """Dn, Gs, Gn and E with orthogonal random weights, by the names ``denoiser``, ``simulator``, ``noise_decoder`` and
    ``encoder``."""
    width, channels = architecture.features, architecture.code_channels
    denoiser, simulator = _unet(architecture), Simulator(architecture)
    encoder: nn.Module
    decoder: nn.Module
    if architecture.code == "map":
        encoder, decoder = MapEncoder(width, channels), MapDecoder(width, channels)
    else:
        encoder = VectorEncoder(width, channels, architecture.patch)
        decoder = VectorDecoder(width, channels, architecture.patch)
    networks = {"denoiser": denoiser, "simulator": simulator, "noise_decoder": decoder, "encoder": encoder}
    for network in networks.values():
        start_orthogonal(network)
    # Small at first: the simulator begins as its mixture, the denoiser near the mean of everything.
    for last, gain in ((simulator.network.last, 0.0 if architecture.transfer else 0.3), (denoiser.last, 0.5)):
        nn.init.orthogonal_(last.weight, gain)
    _set_noise(decoder, architecture)
    return networks


@torch.no_grad()
def _set_noise(decoder: nn.Module, architecture: Architecture) -> None:
    """Scale the decoder's last layer such that its noise has the spread that the simulator's mixture expects."""
    edge = architecture.patch
    noise = decoder(torch.randn(code_shape(architecture, 8, (edge, edge, edge))))
    last = [layer for layer in decoder.modules() if isinstance(layer, nn.Conv3d)][-1]
    last.weight *= (1.0 if architecture.transfer else NOISE_AT_START) / noise.std()


def start_orthogonal(network: nn.Module) -> None:
    """Orthogonal weights, no offsets; before any change of the memory layout, which the library's function refuses."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.Linear):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def permute_voxels(volumes: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Shuffle the voxels of each sample (batch, 1, z, y, x) on its own; gradients go back to where values came from."""
    flat = volumes.flatten(1)
    order = torch.rand(flat.shape, generator=generator).to(flat.device).argsort(1)
    return flat.gather(1, order).view_as(volumes)


def unstructured_noise(
    decoder: nn.Module, code: torch.Tensor, architecture: Architecture, generator: torch.Generator | None = None
) -> torch.Tensor:
    """P Gn(z) of codes z; with spread 1 where the simulator has measured filters, of which N says how strong noise is.

    Left to itself the decoder makes it weaker: it is trained to make again what a code holds of a tomogram's noise, and
    what it does not hold is best guessed as 0.
    """
    noise = permute_voxels(decoder(code), generator)
    return noise / noise.float().std().clamp_min(1e-6) if architecture.transfer else noise


def code_shape(architecture: Architecture, batch: int, crop: Shape) -> tuple[int, ...]:
    """Shape of the codes of a batch of crops (z, y, x)."""
    if architecture.code == "vector":
        return batch, architecture.code_channels
    return batch, architecture.code_channels, *(edge // 2 for edge in crop)


@torch.no_grad()
def draw_noise(
    decoder: nn.Module, architecture: Architecture, shape: Shape, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """A volume (z, y, x) of unstructured noise P Gn(z), of any size, made and permuted in blocks."""
    edge = architecture.patch if architecture.code == "vector" else PERMUTED_BLOCK
    noise = torch.empty(shape, device=device)
    for z in range(0, shape[0], edge):
        for y in range(0, shape[1], edge):
            for x in range(0, shape[2], edge):
                code = torch.randn(code_shape(architecture, 1, (edge, edge, edge)), generator=generator)
                block = unstructured_noise(decoder, code.to(device), architecture, generator).float()[0, 0]
                target = noise[z : z + edge, y : y + edge, x : x + edge]
                target.copy_(block[: target.shape[0], : target.shape[1], : target.shape[2]])
    return noise


def _unet(architecture: Architecture) -> UNet3d:
    widest = architecture.features * 2**architecture.depth
    return UNet3d(
        1, 1, architecture.features, architecture.depth, max_features=widest, norm=architecture.norm, pooling="average"
    )
