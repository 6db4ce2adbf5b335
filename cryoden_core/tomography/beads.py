"""Find gold beads in the views of a tilt series, so that a fit can leave them out.

A bead is much denser than anything else, and one that the fit must explain drags streaks through the tomogram.  Each
view is binned until a bead is a few pixels wide, which lifts it out of the noise of single pixels, and flattened by the
median around each pixel; what then lies beyond six robust standard deviations is a bead when enough of it lies
together.  Gold is the extreme of density, but whether it is dark or bright depends on the data, and its fringes stick
out on the other side: the sign with more excess over all views is taken as the beads', and the other side stays.

A view without noise is a simulation, in which everything stands out from an empty background; no beads are looked for.

Nothing is painted over: erasing beads before the alignment is applied (IMOD's ``ccderaser``) keeps more of the specimen
behind them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from .binning import fourier_crop

#: Beads, grown, may take this share of the views' pixels; more means that it is not beads that were found.
LARGEST_FRACTION = 0.1
THRESHOLD = 6.0
#: Shares of the flattened pixels between which the standard deviation is taken as well: with little noise the spread
#: of most pixels is that of empty ice, and every molecule would be an outlier.
TAILS = (0.05, 0.95)
#: Diameter to which beads are binned, and side of the square over which the median is taken, at twice that bin; pixels.
BINNED_DIAMETER, MEDIAN_SIDE = 5, 17
#: Share of the noise in the spread of the flattened pixels below which a view counts as one without noise.  With noise
#: it is 0.5 to 1, a little less after interpolation, and 0 to 0.04 in projections of phantoms.
LEAST_NOISE = 0.05
#: Groups of fewer pixels are noise.
SMALLEST_GROUP = 3


def find_beads(
    projections: np.ndarray,
    diameter: float = 12.0,
    threshold: float = THRESHOLD,
    warn: Callable[[str], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels covered by gold beads.

    Parameters
    ----------
    projections : array (views, y, x)
        May be memory-mapped; read view by view.
    diameter : float
        Of the beads in pixels, about: half to twice the true one will do.  Most are 100 angstrom wide.
    threshold : float
        Robust standard deviations of the flattened view.
    warn : callable, optional
        Told when more than :data:`LARGEST_FRACTION` of the pixels would be masked; then none are.

    Returns
    -------
    mask : ndarray (views, y, x) bool
        True on beads, grown by about their own radius, where their fringes are.
    fraction : ndarray (views,) float64
        Share of each view's pixels.
    """
    mask = np.zeros(projections.shape, dtype=bool)
    sign = _sign_of_beads(projections, diameter, threshold)
    for place, view in enumerate(projections):
        found = _compact(sign * _standardised(view, diameter) > threshold)
        if found.any():
            mask[place] = _enlarged(_grown(found).astype(np.float32), view.shape) > 0.5
    fraction = mask.mean(axis=(1, 2))
    if fraction.mean() > LARGEST_FRACTION:
        if warn is not None:
            warn(
                f"{100 * fraction.mean():.0f} % of the pixels look like gold beads, more than beads can cover; none "
                "are masked."
            )
        mask[:] = False
        fraction[:] = 0
    return mask, fraction


def _standardised(view: np.ndarray, diameter: float) -> np.ndarray:
    """The binned view without what varies slowly, in robust standard deviations; zero where there is no noise."""
    factor = max(1, round(diameter / BINNED_DIAMETER))
    image = fourier_crop(view, _binned(view.shape, factor))
    coarse = ndimage.median_filter(fourier_crop(image, _binned(image.shape, 2)), size=MEDIAN_SIDE, mode="nearest")
    flat = image - _enlarged(coarse, image.shape)
    flat -= np.median(flat)
    spread = max(_robust_sd(flat), float(np.clip(flat, *np.quantile(flat, TAILS)).std()))
    # White noise becomes less by binning as its pixels become more.
    if spread == 0 or _noise(view) / factor < LEAST_NOISE * spread:
        return np.zeros_like(flat)
    return flat / spread


def _noise(view: np.ndarray) -> float:
    """Standard deviation of the noise, from second differences along both axes, which hardly see what is smooth."""
    image = np.asarray(view, dtype=np.float32)
    rows = image[:-2] - 2 * image[1:-1] + image[2:]
    # The weights 1, -2, 1 along both axes have squares that add up to 36.
    return _robust_sd(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]) / 6


def _binned(shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    return tuple(max(1, size // factor) for size in shape)


def _enlarged(small: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    zoom = [size / reduced for size, reduced in zip(shape, small.shape, strict=True)]
    return ndimage.zoom(small, zoom, order=1, grid_mode=True, mode="nearest")


def _robust_sd(values: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _sign_of_beads(projections: np.ndarray, diameter: float, threshold: float) -> float:
    """1 when beads are the brightest, -1 when the darkest: the side with more excess, in about ten of the views."""
    excess = {1.0: 0.0, -1.0: 0.0}
    for view in projections[:: max(1, len(projections) // 10)]:
        standardised = _standardised(view, diameter)
        for sign in excess:
            found = _compact(sign * standardised > threshold)
            excess[sign] += float((sign * standardised[found] - threshold).sum())
    return max(excess, key=lambda sign: excess[sign])


def _compact(found: np.ndarray) -> np.ndarray:
    """Without groups too small for beads."""
    groups, count = ndimage.label(found, structure=np.ones((3, 3)))
    sizes = np.bincount(groups.ravel(), minlength=count + 1)
    sizes[0] = 0
    return sizes[groups] >= SMALLEST_GROUP


def _grown(found: np.ndarray) -> np.ndarray:
    """Grown on all sides by the radius of a disc as large as the median group, at least a pixel."""
    groups, count = ndimage.label(found, structure=np.ones((3, 3)))
    if not count:
        return found
    area = float(np.median(np.bincount(groups.ravel())[1:]))
    return ndimage.distance_transform_edt(~found) <= max(1.0, math.sqrt(area / math.pi))
