"""Carry out the job ``dual train``: read both domains, train, watch the training's health, write the model."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from typing import Any

import numpy as np
import torch

from .. import mrc
from ..device import resolve_device
from ..jobs import DualTrainJob, JobError, RunFolder, write_json
from ..progress import Progress, read_metrics
from ..runs import begin
from ..tilt_series import sign_of_tilt_series
from ..tomogram import HalfDifference, add_halves, open_tomogram
from ..training import Trainer, TrainingSettings
from .alarms import PATIENT_STEPS, Watch, check
from .crops import CropSource, all_symmetries, match_empty_shares, wedge_preserving_symmetries
from .domains import DomainVolume, check_tomogram, mask_padding, open_volume_for, restrict, with_tilt_range
from .model import PARTS, DualModel
from .montage import volumes_of, write_losses, write_montage
from .presets import PRESETS, Preset
from .task import DualTask
from .transfer import TRANSFER_EDGE, Curve, noise_share
from .translate import LOWEST_CORRELATION, grey_scale

CHECKS = 10

#: A step of the preset robust on one core with bfloat16 (measured 10 to 16, on shared computers).
SECONDS_ON_A_CPU = 10


def train(job: DualTrainJob, progress: Progress) -> dict[str, Any]:
    """Train a DUAL model; see :class:`cryoden_core.jobs.DualTrainJob`.

    Returns
    -------
    dict
        What is also written to ``result.json``.

    Raises
    ------
    JobError
        Before anything is written, when the input or a parameter is wrong.
    """
    start = time.monotonic()
    job = with_tilt_range(job)
    folder = RunFolder(job.run_folder or job.output)
    device = resolve_device(job, progress.warn)
    progress.stage("reading the two domains")
    preset = _preset(job)
    noisy, clean = _open_domains(job, preset, progress)
    preset = _with_room(preset, (noisy, clean), progress)
    pair = _open_pair(job, preset, progress)
    halves = _open_halves(job, preset, noisy, progress)
    share = _signal_share(job, noisy, halves, progress) if preset.transfer else None
    steps = preset.steps or _steps_of_epochs(preset, noisy, clean)
    warn_of_a_long_training(job.preset, steps, device, progress)
    mrc.check_writable(job.model)
    begin(folder, job, folder.montage)
    empty = match_empty_shares(noisy, clean, preset.patch, torch.Generator().manual_seed(job.seed))
    if empty > 0:
        progress.say(f"{100 * empty:.0f} % of the clean crops hold no structure.")
    task = WatchedTask(
        noisy, clean, preset, (job.tilt_min, job.tilt_max), device, job.seed, folder=folder, pair=pair,
        every=job.check_every or max(1, steps // CHECKS),
    )  # fmt: skip
    task.halves = halves
    if share is not None:
        progress.stage("measuring what the tomograms show of the clean volumes")
        task.measure_transfer(share, job.clean_kind == "tomogram")
    settings = TrainingSettings(
        steps, warm_up=0.02 if preset.schedule == "linear" else 0.0, ema_decay=preset.ema, clip=preset.clip,
        schedule=preset.schedule, final_rate=0.02, precision=preset.precision,
    )  # fmt: skip
    trainer = Trainer(task, settings, device, job.seed, progress, folder.checkpoint, _fingerprint(job, preset, task))
    trainer.fit(resume=job.resume)
    trainer.use_averages()
    if trainer.rank:
        return {}
    figures = task.watch.figures()
    alarms = check(figures)
    for sentence in alarms:
        progress.warn(sentence)
    model = _model(job, preset, task, steps, alarms)
    model.save(job.model)
    progress.stage("writing the pictures")
    _write_pictures(folder, task)
    result = {
        "output": job.model, "model": job.model, "seconds": round(time.monotonic() - start, 1), "steps": steps,
        "figures": {name: round(value, 5) for name, value in figures.items()}, "alarms": alarms,
        "empty_share": empty, "trained_on": model.about["trained_on"], "warnings": progress.warnings,
    }  # fmt: skip
    write_json(result, folder.result)
    return result


class WatchedTask(DualTask):
    """The training with a look at its health now and then, on its moving averages.

    Parameters
    ----------
    domains
        As :class:`DualTask` wants them, and all that follows.
    folder
        Of the run, for the pictures.
    pair
        A noisy volume and its truth, when one is known.
    every
        Steps between two looks.
    """

    def __init__(
        self, *domains: Any, folder: RunFolder, pair: tuple[DomainVolume, DomainVolume] | None, every: int
    ) -> None:  # fmt: skip
        super().__init__(*domains)
        self.folder, self.every = folder, every
        self.watch = Watch(self, pair, self.seed)
        self._sure_steps = 0

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One step; every so often the figures of :mod:`alarms` are logged and looked at."""
        values = super().step(step, trainer)
        right = [value for name, value in values.items() if name.endswith("_right")]
        self._sure_steps = self._sure_steps + 1 if min(right) > 0.98 else 0
        if self._sure_steps == PATIENT_STEPS:
            trainer.progress.warn(
                f"the critics were always right for {PATIENT_STEPS} steps: nothing is learned of them."
            )
        if trainer.rank == 0 and (step + 1) % self.every == 0:
            with trainer.averaged():
                figures = self.watch.figures()
                _write_pictures(self.folder, self)
            trainer.progress.log(step + 1, {f"check_{name}": value for name, value in figures.items()})
            # The first steps are no sign of anything.
            if step + 1 > trainer.settings.steps // 4:
                for sentence in check(figures):
                    trainer.progress.say(f"step {step + 1}: {sentence}")
        return values


