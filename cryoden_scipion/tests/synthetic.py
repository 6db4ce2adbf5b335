"""Small noisy tomograms for the tests: two layers of blobs under noise that is correlated as in a reconstruction."""

import os
from typing import Optional, Sequence, Tuple

import mrcfile
import numpy as np

SAMPLING_RATE = 10.0
SHAPE = (24, 48, 48)


def write_mrc(path: str, data: np.ndarray, voxel_size: float = SAMPLING_RATE) -> str:
    """Write a volume and return its name."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with mrcfile.new(path, overwrite=True) as volume:
        volume.set_data(data)
        if data.ndim == 3:
            volume.set_volume()
        volume.voxel_size = voxel_size
    return path


def blobs(shape: Sequence[int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Dark balls on a grey ground, shape (z, y, x)."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.arange(edge) for edge in shape], indexing="ij")
    density = np.zeros(shape, np.float32)
    for _ in range(12):
        centre = [random.uniform(4, edge - 4) for edge in shape]
        distance = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        density -= np.exp(-distance / 8.0).astype(np.float32)
    return density


def noise(shape: Sequence[int], seed: int) -> np.ndarray:
    """Noise with a little correlation, standard deviation 1."""
    white = np.random.default_rng(seed).standard_normal(tuple(shape)).astype(np.float32)
    correlated = white + 0.3 * (np.roll(white, 1, 1) + np.roll(white, 1, 2))
    return (correlated / correlated.std()).astype(np.float32)


def tomogram(shape: Sequence[int] = SHAPE, seed: int = 0) -> np.ndarray:
    """A noisy tomogram."""
    return blobs(shape, seed) + 0.8 * noise(shape, 100 + seed)


def halves(shape: Sequence[int] = SHAPE, seed: int = 0) -> Tuple[np.ndarray, np.ndarray]:
    """Even and odd tomogram with independent noise; their mean is about :func:`tomogram`."""
    signal = blobs(shape, seed)
    return signal + 1.1 * noise(shape, 200 + seed), signal + 1.1 * noise(shape, 300 + seed)


def write_tomograms(folder: str, ts_ids: Sequence[str], shape: Optional[Sequence[int]] = None) -> str:
    """One tomogram for each tsId; returns the folder."""
    for seed, ts_id in enumerate(ts_ids):
        write_mrc(os.path.join(folder, ts_id + ".mrc"), tomogram(shape or SHAPE, seed))
    return folder
