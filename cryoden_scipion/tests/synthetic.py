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


#: Tilt angles of the synthetic tilt series, in the order in which a dose-symmetric scheme takes them.
TILTS = [0, 10, -10, 20, -20, 30, -30, 40, -40, 50, -50]


def tilt_series(angles: Sequence[float] = TILTS, shape: Sequence[int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Projections (images, y, x) of bright Gaussian blobs, with a little noise; ``u = x cos + z sin`` as in IMOD."""
    depth, height, width = shape
    random = np.random.default_rng(seed)
    centres = random.uniform(-0.35, 0.35, (10, 3)) * (depth, height, width)
    y, u = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    images = 0.05 * random.standard_normal((len(angles), height, width))
    for image, angle in zip(images, np.radians(angles)):
        for z0, y0, x0 in centres:
            u0 = x0 * np.cos(angle) + z0 * np.sin(angle)
            image += np.exp(-((y[:, None] - y0) ** 2 + (u - u0) ** 2) / 8)
    return images.astype(np.float32)


def write_tilt_series(folder: str, name: str, images: np.ndarray, angles: Sequence[float] = TILTS) -> str:
    """A stack with its angles in a .tlt, both in the order of the stack; returns the path of the stack."""
    path = write_mrc(os.path.join(folder, name + ".mrc"), images)
    with mrcfile.open(path, mode="r+") as stack:
        stack.set_image_stack()
    with open(os.path.join(folder, name + ".tlt"), "w", encoding="ascii") as stream:
        stream.writelines("%.2f\n" % angle for angle in angles)
    return path


def write_tomograms(folder: str, ts_ids: Sequence[str], shape: Optional[Sequence[int]] = None) -> str:
    """One tomogram for each tsId; returns the folder."""
    for seed, ts_id in enumerate(ts_ids):
        write_mrc(os.path.join(folder, ts_id + ".mrc"), tomogram(shape or SHAPE, seed))
    return folder
