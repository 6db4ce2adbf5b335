"""Visual information fidelity: how much of what the eye could learn from the truth it can still learn from a volume.

Sheikh and Bovik (2006), IEEE Trans. Image Process. 15, 430, in the pixel domain.  Part of :mod:`cryoden_core.metrics`,
from where it is to be imported.
"""

from __future__ import annotations

import numpy as np

_VIF_SCALES = 4
#: Variance of the eye's noise for grey levels 0 to 255, as published.
_VIF_NOISE = 2.0


def vif(test: np.ndarray, truth: np.ndarray) -> float:
    """Visual information fidelity in the pixel domain, of a slice or averaged over the slices of a volume.

    Sheikh and Bovik (2006), IEEE Trans. Image Process. 15, 430, equation 9 at four scales with scalar Gaussian
    mixtures.  Both volumes are scaled by the truth's range to 0..255, for which the published noise variance holds.
    1 is equality; noise and blur lower it, added contrast can raise it above 1.  Small slices use fewer scales.

    Raises
    ------
    ValueError
        When a slice is smaller than 17 pixels.
    """
    if min(truth.shape[-2:]) < 17:
        raise ValueError("visual information fidelity needs slices of at least 17 x 17 pixels")
    low, high = float(np.min(truth)), float(np.max(truth))
    scale = 255.0 / (high - low) if high > low else 1.0
    pairs = [(test, truth)] if truth.ndim == 2 else [(test[i], truth[i]) for i in range(len(truth))]
    grey = ([scale * (np.asarray(image, dtype=np.float64) - low) for image in pair] for pair in pairs)
    return float(np.mean([_vif_slice(*pair) for pair in grey]))


def _vif_slice(test: np.ndarray, truth: np.ndarray) -> float:
    """Information that the test keeps over the information of the truth, both (y, x) in grey levels 0..255."""
    kept = available = 0.0
    for scale in range(1, _VIF_SCALES + 1):
        size = 2 ** (_VIF_SCALES - scale + 1) + 1
        if scale > 1:
            if min(truth.shape) < size:
                break
            test, truth = (_gaussian_mean(values, size)[::2, ::2] for values in (test, truth))
        if min(truth.shape) < size:
            break
        mean_test, mean_truth = _gaussian_mean(test, size), _gaussian_mean(truth, size)
        var_test = np.maximum(_gaussian_mean(test * test, size) - mean_test**2, 0.0)
        var_truth = np.maximum(_gaussian_mean(truth * truth, size) - mean_truth**2, 0.0)
        covariance = _gaussian_mean(test * truth, size) - mean_test * mean_truth
        gain = covariance / (var_truth + 1e-10)
        distortion = var_test - gain * covariance
        # A negative gain carries no information, and where the truth is flat all that the test shows is distortion.
        lost = (var_truth < 1e-10) | (gain < 0)
        gain = np.where(lost, 0.0, gain)
        distortion = np.maximum(np.where(lost, var_test, distortion), 1e-10)
        kept += float(np.log10(1.0 + gain**2 * var_truth / (distortion + _VIF_NOISE)).sum())
        available += float(np.log10(1.0 + var_truth / _VIF_NOISE).sum())
    return kept / available if available > 0 else 1.0


def _gaussian_mean(values: np.ndarray, size: int) -> np.ndarray:
    """Local mean with a Gaussian window of ``size`` pixels and a standard deviation of a fifth of it, valid part."""
    from scipy.ndimage import convolve1d

    half = size // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / (size / 5.0)) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        values = convolve1d(values, weights, axis=axis)
    return values[half : values.shape[0] - half, half : values.shape[1] - half]
