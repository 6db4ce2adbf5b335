"""What all evaluations share: reading volumes that belong together, and storing and printing what was found.

No figure of merit is computed here; those are in :mod:`cryoden_core.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import mrc
from ..jobs import JobError, write_json


def read_alike(paths: Sequence[str]) -> list[np.ndarray]:
    """Read volumes that must have one size, as float32 (z, y, x).

    Raises
    ------
    JobError
        When a file cannot be used, is constant or not finite, or differs in size from the first.
    """
    shape = mrc.open_volume(paths[0]).shape
    for path in paths[1:]:
        found = mrc.open_volume(path).shape
        if found != shape:
            sizes = mrc.size_text(found), mrc.size_text(shape)
            raise JobError(f"{path} has {sizes[0]} voxels (x, y, z) and {paths[0]} has {sizes[1]}; they must be equal.")
    for path in paths:
        mrc.check_finite_and_varying(path)
    return [mrc.read_volume(path) for path in paths]


def voxel_size_of(given: float, *paths: str) -> float:
    """The voxel size that was given, or that of the first header that has one; 0 when none has, angstrom."""
    return given or next((size for path in paths if (size := mrc.read_header(path).voxel_size)), 0.0)


def required_voxel_size(given: float, *paths: str) -> float:
    """As :func:`voxel_size_of`, but it must be known.

    Raises
    ------
    JobError
        When neither the job nor a header gives it.
    """
    size = voxel_size_of(given, *paths)
    if not size:
        raise JobError(f"the header of {paths[0]} has no voxel size; give it with --voxel-size.")
    return size


def storable(value: Any) -> Any:
    """The value as JSON can hold it: None for NaN and infinity, plain numbers and lists for numpy's."""
    if isinstance(value, dict):
        return {str(name): storable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [storable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finish(result: dict[str, Any], table: str, output: str) -> None:
    """Write the result as JSON where ``output`` says, and print the table."""
    if output:
        with mrc.errors_of_writing(output):
            write_json(result, output)
    print(table)


def line(title: str, *values: Any, form: str = "%.4f", width: int = 52) -> str:
    """A row of a printed table: a title and figures, of which None is shown as none."""
    cells = [value if isinstance(value, str) else "none" if value is None else form % value for value in values]
    return "".join([title.ljust(width), *(cell.rjust(14) for cell in cells)])
