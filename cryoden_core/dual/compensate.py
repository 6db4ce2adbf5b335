"""Carry out the job ``dual wedge``: learn what the missing wedge should hold and fill it, nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from typing import Any

import numpy as np
import torch

from .. import mrc, report
from ..device import resolve_device
from ..fourier import frequency_radius
from ..jobs import DualWedgeJob, JobError, RunFolder, write_json
from ..models import load_model, save_model
from ..progress import Progress, read_metrics
from ..runs import begin
from ..spectrum import block_shape
from ..tiling import shape_of
from ..tomogram import open_tomogram
from ..training import Trainer, TrainingSettings
from .crops import CropSource, wedge_preserving_symmetries
from .domains import DomainVolume, Scale, check_tomogram, mask_padding, wedge_ratio, with_tilt_range
from .missing_wedge import TiltRange, merge, missing_part
from .transfer import noise_share
from .translate import SPECTRUM_EDGE, apply_network, filter_volume, network_function, scratch_volume
from .wedge_training import PRESETS, ConsistentTask, CycleTask, Filler, WedgePreset, WedgeTask

SYSTEM = "dual wedge"
#: Weight of the critic when the job leaves it to the mode.
ADVERSARY = {"consistent": 0.0, "cycle": 1.0}
TASKS: dict[str, type[WedgeTask]] = {"consistent": ConsistentTask, "cycle": CycleTask}
#: (z, x) sections on which the measured region is compared before and after.
COMPARED_SECTIONS = 8


def compensate(job: DualWedgeJob, progress: Progress) -> dict[str, Any]:
    """Fill the missing wedge of a tomogram; see :class:`cryoden_core.jobs.DualWedgeJob`.

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
    job = with_tilt_range(job)
    folder = RunFolder.beside(job.output, job.run_folder)
    device = resolve_device(job, progress.warn)
    progress.stage("checking the input")
    tilt_range = TiltRange(job.tilt_min, job.tilt_max)
    volumes = [_open(path, job, progress) for path in [job.input, *([] if job.model else job.train_with)]]
    filler: Filler | None = None
    if job.model:
        filler, about = _load(job, device, volumes[0], progress)
    for path in (job.output, job.save_model):
        if path:
            mrc.check_writable(path)
    begin(folder, job)
    if filler is None:
        filler, about = _train(job, volumes, tilt_range, folder, device, progress)
        save_model(job.save_model or folder.model, filler.state_dict(), about)
    volume = volumes[0]
    _fill(job, filler, volume, tilt_range, folder, device, progress)
    progress.stage("writing the report")
    result: dict[str, Any] = {
        "output": job.output, "model": job.model or job.save_model or folder.model,
        "seconds": round(time.monotonic() - start, 1), **_figures(volume, job.output, tilt_range),
        **{name: about[name] for name in ("mode", "trained_on", "unexplained") if name in about},
        "voxel_size": volume.voxel_size, "warnings": progress.warnings,
    }  # fmt: skip
    report.write_report(
        folder.report, volume.data, mrc.open_volume(job.output), volume.voxel_size, read_metrics(folder.metrics),
        title=f"Missing wedge ({about['mode']}): {os.path.basename(job.input)}",
    )  # fmt: skip
    write_json(result, folder.result)
    return result


def _open(path: str, job: DualWedgeJob, progress: Progress) -> DomainVolume:
    """A tomogram as it is in the file, standardised where it is read, checked for its wedge."""
    opened = open_tomogram(path, job.voxel_size, progress.warn)
    volume = DomainVolume(
        path, opened.data, Scale(opened.mean, opened.sd, 1), opened.voxel_size, opened.voxel_size,
        shape_of(opened.data), opened.origin,
    )  # fmt: skip
    check_tomogram(volume, (job.tilt_min, job.tilt_max), progress.warn)
    mask_padding(volume, progress.warn)
    return volume


