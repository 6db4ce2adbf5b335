"""The part of a volume that is looked at where all of it would be too much: central slices, central block, some voxels.

Only that part is read of a memory map.  Pictures, spectra and guesses about a whole volume are made from it.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

#: Edge of the central block from which spectra are taken, voxels.
SPECTRUM_BLOCK = 128


def central_slices(volume: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The central xy (y, x), xz (z, x) and yz (y, z) slices of a volume (z, y, x), float32."""
    z, y, x = (size // 2 for size in volume.shape)
    xy, xz, yz = (np.array(part, dtype=np.float32) for part in (volume[z], volume[:, y], volume[:, :, x]))
    return xy, xz, np.ascontiguousarray(yz.T)


def central_block(volume: np.ndarray, edge: int = SPECTRUM_BLOCK) -> np.ndarray:
    """The central block of at most ``edge`` voxels a side, float32."""
    cut = tuple(slice((size - min(size, edge)) // 2, (size + min(size, edge)) // 2) for size in volume.shape)
    return np.array(volume[cut], dtype=np.float32)


def robust_statistics(volume: np.ndarray) -> Tuple[float, float]:
    """Mean and standard deviation without the 0.1 % extremes (gold, hot pixels), from an even subset of voxels."""
    step = tuple(max(1, size // 128) for size in volume.shape)
    sample = np.asarray(volume[:: step[0], :: step[1], :: step[2]], np.float32).ravel()
    low, high = np.percentile(sample, (0.1, 99.9))
    kept = sample[(sample >= low) & (sample <= high)]
    return float(kept.mean()), float(kept.std()) or float(sample.std()) or 1.0
