"""Do the tilt angles belong to the images, as far as the images can tell?

Neighbouring views of a tilt series look alike.  When angles and images come in different orders (a dose-symmetric stack
with a sorted list of angles is the usual case), views that are neighbours by their angles do not, while others do.  The
residual of a reconstruction shows the same, but noise hides it sooner and it costs a reconstruction.
"""

from __future__ import annotations

import numpy as np

from .binning import fourier_crop

#: Longest side of the small images that are compared, pixels: neighbours differ in what is finer.
SMALL = 48
#: Likeness of neighbours, 1 for the best order and 0 for a random one, below which the order is suspect.  Measured on
#: the golden series with noise (signal-to-noise ratio of a view from 0.02 up): right 0.79 to 1.04, one place off 0.74
#: and more, a sorted list beside a dose-symmetric stack -0.4 to -0.3, shuffled -0.1 to 0.1, not aligned 0.4 to 0.5.
SUSPECT = 0.55
#: The best order must exceed a random one by this much in units of the noise of a correlation, or nothing is known.
LEAST_EVIDENCE = 4.0


def likeness_of_neighbours(projections: np.ndarray, tilt_angles_degrees: np.ndarray) -> float | None:
    """How much views that are neighbours by their angles look alike.

    Parameters
    ----------
    projections : array (views, y, x)
    tilt_angles_degrees : array (views,)

    Returns
    -------
    float or None
        Mean correlation of neighbours, scaled to 0 for views in a random order and 1 for the order in which each view
        stands beside the one most like it (about 1 when all is well); None where noise leaves nothing to tell.
    """
    height, width = projections.shape[1:]
    scale = max(1.0, max(height, width) / SMALL)
    shape = max(1, round(height / scale)), max(1, round(width / scale))
    small = np.stack([fourier_crop(view, shape).ravel() for view in projections])
    small -= small.mean(axis=1, keepdims=True)
    small /= np.maximum(small.std(axis=1, keepdims=True), 1e-30)
    likeness = small @ small.T / small.shape[1]
    order = np.argsort(tilt_angles_degrees, kind="stable")
    found = likeness[order[:-1], order[1:]].mean()
    chance = likeness[~np.eye(len(small), dtype=bool)].mean()
    best = max(_chain(likeness, first) for first in range(len(small)))
    if (best - chance) * np.sqrt(small.shape[1]) < LEAST_EVIDENCE:
        return None
    return float((found - chance) / (best - chance))


def _chain(likeness: np.ndarray, first: int) -> float:
    """Mean likeness along the chain that goes on, from view ``first``, to the most similar view not yet in it."""
    free = likeness.copy()
    np.fill_diagonal(free, -np.inf)
    free[:, first] = -np.inf
    total, here = 0.0, first
    for _ in range(len(likeness) - 1):
        following = int(free[here].argmax())
        total += float(likeness[here, following])
        free[:, following] = -np.inf
        here = following
    return total / (len(likeness) - 1)
