"""Carry out the reconstruction by a coordinate network: input, pilot, fits, volumes, report.

Van Veen, *Missing Wedge Completion in Cryo-Electron Tomography* (and Int. J. Mol. Sci. 25:5473, 2024): a network that
maps positions to density is fitted to the projections of one specimen, without any training data.  Here one network
stands for the whole volume and is started from SIRT.  What it puts into the missing wedge follows from the penalties
and from what such a network finds easy to say; it is not measured.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import resource
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from .. import mrc, report
from ..device import resolve_device
from ..jobs import JobError, MlpJob, RunFolder, write_json
from ..progress import Progress, read_metrics
from ..reconstruct import curve_of_halves, describe
from ..runs import begin
from ..tomography.beads import find_beads
from ..tomography.inputs import AlignedSeries, open_halves, open_series, remove_aligned
from ..tomography.orientation import compare_with_reference
from ..tomography.wbp import weighted_back_projection
from ..training import Trainer
from .data import FitData, Preparation, Scale, measure_scale, prepare, remove_prepared
from .losses import WedgePenalty
from .pilot import SECTIONS, Choice, choose
from .presets import PRESETS, Preset
from .single import GIB, Settings, SingleFit, binnings, check_memory

#: Million voxels a second on one CPU core, measured: forward, projections and gradient.
CPU_MVOXELS = {"lattice": 2.0, "siren": 0.3, "fourier": 0.3}
#: A fit on the CPU that would take longer than this is refused.
LONGEST_CPU_HOURS = 4.0
#: Diameter of most gold beads.
BEAD_ANGSTROM = 100.0
#: The preview has at most this many voxels along its longest edge.
PREVIEW_EDGE = 256
#: Seconds from one preview to the next at least: making one takes one or two.
PREVIEW_SECONDS = 20.0


def reconstruct(job: MlpJob, progress: Progress) -> dict[str, Any]:
    """Reconstruct a tomogram; see :class:`cryoden_core.jobs.MlpJob`.

    Returns
    -------
    dict
        What is also written to ``result.json``.

    Raises
    ------
    JobError
        Before any output exists, when the input or a parameter is wrong, or the volume too large for the CPU.
    """
    start = time.monotonic()
    folder = RunFolder.beside(job.output, job.run_folder)
    device = resolve_device(job, progress.warn)
    for path in job.outputs():
        mrc.check_writable(path)
    preset = resolved_preset(job)

    def check(shape: tuple[int, int, int], views: int) -> None:
        if device.type == "cpu":
            check_cpu_time(shape, preset, job)
        check_memory(views, _settings(job, preset, shape, device))

    series = open_series(job, folder, progress, check)
    halves = open_halves(job, series, folder, progress)
    begin(folder, job, _pilot_file(folder))
    orientation = compare_with_reference(series, job.reference, device, progress)
    run = _Run(job, preset, series, folder, device, progress)
    result: dict[str, Any] = {**describe(series), **orientation, **run.choose_passes()}
    written = {"output": job.output}
    figures = run.write(series, "whole", job.output, job.spread)
    if job.spread:
        written["output_std"] = job.spread
    for name, half, path in zip(("even", "odd"), halves or (), job.half_outputs(), strict=False):
        run.write(half, name, path)
        written["output_" + name] = path
    progress.stage("writing the report")
    result = {**written, **result, **figures}
    _write_picture(folder, job, series, written, figures, device)
    result.update(seconds=round(time.monotonic() - start, 1), peak_memory_gib=_peak_memory(device),
                  warnings=progress.warnings)  # fmt: skip
    write_json(result, folder.result)
    remove_aligned(folder)
    # The state of a fit is many times the tomogram's size.
    for file in folder.checkpoints():
        os.remove(file)
    return result


def resolved_preset(job: MlpJob) -> Preset:
    """The preset with what the job says otherwise."""
    changes: dict[str, Any] = {}
    preset = PRESETS[job.preset]
    if job.field not in ("auto", preset.field):
        # The network's size belongs to the field: another field brings the size that suits it.
        donor = PRESETS["best"] if job.field != "lattice" else PRESETS["default"]
        changes.update(
            field=job.field, width=donor.width, depth=donor.depth, rate=donor.rate,
            first_frequency=donor.first_frequency, sections=donor.sections,
        )  # fmt: skip
    for name in ("start", "loss"):
        if getattr(job, name) != "auto":
            changes[name] = getattr(job, name)
    if job.crowther_weight >= 0:
        changes["crowther_weight"] = job.crowther_weight
    # Density that cannot fall below zero needs no pull towards it: with one, spheres came out 0.6 dB worse.
    pull = 0.0 if job.non_negative else 1.0
    asked = [
        (
            pull * sparse if job.sparsity < 0 else job.sparsity,
            smooth if job.total_variation < 0 else job.total_variation,
        )
        for sparse, smooth in preset.penalties
    ]
    changes["penalties"] = tuple(dict.fromkeys(asked))
    if job.passes:
        changes["passes"] = job.passes
    if job.slices:
        changes["sections"] = job.slices
    return dataclasses.replace(preset, **changes)


def check_cpu_time(shape: tuple[int, int, int], preset: Preset, job: MlpJob) -> None:
    """Refuse, with a :class:`JobError` that says what binning would fit, what the CPU would need days for.

    Counted are the fits of a tomogram (z, y, x), of its halves and of the members of an ensemble, and the pilot.
    """
    depth, height, width = shape
    cost = sum(share / binning**3 for binning, share in binnings(shape).items())
    sections = height * cost * (job.ensemble + 2 * (job.halves != "none"))
    if job.held_out:
        sections += min(height, SECTIONS) * len(preset.penalties)
    voxels = depth * width * sections * preset.passes
    hours = voxels / (CPU_MVOXELS[preset.field] * 1e6 * torch.get_num_threads()) / 3600
    if hours <= LONGEST_CPU_HOURS:
        return
    binning = int(np.ceil((hours / LONGEST_CPU_HOURS) ** (1 / 3)))
    raise JobError(
        f"the fit of {shape[2]} x {shape[1]} x {shape[0]} voxels would take about {hours:.0f} hours on this CPU; bin "
        f"{max(2, binning)} times more (binning), choose a faster preset, or use a GPU."
    )


def _settings(job: MlpJob, preset: Preset, shape: tuple[int, int, int], device: torch.device) -> Settings:
    return Settings(preset, shape, job.non_negative, job.fit_views, job.max_memory, device)


class _Run:
    """What the fits of one job share."""

    def __init__(
        self, job: MlpJob, preset: Preset, series: AlignedSeries, folder: RunFolder, device: torch.device,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.job, self.preset, self.series, self.folder = job, preset, series, folder
        self.device, self.progress = device, progress
        background = "zero" if job.non_negative and job.background == "auto" else job.background
        self.background = "median" if background == "auto" else background
        self.mask, self.masked_fraction = self._find_beads(series)
        self.scale = measure_scale(series, self.background, self.mask)

    def _find_beads(self, series: AlignedSeries) -> tuple[np.ndarray | None, float]:
        """Mask (views, y, u) of the beads, None when there are none or they are to be kept, and its mean."""
        if self.job.beads == "keep":
            return None, 0.0
        self.progress.stage("looking for gold beads")
        diameter = BEAD_ANGSTROM / series.voxel_size if series.voxel_size else 12.0
        mask, fraction = find_beads(series.projections, max(4.0, diameter), warn=self.progress.warn)
        return (mask if mask.any() else None), float(fraction.mean())

    def choose_passes(self) -> dict[str, Any]:
        """Run the pilot when it is asked for; what it found, for the result."""
        depth, _, width = self.series.volume_shape
        wedge = WedgePenalty(depth, width, np.degrees(self.series.geometry().angles_radians))
        active = bool(wedge.active and self.preset.crowther_weight > 0)
        if self.preset.crowther_weight > 0 and not wedge.active:
            self.progress.say(
                f"the penalty in the missing wedge is inactive: neighbouring views overlap up to {wedge.start:.2f} "
                "cycles per voxel."
            )
        found: dict[str, Any] = {"crowther_frequency": round(wedge.start, 4), "crowther_penalty_active": active}
        if self.job.held_out:
            choice = self._pilot()
            self.preset = dataclasses.replace(self.preset, penalties=(choice.penalties,), passes=choice.passes)
            found.update(held_out_error=round(choice.error, 5), held_out_errors=choice.errors)
        found.update(
            passes=self.preset.passes, sparsity=self.preset.penalties[0][0],
            total_variation=self.preset.penalties[0][1],
            masked_fraction=round(self.masked_fraction, 5),
        )  # fmt: skip
        return found

    def _pilot(self) -> Choice:
        return choose(
            self.series, self._preparation(self.series, self.scale), self._settings(), self.job.seed, self.mask,
            self.progress, _pilot_file(self.folder), self._fingerprint("pilot"), self.job.resume,
        )  # fmt: skip

    def write(self, series: AlignedSeries, name: str, path: str, spread: str = "") -> dict[str, Any]:
        """Fit and write a volume, and the map of the spread of an ensemble; returns the figures of the fit."""
        mask, _ = (self.mask, 0.0) if name == "whole" else self._find_beads(series)
        scale = self.scale if name == "whole" else measure_scale(series, self.background, mask)
        how = self._preparation(series, scale)
        shares = binnings(series.volume_shape)
        names = {binning: f"{name}_{binning}" for binning in shares}
        try:
            data = {
                binning: prepare(series.binned(binning), how, names[binning], binning, _binned_mask(mask, binning))
                for binning in shares
            }
            return self._figures(self._fill(data, scale, name, path, spread))
        finally:
            remove_prepared(self.folder.path, *names.values())

    def _fill(self, data: dict[int, FitData], scale: Scale, name: str, path: str, spread: str) -> SingleFit:
        """Make the files of a volume, and of its spread where one is named; returns the last fit."""
        members = self.job.ensemble if name == "whole" else 1
        seed = self.job.seed + {"whole": 0, "even": 1000, "odd": 2000}[name]
        series = data[1].series
        about = (series.volume_shape, series.voxel_size, series.origin, self.job.output_mode)
        with ExitStack() as files:
            target = files.enter_context(mrc.create_volume(path, *about))
            squares = files.enter_context(mrc.create_volume(spread, *about)) if spread else None
            for member in range(members):
                fit = self._fit(data, name, seed + member, member, members)
                self._add(fit, scale, target, squares, member)
            if squares is not None:
                for block in fit.sections():
                    squares[:, block] = np.sqrt(np.asarray(squares[:, block]) / (members - 1))
        return fit

    def _fit(self, data: dict[int, FitData], name: str, seed: int, member: int, members: int) -> SingleFit:
        if members > 1:
            data = {binning: _bootstrapped(part, seed) for binning, part in data.items()}
        label = {"whole": "fitting the network", "even": "fitting the even half", "odd": "fitting the odd half"}[name]
        key = name if members == 1 else f"{name}_{member}"
        checkpoint = self.folder.checkpoint if key == "whole" else f"{self.folder.checkpoint}.{key}"
        fit = SingleFit(
            data, self._settings(), seed, self.progress, checkpoint, self._fingerprint(key),
            label if members == 1 else f"{label} ({member + 1} of {members})",
        )  # fmt: skip
        if key == "whole" and self.job.preview_every:
            fit.task.on_pass = _Preview(fit, self.folder, self.scale.density, self.job.preview_every)
        fit.fit(self.job.resume)
        return fit

    def _add(self, fit: SingleFit, scale: Scale, target: np.ndarray, squares: np.ndarray | None, member: int) -> None:
        """Take one more volume into the mean, and into the sum of squared differences (Welford, 1962)."""
        for block in self.progress.track(fit.sections(), "writing the tomogram", len(fit.sections())):
            density = fit.density(block) * np.float32(scale.density)
            difference = density - target[:, block]
            target[:, block] += difference / (member + 1)
            if squares is not None:
                squares[:, block] += difference * (density - target[:, block])

    def _figures(self, fit: SingleFit) -> dict[str, Any]:
        per_view, per_section = fit.residuals()
        views = fit.task.views
        return {
            "residual_per_view": [round(float(value), 5) for value in per_view],
            "gain_per_view": [round(float(value), 4) for value in views.gains.detach().cpu()],
            "section_residual": round(float(per_section.mean()), 5),
            "section_residual_sd": round(float(per_section.std()), 5),
            "neighbour_correlation": round(_neighbour_correlation(fit), 4),
            "mvoxels_per_second": round(fit.task.voxels_visited / 1e6 / max(fit.seconds, 1e-9), 3),
            "fit_seconds": round(fit.seconds, 1), "field": self.preset.field,
        }  # fmt: skip

    def _settings(self) -> Settings:
        return _settings(self.job, self.preset, self.series.volume_shape, self.device)

    def _preparation(self, series: AlignedSeries, scale: Scale) -> Preparation:
        return Preparation(
            scale, self.preset.start, self.preset.start_iterations, self.job.non_negative, True,
            max(series.volume_shape), self.device, self.folder.path, self.progress,
        )  # fmt: skip

    def _fingerprint(self, key: str) -> str:
        """What must not change between a run and its continuation."""
        ignored = ("resume", "device", "cpu_fallback", "threads", "run_folder", "output", "output_even", "output_odd",
                   "output_mode", "reference", "preview_every", "max_memory")  # fmt: skip
        asked = {name: value for name, value in dataclasses.asdict(self.job).items() if name not in ignored}
        data = [list(self.series.projections.shape), float(self.scale.density), self.scale.levels.tolist()]
        return json.dumps([key, asked, dataclasses.asdict(self.preset), data], sort_keys=True)


class _Preview:
    """A small volume and a picture in the run folder every so many passes, but not too often."""

    def __init__(self, fit: SingleFit, folder: RunFolder, density: float, every: int) -> None:
        self.fit, self.folder, self.density, self.every = fit, folder, density, every
        self.made = time.monotonic()

    def __call__(self, passes: int, trainer: Trainer) -> dict[str, float]:
        if passes % self.every or time.monotonic() - self.made < PREVIEW_SECONDS:
            return {}
        self.made = time.monotonic()
        data = self.fit.data[1]
        z, y, x = data.series.volume_shape
        step = max(1, -(-max(z, y, x) // PREVIEW_EDGE))
        sections = torch.arange(step // 2, y, step)
        volume = self.fit.task.density(trainer, data, sections).cpu().numpy()[step // 2 :: step, :, step // 2 :: step]
        small = np.ascontiguousarray(volume) * np.float32(self.density)
        mrc.write_volume(os.path.join(self.folder.path, "preview.mrc"), small, data.series.voxel_size * step)
        report.write_reconstruction(
            os.path.join(self.folder.path, "preview.png"), {f"after {passes} passes": small},
            data.series.voxel_size * step,
        )  # fmt: skip
        return {}


def _pilot_file(folder: RunFolder) -> str:
    return os.path.join(folder.path, "pilot.json")


def _bootstrapped(data: FitData, seed: int) -> FitData:
    """The same data with random weights of the views (Rubin's Bayesian bootstrap, 1981).

    Members of an ensemble that all begin from one start and see the same views would agree too well.
    """
    shares = -np.log(np.random.default_rng(seed).uniform(1e-6, 1, data.series.views)).astype(np.float32)
    weights = data.weights * torch.from_numpy(shares / shares.mean()).to(data.weights.device)[:, None, None]
    return dataclasses.replace(data, weights=weights)


def _binned_mask(mask: np.ndarray | None, binning: int) -> np.ndarray | None:
    """Pixels of the binned views that touch a masked one, bead edges having spread in the binning."""
    if mask is None or binning == 1:
        return mask
    views, height, width = mask.shape
    height, width = height // binning, width // binning
    y, x = ((size - kept * binning) // 2 for size, kept in zip(mask.shape[1:], (height, width), strict=True))
    cut = mask[:, y : y + height * binning, x : x + width * binning]
    return cut.reshape(views, height, binning, width, binning).any(axis=(2, 4))


def _neighbour_correlation(fit: SingleFit) -> float:
    """Mean correlation of neighbouring y sections: streaks that change from section to section lower it."""
    blocks = fit.sections()
    middle = blocks[len(blocks) // 2]
    density = np.moveaxis(fit.density(middle), 1, 0).reshape(middle.stop - middle.start, -1)
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(density)]
    return float(np.nanmean(pairs)) if pairs else float("nan")


def _peak_memory(device: torch.device) -> float:
    """GiB at the peak: of the GPU's memory, or of the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / GIB, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2)


def _write_picture(
    folder: RunFolder, job: MlpJob, series: AlignedSeries, written: dict[str, str], figures: dict[str, Any],
    device: torch.device,
) -> None:  # fmt: skip
    path = folder.comparison
    with mrc.create_volume(path, series.volume_shape, series.voxel_size) as target:
        weighted_back_projection(
            series.projections, series.tilt_angles_degrees, series.thickness, series.width,
            angle_offset_degrees=series.angle_offset_degrees, tilt_axis_shift=series.tilt_axis_shift,
            x_shift=series.x_shift, z_shift=series.z_shift, device=device, out=target, weights=series.weights,
        )  # fmt: skip
    report.write_reconstruction(
        folder.report, {"coordinate network": mrc.open_volume(job.output), "weighted back-projection":
                        mrc.open_volume(path)}, series.voxel_size,
        {"coordinate network": (series.tilt_angles_degrees, np.array(figures["residual_per_view"]))},
        curve_of_halves(written), read_metrics(folder.metrics), f"MLP ({job.preset}): {os.path.basename(job.input)}",
    )  # fmt: skip
