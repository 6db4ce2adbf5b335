"""Pictures of a run: slices before, after and their difference, the loss, power spectra and Fourier shell correlation.

Each function returns a matplotlib ``Figure`` that belongs to no window, so that the same picture can be saved, shown
by the Scipion viewer or put in the documentation.  Matplotlib is loaded when a picture is asked for.  Volumes may be
memory-maps of any size: only their three central slices and a central block are read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Mapping, Optional, Tuple

import numpy as np

from .excerpts import central_block
from .jobs import whole_file
from .metrics import fsc
from .mrc import errors_of_writing
from .panels import (
    AFTER,
    BEFORE,
    COLUMN,
    OTHERS,
    Curve,
    Metrics,
    blocks_of,
    draw_blocks,
    draw_fsc,
    draw_loss,
    draw_residuals,
    draw_slices,
    draw_spectra,
    draw_spectrum,
    loss_columns,
    slices_size,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    draw_slices(top, size, before, after, voxel_size)
    trained = bool(loss_columns(metrics or {}))
    axes = list(np.atleast_1d(bottom.subplots(1, 1 + trained + bool(halves))))
    if trained:
        draw_loss(axes.pop(0), metrics or {})
    draw_spectrum(axes.pop(0), before, after, voxel_size)
    if halves:
        draw_fsc(axes.pop(0), halves, voxel_size)
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
    blocks = blocks_of(tomograms)
    shape = next(iter(tomograms.values())).shape
    width, height = slices_size(shape, len(blocks))
    trained = bool(loss_columns(metrics or {}))
    panels = 1 + trained + bool(residuals) + bool(halves)
    figure, top, size, bottom = _two_rows(max(width, COLUMN * panels), height, title)
    draw_blocks(top, size, shape, blocks, voxel_size, left=(size[0] - width) / 2)
    axes = list(np.atleast_1d(bottom.subplots(1, panels)))
    if trained:
        draw_loss(axes.pop(0), metrics or {})
    if residuals:
        draw_residuals(axes.pop(0), residuals)
    colours = dict(zip(tomograms, (AFTER, BEFORE, *OTHERS)))  # noqa: B905 (Python 3.8)
    draw_spectra(axes[0], [(n, central_block(t), colours[n]) for n, t in tomograms.items()], voxel_size)
    if halves:
        draw_fsc(axes[1], halves, voxel_size)
    save_figure(figure, path)


def residuals_figure(residuals: Mapping[str, Curve]) -> Figure:
    """Relative residual of each view against its tilt, by name: (degrees, residual)."""
    figure = new_figure(6.0, 4.0)
    draw_residuals(figure.subplots(), residuals)
    return figure


def comparison_figure(tomograms: Mapping[str, np.ndarray], voxel_size: float = 0.0) -> Figure:
    """Central slices of tomograms (z, y, x) of one shape side by side, each with its own contrast."""
    blocks = blocks_of(tomograms)
    shape = next(iter(tomograms.values())).shape
    width, height = slices_size(shape, len(blocks))
    figure = new_figure(width, height)
    draw_blocks(figure, (width, height), shape, blocks, voxel_size)
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
    draw_slices(figure, size, before, after, voxel_size)
    return figure


def loss_figure(metrics: Metrics) -> Figure:
    """Losses over training steps, from the columns of ``metrics.csv``; a note when there are none."""
    figure = new_figure(6.0, 4.0)
    draw_loss(figure.subplots(), metrics)
    return figure


def spectrum_figure(before: np.ndarray, after: np.ndarray, voxel_size: float = 0.0) -> Figure:
    """Radial power spectra of two volumes (z, y, x) and of what was removed, from a central block."""
    figure = new_figure(6.0, 4.0)
    draw_spectrum(figure.subplots(), before, after, voxel_size)
    return figure


def fsc_figure(curves: Mapping[str, Curve], voxel_size: float = 0.0) -> Figure:
    """Fourier shell correlations by name, each (frequency in cycles per voxel, correlation)."""
    figure = new_figure(6.0, 4.0)
    draw_fsc(figure.subplots(), curves, voxel_size)
    return figure


def agreement(even: np.ndarray, odd: np.ndarray) -> Curve:
    """Fourier shell correlation of the central blocks of two halves (z, y, x), to be drawn by :func:`fsc_figure`."""
    return fsc(central_block(even), central_block(odd))


def save_figure(figure: Figure, path: str) -> None:
    """Write a figure as PNG, whole or not at all."""
    path = os.fspath(path)
    with errors_of_writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110)


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
