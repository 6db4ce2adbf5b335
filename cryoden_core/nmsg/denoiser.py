"""Train a denoiser on the noisy tomogram alone, and apply it.

Recorrupted-to-recorrupted pairs (Pang et al., CVPR 2021): with y = x + n1 the tomogram and n a fresh draw of noise of
the same covariance, the input y + a n and the target y - n / a have independent noise, so that the squared error
between the network's output and the target is the supervised error plus a constant.  NMSG as published trains on
(y + n, y), which keeps half of the noise; this is the one change that makes its noise model count.

Where halves exist, half of the draws take the real noise (even - odd) / 2 of the crop in place of a synthetic one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..device import mixed_precision
from ..nets.unet3d import UNet3d
from ..spectrum import read_block
from ..tiling import BLEND, Shape, apply_tiled, choose_tile, shape_of, smallest_tile
from ..tomogram import HalfDifference
from ..training import Trainer, random_integer
from .guidance import Guidance
from .noise_model import NoiseLevel, NoiseModel
from .presets import Preset

#: Context that is computed around each inference tile.  The receptive radius is larger, but what lies beyond this
#: distance has next to no weight: tests/core/test_denoiser.py measures the difference.
HALO = 24


@dataclass
class TrainingVolume:
    """One tomogram to train on.

    ``data`` (z, y, x) may be a memory map; ``mean`` and ``sd`` standardise it; ``difference`` is the half difference
    when halves exist; ``centres`` (n, 3) are the voxels that crops may be centred on (None: anywhere).
    """

    data: np.ndarray
    mean: float
    sd: float
    noise: NoiseModel
    level: NoiseLevel
    guidance_sigma: float
    difference: HalfDifference | None = None
    centres: np.ndarray | None = None


class RecorruptedTask:
    """The training task of the denoiser; see the module's text."""

    name = "training the denoiser"

    def __init__(self, volumes: list[TrainingVolume], preset: Preset, device: torch.device, seed: int) -> None:
        torch.manual_seed(seed)
        self.volumes, self.preset, self.device = volumes, preset, device
        self.network = make_network(preset, device)
        self.networks: dict[str, nn.Module] = {"denoiser": self.network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "denoiser": torch.optim.AdamW(self.network.parameters(), preset.rate, betas=(0.9, 0.99), weight_decay=1e-4)
        }
        sigma = float(np.mean([volume.guidance_sigma for volume in volumes]))
        self.guidance = Guidance(sigma, 1.5 * sigma).to(device)
        smallest = [min(volume.data.shape[axis] for volume in volumes) for axis in range(3)]
        multiple = self.network.multiple
        self.crop: Shape = tuple(  # type: ignore[assignment]
            min(-(-preset.tile // multiple) * multiple, size // multiple * multiple) for size in smallest
        )

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One recorrupted pair, one descent."""
        noisy, noise = self._draw(trainer.generator)
        alpha = self._alpha(trainer.generator)
        with trainer.autocast():
            output = self.network(_channels_last(noisy + alpha * noise))
        output = output.float()
        recovery = (output - (noisy - noise / alpha)).square().mean()
        loss, values = recovery, {"recovery": recovery}
        fade = max(0.0, 1 - 2 * step / trainer.settings.steps)
        if fade > 0 and (self.preset.guidance_weight or self.preset.sparsity_weight):
            guide, sparsity = self.guidance(output, noisy)
            loss = loss + fade * (self.preset.guidance_weight * guide + self.preset.sparsity_weight * sparsity)
            values.update(guidance=guide, sparsity=sparsity)
        trainer.update("denoiser", loss)
        # The recovery loss holds the target's noise; without it, it estimates the error against the truth.
        expected = recovery - (1 + 1 / alpha**2) * noise.square().mean()
        return {"loss": loss.item(), "error_estimate": expected.item(), **{k: v.item() for k, v in values.items()}}

    def _alpha(self, generator: torch.Generator) -> float:
        """The preset's strength; where halves exist up to 1, so that the network also fits the noise of one half.

        Noise that is not Gaussian asks for 1: only then are true and drawn noise exchangeable in the network's input,
        and what it cannot tell apart cancels in the target.
        """
        if any(volume.noise.kind == "gan" for volume in self.volumes):
            return 1.0
        if all(volume.difference is None for volume in self.volumes):
            return self.preset.alpha
        return self.preset.alpha + (1 - self.preset.alpha) * float(torch.rand((), generator=generator))

    def _draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops and noise, both (batch, 1, z, y, x) on the device."""
        crops, noises = [], []
        for _ in range(self.preset.batch):
            volume = self.volumes[random_integer(generator, len(self.volumes))]
            corner = self._corner(volume, generator)
            flips = [axis for axis in range(3) if random_integer(generator, 2)]
            crop = (read_block(volume.data, corner, self.crop) - volume.mean) / volume.sd
            if volume.difference is not None and random_integer(generator, 2):
                sign = 2 * random_integer(generator, 2) - 1
                noise = read_block(volume.difference, corner, self.crop) * (sign / volume.sd)
                noise = noise.to(self.device)
            else:
                noise = volume.noise.sample(self.crop, generator, self.device)
                level = volume.level.crop(tuple(corner), self.crop)
                noise = noise * (level.to(self.device) if isinstance(level, torch.Tensor) else level)
            # Flips keep the missing wedge and the noise law; turns by 90 degrees would not.
            crops.append(crop.to(self.device).flip(flips))
            noises.append(noise.flip(flips))
        return torch.stack(crops)[:, None], torch.stack(noises)[:, None]

    def _corner(self, volume: TrainingVolume, generator: torch.Generator) -> np.ndarray:
        room = np.array(volume.data.shape) - np.array(self.crop)
        if volume.centres is not None:
            centre = volume.centres[random_integer(generator, len(volume.centres))]
            return np.clip(centre - np.array(self.crop) // 2, 0, room)
        return np.array([random_integer(generator, int(r) + 1) for r in room])


def _channels_last(batch: torch.Tensor) -> torch.Tensor:
    return batch.contiguous(memory_format=torch.channels_last_3d)


def make_network(preset: Preset, device: torch.device) -> UNet3d:
    """The U-Net of a preset, in the memory layout that is fastest (measured 1.1 to 1.5 times on CPU in bfloat16)."""
    network = UNet3d(1, 1, preset.features, preset.depth, preset.base_kernel)
    return network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def mirrored_average(network: Callable[[torch.Tensor], torch.Tensor], data: torch.Tensor, flips: int) -> torch.Tensor:
    """Mean of the network's results on mirrored copies of ``data`` (z, y, x), each mirrored back."""
    total = torch.zeros_like(data)
    for index in range(flips):
        axes = [axis for axis in range(3) if index >> axis & 1]
        total += network(data.flip(axes)).flip(axes)
    return total / flips


@torch.no_grad()
def denoise_volume(
    network: UNet3d,
    volume: np.ndarray,
    output: np.ndarray,
    mean: float,
    sd: float,
    *,
    device: torch.device,
    flips: int = 1,
    strength: float = 1.0,
    tile: int = 0,
    precision: bool = True,
    on_tiles: Callable[[int], None] | None = None,
    on_tile: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Fill ``output`` (float32 zeros) with the denoised ``volume`` on its own grey scale.

    ``strength`` blends the denoised volume (1) with the input (0).
    """
    network.eval()
    features = network.architecture["features"]
    shape = shape_of(volume)
    if tile:
        # What is a good edge for training may be too small for the context that inference needs.
        edge = max(tile, smallest_tile(HALO, BLEND, network.multiple))
        edges: Shape = (min(edge, shape[0]), min(edge, shape[1]), min(edge, shape[2]))
    else:
        # Four tensors of the first level's width live at once, in the worst case in float32.
        edges = choose_tile(shape, 4 * 4 * features + 64, device, features, HALO, network.multiple)

    def run(data: torch.Tensor) -> torch.Tensor:
        with mixed_precision(device, precision):
            return network(_channels_last(data[None, None]))[0, 0].float()

    def apply(data: torch.Tensor) -> torch.Tensor:
        denoised = mirrored_average(run, (data - mean) / sd, flips) * sd + mean
        return strength * denoised + (1 - strength) * data if strength < 1 else denoised

    apply_tiled(
        apply, volume, output, edges, halo=HALO, multiple=network.multiple, device=device,
        on_tiles=on_tiles, on_tile=on_tile, warn=warn,
    )  # fmt: skip
