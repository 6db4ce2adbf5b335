"""Carry out the jobs ``dual simulate`` and ``dual convert``: the simulator on density maps, both styles on tomograms.

t = Gs(v + amplitude * n), with one field of noise n for the whole volume, so that tiles have no seams.  The noise is
drawn, P Gn(z) with z from N(0, 1), or is that of a given tomogram, Gn(E(t)) (Zeng et al. 2024, equations 1 and 2).
Halves are t plus and minus half of the difference of Gs(v + amplitude * (n + m)) and Gs(v + amplitude * (n - m)),
with m another draw: their noise is independent where Gs is linear, and their mean is the tomogram.

The networks see clean volumes with what is beyond 6 standard deviations compressed, which gold is.  What they do not
see, e = v - clip(v), is seen through the measured linear filter alone: H e is added to t and to both halves, so that
gold is as bright as in tomograms, with its fringes.  Models without measured filters (preset ``paper``) have no H, and
their gold stays faint.

A map whose mean and spread are near those of the clean volumes trained on is taken to be in their units, and read as
they are in the mean; any other is brought to its own mean and spread, as they were.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import __version__, mrc, report
from ..device import resolve_device
from ..excerpts import robust_statistics
from ..jobs import DualConvertJob, DualSimulateJob, DualSimulation, JobError, RunFolder, whole_file, write_json
from ..phantom.particles import read_star, write_star
from ..progress import Progress
from ..runs import Finished, begin, file_state
from ..tiling import Readable
from .application import Setting, check_contrast, load_model, open_for, write_on_file_grid
from .domains import DomainVolume, Scale, soft_clip, soft_unclip
from .model import DualModel
from .noise import lent_noise, noise_fields, point_out_spread
from .transfer import Transfer
from .translate import filter_volume, grey_scale, network_function, scratch_volume, unclipped

#: A map whose spread is within this factor of that of the clean volumes trained on, and whose mean is within this share
#: of their spread of theirs, is taken to be in their units.
SAME_SPREAD, SAME_MEAN = 1.5, 0.5


@dataclass
class _Setting(Setting):
    """What all volumes of a run share; ``scale`` is the grey scale of what is written."""

    job: DualSimulation
    scale: Scale


class Clipped:
    """A volume (z, y, x) with large values compressed as in training, computed where it is read."""

    def __init__(self, volume: DomainVolume) -> None:
        self.volume, self.shape = volume, volume.shape

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """A region, float32."""
        return np.asarray(soft_clip(self.volume[region]), np.float32)


class Excess:
    """What :class:`Clipped` takes away from a volume (z, y, x), computed where it is read."""

    def __init__(self, volume: DomainVolume) -> None:
        self.volume, self.shape = volume, volume.shape

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """A region, float32."""
        values = self.volume[region]
        return np.asarray(values - soft_clip(values), np.float32)


class Sum:
    """``a + factor * b``, computed where it is read."""

    def __init__(self, a: Readable, b: Readable, factor: float) -> None:
        self.a, self.b, self.factor, self.shape = a, b, factor, tuple(a.shape)

    def __getitem__(self, region: tuple[slice, ...]) -> np.ndarray:
        """A region, float32."""
        return np.asarray(self.a[region], np.float32) + np.float32(self.factor) * np.asarray(self.b[region])


def simulate(job: DualSimulateJob, progress: Progress) -> dict[str, Any]:
    """Simulate tomograms of a density map; see :class:`cryoden_core.jobs.DualSimulateJob`.

    Returns
    -------
    dict
        What is also written to ``result.json``: ``outputs`` lists the tomograms, ``halves``, ``labels`` and
        ``coordinates`` what belongs to each.

    Raises
    ------
    JobError
        Before any output exists, when the input or a parameter is wrong.
    """
    start = time.monotonic()
    setting, clean, source = _prepare(job, progress, "clean")
    particles = read_star(job.coordinates) if job.coordinates else []
    if job.labels and tuple(mrc.open_volume(job.labels).shape) != clean.file_shape:
        raise JobError(f"the labels {job.labels} have another size than {job.input}; give those of this map.")
    begin(setting.folder, job)
    finished = Finished(setting.folder.finished, _made_from(job))
    with lent_noise(setting, source) as lent:
        if lent is not None and job.noise:
            point_out_spread(setting, lent, job.noise)
        for number, output in enumerate(job.outputs()):
            if finished.has(job.files_of(output)):
                continue
            name = f" {number + 1} of {job.draws}" if job.draws > 1 else ""
            with noise_fields(setting, clean.shape, lent, job.seed, number, 1 + job.halves) as noises:
                _simulate_one(setting, clean, noises, [output, *job.halves_of(output)], name)
            if job.labels:
                _copy(job.labels, job.labels_of(output))
            if job.coordinates:
                write_star(particles, job.coordinates_of(output), os.path.splitext(os.path.basename(output))[0])
            finished.add(job.files_of(output))
    outputs = job.outputs()
    written = {
        "output": outputs[0], "outputs": outputs,
        "halves": [job.halves_of(output) for output in outputs if job.halves],
        "labels": [job.labels_of(output) for output in outputs if job.labels],
        "coordinates": [job.coordinates_of(output) for output in outputs if job.coordinates],
    }  # fmt: skip
    return _finish(setting, written, start)


def _made_from(job: DualSimulateJob) -> dict[str, Any]:
    """What a draw depends on, apart from its number; another version may draw otherwise."""
    ignored = ("resume", "device", "cpu_fallback", "threads", "run_folder", "output", "draws")
    asked = {name: value for name, value in dataclasses.asdict(job).items() if name not in ignored}
    files = (job.input, job.model, job.noise_from, job.labels, job.coordinates)
    return {"version": __version__, "job": asked, "files": {path: file_state(path) for path in files if path}}


def convert(job: DualConvertJob, progress: Progress) -> dict[str, Any]:
    """Convert a tomogram to the clean or the noisy style; see :class:`cryoden_core.jobs.DualConvertJob`.

    Returns and raises as :func:`simulate` does.
    """
    start = time.monotonic()
    setting, volume, source = _prepare(job, progress, "clean" if job.to == "noisy" else "noisy")
    begin(setting.folder, job)
    if job.to == "noisy":
        with lent_noise(setting, source) as lent, noise_fields(setting, volume.shape, lent, job.seed, 0, 1) as noises:
            _simulate_one(setting, volume, noises, [job.output], "")
    else:
        network = unclipped(network_function(setting.model.denoiser, setting.device))
        with scratch_volume(setting.folder.path, volume.shape) as clean:
            setting.apply(network, volume, clean, "converting")
            check_contrast(grey_scale(volume, clean)[2], job.input, progress)
            _write(setting, volume, clean, job.output)
    return _finish(setting, {"output": job.output, "to": job.to}, start)


def _prepare(
    job: DualSimulation, progress: Progress, domain: str
) -> tuple[_Setting, DomainVolume, DomainVolume | None]:  # fmt: skip
    """Everything that can be refused: device, model, input, the tomogram that lends its noise, names to write."""
    device = resolve_device(job, progress.warn)
    progress.stage("checking the input")
    model = load_model(job, device, progress)
    volume = open_for(model, job.input, domain, progress, contrast=job.contrast, voxel_size=job.voxel_size)
    if domain == "clean":
        _take_units_of_the_clean_set(model, volume, progress)
    source = None
    if job.noise_from and domain == "clean":
        source = open_for(model, job.noise_from, "noisy", progress)
    elif job.noise_from:
        progress.warn("noise_from has no part in a conversion to the clean style.")
    for path in [job.output] if not isinstance(job, DualSimulateJob) else job.outputs():
        mrc.check_writable(path)
    folder = RunFolder.beside(job.output, job.run_folder)
    scale = style_of(model, "noisy" if domain == "clean" else "clean")
    return _Setting(job, model, folder, device, progress, scale), volume, source


def _take_units_of_the_clean_set(model: DualModel, volume: DomainVolume, progress: Progress) -> None:
    """Standardise a map as the clean volumes trained on are in the mean, where it seems to be in their units.

    By its own spread particles would be fainter in a map that is filled with more of them; in tomograms they are not.
    """
    if not model.about.get("statistics", {}).get("clean"):
        return
    clean, own = style_of(model, "clean"), volume.scale
    ratio = own.sd / clean.sd
    alike = 1 / SAME_SPREAD < ratio < SAME_SPREAD and abs(own.mean - clean.mean) < SAME_MEAN * clean.sd
    if own.sign == clean.sign and alike:
        volume.scale = clean
    else:
        progress.say(
            f"{volume.path} does not seem to be in the units of the clean volumes trained on (its spread is "
            f"{ratio:.2g} times theirs) and is brought to its own mean and spread."
        )


def style_of(model: DualModel, domain: str) -> Scale:
    """Grey scale and contrast of a model's domain: the mean over the volumes that it was trained on."""
    sign = -1 if model.about["contrast"][domain] == "dark" else 1
    known = model.about.get("statistics", {}).get(domain, [])
    if not known:
        return Scale(0.0, 1.0, sign)
    return Scale(float(np.mean([item["mean"] for item in known])), float(np.mean([item["sd"] for item in known])), sign)


