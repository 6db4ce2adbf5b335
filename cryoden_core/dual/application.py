"""What the jobs that apply a trained DUAL model share: opening volumes for it, tiles, and the check of the contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..jobs import DualApplication, RunFolder
from ..progress import Progress
from ..tiling import Readable, TileFunction
from .domains import DomainVolume, open_volume_for
from .model import DualModel
from .translate import LOWEST_CORRELATION, apply_network


@dataclass
class Setting:
    """What all volumes of a run share."""

    job: DualApplication
    model: DualModel
    folder: RunFolder
    device: torch.device
    progress: Progress

    def apply(self, function: TileFunction, volume: Readable, output: np.ndarray, stage: str) -> None:
        """Fill ``output`` (zeros) with a function of ``volume`` made of the model's networks, tile by tile."""
        apply_network(
            function, volume, output, features=self.model.architecture.features, multiple=self.model.multiple,
            device=self.device, progress=self.progress, stage=stage, tile=self.job.tile,
        )  # fmt: skip


def open_for(model: DualModel, job: DualApplication, path: str, domain: str, progress: Progress) -> DomainVolume:
    """Open a volume as the model wants it, with a warning when it must be resampled by more than 5 %."""
    robust = bool(model.about.get("preset", {}).get("robust_scale", True))
    volume = open_volume_for(
        model, path, domain=domain, contrast=job.contrast, voxel_size=job.voxel_size, robust=robust, warn=progress.warn
    )
    if abs(volume.voxel_size - model.voxel_size) > 0.05 * model.voxel_size:
        progress.warn(
            f"{path} has voxels of {volume.voxel_size:.2f} A and the model was trained at {model.voxel_size:.2f} A: "
            "it is resampled for it, and what it shows beyond the model's resolution is not restored."
        )
    return volume


def check_contrast(correlation: float, path: str, progress: Progress) -> None:
    """Warn when a denoised volume shows something else than its tomogram.

    ``correlation`` is that of bright density in the two (:func:`grey_scale`).
    """
    if correlation < -LOWEST_CORRELATION:
        progress.warn(f"the denoised volume has the opposite contrast of {path}: the contrast was given wrongly.")
    elif correlation < LOWEST_CORRELATION:
        progress.warn(
            f"the denoised volume has next to nothing in common with {path}: the model does not suit this tomogram, or "
            "the contrast was given wrongly."
        )
