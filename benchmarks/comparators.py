"""What NMSG and DUAL are compared with: filters without training, and the objective of the published NMSG.

Filters with a setting get the setting that correlates best with the noise-free reconstruction, which nobody has for a
real tomogram: they are compared at their best.  A best setting at the end of its grid is marked.  With
:func:`chosen_on` the setting is chosen on another volume instead.  The simulators to compare with, map and white noise
and map and noise of the measured spectrum, are those of :mod:`cryoden_core.evaluation.spectrum_matching`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from cryoden_core import metrics, mrc
from cryoden_core.device import resolve_device
from cryoden_core.excerpts import robust_statistics
from cryoden_core.jobs import NmsgJob, RunFolder
from cryoden_core.nmsg import paper
from cryoden_core.noise_spectrum import measure_spectra
from cryoden_core.progress import Progress
from cryoden_core.spectrum import block_shape, mean_spectrum, resample_spectrum, smooth_spectrum
from cryoden_core.tiling import shape_of
from cryoden_core.tomogram import HalfDifference, open_tomogram

GAUSSIAN_SIGMAS = (1.0, 1.5, 2.0, 2.5, 3.0)
TV_WEIGHTS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
#: Share of the voxels of the smoothed volume that is taken for background, for the threshold.
BACKGROUND_SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
DIFFUSION_STEPS = (10, 20, 40)
DIFFUSION_CONDUCTANCES = (2.0, 5.0, 20.0)
#: Strength of non-local means, over the noise's standard deviation.
NLM_STRENGTHS = (0.6, 0.8, 1.0, 1.5, 2.0)
#: The largest time step that is stable in three dimensions.
DIFFUSION_TIME_STEP = 0.0625
#: The published objective with a network that the CPU can train: 12 features of 48, 3 poolings of 5, tiles of 64.
REDUCED_PAPER = paper.PaperRecipe(features=12, depth=3, tile=64, batch=2)
SPECTRUM_EDGE = 64


def best_of(candidates: Iterable[tuple[str, bool, np.ndarray]], truth: np.ndarray) -> tuple[np.ndarray, str]:
    """The candidate nearest to the truth by correlation; each is its name, whether it ends the grid, and a volume."""
    best, name, ends_grid, highest = None, "", False, -np.inf
    for setting, at_end, volume in candidates:
        found = metrics.correlation(volume, truth)
        print(f"    {setting}: CC {found:.4f}", flush=True)
        if found > highest:
            best, name, ends_grid, highest = volume, setting, at_end, found
    if best is None:
        raise ValueError("there is no candidate")
    return best, name + (", end of the grid" if ends_grid else "")


def gaussian(noisy: np.ndarray) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Gaussian filters."""
    for sigma in GAUSSIAN_SIGMAS:
        at_end = sigma in (GAUSSIAN_SIGMAS[0], GAUSSIAN_SIGMAS[-1])
        yield f"sigma {sigma:g}", at_end, ndimage.gaussian_filter(noisy, sigma)


def gaussian_threshold(noisy: np.ndarray, dark: bool = True) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Gaussian filters after which all that is no more than background becomes one value.

    A control that any denoiser must beat: it learns nothing, and with its flat background it wins the structural
    similarity of standardised volumes.  ``dark`` says how particles look.
    """
    sign = np.float32(-1 if dark else 1)
    for sigma in GAUSSIAN_SIGMAS:
        smooth = sign * ndimage.gaussian_filter(noisy, sigma)
        for share, level in zip(BACKGROUND_SHARES, np.quantile(smooth, BACKGROUND_SHARES), strict=True):
            at_end = sigma in (GAUSSIAN_SIGMAS[0], GAUSSIAN_SIGMAS[-1]) or share in (
                BACKGROUND_SHARES[0], BACKGROUND_SHARES[-1],
            )  # fmt: skip
            yield f"sigma {sigma:g}, background {share:g}", at_end, sign * np.maximum(smooth - np.float32(level), 0)


def total_variation(noisy: np.ndarray) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Total variation (Rudin et al. 1992; Chambolle 2004) of the standardised volume."""
    from skimage.restoration import denoise_tv_chambolle

    mean, sd = noisy.mean(), noisy.std()
    for weight in TV_WEIGHTS:
        at_end = weight in (TV_WEIGHTS[0], TV_WEIGHTS[-1])
        denoised = denoise_tv_chambolle((noisy - mean) / sd, weight=weight)
        yield f"weight {weight:g} sd", at_end, (denoised * sd + mean).astype(np.float32)


def anisotropic_diffusion(noisy: np.ndarray) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Curvature anisotropic diffusion (Whitaker and Xue 2001), SimpleITK's implementation."""
    import SimpleITK

    for conductance in DIFFUSION_CONDUCTANCES:
        image, done = SimpleITK.GetImageFromArray(noisy), 0
        for steps in DIFFUSION_STEPS:
            # The contrast scale is measured at each step, so that a run in pieces equals one in a single piece.
            image = SimpleITK.CurvatureAnisotropicDiffusion(
                image, timeStep=DIFFUSION_TIME_STEP, conductanceParameter=conductance,
                conductanceScalingUpdateInterval=1, numberOfIterations=steps - done,
            )  # fmt: skip
            done = steps
            at_end = steps in (DIFFUSION_STEPS[0], DIFFUSION_STEPS[-1]) or conductance == DIFFUSION_CONDUCTANCES[0]
            yield f"{steps} steps, conductance {conductance:g}", at_end, SimpleITK.GetArrayFromImage(image)


