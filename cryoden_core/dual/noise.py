"""The unstructured noise of DUAL for whole volumes: drawn, or found in a tomogram; and the job ``dual encode-noise``.

Drawn noise is P Gn(z) with z from N(0, 1); that of a tomogram t is Gn(E(t)) (Zeng et al. 2024, equations 1 and 2).
Both are in the simulator's units: white, and with spread 1 about as strong as in the tomograms where the simulator has
measured filters; in others the clean volume has spread 1.  Density is bright.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import stats

from .. import metrics, mrc, report
from ..device import resolve_device
from ..jobs import DualEncodeNoiseJob, RunFolder, write_json
from ..progress import Progress
from ..runs import begin
from ..tiling import Readable, Shape, read_tile
from .alarms import check
from .application import Setting, load_model, open_for, write_on_file_grid
from .domains import DomainVolume, mask_padding
from .model import DualModel
from .translate import grey_scale, network_function, scratch_volume

#: Edge of the block of drawn noise that the noise of a tomogram is compared with.
_DRAWN_EDGE = 64
#: Lent noise that is this many times stronger or weaker than drawn noise is pointed out.
SPREAD_TOLERANCE = 1.25


def encode_noise(job: DualEncodeNoiseJob, progress: Progress) -> dict[str, Any]:
    """Write the noise that a model finds in a tomogram; see :class:`cryoden_core.jobs.DualEncodeNoiseJob`.

    Returns
    -------
    dict
        What is also written to ``result.json``; the figures are those of :func:`figures_of`.

    Raises
    ------
    JobError
        Before any output exists, when the input or a parameter is wrong.
    """
    start = time.monotonic()
    device = resolve_device(job, progress.warn)
    progress.stage("checking the input")
    model = load_model(job, device, progress)
    volume = open_for(model, job.input, "noisy", progress, contrast=job.contrast, voxel_size=job.voxel_size)
    mask_padding(volume, progress.warn, "it is left out of mean and spread")
    mrc.check_writable(job.output)
    setting = Setting(job, model, RunFolder.beside(job.output, job.run_folder), device, progress)
    begin(setting.folder, job)
    with noise_of(setting, volume) as noise:
        figures = figures_of(model, volume, noise, device)
        for sentence in check({"code_leak": abs(figures["correlation_of_means"]), "noise_sd": figures["noise_sd"]}):
            progress.warn(f"the noise of {job.input} cannot be trusted: {sentence}")
        write_on_file_grid(volume, noise, job.output, job.output_mode)
    result = {
        "output": job.output, "model": job.model, **figures, "seconds": round(time.monotonic() - start, 1),
        "trained_on": model.about.get("trained_on", {}), "warnings": progress.warnings,
    }  # fmt: skip
    progress.stage("writing the report")
    shown = {"tomogram": mrc.open_volume(job.input), "its noise": mrc.open_volume(job.output)}
    title = f"Noise of {os.path.basename(job.input)}"
    report.write_reconstruction(setting.folder.report, shown, volume.voxel_size, title=title)
    write_json(result, setting.folder.result)
    return result


def figures_of(model: DualModel, volume: DomainVolume, noise: np.ndarray, device: torch.device) -> dict[str, float]:
    """What the noise Gn(E(t)) of a tomogram t is like.

    Parameters
    ----------
    volume, noise
        The tomogram and its noise, on one grid (z, y, x).

    Returns
    -------
    dict
        ``noise_sd`` and ``noise_kurtosis`` (excess; 0 for a Gaussian) of it, ``drawn_sd`` and ``drawn_kurtosis`` of
        noise that the model draws, which should be alike; ``correlation`` with the tomogram, which is high where the
        code holds the noise of every voxel; ``correlation_of_means``, the same of means over 4 x 4 x 4 voxels, which
        should be near 0: what is seen there is structure.
    """
    drawn = _drawn_block(model, device)
    found: dict[str, float] = {}
    for name, values in (("noise", noise), ("drawn", drawn)):
        block = report.central_block(values).astype(np.float64)
        found[f"{name}_sd"] = mrc.volume_statistics(values).sd
        found[f"{name}_kurtosis"] = float(stats.kurtosis(block, axis=None))
    found["correlation"] = metrics.correlation(volume, noise)  # type: ignore[arg-type]
    found["correlation_of_means"] = grey_scale(volume, noise)[2]
    return found


def _drawn_block(model: DualModel, device: torch.device) -> np.ndarray:
    """A block of noise that the model draws, always the same."""
    edges = (_DRAWN_EDGE,) * 3
    return model.draw_noise(edges, torch.Generator().manual_seed(0), device).cpu().numpy()


def point_out_spread(setting: Setting, lent: np.ndarray, amplitude: float) -> None:
    """Warn when lent noise, at an amplitude, is stronger or weaker than the noise that the model draws.

    Training asks codes of tomograms to be distributed like those that are drawn, but does not make sure of it.
    """
    drawn = _drawn_block(setting.model, setting.device)
    share = amplitude * mrc.volume_statistics(lent).sd / mrc.volume_statistics(drawn).sd
    if not 1 / SPREAD_TOLERANCE < share < SPREAD_TOLERANCE:
        setting.progress.warn(
            f"the tomogram's noise has {share:.2g} times the spread of noise that the model draws, so the map shows "
            f"{'more' if share < 1 else 'less'} plainly than in the tomograms trained on; --noise "
            f"{amplitude / share:.2g} makes the spreads equal."
        )


@contextlib.contextmanager
def noise_of(setting: Setting, source: DomainVolume) -> Iterator[np.ndarray]:
    """Gn(E(t)) of a tomogram: its unstructured noise, voxel by voxel, (z, y, x) on disk."""
    with scratch_volume(setting.folder.path, source.shape) as output:
        model = setting.model
        network = network_function(lambda batch: model.noise_decoder(model.encoder(batch)), setting.device)
        if model.architecture.code == "map":
            setting.apply(network, source, output, "finding the noise of the tomogram")
        else:
            # A code of one vector belongs to a crop of the training's size.
            setting.progress.stage("finding the noise of the tomogram")
            for region, tile in _crops(source, model.architecture.patch):
                block = network(torch.from_numpy(tile)).cpu().numpy()
                output[region] = block[tuple(slice(0, part.stop - part.start) for part in region)]
        yield output


@contextlib.contextmanager
def lent_noise(setting: Setting, source: DomainVolume | None) -> Iterator[np.ndarray | None]:
    """As :func:`noise_of`, or None where no tomogram lends its noise."""
    if source is None:
        yield None
        return
    with noise_of(setting, source) as noise:
        yield noise


def _crops(volume: Readable, edge: int) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Cubes that cover a volume, each with its region; beyond the faces they are mirrored."""
    for corner in itertools.product(*(range(0, size, edge) for size in volume.shape)):
        region = tuple(slice(first, min(first + edge, size)) for first, size in zip(corner, volume.shape, strict=True))
        yield region, read_tile(volume, corner, (edge, edge, edge))  # type: ignore[arg-type]


