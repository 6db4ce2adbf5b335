"""Pictures of a run: slices before, after and their difference, the loss, power spectra and Fourier shell correlation.

Each function returns a matplotlib ``Figure`` that belongs to no window, so that the same picture can be saved, shown
by the Scipion viewer or put in the documentation.  Matplotlib is loaded when a picture is asked for.  Volumes may be
memory-maps of any size: only their three central slices and a central block are read.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from .fourier import radial_power_spectrum
from .jobs import whole_file
from .mrc import errors_of_writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Tuple[np.ndarray, np.ndarray]
Metrics = Mapping[str, List[float]]
#: Name of a volume, its central slices, black and white.
Block = Tuple[str, Tuple[np.ndarray, np.ndarray, np.ndarray], float, float]

#: Edge of the central block from which spectra are taken, voxels.
SPECTRUM_BLOCK = 128
#: Colours that remain apart for colour-blind readers (Okabe and Ito).
BEFORE, AFTER, REMOVED, OTHERS = "#0072B2", "#D55E00", "#999999", ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: A side view is drawn at least this share of the slice's longer side, however thin the volume.
_THINNEST = 0.07
#: Inches: width of a block of views, its greatest height, space around, between views, and for its name.
_COLUMN, _TALLEST, _MARGIN, _GAP, _CAPTION = 4.2, 6.5, 0.12, 0.05, 0.3
_LABEL_BOX = {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5}


def write_report(
    path: str,
    before: np.ndarray,
    after: np.ndarray,
    voxel_size: float = 0.0,
    metrics: Optional[Metrics] = None,
    title: str = "",
    halves: Optional[Mapping[str, Curve]] = None,
) -> None:
    """Write the picture of a run, whole or not at all.

    Parameters
    ----------
    path
        PNG file.
    before, after
        (z, y, x), arrays or memory-maps.
    voxel_size
        Angstrom; 0 leaves axes in voxels.
    metrics
        Columns of ``metrics.csv`` as :func:`cryoden_core.progress.read_metrics` gives them.
    title
        Above the picture.
    halves
        Fourier shell correlation of the halves: name of the curve ("before", "after") to (frequency in cycles per
        voxel, correlation).

    Raises
    ------
    JobError
        When the file cannot be written.
    """
    figure, top, size, bottom = _two_rows(*slices_size(before.shape), title)
    _draw_slices(top, size, before, after, voxel_size)
    trained = bool(_loss_columns(metrics or {}))
    axes = list(np.atleast_1d(bottom.subplots(1, 1 + trained + bool(halves))))
    if trained:
        _draw_loss(axes.pop(0), metrics or {})
    _draw_spectrum(axes.pop(0), before, after, voxel_size)
    if halves:
        _draw_fsc(axes.pop(0), halves, voxel_size)
    save_figure(figure, path)


def write_reconstruction(
    path: str,
    tomograms: Mapping[str, np.ndarray],
    voxel_size: float = 0.0,
    residuals: Optional[Mapping[str, Curve]] = None,
    halves: Optional[Mapping[str, Curve]] = None,
    metrics: Optional[Metrics] = None,
    title: str = "",
) -> None:
    """Write the picture of a reconstruction, whole or not at all; raises as :func:`write_report` does.

    Parameters
    ----------
    path
        PNG file.
    tomograms
        Name to (z, y, x), one or several of the same shape, arrays or memory-maps; each has its own contrast.
    residuals
        Name to (tilt angles in degrees, relative residual of each view).
    halves
        Name to the Fourier shell correlation of the halves, (frequency in cycles per voxel, correlation).
    voxel_size, metrics, title
        As for :func:`write_report`.
    """
    blocks: List[Block] = []
    for name, tomogram in tomograms.items():
        slices = central_slices(tomogram)
        blocks.append((name, slices, *common_contrast(list(slices), list(slices))))
    shape = next(iter(tomograms.values())).shape
    width, height = slices_size(shape, len(blocks))
    trained = bool(_loss_columns(metrics or {}))
    panels = 1 + trained + bool(residuals) + bool(halves)
    figure, top, size, bottom = _two_rows(max(width, _COLUMN * panels), height, title)
    _draw_blocks(top, size, shape, blocks, voxel_size, left=(size[0] - width) / 2)
    axes = list(np.atleast_1d(bottom.subplots(1, panels)))
    if trained:
        _draw_loss(axes.pop(0), metrics or {})
    if residuals:
        _draw_residuals(axes.pop(0), residuals)
    colours = dict(zip(tomograms, (AFTER, BEFORE, *OTHERS)))  # noqa: B905 (Python 3.8)
    _draw_spectra(axes[0], [(n, central_block(t), colours[n]) for n, t in tomograms.items()], voxel_size)
    if halves:
        _draw_fsc(axes[1], halves, voxel_size)
    save_figure(figure, path)


def residuals_figure(residuals: Mapping[str, Curve]) -> Figure:
    """Relative residual of each view against its tilt, by name: (degrees, residual)."""
    figure = new_figure(6.0, 4.0)
    _draw_residuals(figure.subplots(), residuals)
    return figure


def comparison_figure(tomograms: Mapping[str, np.ndarray], voxel_size: float = 0.0) -> Figure:
    """Central slices of tomograms (z, y, x) of one shape side by side, each with its own contrast."""
    blocks: List[Block] = []
    for name, tomogram in tomograms.items():
        slices = central_slices(tomogram)
        blocks.append((name, slices, *common_contrast(list(slices), list(slices))))
    shape = next(iter(tomograms.values())).shape
    width, height = slices_size(shape, len(blocks))
    figure = new_figure(width, height)
    _draw_blocks(figure, (width, height), shape, blocks, voxel_size)
    return figure


def side_spectrum(volume: np.ndarray) -> np.ndarray:
    """Logarithm of the power (kz, kx) of a volume (z, y, x), summed along ky, zero frequency in the middle.

    The missing wedge is a dark double cone about the vertical.
    """
    window = [np.hanning(size + 2)[1:-1] for size in volume.shape]
    tapered = (volume - volume.mean()) * window[0][:, None, None] * window[1][:, None] * window[2]
    power = np.abs(np.fft.fftshift(np.fft.fftn(tapered))) ** 2
    summed = power.sum(axis=1)
    return np.log10(summed + 1e-6 * summed.max() + np.finfo(np.float64).tiny)


def side_spectra_figure(tomograms: Mapping[str, np.ndarray]) -> Figure:
    """Power in the kx, kz plane of the central blocks of tomograms, by name."""
    figure = new_figure(3.2 * len(tomograms), 3.4)
    axes: Any = np.atleast_1d(np.asarray(figure.subplots(1, len(tomograms)), dtype=object))
    for axis, (name, tomogram) in zip(axes, tomograms.items()):  # noqa: B905 (Python 3.8)
        axis.imshow(
            side_spectrum(central_block(tomogram)), cmap="gray", origin="lower", aspect="auto",
            extent=(-0.5, 0.5, -0.5, 0.5),
        )  # fmt: skip
        axis.set_title(name)
        axis.set_xlabel("kx (cycles per voxel)")
    axes[0].set_ylabel("kz (cycles per voxel)")
    return figure


def slices_figure(before: np.ndarray, after: np.ndarray, voxel_size: float = 0.0) -> Figure:
    """Central slices of two volumes (z, y, x) and of their difference, all with one contrast."""
    size = slices_size(before.shape)
    figure = new_figure(*size)
    _draw_slices(figure, size, before, after, voxel_size)
    return figure


def loss_figure(metrics: Metrics) -> Figure:
    """Losses over training steps, from the columns of ``metrics.csv``; a note when there are none."""
    figure = new_figure(6.0, 4.0)
    _draw_loss(figure.subplots(), metrics)
    return figure


def spectrum_figure(before: np.ndarray, after: np.ndarray, voxel_size: float = 0.0) -> Figure:
    """Radial power spectra of two volumes (z, y, x) and of what was removed, from a central block."""
    figure = new_figure(6.0, 4.0)
    _draw_spectrum(figure.subplots(), before, after, voxel_size)
    return figure


def fsc_figure(curves: Mapping[str, Curve], voxel_size: float = 0.0) -> Figure:
    """Fourier shell correlations by name, each (frequency in cycles per voxel, correlation)."""
    figure = new_figure(6.0, 4.0)
    _draw_fsc(figure.subplots(), curves, voxel_size)
    return figure


def save_figure(figure: Figure, path: str) -> None:
    """Write a figure as PNG, whole or not at all."""
    path = os.fspath(path)
    with errors_of_writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110)


def central_slices(volume: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The central xy (y, x), xz (z, x) and yz (y, z) slices of a volume (z, y, x), float32."""
    z, y, x = (size // 2 for size in volume.shape)
    xy, xz, yz = (np.array(part, dtype=np.float32) for part in (volume[z], volume[:, y], volume[:, :, x]))
    return xy, xz, np.ascontiguousarray(yz.T)


def central_block(volume: np.ndarray, edge: int = SPECTRUM_BLOCK) -> np.ndarray:
    """The central block of at most ``edge`` voxels a side, float32."""
    cut = tuple(slice((size - min(size, edge)) // 2, (size + min(size, edge)) // 2) for size in volume.shape)
    return np.array(volume[cut], dtype=np.float32)


def common_contrast(before: List[np.ndarray], after: List[np.ndarray]) -> Tuple[float, float]:
    """Black and white for both volumes: 99 % of what is after and 90 % of what is before lie between them.

    The range of a noisy volume alone would leave the restored one grey on grey.
    """
    noisy, clean = (np.concatenate([part.ravel() for part in parts]) for parts in (before, after))
    low = min(np.percentile(noisy, 5), np.percentile(clean, 0.5))
    high = max(np.percentile(noisy, 95), np.percentile(clean, 99.5))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    return float(low), float(high)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _two_rows(width: float, height: float, title: str) -> Tuple[Figure, Any, Tuple[float, float], Any]:
    """A figure, its upper row (slices of this size under the title), that row's size in inches, its lower row."""
    heading = 0.45 if title else 0.1
    figure = new_figure(width, heading + height + 3.6)
    top, bottom = figure.subfigures(2, 1, height_ratios=[heading + height, 3.6])
    if title:
        top.text(0.5, 1 - 0.5 * heading / (heading + height), title, fontsize=13, ha="center", va="center")
    return figure, top, (width, heading + height), bottom


def _block(shape: Tuple[int, ...]) -> Tuple[float, float, float]:
    """Width and height of the xy slice and thickness of the side views, inches, such that a block fits its column."""
    depth, height, width = shape
    thickness = max(_THINNEST * max(width, height), depth)
    scale = min((_COLUMN - _GAP) / (width + thickness), _TALLEST / (height + thickness))
    return scale * width, scale * height, scale * thickness


def slices_size(shape: Tuple[int, ...], blocks: int = 3) -> Tuple[float, float]:
    """Width and height in inches of the picture of the slices of some volumes of this (z, y, x) shape."""
    _, height, thickness = _block(shape)
    return blocks * _COLUMN + (blocks + 1) * _MARGIN, height + thickness + _GAP + _MARGIN + _CAPTION


def _draw_slices(
    parent: Any, size: Tuple[float, float], before: np.ndarray, after: np.ndarray, voxel_size: float
) -> None:
    """Three blocks side by side: before, after and their difference, with one contrast."""
    old, new = central_slices(before), central_slices(after)
    removed = (old[0] - new[0], old[1] - new[1], old[2] - new[2])
    low, high = common_contrast(list(old), list(new))
    half = (high - low) / 2
    blocks = [("before", old, low, high), ("after", new, low, high), ("before - after", removed, -half, half)]
    _draw_blocks(parent, size, before.shape, blocks, voxel_size)


def _draw_blocks(
    parent: Any, size: Tuple[float, float], shape: Tuple[int, ...], blocks: List[Block], voxel_size: float,
    left: float = 0.0,
) -> None:  # fmt: skip
    """Blocks side by side; in each the xy slice, xz below it and yz to its right, on one scale.

    ``size`` is that of the parent in inches; the blocks stand at its bottom, the first ``left`` inches from its edge.
    """
    width, height, thickness = _block(shape)
    places = {
        "xy": (0.0, thickness + _GAP, width, height),
        "xz": (0.0, 0.0, width, thickness),
        "yz": (width + _GAP, thickness + _GAP, thickness, height),
    }
    for number, (name, slices, black, white) in enumerate(blocks):
        spare = _COLUMN - width - thickness - _GAP
        corner = left + _MARGIN + number * (_COLUMN + _MARGIN) + max(0.0, spare / 2)
        for plane, (label, (across, bottom, wide, tall)) in enumerate(places.items()):
            axis = parent.add_axes(
                ((corner + across) / size[0], (_MARGIN + bottom) / size[1], wide / size[0], tall / size[1])
            )
            axis.imshow(slices[plane], cmap="gray", vmin=black, vmax=white, origin="lower", aspect="auto")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.annotate(
                label, (0, 1), (3, -3), xycoords="axes fraction", textcoords="offset points", va="top", ha="left",
                fontsize=8, color="white", bbox=_LABEL_BOX,
            )  # fmt: skip
            if label == "xy":
                axis.set_title(name, fontsize=11)
                _draw_scale_bar(axis, shape[2], voxel_size)


def _draw_scale_bar(axis: Any, width: int, voxel_size: float) -> None:
    """A bar of a round length, about a quarter of the slice."""
    unit, size = ("nm", voxel_size / 10) if voxel_size > 0 else ("voxels", 1.0)
    target = 0.25 * width * size
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target * 1.0001)
    share = length / size / width
    # Black below white: a restored tomogram is nearly white where the bar lies.
    for colour, thickness in (("black", 5), ("white", 3)):
        axis.plot([0.03, 0.03 + share], [0.03, 0.03], color=colour, linewidth=thickness, solid_capstyle="butt",
                  transform=axis.transAxes, scalex=False, scaley=False)  # fmt: skip
    axis.annotate(
        "%g %s" % (length, unit), (0.03 + share / 2, 0.03), (0, 5), xycoords="axes fraction",
        textcoords="offset points", color="white", fontsize=8, ha="center", va="bottom", bbox=_LABEL_BOX,
    )  # fmt: skip


def _loss_columns(metrics: Metrics) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
    """Step and value of each column whose name speaks of a loss, without the empty cells.

    Of several trainings in one run, such as pilots before the fit, the last is shown.  The first steps of a fit that
    starts from another reconstruction (``loss_start``) are left out: their loss is of another kind and scale.
    """
    columns = {}
    for name, values in metrics.items():
        if "loss" not in name.lower() or name == "loss_start":
            continue
        value = np.asarray(values, dtype=np.float64)
        step = np.asarray(metrics.get("step", np.arange(value.size)), dtype=np.float64)
        known = np.isfinite(value) & np.isfinite(step)
        if "loss_start" in metrics:
            known &= ~np.isfinite(np.asarray(metrics["loss_start"], dtype=np.float64))
        step, value = step[known], value[known]
        restarts = np.flatnonzero(np.diff(step) < 0)
        last = restarts[-1] + 1 if restarts.size else 0
        if step.size - last > 1:
            columns[name] = (step[last:], value[last:])
    return columns


def _draw_loss(axes: Any, metrics: Metrics) -> None:
    columns = _loss_columns(metrics)
    axes.set_title("Training", fontsize=11)
    if not columns:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no training in this run", ha="center", va="center", transform=axes.transAxes)
        return
    colours = (AFTER, BEFORE, *OTHERS)
    for number, (name, (step, value)) in enumerate(columns.items()):
        colour = colours[number % len(colours)]
        window = max(1, value.size // 40)
        style = "-" if number < len(colours) else "--"
        axes.plot(step, value, style, color=colour, linewidth=0.7, alpha=0.3 if window > 1 else 1.0)
        smooth = np.convolve(value, np.ones(window) / window, mode="valid")
        axes.plot(step[window - 1 :], smooth, style, color=colour, linewidth=1.6, label=name.replace("_", " "))
    everything = np.concatenate([value for _, value in columns.values()])
    if everything.min() > 0 and everything.max() > 5 * everything.min():
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    _finish(axes, crowded=len(columns) > len(colours))


def _draw_spectrum(axes: Any, before: np.ndarray, after: np.ndarray, voxel_size: float) -> None:
    old, new = central_block(before), central_block(after)
    spectra = [("before", old, BEFORE), ("after", new, AFTER), ("before - after", old - new, REMOVED)]
    _draw_spectra(axes, spectra, voxel_size)


def _draw_spectra(axes: Any, blocks: List[Tuple[str, np.ndarray, str]], voxel_size: float) -> None:
    """Radial power spectra of some blocks, each with a name and a colour."""
    for name, block, colour in blocks:
        frequency, power = radial_power_spectrum(block, edge_taper=0.1)
        shown = power > 0
        axes.semilogy(frequency[shown] / (voxel_size or 1.0), power[shown], color=colour, linewidth=1.6, label=name)
    # What lies far below is rounding, and would flatten what is to be seen.
    top = axes.get_ylim()[1]
    axes.set_ylim(max(axes.get_ylim()[0], 1e-10 * top), top)
    axes.set_title("Power spectrum", fontsize=11)
    axes.set_ylabel("power")
    _frequency_axis(axes, voxel_size)
    _finish(axes)


def _draw_residuals(axes: Any, residuals: Mapping[str, Curve]) -> None:
    for (name, (angles, values)), colour in zip(residuals.items(), (AFTER, BEFORE, *OTHERS)):  # noqa: B905
        order = np.argsort(angles)
        axes.plot(np.asarray(angles)[order], np.asarray(values)[order], ".-", color=colour, linewidth=1.2, label=name)
    axes.set_ylim(bottom=0)
    axes.set_title("What the projections do not explain", fontsize=11)
    axes.set_xlabel("tilt (degrees)")
    axes.set_ylabel("relative residual")
    _finish(axes)


def _draw_fsc(axes: Any, curves: Mapping[str, Curve], voxel_size: float) -> None:
    colours = {"before": BEFORE, "after": AFTER}
    others = iter(OTHERS * (1 + len(curves)))
    for threshold in (0.5, 0.143):
        axes.axhline(threshold, color="black", linewidth=0.7, linestyle="--", alpha=0.6)
        axes.text(0.995, threshold, "%g" % threshold, transform=axes.get_yaxis_transform(), ha="right", va="bottom",
                  fontsize=8, alpha=0.7)  # fmt: skip
    for name, (frequency, curve) in curves.items():
        colour = colours.get(name) or next(others)
        axes.plot(np.asarray(frequency) / (voxel_size or 1.0), curve, color=colour, linewidth=1.6, label=name)
    axes.set_ylim(min(-0.05, axes.get_ylim()[0]), 1.05)
    axes.set_title("Agreement of the halves", fontsize=11)
    axes.set_ylabel("Fourier shell correlation")
    _frequency_axis(axes, voxel_size)
    _finish(axes)


def _frequency_axis(axes: Any, voxel_size: float) -> None:
    """Frequencies from 0 to Nyquist, labelled with the lengths they stand for when the voxel size is known."""
    axes.set_xlim(0, 0.5 / (voxel_size or 1.0))
    if voxel_size > 0:
        ticks = np.linspace(0.1, 0.5, 5) / voxel_size
        axes.set_xticks(ticks)
        axes.set_xticklabels(["1/%.3g" % (1 / tick) for tick in ticks])
        axes.set_xlabel("spatial frequency (1/Å)")
    else:
        axes.set_xlabel("spatial frequency (cycles per voxel)")


def _finish(axes: Any, crowded: bool = False) -> None:
    """Grid, open frame and legend; the legend of a crowded picture stands beside it."""
    axes.grid(True, linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if crowded else {}
    axes.legend(frameon=False, fontsize=8, **beside)
