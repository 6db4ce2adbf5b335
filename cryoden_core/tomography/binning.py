"""Make images and volumes smaller without aliasing and without moving them.

The values are continued by their mirror image, whose Fourier series is a cosine series, and the series is cut off at
the new Nyquist frequency: Fourier cropping that knows no step between opposite edges.  The cosines of type II sit
halfway between pixels, so the centre ``(n - 1) / 2`` of the large array falls on the centre of the small one.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft


def fourier_crop(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample the last axes of an array to fewer samples over the same extent.

    Parameters
    ----------
    values : array (..., y, x) or (..., x)
        As many of its last axes are resampled as ``shape`` has numbers.
    shape : tuple of int
        New sizes of those axes, none larger than the old one.

    Returns
    -------
    ndarray float32
        The mean is kept; a sample stands for ``old / new`` samples, and lies at their centre.

    Raises
    ------
    ValueError
        When a size grows or is not positive.
    """
    result = np.asarray(values, dtype=np.float32)
    for axis, size in zip(range(-len(shape), 0), shape, strict=True):
        old = result.shape[axis]
        if not 1 <= size <= old:
            raise ValueError(f"cannot crop {old} samples to {size}")
        if size == old:
            continue
        cosines = fft.dct(result, type=2, norm="ortho", axis=axis)
        kept = np.take(cosines, range(size), axis=axis) * np.float32(math.sqrt(size / old))
        result = fft.idct(kept, type=2, norm="ortho", axis=axis)
    return np.ascontiguousarray(result, dtype=np.float32)


def bin_image(image: np.ndarray, factor: int) -> np.ndarray:
    """Bin an image (..., y, x) by a whole number; what does not fill a pixel is cut off at the edges, evenly.

    An odd number of pixels to cut leaves the last one out: the centre then moves by half a pixel of ``image``,
    see :func:`centre_shift`.
    """
    if factor == 1:
        return np.asarray(image, dtype=np.float32)
    cuts, shape = [], []
    for size in image.shape[-2:]:
        kept = size // factor
        start = (size - kept * factor) // 2
        cuts.append(slice(start, start + kept * factor))
        shape.append(kept)
    return fourier_crop(image[..., cuts[0], cuts[1]], tuple(shape))


def centre_shift(size: int, factor: int) -> float:
    """Where the centre of ``size`` pixels lies beyond the centre after :func:`bin_image`, in binned pixels."""
    return 0.5 * (size % factor % 2) / factor
