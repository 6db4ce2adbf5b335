"""The panels of which pictures of a run are made: slices of volumes, losses, power spectra, residuals, correlations.

Each function draws on matplotlib axes (or, for slices, on a figure or a part of one) that :mod:`cryoden_core.report`
has made, and nothing is read from files here.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from .excerpts import central_block, central_slices
from .fourier import radial_power_spectrum

Curve = Tuple[np.ndarray, np.ndarray]
Metrics = Mapping[str, List[float]]
#: Name of a volume, its central slices, black and white.
Block = Tuple[str, Tuple[np.ndarray, np.ndarray, np.ndarray], float, float]

#: Colours that remain apart for colour-blind readers (Okabe and Ito).
BEFORE, AFTER, REMOVED, OTHERS = "#0072B2", "#D55E00", "#999999", ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Inches: width of a block of views, its greatest height, space around, between views, and for its name.
COLUMN, _TALLEST, _MARGIN, _GAP, _CAPTION = 4.2, 6.5, 0.12, 0.05, 0.3
#: A side view is drawn at least this share of the slice's longer side, however thin the volume.
_THINNEST = 0.07
_LABEL_BOX = {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5}


def _block(shape: Tuple[int, ...]) -> Tuple[float, float, float]:
    """Width and height of the xy slice and thickness of the side views, inches, such that a block fits its column."""
    depth, height, width = shape
    thickness = max(_THINNEST * max(width, height), depth)
    scale = min((COLUMN - _GAP) / (width + thickness), _TALLEST / (height + thickness))
    return scale * width, scale * height, scale * thickness


def slices_size(shape: Tuple[int, ...], blocks: int = 3) -> Tuple[float, float]:
    """Width and height in inches of the picture of the slices of some volumes of this (z, y, x) shape."""
    _, height, thickness = _block(shape)
    return blocks * COLUMN + (blocks + 1) * _MARGIN, height + thickness + _GAP + _MARGIN + _CAPTION


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


def blocks_of(tomograms: Mapping[str, np.ndarray]) -> List[Block]:
    """A block for each tomogram (z, y, x) by name, each with its own contrast."""
    blocks = []
    for name, tomogram in tomograms.items():
        slices = central_slices(tomogram)
        blocks.append((name, slices, *common_contrast(list(slices), list(slices))))
    return blocks


def draw_slices(
    parent: Any, size: Tuple[float, float], before: np.ndarray, after: np.ndarray, voxel_size: float
) -> None:
    """Three blocks side by side: before, after and their difference, with one contrast."""
    old, new = central_slices(before), central_slices(after)
    removed = (old[0] - new[0], old[1] - new[1], old[2] - new[2])
    low, high = common_contrast(list(old), list(new))
    half = (high - low) / 2
    blocks = [("before", old, low, high), ("after", new, low, high), ("before - after", removed, -half, half)]
    draw_blocks(parent, size, before.shape, blocks, voxel_size)


def draw_blocks(
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
        spare = COLUMN - width - thickness - _GAP
        corner = left + _MARGIN + number * (COLUMN + _MARGIN) + max(0.0, spare / 2)
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


def loss_columns(metrics: Metrics) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
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


def draw_loss(axes: Any, metrics: Metrics) -> None:
    """Losses over training steps, see :func:`loss_columns`; a note when there are none."""
    columns = loss_columns(metrics)
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


def draw_spectrum(axes: Any, before: np.ndarray, after: np.ndarray, voxel_size: float) -> None:
    """Radial power spectra of the central blocks of two volumes (z, y, x) and of their difference."""
    old, new = central_block(before), central_block(after)
    spectra = [("before", old, BEFORE), ("after", new, AFTER), ("before - after", old - new, REMOVED)]
    draw_spectra(axes, spectra, voxel_size)


def draw_spectra(axes: Any, blocks: List[Tuple[str, np.ndarray, str]], voxel_size: float) -> None:
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


def draw_residuals(axes: Any, residuals: Mapping[str, Curve]) -> None:
    """Relative residual of each view against its tilt: name to (degrees, residual)."""
    for (name, (angles, values)), colour in zip(residuals.items(), (AFTER, BEFORE, *OTHERS)):  # noqa: B905
        order = np.argsort(angles)
        axes.plot(np.asarray(angles)[order], np.asarray(values)[order], ".-", color=colour, linewidth=1.2, label=name)
    axes.set_ylim(bottom=0)
    axes.set_title("What the projections do not explain", fontsize=11)
    axes.set_xlabel("tilt (degrees)")
    axes.set_ylabel("relative residual")
    _finish(axes)


def draw_fsc(axes: Any, curves: Mapping[str, Curve], voxel_size: float) -> None:
    """Fourier shell correlations by name: (frequency in cycles per voxel, correlation)."""
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