def perona_malik(noisy: np.ndarray) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Gradient anisotropic diffusion (Perona and Malik 1990), SimpleITK's implementation, as in the DUAL paper."""
    import SimpleITK

    for conductance in DIFFUSION_CONDUCTANCES:
        image, done = SimpleITK.GetImageFromArray(noisy), 0
        for steps in DIFFUSION_STEPS:
            image = SimpleITK.GradientAnisotropicDiffusion(
                image, timeStep=DIFFUSION_TIME_STEP, conductanceParameter=conductance,
                conductanceScalingUpdateInterval=1, numberOfIterations=steps - done,
            )  # fmt: skip
            done = steps
            at_end = steps in (DIFFUSION_STEPS[0], DIFFUSION_STEPS[-1])
            at_end |= conductance in (DIFFUSION_CONDUCTANCES[0], DIFFUSION_CONDUCTANCES[-1])
            yield f"{steps} steps, conductance {conductance:g}", at_end, SimpleITK.GetArrayFromImage(image)


def non_local_means(noisy: np.ndarray) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Non-local means (Buades et al. 2005) in three dimensions, scikit-image's implementation."""
    from skimage.restoration import denoise_nl_means

    # Nearly all the variance of a tomogram is noise.
    sd = float(noisy.std())
    for strength in NLM_STRENGTHS:
        at_end = strength in (NLM_STRENGTHS[0], NLM_STRENGTHS[-1])
        volume = denoise_nl_means(noisy, patch_size=3, patch_distance=3, h=strength * sd, sigma=sd, fast_mode=True)
        yield f"strength {strength:g} sd", at_end, volume.astype(np.float32)


def chosen_on(
    candidates: Callable[[np.ndarray], Iterator[tuple[str, bool, np.ndarray]]],
    validation: np.ndarray,
    truth: np.ndarray,
    noisy: np.ndarray,
    figure: Callable[[np.ndarray, np.ndarray], float] = metrics.correlation,
) -> tuple[np.ndarray, str]:
    """The filter with the setting that does best on another volume whose truth is known: no oracle's choice.

    Parameters
    ----------
    candidates
        One of the filters here, giving its settings in the same order for every volume.
    validation, truth
        The volume to choose on.
    noisy
        The volume to be filtered.
    figure
        What is to be highest, of a volume and the truth.
    """
    figures = [figure(volume, truth) for _, _, volume in candidates(validation)]
    setting, at_end, volume = next(itertools.islice(candidates(noisy), int(np.argmax(figures)), None))
    return volume, setting + (", end of the grid" if at_end else "")


def noise_spectrum(even: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """E|FFT(noise)|^2 of a tomogram even + odd, (z, y, x), from the difference of its halves, which holds no signal."""
    shape = shape_of(even)
    block = block_shape(shape, SPECTRUM_EDGE)
    # even - odd is HalfDifference with a gain of 2, and has the noise of even + odd.
    power = smooth_spectrum(mean_spectrum(HalfDifference(even, odd, gain=2.0), block), 0.7)
    half = resample_spectrum(power, shape).numpy().astype(np.float64) * np.prod(shape)
    full = np.empty(shape)
    width = half.shape[2]
    full[..., :width] = half
    # Real noise: P(-k) = P(k).
    mirrored = [-np.arange(size) % size for size in shape[:2]]
    columns = np.arange(width, shape[2])
    full[..., width:] = half[np.ix_(*mirrored, shape[2] - columns)]
    return np.maximum(full, 1e-6 * full.mean())


def bm4d(noisy: np.ndarray, spectrum: np.ndarray, python: str) -> np.ndarray:
    """BM4D with the noise's true spectrum, in the interpreter ``python``."""
    script = Path(__file__).with_name("run_bm4d.py")
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("volume.npy", "spectrum.npy", "output.npy")]
        np.save(paths[0], noisy)
        np.save(paths[1], spectrum)
        subprocess.run([python, str(script), *paths], check=True)
        return np.load(paths[2])


def wiener(noisy: np.ndarray) -> np.ndarray:
    """The linear filter of least expected error for the spectra that NMSG measures on the noisy tomogram alone."""
    mean, sd = robust_statistics(noisy)
    spectra = measure_spectra(noisy, mean, sd)
    share = ((spectra.total - spectra.noise) / spectra.total.clamp_min(1e-12)).clamp(0, 1)
    response = resample_spectrum(share, shape_of(noisy)).clamp(0, 1).numpy()
    transform = np.fft.rfftn(noisy - mean)
    return (np.fft.irfftn(transform * response, s=noisy.shape) + mean).astype(np.float32)


def reduced_paper(job: NmsgJob) -> None:
    """Write the output of the published objective, data and optimiser with the network of :data:`REDUCED_PAPER`."""
    progress = Progress(RunFolder.beside(job.output))
    folder = RunFolder.beside(job.output)
    os.makedirs(folder.path, exist_ok=True)
    device = resolve_device(job, progress.warn)
    tomogram = open_tomogram(job.input, job.voxel_size, progress.warn)
    network, _, _ = paper.train(job, [tomogram], folder, device, progress, recipe=REDUCED_PAPER)
    with mrc.create_volume(job.output, shape_of(tomogram.data), tomogram.voxel_size) as target, torch.no_grad():
        paper.denoise_volume(network, tomogram.data, target, tomogram.mean, tomogram.sd, device=device)
    progress.finish()


def describe(recipe: paper.PaperRecipe, steps: int) -> str:
    """A recipe in the table's words."""
    return f"{recipe.features} features, depth {recipe.depth}, tile {recipe.tile}, {steps} steps"


def known_methods() -> Iterator[str]:
    """Names for ``--methods``, in the order of the tables."""
    filters = ("raw", "gaussian", "gaussian_threshold", "tv", "diffusion", "perona_malik", "nlm", "wiener", "bm4d")
    yield from itertools.chain(
        filters, ("paper", "paper_literal", "nmsg_fast", "nmsg_default", "nmsg_halves", "nmsg_best")
    )
