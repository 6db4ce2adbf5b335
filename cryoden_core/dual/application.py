"""What the jobs that apply a trained DUAL model share: opening volumes for it, tiles, and the check of the contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import mrc
from ..jobs import DualApplication, RunFolder
from ..progress import Progress
from ..tiling import Readable, TileFunction
from .domains import DomainVolume, Scale, open_volume_for
from .model import DualModel
from .translate import LOWEST_CORRELATION, apply_network

#: The grey scale of values that are written as they are.
UNSCALED = Scale(0.0, 1.0, 1)


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


def load_model(job: DualApplication, device: torch.device, progress: Progress) -> DualModel:
    """The model of a job, ready to be applied, with a warning for each alarm that its training ended with.

    Raises
    ------
    JobError
        As :meth:`DualModel.load` does.
    """
    model = DualModel.load(job.model, device)
    for sentence in model.about.get("alarms", []):
        progress.warn(f"the training of {job.model} ended with an alarm: {sentence}")
    return model


def open_for(
    model: DualModel, path: str, domain: str, progress: Progress, *, contrast: str = "", voxel_size: float = 0.0
) -> DomainVolume:
    """Open a volume as the model wants it, with a warning when its voxels are more than 5 % smaller than the model's.

    Larger ones are pointed out where it is opened, :func:`~cryoden_core.dual.domains.open_volume_for`, whose
    parameters and errors are those of this function.
    """
    robust = bool(model.about.get("preset", {}).get("robust_scale", True))
    volume = open_volume_for(
        model, path, domain=domain, contrast=contrast, voxel_size=voxel_size, robust=robust, warn=progress.warn
    )
    if volume.voxel_size < 0.95 * model.voxel_size:
        progress.warn(
            f"{path} has voxels of {volume.voxel_size:.2f} A and the model was trained at {model.voxel_size:.2f} A: "
            "it is resampled for it, and what it shows beyond the model's resolution is not restored."
        )
    return volume


def write_on_file_grid(
    volume: DomainVolume, values: Readable, path: str, mode: str, scale: Scale = UNSCALED
) -> None:  # fmt: skip
    """Write values of a volume's model grid (z, y, x) on the grid of its file, brought to a grey scale."""
    if volume.shape != volume.file_shape:
        values = volume.resample_back(values)  # type: ignore[arg-type]
    with mrc.create_volume(path, volume.file_shape, volume.voxel_size, volume.origin, mode) as target:
        for slab in mrc.slabs(target):
            target[slab] = scale.undo(values[slab, :, :])


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
