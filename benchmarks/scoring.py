"""Score a denoised phantom against its truth, and lay the scores out as a table and a picture.

Two truths exist: the noise-free reconstruction, which a denoiser could reach at best, and the density itself, which no
tomogram reaches because of the missing wedge.  No alignment is made and no mask is used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cryoden_core import metrics
from cryoden_core.dual.missing_wedge import TiltRange
from cryoden_core.evaluation.wedge import missing_share

TRUTHS = ("noise_free", "density")


def score(
    volume: np.ndarray, truths: dict[str, np.ndarray], voxel_size: float, tilt_limit_degrees: float
) -> dict[str, Any]:
    """Figures of merit of ``volume`` (z, y, x).

    Returns
    -------
    dict
        ``gain``: slope of the regression of the volume on the noise-free reconstruction; ``missing_wedge_share``; and
        for each truth ``correlation``, ``psnr_affine`` (dB), ``ssim`` (after the affine fit), ``fsc_0.5_angstrom``
        (None without agreement) and ``fsc_0.5_per_angstrom``.
    """
    result: dict[str, Any] = {
        "gain": metrics.affine_fit(truths["noise_free"], volume)[0],
        "missing_wedge_share": missing_share(volume, TiltRange(-tilt_limit_degrees, tilt_limit_degrees)),
    }
    for name, truth in truths.items():
        gain, offset = metrics.affine_fit(volume, truth)
        fitted = np.float32(gain) * volume + np.float32(offset)
        frequency = metrics.frequency_at(*metrics.fsc(volume, truth), 0.5) / voxel_size
        result[name] = {
            "correlation": metrics.correlation(volume, truth),
            "psnr_affine": metrics.psnr(fitted, truth),
            "ssim": metrics.ssim3d(fitted, truth),
            "fsc_0.5_angstrom": 1 / frequency if frequency > 0 else None,
            "fsc_0.5_per_angstrom": frequency,
        }
    return result


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Scores of several methods as a Markdown table; pairs of figures are noise-free reconstruction / density."""
    lines = [
        "| method | CC | PSNR (dB) | SSIM | FSC = 0.5 (A) | FSC = 0.5 (1/A) | gain | in the wedge (%) | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [f"{name} ({row['setting']})" if row.get("setting") else name]
        for key, form in (
            ("correlation", "{:.4f}"), ("psnr_affine", "{:.2f}"), ("ssim", "{:.4f}"), ("fsc_0.5_angstrom", "{:.1f}"),
            ("fsc_0.5_per_angstrom", "{:.5f}"),
        ):  # fmt: skip
            pair = [row[truth][key] for truth in TRUTHS]
            cells.append(
                " / ".join("none" if value is None or math.isnan(value) else form.format(value) for value in pair)
            )
        seconds = row.get("seconds")
        cells += [f"{row['gain']:.3f}", f"{100 * row['missing_wedge_share']:.1f}"]
        cells.append("" if seconds is None else f"{seconds:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(volumes: dict[str, np.ndarray], contrast_of: str, path: str) -> None:
    """Central xy (above) and xz (below) slices of several volumes, all with the contrast of one of them."""
    low, high = np.percentile(volumes[contrast_of], (0.2, 99.8))
    depth, height, width = volumes[contrast_of].shape
    size = 2.6
    figure = Figure(figsize=(size * len(volumes), size * (height + depth) / width + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(volumes), squeeze=False, gridspec_kw={"height_ratios": (height, depth)})
    for column, (name, volume) in enumerate(volumes.items()):
        axes[0, column].set_title(name, fontsize=9)
        for row, section in enumerate((volume[depth // 2], volume[:, height // 2])):
            axes[row, column].imshow(section, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")
            axes[row, column].set_axis_off()
    figure.savefig(path, dpi=150)
