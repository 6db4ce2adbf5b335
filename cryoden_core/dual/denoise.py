"""Carry out the job ``dual denoise``: the denoiser of a trained model on a tomogram and its halves."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import mrc, report
from ..device import resolve_device
from ..jobs import DualDenoiseJob, JobError, RunFolder, write_json
from ..progress import Progress
from ..runs import begin
from ..tiling import Readable, shape_of
from ..tomogram import HalfDifference, Tomogram, add_halves, open_tomogram
from .application import Setting, check_contrast, load_model, open_for
from .crops import wedge_preserving_symmetries
from .domains import DomainVolume, check_tomogram, mask_padding
from .missing_wedge import TiltRange, merge
from .model import DualModel
from .transfer import Curve, noise_share
from .translate import (
    Difference,
    filter_volume,
    grey_scale,
    holding_filter,
    mirrored_mean,
    mirrored_spread,
    network_function,
    scratch_volume,
    unclipped,
)

#: Mirrored copies below which their spread says nothing.
LEAST_COPIES = 4


@dataclass
class _Item:
    """One volume to denoise: its role and output, its values as in the file, and its noise if halves tell it."""

    role: str
    path: str
    output: str
    data: np.ndarray
    difference: HalfDifference | None


@dataclass
class _Setting(Setting):
    """What all volumes of a run share."""

    job: DualDenoiseJob


def denoise(job: DualDenoiseJob, progress: Progress) -> dict[str, Any]:
    """Denoise a tomogram; see :class:`cryoden_core.jobs.DualDenoiseJob`.

    Returns
    -------
    dict
        What is also written to ``result.json``.

    Raises
    ------
    JobError
        Before any output exists, when the input or a parameter is wrong.
    """
    start = time.monotonic()
    folder = RunFolder.beside(job.output, job.run_folder)
    device = resolve_device(job, progress.warn)
    progress.stage("checking the input")
    model = load_model(job, device, progress)
    tomogram = open_tomogram(job.input, job.voxel_size, progress.warn)
    if job.even:
        add_halves(tomogram, job.even, job.odd, progress.warn)
    items = _items(job, tomogram)
    volumes = [
        open_for(model, item.path, "noisy", progress, contrast=job.contrast, voxel_size=job.voxel_size)
        for item in items
    ]
    check_tomogram(volumes[0], model.tilt_range, progress.warn)
    for volume in volumes:
        mask_padding(volume, progress.warn, "it is left out of mean and spread")
    for path in (*(item.output for item in items), job.uncertainty):
        if path:
            mrc.check_writable(path)
    if job.uncertainty and min(job.flips, len(_mirrors(job, model))) < LEAST_COPIES:
        raise JobError(f"the uncertainty is the spread over mirrored copies: give at least {LEAST_COPIES} flips.")
    if job.flips > len(_mirrors(job, model)):
        progress.warn("the model's tilt range is not symmetric: only 4 mirrored copies keep its missing wedge.")
    begin(folder, job)
    setting = _Setting(job, model, folder, device, progress)
    figures = [_denoise_one(setting, item, volume) for item, volume in zip(items, volumes, strict=True)]
    progress.stage("writing the report")
    _write_picture(setting, tomogram, items)
    result: dict[str, Any] = {
        **{item.role: item.output for item in items}, **({"uncertainty": job.uncertainty} if job.uncertainty else {}),
        "model": job.model, "strength": job.strength, "seconds": round(time.monotonic() - start, 1), **figures[0],
        "voxel_size": tomogram.voxel_size, "trained_on": model.about.get("trained_on", {}),
        "warnings": progress.warnings,
    }  # fmt: skip
    write_json(result, folder.result)
    return result


def _items(job: DualDenoiseJob, tomogram: Tomogram) -> list[_Item]:
    items = [_Item("output", job.input, job.output, tomogram.data, tomogram.difference)]
    if tomogram.halves is not None:
        # The noise of a half is root 2 times that of their mean.
        noise = HalfDifference(*tomogram.halves, gain=math.sqrt(2))
        for role, path, output, data in zip(
            ("output_even", "output_odd"), (job.even, job.odd), (job.output_even, job.output_odd), tomogram.halves,
            strict=True,
        ):  # fmt: skip
            if output:
                items.append(_Item(role, path, output, data, noise))
    return items


def _mirrors(job: DualDenoiseJob, model: DualModel) -> list[tuple[int, ...]]:
    """Axes of the mirrored copies: those that leave the missing wedge where it is."""
    return [axes for _, axes in wedge_preserving_symmetries(*model.tilt_range)][: job.flips]


def _denoise_one(setting: _Setting, item: _Item, volume: DomainVolume) -> dict[str, float]:
    job, progress = setting.job, setting.progress
    shape, header = shape_of(item.data), (volume.voxel_size, volume.origin, job.output_mode)
    if job.strength == 0 and not job.uncertainty:
        with mrc.create_volume(item.output, shape, *header) as target:
            target[...] = item.data
        return {}
    mirrors = _mirrors(job, setting.model)
    network = unclipped(network_function(setting.model.denoiser, setting.device))
    what = "" if item.role == "output" else item.role[len("output") :].replace("_", " the ") + " half"
    with scratch_volume(setting.folder.path, volume.shape) as denoised:
        setting.apply(mirrored_mean(network, mirrors), volume, denoised, "denoising" + what)
        result = volume.resample_back(denoised) if volume.shape != shape else denoised
        gain, offset, correlation = grey_scale(item.data, result)
        correlation *= volume.scale.sign  # the network's density is bright
        check_contrast(correlation, item.path, progress)
        change = Difference(item.data, result, gain, offset)
        with mrc.create_volume(item.output, shape, *header) as target:
            figures = _change(setting, item, change, target, what)
            for slab in mrc.slabs(target):
                target[slab] = np.asarray(item.data[slab], np.float32) + np.float32(job.strength) * target[slab]
    if item.role == "output" and job.uncertainty:
        _write_uncertainty(setting, volume, abs(gain), mirrors)
    return {"correlation_of_means": correlation, **figures}


def _of(what: str) -> str:
    """The end of a stage's name: of the even half, or nothing."""
    return f" of{what}" if what else ""