def _simulate_one(
    setting: _Setting, clean: DomainVolume, noises: list[np.ndarray], outputs: list[str], name: str
) -> None:  # fmt: skip
    """Write one tomogram and, where ``outputs`` names them and there is a second field of noise, its halves."""
    with scratch_volume(setting.folder.path, clean.shape) as whole:
        _noisy(setting, clean, noises[0], whole, "simulating" + name)
        mean, sd = robust_statistics(whole)
        for slab in mrc.slabs(whole):
            whole[slab] = soft_unclip((whole[slab] - mean) / sd)
        _add_excess(setting, clean, whole, sd, f"seeing what is very dense{name}")
        _write(setting, clean, whole, outputs[0])
        if len(noises) == 1:
            return
        with scratch_volume(setting.folder.path, clean.shape) as difference:
            for sign in (1, -1):
                with scratch_volume(setting.folder.path, clean.shape) as half:
                    _noisy(setting, clean, Sum(noises[0], noises[1], sign), half, f"simulating the halves{name}")
                    for slab in mrc.slabs(half):
                        difference[slab] += sign * half[slab] / (2 * sd)
            for sign, path in zip((1, -1), outputs[1:], strict=True):
                _write(setting, clean, Sum(whole, difference, sign), path)


def _noisy(setting: _Setting, clean: DomainVolume, noise: Readable, output: np.ndarray, stage: str) -> None:
    """Fill ``output`` (zeros) with Gs of a clean volume and noise, in standardised values."""
    network = network_function(setting.model.simulator.refine, setting.device, clip=False)  # type: ignore[arg-type]
    with _mixture(setting, clean, noise, stage) as mixture:
        setting.apply(network, mixture, output, stage)


