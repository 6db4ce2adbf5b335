"""One network fitted to one series, and its volume: what the whole, each half and each member of an ensemble share.

From coarse to fine where the volume is large: the same network sees binned projections first, since its coordinates do
not know of voxels, and most passes then cost an eighth or less.  Memory is bounded: pieces of the volume are as large
as it allows, projections and start stay on disk, and the volume is written by slabs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..device import free_memory
from ..jobs import JobError
from ..progress import Progress
from ..training import Trainer, TrainingSettings
from .data import FitData
from .fields import Field, make_field
from .fit import FitTask, Stage, Weights
from .presets import Preset

#: Longest edge from which a volume is first fitted binned, and share of the passes spent on each binning.
COARSE_TO_FINE = ((512, {4: 0.4, 2: 0.35, 1: 0.25}), (256, {2: 0.5, 1: 0.5}), (0, {1: 1.0}))
#: Bytes for each number that is fitted: itself, its gradient, two moments, its moving average.
BYTES_PER_PARAMETER = 20
#: Bytes that the projector and its adjoint keep for each voxel of a section in each view.
BYTES_PER_MATRIX_ELEMENT = 32
#: Share of the free memory that a fit takes when no limit is given.
MEMORY_SHARE = 0.6
#: A CPU evaluates a million voxels at a time: more gains nothing.
CPU_PIECE = 2**20
GIB = 2**30
#: Bytes a second that any disk can be expected to take.
DISK_SPEED = 200e6


@dataclass(frozen=True)
class Settings:
    """What a fit needs beside its data.

    ``preset`` has the job's own choices in it; ``memory`` is in GiB (0: what is free); ``shape`` is that of the volume.
    """

    preset: Preset
    shape: tuple[int, int, int]
    non_negative: bool
    fit_views: bool
    memory: float
    device: torch.device


def binnings(shape: tuple[int, int, int]) -> dict[int, float]:
    """Binnings of a fit in their order, with the share of the passes that each gets."""
    return next(shares for edge, shares in COARSE_TO_FINE if max(shape) >= edge)


def stages(data: dict[int, FitData], preset: Preset) -> list[Stage]:
    """The stages of a fit over data by binning, coarsest first."""
    shares = binnings_of(data)
    coarsest = next(iter(shares))
    plan = []
    if preset.start != "none" and preset.start_passes:
        plan.append(Stage(data[coarsest], preset.start_passes, to_start=True))
    left = preset.passes
    for binning, share in shares.items():
        passes = left if binning == 1 else min(left, max(1, round(preset.passes * share)))
        left -= passes
        if passes:
            plan.append(Stage(data[binning], passes))
    return plan


def binnings_of(data: dict[int, FitData]) -> dict[int, float]:
    """Shares of the passes for the binnings that there are data of."""
    for _, shares in COARSE_TO_FINE:
        if set(shares) == set(data):
            return shares
    raise ValueError(f"no plan for binnings {sorted(data)}")


def new_network(settings: Settings, seed: int) -> Field:
    """An untrained network."""
    torch.manual_seed(seed)
    preset = settings.preset
    return make_field(
        preset.field, settings.shape, preset.width, preset.depth, preset.first_frequency, settings.non_negative
    )


def check_memory(views: int, settings: Settings) -> None:
    """Refuse, as :func:`piece_voxels` does, what would not fit into the memory; takes none itself."""
    with torch.device("meta"):
        piece_voxels(new_network(settings, 0), views, settings)


def piece_voxels(network: Field, views: int, settings: Settings) -> int:
    """Voxels that can be evaluated at a time with their gradient.

    Raises
    ------
    JobError
        When the memory does not even hold the network; says what binning would.
    """
    numbers = sum(parameter.numel() for parameter in network.parameters())
    depth, _, width = settings.shape
    fixed = numbers * BYTES_PER_PARAMETER + BYTES_PER_MATRIX_ELEMENT * views * depth * width
    allowed = settings.memory * GIB if settings.memory else MEMORY_SHARE * free_memory(settings.device)
    left = int((allowed - fixed) / network.bytes_per_voxel)
    if left < 64 * width:
        needed = (fixed + 64 * width * network.bytes_per_voxel) / GIB
        binning = math.ceil((needed * GIB / max(allowed, 1)) ** (1 / 3))
        raise JobError(
            f"the fit needs {needed:.3g} GiB of memory and may take {allowed / GIB:.3g}; allow more (max_memory) or "
            f"bin the images {max(2, binning)} times more."
        )
    return min(left, CPU_PIECE) if settings.device.type == "cpu" else left


@dataclass(eq=False)
class SingleFit:
    """A network, its task and its trainer.

    Parameters
    ----------
    data
        By binning, coarsest first; 1 must be there.
    settings
        What to fit and with what.
    seed
        Of the network and the order of the sections.
    progress
        Who is told.
    checkpoint, fingerprint
        See :class:`~cryoden_core.training.Trainer`.
    on_pass
        See :class:`~cryoden_core.mlp.fit.FitTask`.
    """

    data: dict[int, FitData]
    settings: Settings
    seed: int
    progress: Progress
    checkpoint: str = ""
    fingerprint: str = ""
    name: str = "fitting the network"
    on_pass: Callable[[int, Trainer], dict[str, float]] | None = None

    def __post_init__(self) -> None:
        preset = self.settings.preset
        network = new_network(self.settings, self.seed)
        plan = stages(self.data, preset)
        weights = Weights(preset.loss, preset.crowther_weight, *preset.penalties[0])
        self.task = FitTask(
            network, plan, weights, preset.rate, preset.sections,
            piece_voxels(network, self.data[1].series.views, self.settings), self.seed, self.settings.fit_views,
            self.on_pass, self.name,
        )  # fmt: skip
        # A fine lattice of a large volume takes gigabytes: writing it may take a tenth of the time, not more.
        kept = 4 * 4 * sum(parameter.numel() for parameter in network.parameters())
        self.trainer = Trainer(
            self.task,
            TrainingSettings(
                self.task.steps, ema_decay=0.9, clip=10.0, checkpoint_seconds=max(30.0, 10 * kept / DISK_SPEED)
            ),
            self.settings.device, self.seed, self.progress, self.checkpoint, self.fingerprint,
        )  # fmt: skip
        self.seconds = 0.0

    def fit(self, resume: bool = False) -> None:
        """Train, and keep the moving average of the network; raises as :meth:`Trainer.fit` does."""
        start = time.monotonic()
        self.trainer.fit(resume)
        self.trainer.use_averages()
        self.seconds = time.monotonic() - start

    def sections(self, count: int = 16) -> list[slice]:
        """The tomogram's y sections in blocks of ``count``."""
        height = self.data[1].sections
        return [slice(first, min(first + count, height)) for first in range(0, height, count)]

    def density(self, block: slice) -> np.ndarray:
        """Dimensionless density (z, sections, x) of a block of y sections."""
        return self.task.density(self.trainer, self.data[1], torch.arange(block.start, block.stop)).cpu().numpy()

    @torch.no_grad()
    def residuals(self) -> tuple[np.ndarray, np.ndarray]:
        """Residual of each view over that view's norm, and of each y section over the mean one, (views,) and (y,)."""
        data, task = self.data[1], self.task
        unexplained = torch.zeros((data.series.views, data.sections), dtype=torch.float64)
        power = torch.zeros_like(unexplained)
        for block in self.sections():
            sections = torch.arange(block.start, block.stop)
            target, weights = data.views_of(sections)
            density = task.density(self.trainer, data, sections)
            known = weights > 0
            missed = (task.views(data.projector.forward(density), data.sd) - target) * known
            unexplained[:, block] = missed.double().square().sum(dim=2).cpu()
            power[:, block] = target.double().square().sum(dim=2).cpu()
        per_view = unexplained.sum(1) / power.sum(1).clamp_min(1e-30)
        per_section = unexplained.sum(0) / power.sum(0).mean().clamp_min(1e-30)
        return per_view.sqrt().numpy(), per_section.sqrt().numpy()