def _train(
    job: DualWedgeJob, volumes: list[DomainVolume], tilt_range: TiltRange, folder: RunFolder, device: torch.device,
    progress: Progress,
) -> tuple[Filler, dict[str, Any]]:  # fmt: skip
    preset = PRESETS[job.preset]
    if job.steps:
        preset = dataclasses.replace(preset, steps=job.steps)
    adversary = job.adversary if job.adversary >= 0 else ADVERSARY[job.mode]
    source = CropSource(volumes, wedge_preserving_symmetries(job.tilt_min, job.tilt_max))
    task = TASKS[job.mode](source, tilt_range, preset, adversary, device, job.seed)
    crowded = source.without_room(task.edge)
    if crowded is not None:
        raise JobError(f"{crowded.path} has no room for a training crop of {task.edge} voxels beside its padding.")
    trainer = Trainer(
        task, TrainingSettings(preset.steps), device, job.seed, progress, folder.checkpoint,
        _fingerprint(job, preset, adversary, volumes),
    )  # fmt: skip
    trainer.fit(resume=job.resume)
    trainer.use_averages()
    about: dict[str, Any] = {
        "system": SYSTEM, "mode": job.mode, "preset": dataclasses.asdict(preset), "adversary": adversary,
        "architecture": task.filler.architecture, "tilt_range": [job.tilt_min, job.tilt_max],
        "voxel_size": volumes[0].voxel_size, "trained_on": [os.path.basename(volume.path) for volume in volumes],
        "seed": job.seed,
    }  # fmt: skip
    if job.mode == "consistent":
        # The share of the power known in wedges cut on purpose that the network does not find again: 1 is no better
        # than leaving them empty.
        losses = [loss for loss in read_metrics(folder.metrics).get("loss", []) if math.isfinite(loss)]
        if losses:
            about["unexplained"] = round(float(np.mean(losses[-max(1, len(losses) // 10) :])), 4)
    return task.filler, about


def _fingerprint(job: DualWedgeJob, preset: WedgePreset, adversary: float, volumes: list[DomainVolume]) -> str:
    """What must not change between a run and its continuation."""
    sizes = [(v.shape, round(v.scale.mean, 6), round(v.scale.sd, 6)) for v in volumes]
    asked = [job.mode, job.tilt_min, job.tilt_max, job.seed, adversary]
    return json.dumps([asked, dataclasses.asdict(preset), sizes])


def _load(
    job: DualWedgeJob, device: torch.device, volume: DomainVolume, progress: Progress
) -> tuple[Filler, dict[str, Any]]:
    weights, about = load_model(job.model, SYSTEM)
    try:
        filler = Filler(**about["architecture"])
        filler.load_state_dict(weights)
        low, high = (float(angle) for angle in about["tilt_range"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise JobError(f"the weights of {job.model} do not fit this version's network; train a new model.") from error
    if max(abs(low - job.tilt_min), abs(high - job.tilt_max)) > 3:
        progress.warn(
            f"the model was trained for tilts from {low:g} to {high:g} degrees and is applied to {job.tilt_min:g} to "
            f"{job.tilt_max:g}: train a new one if the result looks wrong."
        )
    trained = about.get("voxel_size", 0)
    if trained and volume.voxel_size and abs(trained - volume.voxel_size) > 0.05 * trained:
        progress.warn(
            f"the model was trained at {trained:.2f} A per voxel and {volume.path} has {volume.voxel_size:.2f}: train "
            "a new one if the result looks wrong."
        )
    return filler.to(device, memory_format=torch.channels_last_3d), about  # type: ignore[call-overload]


def _fill(
    job: DualWedgeJob, filler: Filler, volume: DomainVolume, tilt_range: TiltRange, folder: RunFolder,
    device: torch.device, progress: Progress,
) -> None:  # fmt: skip
    filler.eval()
    scale = volume.scale

    run = network_function(filler, device)

    def fill(data: torch.Tensor) -> torch.Tensor:
        return run(data) * scale.sd + scale.mean

    shape = shape_of(volume.data)
    header = (volume.voxel_size, volume.origin, job.output_mode)
    # The published cycle is applied as published.
    weighted = job.signal_only and not filler.architecture["translating"]
    weights = _signal_weights(volume, tilt_range, progress) if weighted else None
    with mrc.create_volume(job.output, shape, *header) as target, scratch_volume(folder.path, shape) as filled:
        apply_network(
            fill, volume, filled, features=filler.architecture["features"], multiple=filler.multiple,
            device=device, progress=progress, stage="filling",
        )  # fmt: skip
        if weights is not None:
            filter_volume(filled, target, weights, device, progress, "weighting what is filled in")
        progress.stage("keeping what was measured", shape[1])
        merge(volume.data, filled if weights is None else target, target, tilt_range, progress.advance)


def _signal_weights(volume: DomainVolume, tilt_range: TiltRange, progress: Progress) -> np.ndarray | None:
    """The share of the power that is signal, by frequency, on the grid of a block; None where it cannot be told.

    A network that has learned from noisy data continues the noise too; what it makes of noise alone correlates by 0.9
    with what it makes of the tomogram.  Weighted, the part filled in correlated with the density by 0.51 in place of
    0.29 (100 steps), and by 0.44 in place of 0.15 (800 steps), at its scale (the slope of the density on it was 0.9 to
    1.4 in place of 0.05 to 0.2); at a signal-to-noise ratio of 0.1.
    """
    progress.stage("measuring the noise")
    (frequency, noise), sure = noise_share(volume.data, None, (tilt_range.minimum, tilt_range.maximum), volume.inside)
    if not sure:
        progress.warn(
            f"no part of {volume.path} is emptier than the rest, so what of it is noise cannot be told: the wedge is "
            "filled with noise too."
        )
        return None
    block = block_shape(volume.shape, SPECTRUM_EDGE)
    return 1 - np.interp(frequency_radius(block), frequency, noise).astype(np.float32)


def _figures(volume: DomainVolume, output: str, tilt_range: TiltRange) -> dict[str, float]:
    """How full the wedge was and is, and how much the measured region changed (share of its amplitude)."""
    after = mrc.open_volume(output)
    rows = np.unique(np.linspace(0, volume.shape[1] - 1, COMPARED_SECTIONS).astype(int))
    before, now = (np.asarray(data[:, rows], np.float32) for data in (volume.data, after))
    change = now - before
    changed = change - missing_part(change, tilt_range)
    measured = before - missing_part(before, tilt_range)
    limits = (tilt_range.minimum, tilt_range.maximum)
    return {
        "wedge_ratio_before": wedge_ratio(volume.data, *limits), "wedge_ratio_after": wedge_ratio(after, *limits),
        "measured_change": float(np.sqrt(np.square(changed).sum() / np.square(measured - measured.mean()).sum())),
    }  # fmt: skip
