"""Is the training of DUAL healthy?  Figures on crops that never change, and the alarms that they set off.

A pair of networks that map each way can fool its losses: by hiding the noise in the denoised volume, the clean volume
in the simulation, or the structure in the noise code.  Each figure here looks for one such way.
"""

from __future__ import annotations

import numpy as np
import torch

from ..fourier import is_measured
from ..metrics import correlation
from ..nets.critics import log_spectrum
from .domains import DomainVolume, soft_clip
from .limits import ALARMS
from .losses import code_divergence, pearson, pooled, structure_in_noise, whiteness
from .networks import code_shape, unstructured_noise
from .task import DualTask

#: Crops of each domain that the figures are computed from.
CROPS = 8
#: Steps over which critics that are always right are an alarm.
PATIENT_STEPS = 500


class Watch:
    """Computes the figures of a task's networks as they are.

    Parameters
    ----------
    task
        Whose networks are looked at.
    pair
        A noisy volume and its truth, when one is known.
    seed
        Of the crops and the noise, which are the same every time.
    """

    def __init__(self, task: DualTask, pair: tuple[DomainVolume, DomainVolume] | None, seed: int) -> None:
        self.task, self.seed, self.pair = task, seed, pair
        # Codes that are vectors belong to crops of one size; larger crops show more.
        smallest = min(min(volume.shape) for source in (task.noisy, task.clean) for volume in source.volumes)
        stride = 2**task.architecture.depth
        room = smallest // stride * stride
        self.edge = task.preset.patch if task.preset.code == "vector" else min(2 * task.preset.patch, 64, room)
        generator = torch.Generator().manual_seed(seed)
        self.noisy, self.clean = (
            source.draw(CROPS, self.edge, generator).to(task.device) for source in (task.noisy, task.clean)
        )

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """The figures, by name; those that need a truth only where a pair is known."""
        for network in self.task.networks.values():
            network.eval()
        try:
            return self._figures()
        finally:
            for network in self.task.networks.values():
                network.train()

    def _figures(self) -> dict[str, float]:
        task, generator = self.task, torch.Generator().manual_seed(self.seed)
        noisy, clean = self.noisy, self.clean
        denoised, code = task.denoiser(noisy), task.encoder(noisy)
        noise = task.noise_decoder(code)
        again = task.simulator(denoised, noise)
        wrong = task.simulator(denoised, noise.roll(1, 0))
        shape = code_shape(task.architecture, CROPS, (self.edge, self.edge, self.edge))
        codes = (torch.randn(shape, generator=generator).to(task.device) for _ in range(2))
        drawn = [unstructured_noise(task.noise_decoder, code, task.architecture, generator) for code in codes]
        simulated, other = (task.simulator(clean, field) for field in drawn)
        own, foreign = float(pearson(noisy, again)), float(pearson(noisy, wrong))
        clean_again = float(pearson(clean, task.denoiser(simulated)))
        figures = {
            "code_leak": abs(float(structure_in_noise(noise, noisy))), "noise_sd": float(noise.std()),
            "diversity": float(pearson(simulated, other)), "own_noise": own, "wrong_noise": foreign,
            "own_minus_wrong_noise": own - foreign, "clean_cycle": clean_again,
            "divergence": float(code_divergence(code)), "denoised_sd": float(denoised.std()),
            "simulated_sd": float(simulated.std()),
            "shift": largest_shift(denoised, noisy), "same_contrast": float(pearson(pooled(denoised), pooled(noisy))),
            "spectrum_distance": spectrum_distance(simulated, noisy), "whiteness": float(whiteness(noise)),
            "wedge": self._wedge(simulated), "wedge_real": self._wedge(noisy), "wedge_clean": self._wedge(clean),
            "visible": float(pearson(simulated, clean)),
        }  # fmt: skip
        if self.pair is not None:
            figures.update(self._against_truth(clean_again))
        return figures

    def _against_truth(self, clean_again: float) -> dict[str, float]:
        """Correlation with the truth before and after, and how much better the clean cycle does."""
        assert self.pair is not None
        noisy, truth = (_block(volume, self.task.architecture.depth) for volume in self.pair)
        values = torch.from_numpy(soft_clip(noisy)).float()[None, None].to(self.task.device)
        denoised = self.task.denoiser(values)[0, 0].float().cpu().numpy()
        after = correlation(denoised, truth)
        return {"r_noisy": correlation(noisy, truth), "r_denoised": after, "cycle_gap": clean_again - after}

    def _wedge(self, volumes: torch.Tensor) -> float:
        """Power in the missing wedge over that in the measured region, of crops."""
        power = (2 * log_spectrum(volumes)).exp().mean(dim=(0, 1))
        nz, ny, half = power.shape
        kz = (np.arange(nz)[:, None, None] - nz // 2) / nz
        ky = (np.arange(ny)[None, :, None] - ny // 2) / ny
        kx = np.arange(half)[None, None, :] / (2 * half)
        radius = np.sqrt(kz**2 + ky**2 + kx**2)
        band = (radius > 0.1) & (radius < 0.35) & (np.hypot(kz, kx) > 0.08)
        low, high = self.task.tilt_range
        # The window blurs the edge of the wedge.
        missing = band & ~is_measured(kz, kx, max(-90.0, low - 3), min(90.0, high + 3))
        measured = band & is_measured(kz, kx, low + 3, high - 3)
        means = [float(power[torch.from_numpy(mask).to(power.device)].mean()) for mask in (missing, measured)]
        return means[0] / means[1]


def largest_shift(a: torch.Tensor, b: torch.Tensor) -> float:
    """Distance in voxels from 0 of the peak of the mean cross-correlation of two batches (batch, 1, z, y, x)."""
    transforms = [torch.fft.rfftn(values.float(), dim=(-3, -2, -1)) for values in (a, b)]
    product = (transforms[0] * transforms[1].conj()).mean(dim=(0, 1))
    peak = torch.fft.irfftn(product, s=a.shape[-3:])
    position = np.array(np.unravel_index(int(peak.argmax()), peak.shape))
    size = np.array(peak.shape)
    return float(np.linalg.norm((position + size // 2) % size - size // 2))


def spectrum_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean absolute difference of the logarithms of two batches' mean power at each frequency."""
    first, second = ((2 * log_spectrum(values)).exp().mean(dim=(0, 1)).log() for values in (a, b))
    return float((first - second).abs().mean())


def check(figures: dict[str, float]) -> list[str]:
    """A sentence for each alarm that rings."""
    known = [(alarm, figures[alarm.figure]) for alarm in ALARMS if alarm.figure in figures]
    return [alarm.sentence(value) for alarm, value in known if not np.isfinite(value) or alarm.rings(value)]


def _block(volume: DomainVolume, depth: int) -> np.ndarray:
    """A central block of at most 64 voxels a side whose edges the networks accept."""
    edges = [min(64, size) // 2**depth * 2**depth for size in volume.shape]
    starts = [(size - edge) // 2 for size, edge in zip(volume.shape, edges, strict=True)]
    return volume[tuple(slice(first, first + edge) for first, edge in zip(starts, edges, strict=True))]
