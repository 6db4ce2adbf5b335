"""NMSG's adversarial noise model, in three dimensions and starting from the measured spectrum.

The generator decides how strong the white noise is at each voxel, before the measured spectrum is given to it.  It can
make heavy tails and patches, but it cannot spoil mean, skewness or spectrum; it starts next to an even strength, which
is the spectral model.  Being fully convolutional it draws noise of any size without seams.  Background blocks hold some
signal at low frequency, so real and drawn noise are compared only above the frequency where noise dominates.

The generator published with NMSG (Yang et al. 2024) is two-dimensional and ends in a tanh that half of the values
cannot pass; it is not used here.
"""

from __future__ import annotations

import torch
from torch import nn

from ..nets.critics import NoiseCritic3d, gradient_penalty
from ..noise_spectrum import Spectra
from ..progress import Progress
from ..tiling import Shape
from ..training import Trainer, TrainingSettings
from .noise_model import SpectralNoiseModel, excess_kurtosis
from .noise_report import noise_band

#: Fewer independent blocks of real noise than this cannot teach a network what noise is.
MIN_BLOCKS = 24
STEPS = 200
BATCH = 8
CRITIC_STEPS = 2
PENALTY = 10.0


class NoiseGenerator(nn.Module):
    """White noise whose strength changes from voxel to voxel, as a convolutional branch says that sees other fields.

    With the branch M, the noise is ``white * exp(M(others))`` brought to unit variance.  The strength makes heavy tails
    and patches of more or less noise.  It does not depend on the sign of ``white``, so that whatever the weights are,
    the noise stays white, and mean and skewness zero: coloured, it has the measured spectrum.  Convolutions are
    periodic, as the colouring is.

    Parameters
    ----------
    channels
        Number of fields that the branch sees.
    features
        Width of the branch.
    """

    def __init__(self, channels: int = 3, features: int = 12) -> None:
        super().__init__()
        self.channels = channels
        self.modulation = nn.Sequential(
            _convolution(channels, features), nn.LeakyReLU(0.2), _convolution(features, features), nn.LeakyReLU(0.2),
            _convolution(features, 1),
        )  # fmt: skip
        # The distribution changes with the square of the modulation: from zero it would not be found.
        nn.init.normal_(self.modulation[-1].weight, std=0.05)  # type: ignore[arg-type]

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """Unit white noise (batch, 1, z, y, x) from independent fields (batch, 1 + channels, z, y, x)."""
        strength = self.modulation(fields[:, 1:]).clamp(-4, 4).exp()
        return fields[:, :1] * strength / strength.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()


def _convolution(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, 3, padding=1, padding_mode="circular")


class AdversarialNoiseModel:
    """A trained generator as a noise model."""

    kind = "gan"

    def __init__(self, spectral: SpectralNoiseModel, generator: NoiseGenerator) -> None:
        self.spectral, self.network = spectral, generator

    def sample(self, shape: Shape, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """A fresh draw (z, y, x)."""
        with torch.no_grad():
            noise = draw(self.spectral, self.network, self.spectral.wide(shape), generator, device)
        return noise[: shape[0], : shape[1], : shape[2]]


def draw(
    spectral: SpectralNoiseModel, network: NoiseGenerator, shape: Shape, generator: torch.Generator,
    device: torch.device,
) -> torch.Tensor:  # fmt: skip
    """One periodic draw (z, y, x)."""
    fields = torch.randn((1, 1 + network.channels, *shape), generator=generator).to(device)
    return spectral.colour(network(fields))[0, 0]


class NoiseTask:
    """The adversarial training task."""

    name = "training the noise model"

    def __init__(
        self, spectral: SpectralNoiseModel, blocks: list[torch.Tensor], spectra: Spectra, device: torch.device
    ) -> None:
        self.spectral, self.device = spectral, device
        self.shape: Shape = tuple(edge // 8 * 8 for edge in blocks[0].shape)  # type: ignore[assignment]
        self.band = noise_band(spectra, self.shape).to(device)
        self.real = torch.stack([block[: self.shape[0], : self.shape[1], : self.shape[2]] for block in blocks])
        self.kurtosis = excess_kurtosis(self._in_band(self.real.to(device)))
        self.generator, self.critic = NoiseGenerator().to(device), NoiseCritic3d().to(device)
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "critic": self.critic}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), rate, betas=(0.0, 0.9))
            for (name, network), rate in zip(self.networks.items(), (2e-3, 5e-4), strict=True)
        }

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """Two steps of the critic and one of the generator."""
        for _ in range(CRITIC_STEPS):
            real = self._real(trainer.generator)
            with torch.no_grad():
                fake = self._fake(trainer)
            distance = self.critic(real).mean() - self.critic(fake).mean()
            share = torch.rand((len(real), 1, 1, 1, 1), generator=trainer.generator).to(self.device)
            penalty = gradient_penalty(self.critic, real, fake, share)
            trainer.update("critic", PENALTY * penalty - distance)
        fake = self._fake(trainer)
        tails = (excess_kurtosis(fake) - self.kurtosis).abs().float()
        loss = tails - self.critic(fake).mean()
        trainer.update("generator", loss)
        values = {"loss": loss, "distance": distance, "penalty": penalty, "tails": tails}
        return {name: value.item() for name, value in values.items()}

    def _real(self, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(self.real), (BATCH,), generator=generator)
        flips = [axis + 1 for axis in range(3) if int(torch.randint(2, (), generator=generator))]
        return self._in_band(self.real[chosen].flip(flips).to(self.device)[:, None])

    def _fake(self, trainer: Trainer) -> torch.Tensor:
        # Disjoint cubes of one draw: it is larger than they are, and must not be thrown away.
        wide = self.spectral.wide(self.shape)
        cubes: list[torch.Tensor] = []
        while len(cubes) < BATCH:
            noise = draw(self.spectral, self.generator, wide, trainer.generator, self.device)
            for axis, edge in enumerate(self.shape):
                noise = noise.unfold(axis, edge, edge)
            cubes += noise.reshape(-1, *self.shape).unbind()
        return self._in_band(torch.stack(cubes[:BATCH])[:, None])

    def _in_band(self, cubes: torch.Tensor) -> torch.Tensor:
        transform = torch.fft.rfftn(cubes, dim=(-3, -2, -1)) * self.band
        return torch.fft.irfftn(transform, s=self.shape, dim=(-3, -2, -1))


def fit(
    spectral: SpectralNoiseModel, blocks: list[torch.Tensor], spectra: Spectra, seed: int, device: torch.device,
    progress: Progress, checkpoint: str = "", resume: bool = False, steps: int = STEPS,
) -> AdversarialNoiseModel:  # fmt: skip
    """Train the generator on ``blocks`` of real noise (standardised, all of one shape)."""
    torch.manual_seed(seed)
    task = NoiseTask(spectral, blocks, spectra, device)
    settings = TrainingSettings(steps, final_rate=0.1, ema_decay=0.98, precision=False)
    # The checkpoint belongs to these very blocks.
    fingerprint = f"noise {seed} {steps} {len(blocks)} {float(blocks[0].sum()):.6g}"
    trainer = Trainer(task, settings, device, seed, progress, checkpoint, fingerprint)
    trainer.fit(resume)
    trainer.use_averages()
    return AdversarialNoiseModel(spectral, task.generator)
