"""Pictures of where things are in a tomogram: its classes in colour, and coordinates as circles.

Each function returns a matplotlib figure that belongs to no window.  Of a volume only the slices that are shown are
read.
"""

from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple

import numpy as np

from cryoden_core import report
from cryoden_core.excerpts import central_slices
from cryoden_core.panels import blocks_of, common_contrast, draw_blocks, slices_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How much of the colour of a class covers the grey of the tomogram.
COVER = 0.55
#: Classes that the legend names; more would not be legible.
NAMED = 24
#: Inches for the legend below the slices: for each row, and names in a row.
_ROW, _COLUMNS = 0.22, 4
#: Slices of this share of the diameter, on both sides of the middle, are averaged where picks are shown.
_SLAB = 0.25


def labelled_figure(volume: np.ndarray, labels: np.ndarray, names: Dict[int, str], voxel_size: float) -> "Figure":
    """Central slices of a tomogram as it is, and with its classes in colour and their names below.

    Parameters
    ----------
    volume, labels
        (z, y, x) of one size; the number of the class of each voxel, 0 for none.
    names
        Of the classes, by their number.
    """
    slices, classes = central_slices(volume), [np.rint(part).astype(int) for part in central_slices(labels)]
    shown = sorted({int(label) for part in classes for label in np.unique(part)} - {0})
    rows = -(-min(len(shown), NAMED) // _COLUMNS)
    width, height = slices_size(volume.shape, 2)
    figure = report.new_figure(width, height + _ROW * rows)
    low, high = common_contrast(list(slices), list(slices))
    colours = _colours(shown)
    coloured = tuple(_coloured(part, label, colours, low, high) for part, label in zip(slices, classes))
    parent = figure.subfigures(2, 1, height_ratios=(height, max(_ROW * rows, 1e-3)))
    blocks = [("tomogram", slices, low, high), ("classes", coloured, 0.0, 1.0)]
    draw_blocks(parent[0], (width, height), volume.shape, blocks, voxel_size)
    _draw_legend(parent[1], [(names.get(label, "class %d" % label), colours[label]) for label in shown[:NAMED]])
    return figure


def _colours(labels: Sequence[int]) -> Dict[int, Tuple[float, ...]]:
    from matplotlib import colormaps

    table = colormaps["tab20"]
    # Neighbours in tab20 are a dark and a light one of the same colour: first all dark ones.
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    return {label: table(order[number % 20])[:3] for number, label in enumerate(labels)}


def _coloured(slice_: np.ndarray, labels: np.ndarray, colours: Dict[int, Any], low: float, high: float) -> np.ndarray:
    grey = np.clip((slice_ - low) / (high - low), 0, 1)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    for label, colour in colours.items():
        inside = labels == label
        rgb[inside] = (1 - COVER) * rgb[inside] + COVER * np.array(colour)
    return rgb


def _draw_legend(parent: Any, entries: List[Tuple[str, Any]]) -> None:
    from matplotlib.patches import Patch

    if entries:
        patches = [Patch(color=colour, label=name) for name, colour in entries]
        parent.legend(handles=patches, loc="center", ncol=_COLUMNS, fontsize=8, frameon=False)


def picks_figure(volume: np.ndarray, positions: np.ndarray, diameter: float, voxel_size: float) -> "Figure":
    """A slab of a tomogram, where most picks are, with circles around the picks that it cuts.

    Parameters
    ----------
    volume
        (z, y, x).
    positions
        (n, 3) x, y, z in voxels.
    diameter
        Of the particles, angstrom.
    """
    depth, height, width = volume.shape
    radius = diameter / 2 / voxel_size
    middle = _densest(positions[:, 2], radius, depth)
    half = max(1, round(2 * radius * _SLAB))
    first, last = max(0, middle - half), min(depth, middle + half + 1)
    slab = np.asarray(volume[first:last], np.float32).mean(axis=0)
    figure = report.new_figure(7.0, min(9.0, 7.0 * height / width) + 0.4)
    axis = figure.subplots()
    ((_, _, low, high),) = blocks_of({"": slab[None]})
    axis.imshow(slab, cmap="gray", vmin=low, vmax=high, origin="lower")
    beyond = np.abs(positions[:, 2] - middle)
    for (x, y, _), far in zip(positions[beyond < radius], beyond[beyond < radius]):
        axis.add_patch(_circle(x, y, np.sqrt(radius**2 - far**2)))
    found = (beyond < radius).sum(), len(positions), first, last - 1
    axis.set_title("%d of %d picks reach into this slab (mean of the slices %d to %d)" % found)
    axis.set_xticks([])
    axis.set_yticks([])
    return figure


def _densest(z: np.ndarray, radius: float, depth: int) -> int:
    """The slice that the most picks cut, the one nearest to the middle of several."""
    if not len(z):
        return depth // 2
    cut = (np.abs(z[:, None] - np.arange(depth)) < radius).sum(axis=0)
    best = np.flatnonzero(cut == cut.max())
    return int(best[np.argmin(np.abs(best - depth // 2))])


def _circle(x: float, y: float, radius: float) -> Any:
    from matplotlib.patches import Circle

    return Circle((x, y), max(radius, 1.0), fill=False, color="#E69F00", linewidth=1.2)
