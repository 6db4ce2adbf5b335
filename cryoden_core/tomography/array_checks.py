"""What weighted back-projection and SIRT ask of the arrays that they are given, each refusal in one sentence.

What can be wrong with a tilt series as files is found earlier, see :mod:`.series_checks`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..jobs import JobError


def check_projections(projections: np.ndarray, angles: np.ndarray, thickness: int, width: int | None) -> None:
    """Refuse, with a :class:`JobError`, views without their angles and sizes that are not positive."""
    if projections.ndim != 3:
        raise JobError(f"a tilt series has three dimensions (views, y, x), not {projections.ndim}.")
    if len(angles) != len(projections):
        raise JobError(f"the tilt series has {len(projections)} views but there are {len(angles)} tilt angles.")
    if thickness < 1 or (width is not None and width < 1):
        raise JobError(f"thickness {thickness} and width {width} must be at least 1 voxel.")


def check_weights(weights: ArrayLike, views: int) -> np.ndarray:
    """Weights of views as an array (views,); a :class:`JobError` when they are too many, too few or not positive."""
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (views,):
        raise JobError(f"there are {values.size} weights for {views} views.")
    if not (np.isfinite(values).all() and values.min() > 0):
        raise JobError("the weight of a view must be above 0.")
    return values


def check_shape(what: str, array: np.ndarray | None, shape: tuple[int, int, int]) -> None:
    """Refuse, with a :class:`JobError`, an array that is given and has another shape than the reconstruction."""
    if array is not None and tuple(array.shape) != shape:
        raise JobError(f"the {what} has shape {tuple(array.shape)}, the reconstruction {shape}.")


def finite_block(projections: np.ndarray, sections: slice) -> torch.Tensor:
    """Some y sections of all views as a float32 tensor; a :class:`JobError` names a view with NaN or infinity."""
    # A copy: the caller's array may be read-only or a memory-map in the file's number format.
    block = np.array(projections[:, sections], dtype=np.float32, order="C", subok=False)
    if not np.isfinite(block.sum(dtype=np.float64)):
        bad = np.flatnonzero(~np.isfinite(block).all(axis=(1, 2)))
        raise JobError(f"view {bad[0] + 1} of the tilt series holds pixels that are not numbers (NaN or inf).")
    return torch.from_numpy(block)
