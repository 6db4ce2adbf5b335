"""Tiny volumes for the end-to-end tests."""

from __future__ import annotations

import warnings
from pathlib import Path

import mrcfile
import numpy as np

SHAPE = (24, 48, 48)


def noisy_volume(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Smoothed noise around a dark block: enough of a tomogram for the program to accept it."""
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for axis in range(noise.ndim):
        noise = (noise + np.roll(noise, 1, axis)) / 2
    middle = tuple(slice(n // 3, n // 2) for n in shape)
    noise[middle] -= 0.5
    return noise


def write_mrc(path: Path, data: np.ndarray, voxel_size: float = 10.0) -> str:
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as stream:
        warnings.simplefilter("ignore")  # mrcfile's, about values that are no numbers: they are wanted here
        stream.set_data(data)
        stream.voxel_size = voxel_size
    return str(path)
