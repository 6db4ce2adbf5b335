"""Carry out the NMSG jobs: measure the noise, train, apply, write, report."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from typing import Any

import numpy as np
import torch

from .. import mrc, report
from ..device import resolve_device
from ..excerpts import central_block, robust_statistics
from ..fourier import frequency_radius, half_transform, hermitian_weights
from ..jobs import JobError, NmsgJob, NmsgTraining, NmsgTrainJob, RunFolder, write_json
from ..models import load_model, save_model
from ..nets.unet3d import UNet3d
from ..progress import Progress, read_metrics
from ..runs import begin
from ..tiling import shape_of
from ..tomogram import Tomogram, add_halves, add_mask, open_tomogram
from ..training import Trainer, TrainingSettings
from . import paper
from .denoiser import RecorruptedTask, TrainingVolume, denoise_volume
from .noise_fit import fit_noise
from .presets import PRESETS, Preset
from .wedge import keep_wedge

WEDGE_NOTICE = "The missing wedge is not restored: NMSG removes noise, it adds no unmeasured direction."


def denoise(job: NmsgJob, progress: Progress) -> dict[str, Any]:
    """Denoise one tomogram; see :class:`cryoden_core.jobs.NmsgJob`.

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
    tomogram = open_tomogram(job.input, job.voxel_size, progress.warn)
    if job.even:
        add_halves(tomogram, job.even, job.odd, progress.warn)
    if job.mask:
        add_mask(tomogram, job.mask)
    for path in (job.output, job.output_even, job.output_odd, job.save_model):
        if path:
            mrc.check_writable(path)
    begin(folder, job, folder.noise_report)
    progress.say(WEDGE_NOTICE)
    if job.model:
        network, about = _load_network(job.model, device, tomogram, progress)
        noise: dict[str, Any] = {}
    else:
        network, about, noise = _train(job, [tomogram], folder, device, progress)
        _save(network, about, job.save_model or folder.model)
    written, wedge = _apply(job, tomogram, network, about, device, progress)
    progress.stage("writing the report")
    result = _result(job, tomogram, written, about, {**noise, **wedge}, start, progress)
    _write_picture(folder, job, tomogram, written)
    write_json(result, folder.result)
    return result


def train(job: NmsgTrainJob, progress: Progress) -> dict[str, Any]:
    """Train one model on several tomograms; see :class:`cryoden_core.jobs.NmsgTrainJob`."""
    start = time.monotonic()
    folder = RunFolder.beside(job.output, job.run_folder)
    device = resolve_device(job, progress.warn)
    progress.stage("checking the input")
    tomograms = [open_tomogram(path, job.voxel_size, progress.warn) for path in job.inputs]
    for tomogram, even, odd in zip(tomograms, job.evens, job.odds, strict=False):
        add_halves(tomogram, even, odd, progress.warn)
    for tomogram, mask in zip(tomograms, job.masks, strict=False):
        if mask:
            add_mask(tomogram, mask)
    mrc.check_writable(job.output)
    begin(folder, job, folder.noise_report)
    network, about, noise = _train(job, tomograms, folder, device, progress)
    _save(network, about, job.output)
    result = {
        "output": job.output, "model": job.output, "seconds": round(time.monotonic() - start, 1),
        "trained_on": about["trained_on"], "warnings": progress.warnings, **noise,
    }  # fmt: skip
    write_json(result, folder.result)
    return result


def _preset(job: NmsgTraining) -> Preset:
    """The preset with what the job says otherwise."""
    changes: dict[str, Any] = {}
    if job.steps:
        changes["steps"] = job.steps
    if job.guidance_weight >= 0:
        changes["guidance_weight"] = job.guidance_weight
    if job.sparsity_weight >= 0:
        changes["sparsity_weight"] = job.sparsity_weight
    if job.tile:
        changes["tile"] = job.tile
    return dataclasses.replace(PRESETS[job.preset], **changes)


