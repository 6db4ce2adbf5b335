"""NMSG's adversarial noise model, in three dimensions and starting from the measured spectrum.

The generator modulates the spectral model's draw and adds to it, and is made exactly odd in its random fields, so that
its mean and skewness are zero by construction; both parts start small, so that training begins at the spectral model.
Being fully convolutional it draws noise of any size without seams.  Background blocks hold some signal at low
frequency, so real and drawn noise are compared only above the frequency where noise dominates.

The generator published with NMSG (Yang et al. 2024) is two-dimensional and ends in a tanh that half of the values
cannot pass; it is not used here.
"""

from __future__ import annotations

import torch
from torch import nn

from ..nets.critics import NoiseCritic3d, gradient_penalty
from ..progress import Progress
from ..tiling import Shape
from ..training import Trainer, TrainingSettings
from .noise_model import Spectra, SpectralNoiseModel
from .noise_report import noise_band

#: Fewer independent blocks of real noise than this cannot teach a network what noise is.
MIN_BLOCKS = 24
STEPS = 300
BATCH = 8
CRITIC_STEPS = 2
PENALTY = 10.0


class NoiseGenerator(nn.Module):
    """Modulates a spectral draw and adds to it, as convolutional branches say that see it and white noise.

    With the branches B and M, and e the fields, the noise is ``exp(even(M)(white)) * spectral + odd(B)(e)``: the gain
    makes heavy tails and patches of more or less noise, the sum makes texture, and both change sign with e.  Both
    start at, or next to, zero.  Fields (batch, channels, z + 6, y + 6, x + 6) give noise (batch, 1, z, y, x).
    """

    #: Voxels that the three convolutions lose on each side.
    margin = 3

    def __init__(self, channels: int = 5, features: int = 16) -> None:
        super().__init__()
        self.channels = channels
        self.texture = _branch(channels, features, 0.0)
        # The shape of the distribution changes with the square of the modulation: from zero it would not be found.
        self.modulation = _branch(channels - 1, features, 0.05)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, fields: torch.Tensor, spectral: torch.Tensor) -> torch.Tensor:
        """``spectral`` (batch, 1, z, y, x) is the draw; it is also the first of ``fields``, with its surroundings."""
        odd = 0.5 * (self.texture(fields) - self.texture(-fields))
        white = fields[:, 1:]
        even = 0.5 * (self.modulation(white) + self.modulation(-white))
        return (self.gain + even).clamp(-3, 3).exp() * spectral + odd


def _branch(channels: int, features: int, start: float) -> nn.Sequential:
    last = nn.Conv3d(features, 1, 3)
    nn.init.normal_(last.weight, std=start)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(
        nn.Conv3d(channels, features, 3), nn.LeakyReLU(0.2), nn.Conv3d(features, features, 3), nn.LeakyReLU(0.2), last
    )


class AdversarialNoiseModel:
    """A trained generator as a noise model."""

    kind = "gan"

    def __init__(self, spectral: SpectralNoiseModel, generator: NoiseGenerator) -> None:
        self.spectral, self.network = spectral, generator

    def sample(self, shape: Shape, generator: torch.Generator, device: torch.device) -> torch.Tensor:
        """A fresh draw (z, y, x)."""
        with torch.no_grad():
            return draw(self.spectral, self.network, 1, shape, generator, device)[0, 0]


def draw(
    spectral: SpectralNoiseModel, network: NoiseGenerator, batch: int, shape: Shape, generator: torch.Generator,
    device: torch.device,
) -> torch.Tensor:  # fmt: skip
    """``batch`` draws (batch, 1, z, y, x)."""
    wide: Shape = tuple(edge + 2 * network.margin for edge in shape)  # type: ignore[assignment]
    inner = (slice(network.margin, -network.margin),) * 3
    coloured = torch.stack([spectral.sample(wide, generator, device) for _ in range(batch)])[:, None]
    # The branch sees the coloured field, on unit scale, besides white ones: what it adds can follow the noise itself.
    white = torch.randn((batch, network.channels - 1, *wide), generator=generator).to(device)
    fields = torch.cat([coloured / max(spectral.sd, 1e-6), white], 1)
    return network(fields, coloured[(slice(None), slice(None), *inner)])


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
        real = self._real(trainer.generator)
        spectrum = (self.critic.log_power(fake).mean(0) - self.critic.log_power(real).mean(0)).abs().mean()
        moments = (fake.var() - real.var()).abs() + (_kurtosis(fake) - _kurtosis(real)).abs()
        loss = 5 * spectrum + moments - self.critic(fake).mean()
        trainer.update("generator", loss)
        values = {"loss": loss, "distance": distance, "penalty": penalty, "spectrum": spectrum, "moments": moments}
        return {name: value.item() for name, value in values.items()}

    def _real(self, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(self.real), (BATCH,), generator=generator)
        flips = [axis + 1 for axis in range(3) if int(torch.randint(2, (), generator=generator))]
        return self._in_band(self.real[chosen].flip(flips).to(self.device)[:, None])

    def _fake(self, trainer: Trainer) -> torch.Tensor:
        drawn = draw(self.spectral, self.generator, BATCH, self.shape, trainer.generator, self.device)
        return self._in_band(drawn)

    def _in_band(self, cubes: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(cubes, dim=(2, 3, 4)) * self.band, s=self.shape, dim=(2, 3, 4))


def _kurtosis(cubes: torch.Tensor) -> torch.Tensor:
    return cubes.pow(4).mean() / cubes.square().mean().square() - 3


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
