"""A small tilt series on disk, with blobs at known places, for the tests of what reads tilt series."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np

from cryoden_core.jobs import RunFolder, WbpJob
from cryoden_core.progress import Progress

#: Blobs (x, y, z) in voxels from the centre of the volume, and their standard deviation.
BLOBS = ((-14.0, -8.0, 5.0), (9.0, 0.0, -6.0), (3.0, 9.0, 2.0), (18.0, -4.0, 7.0))
SIGMA = 2.0
ANGLES = np.arange(-60.0, 61.0, 6.0)
SHAPE = (24, 40, 64)


def project(angles: np.ndarray = ANGLES, shape: tuple[int, int] = SHAPE[1:], noise: float = 0.0) -> np.ndarray:
    """Exact projections (views, y, x) of the blobs, float32, with white noise of this standard deviation."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in shape)
    views = np.zeros((len(angles), *shape))
    for bx, by, bz in BLOBS:
        u = bx * np.cos(np.deg2rad(angles)) + bz * np.sin(np.deg2rad(angles))
        along = np.exp(-((x - u[:, None]) ** 2) / (2 * SIGMA**2))
        views += np.exp(-((y[:, None] - by) ** 2) / (2 * SIGMA**2)) * along[:, None, :]
    views += noise * np.random.default_rng(1).standard_normal(views.shape)
    return views.astype(np.float32)


def density(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """The blobs in a volume (z, y, x)."""
    z, y, x = (np.arange(size) - (size - 1) / 2 for size in shape)
    volume = np.zeros(shape)
    for bx, by, bz in BLOBS:
        squares = (z[:, None, None] - bz) ** 2 + (y[:, None] - by) ** 2 + (x - bx) ** 2
        volume += np.exp(-squares / (2 * SIGMA**2))
    return volume.astype(np.float32)


def write_mrc(path: Path, data: np.ndarray, voxel_size: float = 10.0) -> str:
    """Write an array (z, y, x) as an image stack."""
    with mrcfile.new(path, data=np.ascontiguousarray(data), overwrite=True) as stream:
        stream.voxel_size = voxel_size
        stream.set_image_stack()
    return str(path)


def write_numbers(path: Path, numbers: np.ndarray) -> str:
    """Write rows of numbers, one a line."""
    np.savetxt(path, np.asarray(numbers), fmt="%.6f")
    return str(path)


def wbp_job(folder: Path, views: np.ndarray | None = None, angles: np.ndarray = ANGLES, **given: object) -> WbpJob:
    """A validated job over a series written into ``folder``; a run folder exists beside its output."""
    stack = write_mrc(folder / "ts.mrc", project() if views is None else views)
    parameters = {
        "input": stack, "tilt_angles": write_numbers(folder / "ts.tlt", angles), "output": str(folder / "out.mrc"),
        "thickness": SHAPE[0], "device": "cpu", "threads": 1, **given,
    }  # fmt: skip
    return WbpJob.from_parameters(parameters)


def quiet() -> Progress:
    """A progress that only keeps its warnings."""
    return Progress(None, quiet=True)


def run_folder(job: WbpJob) -> RunFolder:
    """The run folder of a job, made."""
    folder = job.folder()
    Path(folder.path).mkdir(exist_ok=True)
    return folder
