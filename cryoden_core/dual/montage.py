"""The picture of a DUAL training: t, v_f, t', v, t_f, v' from above and from the side, and their spectra from the side.

In the spectra (the kx, kz plane, summed along ky) the missing wedge is a dark double cone about the vertical: the noisy
and the simulated volume must have it, the clean one not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..excerpts import central_slices
from ..report import loss_figure, new_figure, save_figure, side_spectrum
from .alarms import Watch
from .networks import code_shape, unstructured_noise

NAMES = ("noisy", "denoised", "noisy again", "clean", "simulated", "clean again")


@torch.no_grad()
def volumes_of(watch: Watch, edge: int = 64) -> dict[str, np.ndarray]:
    """The six volumes (z, y, x) by name, from crops that do not change; larger ones where the networks allow it."""
    task = watch.task
    noisy, clean = watch.noisy[:1], watch.clean[:1]
    if task.preset.code == "map":
        room = min(min(volume.shape) for source in (task.noisy, task.clean) for volume in source.volumes)
        edge = min(edge, room // 2**task.architecture.depth * 2**task.architecture.depth)
        generator = torch.Generator().manual_seed(watch.seed)
        noisy, clean = (source.draw(1, edge, generator).to(task.device) for source in (task.noisy, task.clean))
    for network in task.networks.values():
        network.eval()
    generator = torch.Generator().manual_seed(watch.seed)
    size = noisy.shape[-1]
    code = torch.randn(code_shape(task.architecture, 1, (size, size, size)), generator=generator).to(task.device)
    denoised = task.denoiser(noisy)
    simulated = task.simulator(clean, unstructured_noise(task.noise_decoder, code, task.architecture, generator))
    noisy_again = task.simulator(denoised, task.noise_decoder(task.encoder(noisy)))
    batch = (noisy, denoised, noisy_again, clean, simulated, task.denoiser(simulated))
    for network in task.networks.values():
        network.train()
    return {name: values[0, 0].float().cpu().numpy() for name, values in zip(NAMES, batch, strict=True)}


def write_montage(path: str, volumes: dict[str, np.ndarray], title: str = "") -> None:
    """Write the picture: a column for each volume, rows for the slices xy and xz and the spectrum."""
    figure = new_figure(2.1 * len(volumes), 6.9)
    axes: Any = figure.subplots(3, len(volumes))
    figure.suptitle(title)
    for column, (name, volume) in enumerate(volumes.items()):
        xy, xz, _ = central_slices(volume)
        # Noisy and clean kinds each have one contrast, so that they can be compared.
        noisy = "noisy" in name or name == "simulated"
        alike = [v for n, v in volumes.items() if ("noisy" in n or n == "simulated") == noisy]
        low, high = np.percentile(np.concatenate([v.ravel() for v in alike]), (1, 99.5))
        for row, (label, picture) in enumerate((("xy", xy), ("xz", xz), ("log power, kx kz", side_spectrum(volume)))):
            axis = axes[row, column]
            limits = {"vmin": low, "vmax": high} if row < 2 else {}
            axis.imshow(picture, cmap="gray", origin="lower", **limits)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(name, fontsize=10)
            if column == 0:
                axis.set_ylabel(label, fontsize=9)
    save_figure(figure, path)


def write_losses(path: str, metrics: dict[str, list[float]]) -> None:
    """Write the curves of the losses."""
    save_figure(loss_figure(metrics), path)
