"""Carry out the job ``pick``: particles of one size in one tomogram, as a STAR file.

The picker itself is in :mod:`cryoden_core.picking`.  Scores are in standard deviations of the filtered tomogram, so
that one threshold serves tomograms of any grey scale; they say how clearly something of that size stands out, not what
it is.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import numpy as np

from . import mrc
from .evaluation.common import required_voxel_size
from .jobs import JobError, PickJob, RunFolder, write_json
from .picking import PickingSettings, Picks, peaks, response, write_picks
from .progress import Progress
from .runs import begin


def pick_particles(job: PickJob, progress: Progress) -> dict[str, Any]:
    """Pick in a tomogram; see :class:`cryoden_core.jobs.PickJob`.

    Returns
    -------
    dict
        What is also written to ``result.json``: ``output``, ``picks`` (their number), ``voxel_size``, ``score_unit``
        (one standard deviation of the filtered tomogram, in its grey values).

    Raises
    ------
    JobError
        Before any output exists, when the input or a parameter is wrong.
    """
    start = time.monotonic()
    progress.stage("reading the tomogram")
    mrc.check_finite_and_varying(job.input)
    voxel_size = required_voxel_size(job.voxel_size, job.input)
    volume = mrc.read_volume(job.input)
    if job.sigma < voxel_size:
        raise JobError(
            f"particles of {job.diameter:g} A are too small for voxels of {voxel_size:.2f} A: they must be at least "
            f"{2 * math.sqrt(3) * voxel_size:.0f} A wide."
        )
    allowed = _allowed(job, volume.shape, voxel_size)
    mrc.check_writable(job.output)
    folder = RunFolder.beside(job.output, job.run_folder)
    begin(folder, job)
    progress.stage("picking")
    settings = PickingSettings(job.sigma, job.ratio, job.distance, job.clip, job.contrast == "dark")
    answer = response(volume, voxel_size, settings)
    unit = float(answer.std(dtype=np.float64))
    if unit == 0:
        raise JobError(f"nothing is left of {job.input} at the scale of {job.diameter:g} A.")
    found = peaks(answer, job.distance / voxel_size, allowed)
    found = Picks(found.positions, found.scores / unit)
    found = found.best(found.above(job.threshold)).best(job.count or len(found.scores))
    if len(found.scores) == 0:
        progress.warn(
            f"nothing in {job.input} stands out by {job.threshold:g} standard deviations: take a smaller threshold, or "
            "look at diameter and contrast."
        )
    write_picks(found, job.output, os.path.splitext(os.path.basename(job.input))[0])
    result = {
        "output": job.output, "picks": len(found.scores), "voxel_size": voxel_size, "score_unit": unit,
        "seconds": round(time.monotonic() - start, 1), "warnings": progress.warnings,
    }  # fmt: skip
    write_json(result, folder.result)
    return result


def _allowed(job: PickJob, shape: tuple[int, ...], voxel_size: float) -> np.ndarray | None:
    """True where a pick may lie (z, y, x), or None for everywhere."""
    if not job.mask and not job.border:
        return None
    allowed = np.zeros(shape, bool)
    edge = math.ceil(job.border / voxel_size)
    allowed[tuple(slice(edge, size - edge) for size in shape)] = True
    if job.mask:
        mask = mrc.open_volume(job.mask)
        if mask.shape != shape:
            sizes = mrc.size_text(mask.shape), mrc.size_text(shape)
            raise JobError(f"the mask {job.mask} has {sizes[0]} voxels and {job.input} has {sizes[1]}.")
        allowed &= np.asarray(mask) > 0.5
    if not allowed.any():
        raise JobError("mask and border leave no place for a pick.")
    return allowed