def warn_of_a_long_training(preset: str, steps: int, device: torch.device, progress: Progress) -> None:
    """Say when a CPU would train for many hours: a step of the large networks takes about 10 seconds there."""
    hours = steps * SECONDS_ON_A_CPU / 3600
    if device.type == "cpu" and preset != "fast" and hours > 3:
        progress.warn(
            f"{steps} steps of the preset '{preset}' take about {hours:.0f} hours on a CPU; choose the preset 'fast' "
            "there, or a GPU."
        )


def _preset(job: DualTrainJob) -> Preset:
    """The preset with what the job says otherwise."""
    preset = PRESETS[job.preset]
    changes: dict[str, Any] = {name: getattr(job, name) for name in ("steps", "batch") if getattr(job, name)}
    if job.batch:
        # Memory is why another batch is asked for, and large crops take the most of it.
        changes["large_batch"] = max(2, preset.large_batch * job.batch // preset.batch)
    if job.noise_code != "auto":
        changes["code"] = job.noise_code
        if job.noise_code == "vector":
            changes["large_share"] = 0.0
    preset = dataclasses.replace(preset, **changes)
    samples = preset.batch * ((preset.patch // 2) ** 3 if preset.code == "map" else 1)
    if preset.printed_divergence and samples <= preset.code_channels:
        raise JobError(
            f"the divergence as printed in the paper needs more than {preset.code_channels} crops in a batch, not "
            f"{preset.batch}; take a larger batch or another preset."
        )
    return preset


def _open_domains(job: DualTrainJob, preset: Preset, progress: Progress) -> tuple[CropSource, CropSource]:
    tilt_range = (job.tilt_min, job.tilt_max)
    wedge = wedge_preserving_symmetries(*tilt_range)
    noisy = [_open(job, path, "noisy", preset, progress) for path in job.noisy]
    for path in job.noisy:
        if reason := sign_of_tilt_series(path):
            progress.warn(f"{path} looks like a tilt series ({reason}); what is wanted is the tomogram of it.")
    clean = [_open(job, path, "clean", preset, progress) for path in job.clean]
    for volume in noisy:
        check_tomogram(volume, tilt_range, progress.warn)
        mask_padding(volume, progress.warn)
    for volumes, masks in ((noisy, job.noisy_masks), (clean, job.clean_masks)):
        for volume, mask in zip(volumes, masks or [""] * len(volumes), strict=True):
            restrict(volume, mask, job.thickness)
        signs = {volume.scale.sign for volume in volumes}
        if len(signs) > 1:
            names = [next(v.path for v in volumes if v.scale.sign == sign) for sign in (1, -1)]
            raise JobError(
                f"density looks bright in {names[0]} and dark in {names[1]}; give the contrast, or leave one out."
            )
    kept = preset.keep_empty
    sources = (
        CropSource(noisy, wedge, preset.robust_scale, kept),
        CropSource(clean, all_symmetries() if job.clean_kind == "density" else wedge, preset.robust_scale, kept),
    )
    for source in sources:
        crowded = source.without_room(preset.patch)
        if crowded is not None:
            raise JobError(
                f"{crowded.path} has no room for a training crop of {preset.patch} x {preset.patch} x {preset.patch} "
                f"voxels of {job.voxel_size:g} A; leave it out, or take a smaller voxel size."
            )
    return sources


def _with_room(preset: Preset, sources: tuple[CropSource, CropSource], progress: Progress) -> Preset:
    """The preset without its large crops when one of the volumes is too thin for them."""
    if not preset.large_share:
        return preset
    edge = preset.large_patch
    crowded = next(filter(None, (source.without_room(edge) for source in sources)), None)
    if crowded is None:
        return preset
    progress.warn(
        f"{crowded.path} has no room for crops of {edge} x {edge} x {edge} voxels, with which the training would end; "
        f"all are of {preset.patch} x {preset.patch} x {preset.patch}."
    )
    return dataclasses.replace(preset, large_share=0.0)


def _open(job: DualTrainJob, path: str, domain: str, preset: Preset, progress: Progress) -> DomainVolume:
    noisy = domain == "noisy"
    return open_volume_for(
        job.voxel_size, path, domain=domain, contrast=job.contrast if noisy else job.clean_contrast,
        voxel_size=job.noisy_voxel_size if noisy else job.clean_voxel_size, robust=preset.robust_scale,
        warn=progress.warn,
    )  # fmt: skip


def _open_halves(
    job: DualTrainJob, preset: Preset, noisy: CropSource, progress: Progress
) -> tuple[CropSource, CropSource] | None:
    """The halves of the noisy domain, as sources that draw the same places for the same random numbers."""
    if not job.noisy_even:
        return None
    sources = []
    for paths in (job.noisy_even, job.noisy_odd):
        volumes = []
        for path, whole in zip(paths, noisy.volumes, strict=True):
            volume = open_volume_for(
                job.voxel_size, path, contrast="bright" if whole.scale.sign > 0 else "dark",
                voxel_size=job.noisy_voxel_size, robust=preset.robust_scale, warn=progress.warn,
            )  # fmt: skip
            if volume.shape != whole.shape:
                raise JobError(f"{path} and {whole.path} differ in size: the first cannot be a half of the second.")
            # As of the whole tomogram: crops of both are seen on one grey scale.
            mask_padding(volume, lambda _: None)
            volume.inside = whole.inside
            volumes.append(volume)
        sources.append(CropSource(volumes, noisy.symmetries, noisy.clip))
    return sources[0], sources[1]


def _signal_share(
    job: DualTrainJob, noisy: CropSource, halves: tuple[CropSource, CropSource] | None, progress: Progress
) -> Curve:
    """Share of the noisy domain's power that is signal, by frequency: the mean over its tomograms."""
    progress.stage("measuring signal and noise")
    frequency, tilt_range = np.linspace(0, 0.5, TRANSFER_EDGE + 1), (job.tilt_min, job.tilt_max)
    noise = np.zeros_like(frequency)
    for number, volume in enumerate(noisy.volumes):
        difference = None
        if halves is not None:
            even, odd = (source.volumes[number] for source in halves)
            tomogram = open_tomogram(volume.path, volume.voxel_size, progress.warn)
            add_halves(tomogram, even.path, odd.path, progress.warn)
            assert tomogram.difference is not None
            difference = HalfDifference(even.data, odd.data, tomogram.difference.gain)
        share, sure = noise_share(volume.data, difference, tilt_range, volume.inside)
        if not sure:
            progress.warn(
                f"no part of {volume.path} is emptier than the rest, so its noise may be measured too high and "
                "simulations may show too little; halves (noisy_even, noisy_odd) would measure it directly."
            )
        noise += np.interp(frequency, *share)
    return frequency, 1 - noise / len(noisy.volumes)


def _open_pair(job: DualTrainJob, preset: Preset, progress: Progress) -> tuple[DomainVolume, DomainVolume] | None:
    if not job.validation_noisy:
        return None
    if job.validation_noisy in job.noisy:
        progress.warn(f"{job.validation_noisy} is trained on too: how it is denoised says little about others.")
    noisy = _open(job, job.validation_noisy, "noisy", preset, progress)
    truth = _open(job, job.validation_clean, "clean", preset, progress)
    if noisy.shape != truth.shape:
        raise JobError(f"{noisy.path} and {truth.path} differ in size: the second cannot be the truth of the first.")
    region = (slice(None),) * 3
    if grey_scale(noisy[region], truth[region])[2] < -LOWEST_CORRELATION:
        raise JobError(f"{truth.path}, as read, has the opposite contrast of {noisy.path}; give both contrasts.")
    return noisy, truth


def _steps_of_epochs(preset: Preset, noisy: CropSource, clean: CropSource) -> int:
    voxels = max(sum(math.prod(volume.shape) for volume in source.volumes) for source in (noisy, clean))
    return max(1, math.ceil(preset.epochs * voxels / preset.patch**3 / preset.batch))


def _fingerprint(job: DualTrainJob, preset: Preset, task: DualTask) -> str:
    """What must not change between a run and its continuation."""
    ignored = ("resume", "device", "cpu_fallback", "threads", "run_folder", "output", "check_every")
    asked = {name: value for name, value in dataclasses.asdict(job).items() if name not in ignored}
    volumes = [
        (volume.shape, round(volume.scale.mean, 6), round(volume.scale.sd, 6), volume.scale.sign)
        for source in (task.noisy, task.clean) for volume in source.volumes
    ]  # fmt: skip
    # The preset's numbers may differ in another version of the program.
    return json.dumps([asked, dataclasses.asdict(preset), volumes], sort_keys=True)


def _model(job: DualTrainJob, preset: Preset, task: DualTask, steps: int, alarms: list[str]) -> DualModel:
    domains = {"noisy": task.noisy.volumes, "clean": task.clean.volumes}
    name = {1: "bright", -1: "dark"}
    about = {
        "preset": {"name": job.preset, **dataclasses.asdict(preset), "clip": min(preset.clip, 1e30)},
        "contrast": {domain: name[volumes[0].scale.sign] for domain, volumes in domains.items()},
        "trained_on": {domain: [_short_name(v.path) for v in volumes] for domain, volumes in domains.items()},
        "statistics": {
            domain: [dataclasses.asdict(volume.scale) for volume in volumes] for domain, volumes in domains.items()
        },
        "tilt_range": list(task.tilt_range), "clean_kind": job.clean_kind, "steps": steps, "seed": job.seed,
        "alarms": alarms,
    }  # fmt: skip
    return DualModel(
        **{part: task.networks[part] for part in PARTS}, architecture=task.architecture, voxel_size=job.voxel_size,
        about=about,
    )  # fmt: skip


def _short_name(path: str) -> str:
    """File with its folder: the grand models of a clean domain differ only in that."""
    return os.path.join(*os.path.abspath(path).split(os.sep)[-2:])


def _write_pictures(folder: RunFolder, task: WatchedTask) -> None:
    write_montage(folder.montage, volumes_of(task.watch))
    metrics = read_metrics(folder.metrics)
    if metrics:
        write_losses(folder.report, metrics)
