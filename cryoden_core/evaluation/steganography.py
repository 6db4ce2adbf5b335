"""Does a pair of networks that map each way hide data from its losses?  Detectors on volumes, after the training.

A cycle loss can be met without doing the task: by writing the noise into the denoised volume, the clean volume into
the simulation, or the structure into the noise code (Chu, Zhmoginov and Sandler 2017 named it steganography).  Each
function takes volumes that the networks made and gives figures whose healthy values are told.  During training the same
questions are asked on crops by :mod:`cryoden_core.dual.alarms`.

All volumes are (z, y, x) of one shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from .. import metrics

#: Low-pass under which structure is looked for in noise, voxels (standard deviation of a Gaussian).
STRUCTURE_SCALE = 2.0


def cycle_gap(clean: np.ndarray, clean_again: np.ndarray, truth: np.ndarray, denoised: np.ndarray) -> float:
    """How much better the denoiser does on simulations than on tomograms; near 0 is healthy, above 0.4 an alarm.

    Parameters
    ----------
    clean, clean_again
        A density map, and what the denoiser makes of its simulation.
    truth, denoised
        The density of a tomogram, and what the denoiser makes of the tomogram.
    """
    return metrics.correlation(clean, clean_again) - metrics.correlation(truth, denoised)


def fragility(
    simulated: np.ndarray, clean: np.ndarray, denoise: Callable[[np.ndarray], np.ndarray], seed: int = 1
) -> dict[str, float]:
    """How much the clean volume is lost when its simulation is changed by what no eye would see; near 0 is healthy.

    A message that is hidden at low amplitude is lost; one written in plain sight, as too strong a signal, is not: see
    :func:`effective_signal`.

    Returns
    -------
    dict
        Loss of correlation with the map after ``noise`` of a tenth of the standard deviation is added, after
        ``rounding`` to 256 grey levels, and after a ``shift`` by a third of a voxel along x.
    """
    sd = float(simulated.std(dtype=np.float64))
    step = max(float(simulated.max()) - float(simulated.min()), 1e-12) / 255
    noise = np.random.default_rng(seed).normal(scale=0.1 * sd, size=simulated.shape).astype(np.float32)
    moved = [ndimage.shift(values, (0, 0, 1 / 3), order=3, mode="mirror") for values in (simulated, clean)]
    whole = metrics.correlation(clean, denoise(simulated))
    return {
        "noise": whole - metrics.correlation(clean, denoise(simulated + noise)),
        "rounding": whole - metrics.correlation(clean, denoise(np.rint(simulated / step).astype(np.float32) * step)),
        "shift": whole - metrics.correlation(moved[1], denoise(moved[0])),
    }


def wrong_noise(
    noisy: np.ndarray, own: np.ndarray, wrong: np.ndarray, without: np.ndarray | None = None
) -> dict[str, float]:
    """Does the noise travel through its code?

    Parameters
    ----------
    noisy
        A tomogram.
    own, wrong
        Its reconstruction from the denoised volume and its own noise code, and from that of another tomogram.
    without
        The reconstruction without noise, if it was made.

    Returns
    -------
    dict
        Correlations ``own``, ``wrong`` and ``without`` with the tomogram, and ``gap`` = own - wrong, above 0.05 when
        the noise branch is alive; ``wrong`` should be about ``without``.  Equal values say that the noise is hidden in
        the denoised volume.
    """
    found = {"own": metrics.correlation(noisy, own), "wrong": metrics.correlation(noisy, wrong)}
    if without is not None:
        found["without"] = metrics.correlation(noisy, without)
    return {**found, "gap": found["own"] - found["wrong"]}


def noise_in_denoised(noisy: np.ndarray, denoised: np.ndarray, empty: np.ndarray, sigma: float = 1.0) -> float:
    """Correlation of the fine detail of a denoised volume with that of the tomogram where nothing is; healthy near 0.

    Parameters
    ----------
    noisy, denoised
        The tomogram and what the denoiser made of it.
    empty
        bool, True where there is no structure.
    sigma
        What is finer than this is detail, voxels.
    """
    before, after = (values - ndimage.gaussian_filter(values, sigma) for values in (noisy, denoised))
    return metrics.correlation(before, after, empty.astype(np.float32))


def structure_in_noise(noise: np.ndarray, noisy: np.ndarray, truth: np.ndarray | None = None) -> dict[str, float]:
    """Does structure travel through the noise code?  Correlations at low resolution, healthy below 0.15.

    Parameters
    ----------
    noise
        What the noise decoder makes of the tomogram's own code.
    noisy
        The tomogram.
    truth
        Its density, where known.
    """
    smooth = ndimage.gaussian_filter(noise, STRUCTURE_SCALE)
    found = {"noisy": metrics.correlation(smooth, ndimage.gaussian_filter(noisy, STRUCTURE_SCALE))}
    if truth is not None:
        found["truth"] = metrics.correlation(smooth, ndimage.gaussian_filter(truth, STRUCTURE_SCALE))
    return found


def effective_signal(
    simulated: np.ndarray, clean: np.ndarray, noisy: np.ndarray, truth: np.ndarray
) -> dict[str, float]:
    """Does a simulation show its map as a tomogram shows its density?

    Returns
    -------
    dict
        Correlations ``simulated`` and ``real``, and their ``ratio``, healthy within 0.9 to 1.1; above, the simulator
        writes the map into the simulation more plainly than a microscope would.
    """
    found = {"simulated": metrics.correlation(simulated, clean), "real": metrics.correlation(noisy, truth)}
    return {**found, "ratio": found["simulated"] / found["real"] if found["real"] else np.nan}