def _train(
    job: NmsgTraining, tomograms: list[Tomogram], folder: RunFolder, device: torch.device, progress: Progress
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The trained network, its metadata and the figures of the noise."""
    if job.preset == "paper":
        return paper.train(job, tomograms, folder, device, progress)
    preset = _preset(job)
    volumes, reports = [], []
    for index, tomogram in enumerate(tomograms):
        progress.stage("measuring the noise")
        checkpoint = folder.noise_checkpoint + (f".{index}" if index else "")
        fitted = fit_noise(tomogram, job.noise_model, job.seed, device, progress, checkpoint, job.resume)
        reports.append(fitted.report.to_dict())
        volumes.append(
            TrainingVolume(
                tomogram.data, tomogram.mean, tomogram.sd, fitted.model, fitted.level,
                fitted.spectra.best_gaussian_sigma(), tomogram.difference, tomogram.centres,
            )
        )  # fmt: skip
    single = len(reports) == 1
    write_json(reports[0] if single else {"passed": all(r["passed"] for r in reports), "tomograms": reports},
               folder.noise_report)  # fmt: skip
    task = RecorruptedTask(volumes, preset, device, job.seed)
    settings = TrainingSettings(preset.steps)
    trainer = Trainer(
        task, settings, device, job.seed, progress, folder.checkpoint, fingerprint=_fingerprint(job, tomograms)
    )
    trainer.fit(resume=job.resume)
    trainer.use_averages()
    about = {
        "system": "nmsg", "preset": dataclasses.asdict(preset), "architecture": task.network.architecture,
        "voxel_size": tomograms[0].voxel_size, "normalisation": "mean and standard deviation of each tomogram",
        "trained_on": [os.path.basename(tomogram.path) for tomogram in tomograms], "steps": preset.steps,
        "seed": job.seed,
    }  # fmt: skip
    figures = {
        "noise_report_passed": all(r["passed"] for r in reports), "noise_source": reports[0]["source"],
        "noise_model": volumes[0].noise.kind,
    }  # fmt: skip
    return task.network, about, figures


def _fingerprint(job: NmsgTraining, tomograms: list[Tomogram]) -> str:
    """What must not change between a run and its continuation."""
    ignored = ("resume", "device", "cpu_fallback", "threads", "run_folder", "output", "output_even", "output_odd",
               "output_mode", "strength", "save_model", "keep_wedge", "tilt_min", "tilt_max")  # fmt: skip
    asked = {name: value for name, value in dataclasses.asdict(job).items() if name not in ignored}
    sizes = [(t.data.shape, round(t.mean, 6), round(t.sd, 6)) for t in tomograms]
    # The preset's numbers may differ in another version of the program.
    return json.dumps([asked, dataclasses.asdict(_preset(job)), sizes], sort_keys=True)


def _save(network: Any, about: dict[str, Any], path: str) -> None:
    save_model(path, network.state_dict(), about)


def _load_network(
    path: str, device: torch.device, tomogram: Tomogram, progress: Progress
) -> tuple[Any, dict[str, Any]]:
    """A network from a model file, with a warning when the tomogram is unlike what it was trained on."""
    weights, about = load_model(path, "nmsg")
    try:
        if about.get("recipe") == "paper":
            network: Any = paper.make_network(about["architecture"], device)
        else:
            network = UNet3d(**about["architecture"]).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        network.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        written = about.get("core_version", "unknown")
        raise JobError(
            f"the weights of {path} do not fit this version's network (it was written by version {written}); train a "
            "new model."
        ) from error
    trained, here = about.get("voxel_size", 0), tomogram.voxel_size
    if trained and here and abs(trained - here) > 0.1 * trained:
        progress.warn(
            f"the model was trained at {trained:.2f} A per voxel and {tomogram.path} has {here:.2f}: train a new one "
            "if the result looks wrong."
        )
    return network, about


def _apply(
    job: NmsgJob, tomogram: Tomogram, network: Any, about: dict[str, Any], device: torch.device, progress: Progress
) -> tuple[dict[str, str], dict[str, float]]:
    """Write the denoised volumes; returns the role and path of each, and what was taken out of the wedge."""
    # Role, output, input, mean and standard deviation of what the network will see.
    todo = [("output", job.output, tomogram.data, tomogram.mean, tomogram.sd)]
    if tomogram.halves is not None and tomogram.difference is not None:
        # A half may have another grey scale than the tomogram (half the dose, say); the network sees the tomogram's.
        for role, path, half in zip(
            ("output_even", "output_odd"), (job.output_even, job.output_odd), tomogram.halves, strict=True
        ):
            if path:
                todo.append((role, path, half, robust_statistics(half)[0], tomogram.sd / tomogram.difference.gain))
    taken: dict[str, float] = {}
    run = paper.denoise_volume if about.get("recipe") == "paper" else denoise_volume
    flips = about["preset"].get("flips", 1)
    for role, path, data, mean, sd in todo:
        stage = "denoising" + role[len("output") :].replace("_", " the ") + (" half" if role != "output" else "")

        def on_tiles(count: int, stage: str = stage) -> None:
            progress.stage(stage, count)

        with mrc.create_volume(path, shape_of(data), tomogram.voxel_size, tomogram.origin, job.output_mode) as target:
            run(
                network, data, target, mean, sd, device=device, flips=flips, strength=job.strength, tile=job.tile,
                warn=progress.warn, on_tiles=on_tiles, on_tile=progress.advance,
            )  # fmt: skip
            if job.keep_wedge:
                share = keep_wedge(target, data, job.tilt_min, job.tilt_max, on_tiles, progress.advance)
                taken.setdefault("removed_from_wedge", share)
    return {role: path for role, path, *_ in todo}, taken


def _result(
    job: NmsgJob, tomogram: Tomogram, written: dict[str, str], about: dict[str, Any], noise: dict[str, Any],
    start: float, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    after = mrc.open_volume(job.output)
    before, now = (central_block(volume) for volume in (tomogram.data, after))
    removed = before - now
    result: dict[str, Any] = {
        **written, "seconds": round(time.monotonic() - start, 1),
        "model": job.model or job.save_model or RunFolder.beside(job.output, job.run_folder).model,
        "sd_before": float(before.std()), "sd_after": float(now.std()),
        "noise_sd_before": high_frequency_sd(before), "noise_sd_after": high_frequency_sd(now),
        "residual_correlation": float(np.corrcoef(removed.ravel(), now.ravel())[0, 1]) if removed.std() > 0 else 0.0,
        "voxel_size": tomogram.voxel_size, "trained_on": about.get("trained_on", []), "warnings": progress.warnings,
        **noise,
    }  # fmt: skip
    if job.output_mode == "int8":
        # The grey scale of bytes is another one: figures on the input's scale would mislead.
        for name in ("sd_after", "noise_sd_after", "residual_correlation"):
            result.pop(name)
    return result


def high_frequency_sd(block: np.ndarray) -> float:
    """Standard deviation of what lies beyond a third of a cycle per voxel, where a tomogram is nearly all noise."""
    power = np.abs(half_transform(block)) ** 2 * hermitian_weights(block.shape[-1])
    return float(np.sqrt(power[frequency_radius(block.shape) >= 1 / 3].sum()) / block.size)


def _write_picture(folder: RunFolder, job: NmsgJob, tomogram: Tomogram, written: dict[str, str]) -> None:
    curves = None
    if tomogram.halves is not None:
        curves = {"before": report.agreement(*tomogram.halves)}
        if "output_even" in written and "output_odd" in written:
            denoised = (mrc.open_volume(written[role]) for role in ("output_even", "output_odd"))
            curves["after"] = report.agreement(*denoised)
    report.write_report(
        folder.report, tomogram.data, mrc.open_volume(job.output), tomogram.voxel_size, read_metrics(folder.metrics),
        title=f"NMSG ({job.preset}): {os.path.basename(job.input)}", halves=curves,
    )  # fmt: skip
