"""Carry out the jobs that reconstruct a tomogram by the classical methods: weighted back-projection and SIRT.

Both take the tilt series through :mod:`.tomography.inputs`, as the coordinate network does, write the tomogram into a
disk-backed volume, treat two halves like the whole, and leave ``result.json`` and ``report.png`` in the run folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import mrc, report
from .device import resolve_device
from .jobs import ReconstructionJob, RunFolder, SirtJob, WbpJob, write_json
from .progress import Progress
from .runs import begin
from .tomography.inputs import AlignedSeries, open_halves, open_series, remove_aligned
from .tomography.orientation import compare_with_reference
from .tomography.sirt import sirt as sirt_volume
from .tomography.wbp import weighted_back_projection

Report = Callable[..., None]
#: Fills a volume from a series; returns the relative residual of each view, or None where the method has none.
Method = Callable[[AlignedSeries, np.ndarray, torch.device, Report], np.ndarray | None]


def wbp(job: WbpJob, progress: Progress) -> dict[str, Any]:
    """Reconstruct by weighted back-projection; see :class:`cryoden_core.jobs.WbpJob`.

    Returns
    -------
    dict
        What is also written to ``result.json``.

    Raises
    ------
    JobError
        Before any output exists, when the input or a parameter is wrong.
    """

    def method(series: AlignedSeries, target: np.ndarray, device: torch.device, advance: Report) -> None:
        weighted_back_projection(
            series.projections, series.tilt_angles_degrees, series.thickness, series.width, job.radial_cutoff,
            job.radial_falloff, angle_offset_degrees=series.angle_offset_degrees,
            tilt_axis_shift=series.tilt_axis_shift, x_shift=series.x_shift, z_shift=series.z_shift, device=device,
            out=target, weights=series.weights, report=advance,
        )  # fmt: skip

    return _reconstruct(job, progress, "weighted back-projection", method)


def sirt(job: SirtJob, progress: Progress) -> dict[str, Any]:
    """Reconstruct by SIRT; see :class:`cryoden_core.jobs.SirtJob`.  Returns and raises as :func:`wbp` does."""
    zero = job.background == "zero" or (job.background == "auto" and job.non_negative)

    def method(series: AlignedSeries, target: np.ndarray, device: torch.device, advance: Report) -> np.ndarray:
        residuals = np.zeros(series.views)
        sirt_volume(
            series.projections, series.tilt_angles_degrees, series.thickness, job.iterations, job.non_negative,
            series.width, job.relaxation, angle_offset_degrees=series.angle_offset_degrees,
            tilt_axis_shift=series.tilt_axis_shift, x_shift=series.x_shift, z_shift=series.z_shift, device=device,
            out=target, report=advance, weights=series.weights, levels=None if zero else series.levels,
            residuals=residuals,
        )  # fmt: skip
        return residuals

    return _reconstruct(job, progress, "SIRT", method)


def _stage(progress: Progress, name: str) -> Report:
    """A stage of the run whose number of steps its method tells when the first is done."""
    progress.stage(name)

    def advance(done: int, total: int, residual: float | None = None) -> None:
        if done == 1:
            progress.stage(name, total)
        progress.advance(loss=residual)

    return advance


def _reconstruct(job: ReconstructionJob, progress: Progress, name: str, method: Method) -> dict[str, Any]:
    start = time.monotonic()
    folder = RunFolder.beside(job.output, job.run_folder)
    device = resolve_device(job, progress.warn)
    for path in job.outputs():
        mrc.check_writable(path)
    series = open_series(job, folder, progress)
    halves = open_halves(job, series, folder, progress)
    begin(folder, job)
    orientation = compare_with_reference(series, job.reference, device, progress)
    roles = ["output"] + (["output_even", "output_odd"] if halves else [])
    written: dict[str, str] = {}
    residuals = None
    for role, path, part in zip(roles, job.outputs(), [series, *(halves or ())], strict=True):
        stage = name + {"output": "", "output_even": " of the even half", "output_odd": " of the odd half"}[role]
        with mrc.create_volume(path, part.volume_shape, part.voxel_size, part.origin, job.output_mode) as target:
            found = method(part, target, device, _stage(progress, stage))
        residuals = found if role == "output" else residuals
        written[role] = path
    progress.stage("writing the report")
    result = {**written, **describe(series), **orientation}
    if residuals is not None:
        result["residual_per_view"] = [round(float(value), 5) for value in residuals]
    result.update(seconds=round(time.monotonic() - start, 1), warnings=progress.warnings)
    _write_picture(folder, job, name, series, written, residuals)
    write_json(result, folder.result)
    remove_aligned(folder)
    return result


def describe(series: AlignedSeries) -> dict[str, Any]:
    """What the result of every reconstruction says of the series: images, angles, sizes."""
    depth, height, width = series.volume_shape
    angles = series.tilt_angles_degrees + series.angle_offset_degrees
    return {
        "voxel_size": series.voxel_size, "size": [width, height, depth], "origin": list(series.origin),
        "images": series.image_numbers.tolist(), "tilt_angles": [round(float(angle), 4) for angle in angles],
        "weights": [round(float(weight), 4) for weight in series.weights],
    }  # fmt: skip


def curve_of_halves(written: dict[str, str]) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """The correlation of two halves by frequency, for a report; None where there are no halves."""
    if "output_even" not in written:
        return None
    return {"halves": report.agreement(*(mrc.open_volume(written[role]) for role in ("output_even", "output_odd")))}


def _write_picture(
    folder: RunFolder, job: ReconstructionJob, name: str, series: AlignedSeries, written: dict[str, str],
    residuals: np.ndarray | None,
) -> None:  # fmt: skip
    report.write_reconstruction(
        folder.report, {name: mrc.open_volume(job.output)}, series.voxel_size,
        None if residuals is None else {name: (series.tilt_angles_degrees, residuals)}, curve_of_halves(written),
        title=f"{name}: {os.path.basename(job.input)}",
    )  # fmt: skip
