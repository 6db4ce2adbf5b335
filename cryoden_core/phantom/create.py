"""Make a phantom for a job: specimen, tilt series, tomograms and the truth, as files in one folder.

All volumes have one density sign, the one that was asked for.  Halves hold half of the dose each, so the tomogram is
the sum of the halves and they have half of its signal.  ``phantom.json`` lists what was made and how.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..jobs import PhantomJob, write_json
from ..mrc import check_writable, write_volume
from ..progress import Progress
from .acquisition import Acquisition, acquire, tilt_angles
from .optics import Microscope
from .packing import GrandModel, pack
from .particles import Particle, count_by_class, describe_shapes, write_star
from .shapes import builtin_templates
from .spheres import random_spheres
from .templates import read_templates

#: Reconstructions and projections that an acquisition counts as steps.
_ACQUISITION_STEPS = 5


def create(job: PhantomJob, progress: Progress) -> dict[str, Any]:
    """Make the phantom of a job and write its folder.

    Written are ``density.mrc``, ``labels.mrc``, ``particles.star``, ``tilt_series.mrc`` with ``_even``, ``_odd`` and
    ``.tlt``, ``tomogram.mrc`` with ``_even`` and ``_odd``, ``noise_free.mrc`` and, last, ``phantom.json``.

    Parameters
    ----------
    job
        A validated job.
    progress
        Is told the stages.

    Returns
    -------
    dict
        The content of ``phantom.json``.

    Raises
    ------
    JobError
        When the templates cannot be used or the folder cannot be written.
    """
    started = time.monotonic()
    summary = os.path.join(job.output, "phantom.json")
    check_writable(summary)
    if os.path.exists(summary):
        os.remove(summary)  # it says that the folder is whole
    model = build_model(job, progress)
    if model.missing:
        progress.warn("%d of the objects found no room; take fewer or a larger volume." % model.missing)
    progress.stage("tilt series and tomograms", _ACQUISITION_STEPS)
    taken = acquire(
        model.density, job.voxel_size, tilt_angles(job.tilt_limit, job.tilt_step), model.specimen_mask(),
        voxel_snr=job.snr, noise=job.noise, sign=job.sign, microscope=Microscope(defocus=job.defocus * job.ctf),
        seed=job.seed, device=_device(job, progress.warn), on_step=progress.advance,
    )  # fmt: skip
    progress.stage("writing")
    files = write_files(job, model, taken)
    result = describe(job, model, taken)
    result.update(files=files, warnings=progress.warnings, seconds=round(time.monotonic() - started, 1))
    write_json(result, summary)
    return result


def build_model(job: PhantomJob, progress: Progress) -> GrandModel:
    """The specimen of a job."""
    shape = (job.depth, job.height, job.width)
    if job.kind == "spheres":
        progress.stage("placing spheres")
        return _spheres_as_model(job, shape)
    progress.stage("reading templates")
    templates = read_templates(job.templates, job.voxel_size) if job.templates else builtin_templates(job.voxel_size)
    progress.stage("packing", job.particles + job.vesicles + job.beads)
    return pack(
        shape, templates, job.particles, job.vesicles, job.beads, job.seed,
        on_placed=progress.advance,
    )  # fmt: skip


def _spheres_as_model(job: PhantomJob, shape: tuple[int, int, int]) -> GrandModel:
    spheres = random_spheres(shape, job.particles, job.seed)
    instances = spheres.labels()
    particles = [
        Particle("particle", "sphere", 1, centre, np.eye(3), np.full(3, radius * job.voxel_size))
        for centre, radius in zip(spheres.centres, spheres.outer_radii, strict=True)
    ]
    return GrandModel(
        spheres.volume(), (instances > 0).astype(np.int16), instances, particles, {1: "sphere"}, job.voxel_size,
        job.particles - len(particles),
    )  # fmt: skip


def _device(job: PhantomJob, warn: Callable[[str], None]) -> str:
    from ..device import resolve_device

    return str(resolve_device(job, warn))


def write_files(job: PhantomJob, model: GrandModel, taken: Acquisition) -> list[str]:
    """Write the volumes, the tilt series and the particles; returns the names."""
    sign = np.float32(-1 if job.sign == "dark" else 1)
    volumes = {
        "density.mrc": sign * model.density,
        "labels.mrc": model.labels,
        "tilt_series.mrc": taken.tilt_series.full,
        "tilt_series_even.mrc": taken.tilt_series.even,
        "tilt_series_odd.mrc": taken.tilt_series.odd,
        "tomogram.mrc": taken.tomogram,
        "tomogram_even.mrc": taken.tomogram_even,
        "tomogram_odd.mrc": taken.tomogram_odd,
        "noise_free.mrc": taken.noise_free,
    }
    for name, volume in volumes.items():
        stack = name.startswith("tilt_series")
        write_volume(os.path.join(job.output, name), volume, job.voxel_size, stack=stack)
    tomogram_name = os.path.basename(os.path.abspath(job.output))
    write_star(model.particles, os.path.join(job.output, "particles.star"), tomogram_name)
    for name in ("tilt_series", "tilt_series_even", "tilt_series_odd"):
        with open(os.path.join(job.output, name + ".tlt"), "w", encoding="ascii") as stream:
            stream.writelines("%.2f\n" % angle for angle in taken.tilt_angles_degrees)
    tilts = ["tilt_series.tlt", "tilt_series_even.tlt", "tilt_series_odd.tlt"]
    return [*volumes, "particles.star", *tilts]


def describe(job: PhantomJob, model: GrandModel, taken: Acquisition) -> dict[str, Any]:
    """What was made, in figures."""
    return {
        "output": job.output,
        "job": job.to_dict(),
        "class_of_label": model.class_names,
        "count_of_class": count_by_class(model.particles),
        "missing": model.missing,
        "specimen_fraction": float(model.specimen_mask().mean()),
        "halves": "tomogram = even + odd",
        "voxel_snr": taken.voxel_snr,
        "noise_sd_of_tomogram": float(np.std(taken.tomogram - taken.noise_free, dtype=np.float64)),
        "noise_sd_of_views": taken.noise_sd,
        "electrons_per_pixel": taken.electrons_per_pixel if np.isfinite(taken.electrons_per_pixel) else None,
        "vesicles_and_beads": describe_shapes(model.particles),
    }
