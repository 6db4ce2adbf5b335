"""DUAL models of simple networks whose results are known, and a tomogram to apply them to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from cryoden_core import mrc
from cryoden_core.dual.model import DualModel
from cryoden_core.dual.networks import Architecture

SHAPE = (32, 96, 48)
NOISE = 1.5


class Blur(nn.Module):
    """A Gaussian blur of 1.5 voxels, in float32 whatever the device could do faster."""

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        line = torch.exp(-0.5 * (torch.arange(-6, 7) / 1.5) ** 2)
        line = line / line.sum()
        blurred = functional.pad(volume.float(), [6] * 6, mode="replicate")
        with torch.autocast(volume.device.type, enabled=False):
            for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)):
                blurred = functional.conv3d(blurred, line.reshape(1, 1, *shape))
        return blurred

    refine = forward
    transfer = None


class Function(nn.Module):
    """Any function of a batch; as a simulator, of the sum of clean volume and noise."""

    transfer = None

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return self.function(volume)

    refine = forward


def unshuffle(volume: torch.Tensor) -> torch.Tensor:
    """The eight voxels of each block as channels."""
    batch, _, z, y, x = volume.shape
    blocks = volume.reshape(batch, z // 2, 2, y // 2, 2, x // 2, 2)
    return blocks.permute(0, 2, 4, 6, 1, 3, 5).reshape(batch, 8, z // 2, y // 2, x // 2)


def shuffle(code: torch.Tensor) -> torch.Tensor:
    batch, _, z, y, x = code.shape
    blocks = code.reshape(batch, 2, 2, 2, z, y, x).permute(0, 4, 1, 5, 2, 6, 3)
    return blocks.reshape(batch, 1, 2 * z, 2 * y, 2 * x)


def model(
    denoiser: nn.Module | None = None,
    simulator: nn.Module | None = None,
    encoder: nn.Module | None = None,
    contrast: str = "bright",
) -> DualModel:
    """A model at 10 A whose noise is white, of variance 1, and whose code is the volume itself."""
    about = {
        "contrast": {"noisy": contrast, "clean": "bright"}, "tilt_range": [-60.0, 60.0],
        "statistics": {"noisy": [{"mean": 50.0, "sd": 4.0}], "clean": [{"mean": 1.0, "sd": 2.0}]},
    }  # fmt: skip
    return DualModel(
        denoiser or Blur(), simulator or Function(lambda volume: volume), Function(shuffle),
        encoder or Function(unshuffle),
        Architecture(features=8, depth=2, code_channels=8), 10.0, about,
    )  # fmt: skip


def balls() -> np.ndarray:
    """Balls of bright density in one part of the volume, standard deviation 1."""
    random = np.random.default_rng(0)
    points = np.zeros(SHAPE, np.float32)
    points[tuple(random.integers(0, size, 40) for size in (SHAPE[0], 56, SHAPE[2]))] = 1
    density = ndimage.gaussian_filter(points, 2.5)
    return (density / density.std()).astype(np.float32)


def write_tomogram(truth: np.ndarray, folder: Path) -> Path:
    """Write the truth, and it with white noise, the mean of two halves, all at 10 A; returns the tomogram."""
    random = np.random.default_rng(1)
    halves = [truth + NOISE * np.sqrt(2) * random.standard_normal(SHAPE).astype(np.float32) for _ in range(2)]
    for name, data in (("even", halves[0]), ("odd", halves[1]), ("tomogram", (halves[0] + halves[1]) / 2)):
        mrc.write_volume(str(folder / f"{name}.mrc"), data * 3 + 7, 10.0, (1.0, 2.0, 3.0))
    mrc.write_volume(str(folder / "truth.mrc"), truth, 10.0)
    return folder / "tomogram.mrc"
