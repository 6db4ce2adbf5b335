"""The part of a volume that is looked at where all of it would be too much: its central slices and its central block.

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
