"""Choose and check the noise model of one tomogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..noise_spectrum import Spectra, measure_spectra
from ..progress import Progress
from ..spectrum import block_corners, block_shape, read_block
from ..tiling import shape_of
from ..tomogram import Tomogram
from . import gan
from .noise_model import NoiseLevel, NoiseModel, SpectralNoiseModel
from .noise_report import NoiseReport, make_report

#: Blocks of real noise that the report looks at.
REPORT_BLOCKS = 48
#: Rows of the report that Gaussian noise cannot satisfy when the tomogram's noise is not Gaussian.
SHAPE_ROWS = {"distribution", "skewness", "excess kurtosis"}


@dataclass
class FittedNoise:
    """The noise model of a tomogram with what it was made from and its report."""

    model: NoiseModel
    level: NoiseLevel
    spectra: Spectra
    report: NoiseReport


def fit_noise(
    tomogram: Tomogram, kind: str, seed: int, device: torch.device, progress: Progress, checkpoint: str, resume: bool
) -> FittedNoise:
    """Measure the spectra, make the noise model of ``kind`` (auto, spectral, gan) and check it."""
    spectra = measure_spectra(tomogram.data, tomogram.mean, tomogram.sd, tomogram.difference)
    _comment(spectra, tomogram, progress)
    level = NoiseLevel(spectra.share, shape_of(tomogram.data))
    if level.grid is not None:
        progress.say(f"the noise level varies over the volume by {100 * level.variation:.0f} %; it is followed.")
    training, held_out = real_noise(tomogram, spectra)
    spectral = SpectralNoiseModel(spectra.noise, spectra.block)
    source = spectra.share.source
    report = make_report(spectral, held_out, spectra, seed, device, source)
    model: NoiseModel = spectral
    wanted = kind == "gan" or (kind == "auto" and set(report.failures) & SHAPE_ROWS)
    if wanted and len(training) >= gan.MIN_BLOCKS:
        adversarial = gan.fit(spectral, training, spectra, seed, device, progress, checkpoint, resume)
        other = make_report(adversarial, held_out, spectra, seed, device, source)
        if kind == "gan" or len(other.failures) < len(report.failures):
            model, report = adversarial, other
        else:
            progress.say("the adversarial noise model is no better than the spectral one, which is used.")
    elif wanted:
        progress.warn(
            f"only {len(training)} independent blocks of noise were found, too few to train the adversarial noise "
            "model; the spectral one is used."
        )
    if not report.passed:
        progress.warn("the noise model misses these checks: " + ", ".join(report.failures) + "; see noise_report.json.")
    return FittedNoise(model, level, spectra, report)


def real_noise(tomogram: Tomogram, spectra: Spectra) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Standardised blocks of true noise: one list to learn from, one to check with."""
    share = spectra.share
    if tomogram.difference is not None:
        whole = shape_of(tomogram.data)
        shape = block_shape(whole, 32)
        corners = block_corners(whole, shape, 4 * REPORT_BLOCKS)
        blocks = [read_block(tomogram.difference, corner, shape) / tomogram.sd for corner in corners]
    else:
        order = np.random.default_rng(0).permutation(len(share.corners))
        blocks = [
            (read_block(tomogram.data, corner, share.block) - tomogram.mean) / tomogram.sd
            for corner in share.corners[order]
        ]
    return blocks[::2], blocks[1::2][:REPORT_BLOCKS]


def _comment(spectra: Spectra, tomogram: Tomogram, progress: Progress) -> None:
    empty = spectra.empty_shells()
    if empty > 0.3:
        progress.warn(
            f"{tomogram.path} holds next to nothing in {100 * empty:.0f} % of its frequencies: it seems to have been "
            "filtered or denoised before; give the tomogram as reconstructed for a better result."
        )
    if spectra.share.source == "background" and spectra.share.contrast < 1.15:
        progress.warn(
            f"no part of {tomogram.path} is emptier than the rest; its noise is taken from the highest frequencies and "
            "extended to the lower ones. Halves (even, odd) would measure it directly."
        )