@contextlib.contextmanager
def _mixture(setting: _Setting, clean: DomainVolume, noise: Readable, stage: str) -> Iterator[Readable]:
    """The simulator's linear mixture of a clean volume, clipped as in training, and noise, which is not."""
    transfer = setting.model.simulator.transfer
    with contextlib.ExitStack() as stack:

        def seen(volume: Readable, weights: torch.Tensor) -> np.ndarray:
            part = stack.enter_context(scratch_volume(setting.folder.path, clean.shape))
            filter_volume(volume, part, weights.cpu().numpy(), setting.device, setting.progress, stage)
            return part

        signal: Readable = Clipped(clean)
        if isinstance(transfer, Transfer):
            signal, noise = seen(signal, transfer.signal), seen(noise, transfer.noise)
        yield Sum(signal, noise, setting.job.noise)


def _add_excess(setting: _Setting, clean: DomainVolume, whole: np.ndarray, sd: float, stage: str) -> None:
    """Add H e, the clean volume's values beyond those that the networks see (the module's text), to a simulation.

    ``sd`` is the spread that the simulation had before it was standardised, which depends on the noise.
    """
    transfer, excess = setting.model.simulator.transfer, Excess(clean)
    if not isinstance(transfer, Transfer) or not any(excess[slab, :, :].any() for slab in mrc.slabs(clean)):
        return
    with scratch_volume(setting.folder.path, clean.shape) as seen:
        filter_volume(excess, seen, transfer.signal.cpu().numpy(), setting.device, setting.progress, stage)
        for slab in mrc.slabs(seen):
            whole[slab] += seen[slab] / sd


def _write(setting: _Setting, volume: DomainVolume, values: Readable, path: str) -> None:
    """Write standardised values on the grid of the input's file and the grey scale of the style."""
    write_on_file_grid(volume, values, path, setting.job.output_mode, setting.scale)


def _copy(source: str, target: str) -> None:
    """A copy, whole or not at all."""
    with mrc.errors_of_writing(target), whole_file(target) as temporary:
        shutil.copyfile(source, temporary)


def _finish(setting: _Setting, written: dict[str, Any], start: float) -> dict[str, Any]:
    """Report and result of a run."""
    job, progress = setting.job, setting.progress
    progress.stage("writing the report")
    # Each with its own contrast and without a difference: the two have not the same scale, nor always the same sign.
    volumes = {"input": mrc.open_volume(job.input), "output": mrc.open_volume(written["output"])}
    voxel_size = mrc.read_header(written["output"]).voxel_size
    title = f"{job.system}: {os.path.basename(job.input)}"
    report.write_reconstruction(setting.folder.report, volumes, voxel_size, title=title)
    result = {
        **written, "model": job.model, "noise": job.noise, "seed": job.seed,
        "seconds": round(time.monotonic() - start, 1), "trained_on": setting.model.about.get("trained_on", {}),
        "warnings": progress.warnings,
    }  # fmt: skip
    write_json(result, setting.folder.result)
    return result
