"""Keep the missing wedge of a denoised tomogram as the noisy one has it.

A network fills directions that no view measured with what usually goes with the measured ones.  In the missing wedge
the output is therefore made the input times a gain: each Fourier coefficient becomes the input's, times that number
from 0 to 1 which brings it nearest to the output's.  Nothing is left there that the tomogram does not hold; what its
finite size and its reconstruction brought there may stay.

Because the wedge does not depend on the frequency along the tilt axis (y), every section normal to it is treated by
itself, and memory stays bounded for volumes of any size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import fft

from ..fourier import missing_wedge_mask
from ..tiling import Readable

#: Voxels of the sections that are transformed together.
CHUNK_VOXELS = 2**22


def keep_wedge(
    output: np.ndarray,
    volume: Readable,
    tilt_min_degrees: float,
    tilt_max_degrees: float,
    on_chunks: Callable[[int], None] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> float:
    """Change ``output`` in place; see the module's text.

    Parameters
    ----------
    output
        Denoised (z, y, x), float32; may be a memory map.
    volume
        What was denoised, of the same shape.
    tilt_min_degrees, tilt_max_degrees
        The range of the views' angles about y.
    on_chunks, on_chunk
        Told how many chunks there will be, and when one is done.

    Returns
    -------
    float
        Share of the output's variance that was removed.
    """
    z, y, x = output.shape
    missing = ~missing_wedge_mask((z, 1, x), tilt_min_degrees, tilt_max_degrees)
    if x % 2 == 0:
        # The last column stands for kx and -kx alike, of which one may be measured.
        missing[:, :, -1] = False
    rows = max(1, CHUNK_VOXELS // (z * x))
    if on_chunks:
        on_chunks(-(-y // rows))
    removed = total = squares = 0.0
    for first in range(0, y, rows):
        sections = (slice(None), slice(first, first + rows))
        before = np.asarray(output[sections], np.float32)
        after = _attenuated(before, np.asarray(volume[sections], np.float32), missing)
        removed += float(np.square(before - after, dtype=np.float64).sum())
        total += float(before.sum(dtype=np.float64))
        squares += float(np.square(before, dtype=np.float64).sum())
        output[sections] = after
        if on_chunk:
            on_chunk()
    variance = squares - total**2 / output.size
    return removed / variance if variance > 0 else 0.0


def _attenuated(denoised: np.ndarray, noisy: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Sections (z, y, x) of the output with the missing coefficients (z, 1, x // 2 + 1) from the input."""
    # The mean lies in no direction; without it single precision is enough whatever the grey scale.
    centre = denoised.mean(dtype=np.float64).astype(np.float32)
    out = fft.rfft2(denoised - centre, axes=(0, 2))
    given = fft.rfft2(noisy - noisy.mean(dtype=np.float64).astype(np.float32), axes=(0, 2))
    power = np.maximum(given.real**2 + given.imag**2, np.finfo(np.float32).tiny)
    gain = np.clip((out.real * given.real + out.imag * given.imag) / power, 0, 1)
    out = np.where(missing, gain * given, out)
    return fft.irfft2(out, s=(denoised.shape[0], denoised.shape[2]), axes=(0, 2)) + centre
