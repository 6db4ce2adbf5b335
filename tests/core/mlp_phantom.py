"""A small phantom for the tests of the coordinate network, and a fit without files and jobs around it."""

import math

import numpy as np
import torch

from cryoden_core.mlp.data import Preparation, measure_scale, prepare
from cryoden_core.mlp.fields import make_field
from cryoden_core.mlp.fit import FitTask, Stage, Weights
from cryoden_core.phantom.spheres import random_spheres
from cryoden_core.progress import Progress
from cryoden_core.tomography.inputs import AlignedSeries
from cryoden_core.training import Trainer, TrainingSettings

CPU = torch.device("cpu")
SHAPE = (16, 24, 32)
SPARSE = Weights(sparsity=1.0)
ANGLES = np.linspace(-60, 60, 31)


def spheres(shape=SHAPE, seed=3, count=12):
    return random_spheres(shape, count, seed, radius=(3.0, 5.0))


def series(views, thickness, width, angles=ANGLES) -> AlignedSeries:
    return AlignedSeries(
        views, np.asarray(angles), np.arange(len(angles)) + 1, np.ones(len(angles)), thickness, width, 10.0
    )


def phantom():
    """Density (z, y, x) and its series with exact projections."""
    specimen = spheres()
    return specimen.volume(), series(specimen.project(ANGLES), SHAPE[0], SHAPE[2])


def ready(given, folder, start="sirt", non_negative=False, outside=True, mask=None, background="zero"):
    """Prepared data and the scale of a series."""
    scale = measure_scale(given, background, mask)
    how = Preparation(
        scale, start, 20, non_negative, outside, max(given.volume_shape), CPU, str(folder), Progress(quiet=True)
    )
    return prepare(given, how, "test", mask=mask), scale


def fitted(data, passes=10, start_passes=3, weights=SPARSE, seed=1, non_negative=False, field="lattice",
           rate=1e-2, fit_views=False, folder=None, **about):  # fmt: skip
    """A fit that has been carried out: task and trainer."""
    torch.manual_seed(seed)
    network = make_field(field, data.series.volume_shape, 32, 2, 30.0, non_negative)
    stages = [Stage(data, start_passes, to_start=True)] if start_passes else []
    task = FitTask(network, [*stages, Stage(data, passes)], weights, rate, seed=seed, fit_views=fit_views, **about)
    trainer = Trainer(task, TrainingSettings(task.steps, ema_decay=0.0, clip=10.0), CPU, seed, Progress(quiet=True))
    trainer.fit()
    return task, trainer


def density(task, trainer, data, scale) -> np.ndarray:
    return task.density(trainer, data, torch.arange(data.sections)).numpy() * scale.density


def error(volume, truth) -> float:
    """Root mean square error in the truth's standard deviations."""
    return math.sqrt(np.mean((volume - truth) ** 2)) / truth.std()