def _change(
    setting: _Setting, item: _Item, change: Difference, target: np.ndarray, what: str
) -> dict[str, float]:  # fmt: skip
    """Fill ``target`` with what full strength adds to the data."""
    progress, tilts = setting.progress, setting.model.tilt_range
    if not setting.job.hold_data:
        for slab in mrc.slabs(target):
            target[slab] = change[slab, :, :]
        return {}
    progress.stage("measuring the noise" + _of(what))
    weights = holding_filter(item.data, change, _noise_share(setting, item), tilts)
    filter_volume(change, target, weights, setting.device, progress, "holding the data" + _of(what))
    merge(target, change, target, TiltRange(*tilts))
    return {"share_of_change_kept": float(weights.mean())}


def _noise_share(setting: _Setting, item: _Item) -> Curve:
    share, sure = noise_share(item.data, item.difference, setting.model.tilt_range)
    if not sure:
        setting.progress.warn(
            f"no part of {item.path} is emptier than the rest, so its noise may be measured too high and its data held "
            "too loosely; halves (even, odd) would measure it directly."
        )
    return share


def _write_uncertainty(
    setting: _Setting, volume: DomainVolume, gain: float, mirrors: list[tuple[int, ...]]
) -> None:  # fmt: skip
    """Spread of the denoised volume over the mirrored copies, on the tomogram's grid and grey scale."""
    job = setting.job
    network = unclipped(network_function(setting.model.denoiser, setting.device))
    with scratch_volume(setting.folder.path, volume.shape) as spread:
        setting.apply(mirrored_spread(network, mirrors), volume, spread, "measuring the uncertainty")
        result: Readable = volume.resample_back(spread) if volume.shape != volume.file_shape else spread
        with mrc.create_volume(job.uncertainty, volume.file_shape, volume.voxel_size, volume.origin) as target:
            for slab in mrc.slabs(target):
                target[slab] = np.maximum(gain * np.asarray(result[slab, :, :]), 0)


def _write_picture(setting: _Setting, tomogram: Tomogram, items: list[_Item]) -> None:
    curves = None
    if tomogram.halves is not None:
        curves = {"before": report.agreement(*tomogram.halves)}
        halves = [mrc.open_volume(item.output) for item in items if item.role != "output"]
        if len(halves) == 2:
            curves["after"] = report.agreement(*halves)
    job = setting.job
    report.write_report(
        setting.folder.report, tomogram.data, mrc.open_volume(job.output), tomogram.voxel_size,
        title=f"DUAL (strength {job.strength:g}): {os.path.basename(job.input)}", halves=curves,
    )  # fmt: skip
