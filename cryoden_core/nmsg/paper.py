"""The published NMSG recipe, kept to the letter for comparison.

Nearest up-sampling by two in y and x; each of the four volumes standardised by its own mean and deviation; one stored
synthetic noisy volume y + n; the loss MSE(f(y + n), y) + 0.05 MSE(S f, S s) + 0.5 MSE(f, g) with the raw Sobel kernels;
Adagrad, constant rate, float32, 40 epochs over 0.8 of the tiles; the network applied to y in tiles of 128 with a border
of 32 and no blending.  Where the publication is silent: s and g are Gaussian filters of 2 and 1 voxels (for Gaussian
filters of the projections this is the same up to the wedge), and the stored noise is a stack of independent
two-dimensional fields with the measured spectrum in the plane, which is what a perfect two-dimensional generator gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from .. import mrc
from ..jobs import NmsgTraining, RunFolder
from ..nets.topaz_unet import TopazUNet3d
from ..noise_spectrum import Spectra, measure_spectra
from ..progress import Progress
from ..spectrum import read_block
from ..tiling import Shape, apply_tiled
from ..tomogram import Tomogram
from ..training import Trainer, TrainingSettings
from .guidance import SparsityExtractor

UPSAMPLING = (1, 2, 2)
FILTER_MARGIN = 8


@dataclass(frozen=True)
class PaperRecipe:
    """The published numbers."""

    features: int = 48
    depth: int = 5
    base_kernel: int = 7
    tile: int = 128
    border: int = 32
    batch: int = 2
    epochs: int = 40
    rate: float = 1e-3
    smooth_weight: float = 0.05
    guide_weight: float = 0.5
    guide_sigma: float = 1.0
    smooth_sigma: float = 2.0


def make_network(architecture: dict[str, Any], device: torch.device) -> TopazUNet3d:
    """The network from its stored architecture."""
    return TopazUNet3d(**architecture).to(device)


class PaperTask:
    """The published training step."""

    name = "training (published recipe)"

    def __init__(
        self, tomogram: Tomogram, synthetic: np.ndarray, recipe: PaperRecipe, device: torch.device, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.device = recipe, device
        self.noisy, self.synthetic = tomogram.data, synthetic
        self.network = TopazUNet3d(recipe.features, recipe.depth, recipe.base_kernel).to(device)
        self.networks: dict[str, nn.Module] = {"denoiser": self.network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "denoiser": torch.optim.Adagrad(self.network.parameters(), recipe.rate)
        }
        self.sparsity = SparsityExtractor("xy", normalise=False).to(device)
        # Crops on the original grid: y and x are doubled afterwards.
        self.crop: Shape = tuple(  # type: ignore[assignment]
            min(recipe.tile // factor, size) for factor, size in zip(UPSAMPLING, tomogram.data.shape, strict=True)
        )
        shape = tomogram.data.shape
        tiles = np.prod([max(1, f * s // recipe.tile) for f, s in zip(UPSAMPLING, shape, strict=True)])
        self.patches = max(1, int(0.8 * tiles))
        generator = torch.Generator().manual_seed(seed)
        room = [s - c for s, c in zip(shape, self.crop, strict=True)]
        self.corners = [[int(torch.randint(r + 1, (), generator=generator)) for r in room] for _ in range(self.patches)]
        self.statistics = self._measure(tomogram)

    @property
    def steps(self) -> int:
        """Steps of the published number of epochs."""
        return self.recipe.epochs * max(1, -(-self.patches // self.recipe.batch))

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One published step."""
        batches = [self._patch(trainer.generator) for _ in range(self.recipe.batch)]
        noisy, synthetic, guide, smooth = (
            torch.stack(parts)[:, None].to(self.device) for parts in zip(*batches, strict=True)
        )
        output = self.network(synthetic)
        recovery = (output - noisy).square().mean()
        edges = (self.sparsity(output) - self.sparsity(smooth)).square().mean()
        guidance = (output - guide).square().mean()
        loss = recovery + self.recipe.smooth_weight * edges + self.recipe.guide_weight * guidance
        trainer.update("denoiser", loss)
        values = {"loss": loss, "recovery": recovery, "sparsity": edges, "guidance": guidance}
        return {name: value.item() for name, value in values.items()}

    def _volumes(self, corner: list[int]) -> list[np.ndarray]:
        """Noisy, synthetic noisy, guidance and over-smoothed crops on the original grid."""
        noisy = read_block(self.noisy, corner, self.crop).numpy()
        wide = [slice(max(0, c - FILTER_MARGIN), c + n + FILTER_MARGIN) for c, n in zip(corner, self.crop, strict=True)]
        inner = tuple(slice(c - w.start, c - w.start + n) for c, w, n in zip(corner, wide, self.crop, strict=True))
        surroundings = np.asarray(self.noisy[tuple(wide)], np.float32)
        filtered = [
            ndimage.gaussian_filter(surroundings, sigma)[inner]
            for sigma in (self.recipe.guide_sigma, self.recipe.smooth_sigma)
        ]
        return [noisy, read_block(self.synthetic, corner, self.crop).numpy(), *filtered]

    def _measure(self, tomogram: Tomogram) -> list[tuple[float, float]]:
        """Mean and deviation of each of the four volumes, from up to 8 of the patches."""
        samples = [self._volumes(corner) for corner in self.corners[:8]]
        return [
            (float(np.mean([v.mean() for v in kind])), float(np.sqrt(np.mean([v.var() for v in kind]))) or 1.0)
            for kind in zip(*samples, strict=True)
        ]

    def _patch(self, generator: torch.Generator) -> list[torch.Tensor]:
        corner = self.corners[int(torch.randint(len(self.corners), (), generator=generator))]
        flips = [axis for axis in range(3) if int(torch.randint(2, (), generator=generator))]
        turns = [int(torch.randint(4, (), generator=generator)) for _ in range(3)]
        patches = []
        for volume, (mean, sd) in zip(self._volumes(corner), self.statistics, strict=True):
            patch = upsample(torch.from_numpy((volume - mean) / sd)).flip(flips)
            for axes, turn in zip(((0, 1), (0, 2), (1, 2)), turns, strict=True):
                # A turn that would change the patch's shape is only possible by 180 degrees.
                square = patch.shape[axes[0]] == patch.shape[axes[1]]
                patch = torch.rot90(patch, turn if square else 2 * (turn // 2), axes)
            patches.append(patch)
        return patches


def upsample(volume: torch.Tensor) -> torch.Tensor:
    """Nearest up-sampling (z, y, x) -> (z, 2y, 2x)."""
    return volume.repeat_interleave(UPSAMPLING[1], 1).repeat_interleave(UPSAMPLING[2], 2)


def write_synthetic(path: str, tomogram: Tomogram, spectra: Spectra, seed: int) -> np.ndarray:
    """Write y + n with independent noise in each slice and return it memory-mapped."""
    in_plane = spectra.noise.mean(0)
    rng = np.random.default_rng(seed)
    z, y, x = tomogram.data.shape
    even = (y + y % 2, x + x % 2)
    grid = torch.nn.functional.interpolate(
        torch.fft.fftshift(in_plane, dim=0)[None, None], size=(even[0], even[1] // 2 + 1), mode="bilinear"
    )[0, 0]
    amplitude = torch.fft.ifftshift(grid, dim=0).clamp_min(0).sqrt().numpy()
    with mrc.create_volume(path, (z, y, x), tomogram.voxel_size) as target:
        for index in range(z):
            white = np.fft.rfft2(rng.standard_normal(even))
            noise = np.fft.irfft2(white * amplitude, s=even)[:y, :x]
            target[index] = np.asarray(tomogram.data[index], np.float32) + tomogram.sd * noise
    return mrc.open_volume(path)


def train(
    job: NmsgTraining, tomograms: list[Tomogram], folder: RunFolder, device: torch.device, progress: Progress,
    recipe: PaperRecipe | None = None,
) -> tuple[TopazUNet3d, dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Train as published, on the first tomogram (the published method takes one)."""
    recipe = recipe or PaperRecipe()
    tomogram = tomograms[0]
    if len(tomograms) > 1:
        progress.warn(f"the published recipe trains on one tomogram; {tomogram.path} is taken.")
    progress.stage("writing the synthetic noisy volume")
    spectra = measure_spectra(tomogram.data, tomogram.mean, tomogram.sd, tomogram.difference)
    path = os.path.join(folder.path, "synthetic_noisy.mrc")
    synthetic = write_synthetic(path, tomogram, spectra, job.seed)
    task = PaperTask(tomogram, synthetic, recipe, device, job.seed)
    steps = job.steps or task.steps
    settings = TrainingSettings(steps, warm_up=0.0, final_rate=1.0, ema_decay=0.0, clip=float("inf"), precision=False)
    fingerprint = f"paper {job.seed} {steps} {tomogram.data.shape} {tomogram.mean:.6g}"
    trainer = Trainer(task, settings, device, job.seed, progress, folder.checkpoint, fingerprint)
    trainer.fit(resume=job.resume)
    os.remove(path)
    about = {
        "system": "nmsg", "recipe": "paper", "preset": asdict(recipe), "architecture": task.network.architecture,
        "voxel_size": tomogram.voxel_size, "normalisation": "mean and standard deviation of each tomogram",
        "trained_on": [os.path.basename(tomogram.path)], "steps": steps, "seed": job.seed,
    }  # fmt: skip
    return task.network, about, {"noise_model": "stack of 2-D fields", "noise_source": spectra.share.source}


@torch.no_grad()
def denoise_volume(
    network: TopazUNet3d, volume: np.ndarray, output: np.ndarray, mean: float, sd: float, *, device: torch.device,
    strength: float = 1.0, tile: int = 0, flips: int = 1, warn: Callable[[str], None] | None = None,
    on_tiles: Callable[[int], None] | None = None, on_tile: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Apply the network as published: up-sampled tiles, fixed border, no blending, every second voxel kept."""
    recipe = PaperRecipe()
    network.eval()
    edge = tile or recipe.tile

    def apply(data: torch.Tensor) -> torch.Tensor:
        wide = upsample((data - mean) / sd)[None, None]
        denoised = network(wide)[0, 0, :, ::2, ::2].float() * sd + mean
        return strength * denoised + (1 - strength) * data

    halo = min(recipe.border, edge // 4)
    shape: Shape = (edge + 2 * halo, edge // 2 + 2 * halo, edge // 2 + 2 * halo)
    apply_tiled(
        apply, volume, output, shape, halo=halo, blend=0, device=device, on_tiles=on_tiles, on_tile=on_tile, warn=warn
    )