@contextlib.contextmanager
def noise_fields(
    setting: Setting, shape: Shape, lent: np.ndarray | None, seed: int, number: int, count: int
) -> Iterator[list[np.ndarray]]:
    """The noise of a simulation, ``count`` independent fields (z, y, x) on disk.

    Parameters
    ----------
    lent
        The noise of a tomogram (:func:`noise_of`), of any size, that is taken in place of drawn noise.
    seed, number
        Of the run, and of the simulation in it.  The first field of the first one has the lent noise voxel by voxel,
        all others from another place on.
    """
    # The draws of two seeds have no field in common.
    seeds = torch.Generator().manual_seed(seed * 1_000_003 + number)
    with contextlib.ExitStack() as stack:
        fields = []
        for index in range(count):
            field = stack.enter_context(scratch_volume(setting.folder.path, shape))
            if lent is None:
                setting.progress.stage("drawing the noise")
                field[...] = setting.model.draw_noise(shape, seeds, setting.device).cpu().numpy()
            else:
                moved = number + index > 0
                shift = [int(torch.randint(n, (), generator=seeds)) if moved else 0 for n in lent.shape]
                _lay_out(lent, shift, field)
            fields.append(field)
        yield fields


def _lay_out(noise: np.ndarray, shift: list[int], field: np.ndarray) -> None:
    """Fill ``field`` with periodic noise that begins at ``shift``."""
    _, y, x = (
        (np.arange(size) + first) % have for size, first, have in zip(field.shape, shift, noise.shape, strict=True)
    )
    for z in range(field.shape[0]):
        field[z] = noise[(z + shift[0]) % noise.shape[0]][np.ix_(y, x)]
