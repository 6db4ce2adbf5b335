"""Is density dark or bright in a volume?  A guess from its grey values, for training, models and Scipion's forms.

What is dense fills less of a volume than what is not, so the grey values have their longer tail on the side of density:
the sign of their skewness tells the contrast.  Noise is symmetric and hides the tail, so the volume is blurred first.
Python 3.8, numpy and scipy only, because the plugin imports this module.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

from .excerpts import central_block

#: A skewness is taken as a sign of contrast when it is this many times its standard error.
CLEAR_SKEWNESS = 5.0


def contrast_of(data: np.ndarray) -> Tuple[int, float]:
    """Guess whether density is bright (1) or dark (-1) from the skewness of a blurred central block.

    Parameters
    ----------
    data
        (z, y, x), an array or a memory map.

    Returns
    -------
    sign, clearness
        ``clearness`` is the skewness over its standard error for as many independent values as the blur leaves.
    """
    from scipy import ndimage

    sigma = 2.0
    block = ndimage.gaussian_filter(central_block(data, 192), sigma).astype(np.float64)
    # Mirrored faces would count twice.
    block = block[tuple(slice(min(4, size // 4), size - min(4, size // 4)) for size in block.shape)]
    block -= block.mean()
    spread = block.std()
    if spread == 0:
        return 1, 0.0
    skewness = float(np.mean((block / spread) ** 3))
    independent = block.size / (4 * math.pi * sigma**2) ** 1.5
    return (1 if skewness >= 0 else -1), abs(skewness) / math.sqrt(6 / max(independent, 1.0))
