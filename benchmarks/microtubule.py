"""NMSG on a real sub-tomogram of a microtubule, where no truth is known: what did it take away?

NMSG's default is trained on the sub-tomogram alone.  If only noise was removed, the residual (before minus after) has
no correlation with the result, the autocorrelation and the spectrum of the noise that was measured before training, and
no layer line: a microtubule repeats every 41 A along its axis, which makes a plane of power 1/41 A from the origin.
The residual's power over the noise's is below 1 where noise was left in, and above 1 where signal was taken.
Written are ``denoised.mrc``, ``residual.mrc``, ``microtubule.png`` and ``figures.json``.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from cryoden_core import api, metrics, mrc
from cryoden_core.excerpts import robust_statistics
from cryoden_core.fourier import radial_power_spectrum
from cryoden_core.jobs import write_json
from cryoden_core.noise_spectrum import Spectra, measure_spectra
from cryoden_core.spectrum import band_means, mean_spectrum

SHELLS = 16
#: Axial repeat of the tubulin monomers (angstrom).
REPEAT = 41.0
#: How far from the axis (1/A) the layer line is looked for.
LAYER_LINE_RADIUS = 0.01
LAGS = {"z": (1, 0, 0), "y": (0, 1, 0), "x": (0, 0, 1), "2z": (2, 0, 0), "2y": (0, 2, 0), "2x": (0, 0, 2)}


def autocorrelation(power: torch.Tensor, block: tuple[int, int, int]) -> dict[str, float]:
    """Normalised autocorrelation at short lags from a spectrum on the half grid of ``block``."""
    values = torch.fft.irfftn(power, s=block)
    return {name: float(values[lag] / values[0, 0, 0]) for name, lag in LAGS.items()}


def axis_of(volume: np.ndarray) -> np.ndarray:
    """Direction (z, y, x) of the microtubule: the longest principal axis of what is brightest after smoothing."""
    smooth = ndimage.gaussian_filter(volume, 2)
    points = np.argwhere(smooth > np.percentile(smooth, 95))
    return np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]


def layer_line(volume: np.ndarray, axis: np.ndarray, voxel_size: float) -> tuple[float, float]:
    """Mean power on the plane k . axis = 1/41 A, near the axis, and that of the planes beside it."""
    power = np.abs(np.fft.fftn(volume - volume.mean())) ** 2
    frequency = np.stack(np.meshgrid(*(np.fft.fftfreq(size, voxel_size) for size in volume.shape), indexing="ij"))
    along = np.abs(np.tensordot(axis, frequency, 1))
    across = np.sqrt((frequency**2).sum(0) - along**2)
    step = 1 / (max(volume.shape) * voxel_size)
    planes = np.round((along - 1 / REPEAT) / step)
    near = across < LAYER_LINE_RADIUS
    means = {plane: power[near & (planes == plane)].mean() for plane in range(-12, 13)}
    # A slightly bent microtubule, or a repeat of 40 to 42 A, moves the peak by a plane.
    return float(max(means[plane] for plane in (-1, 0, 1))), float(np.median([means[p] for p in means if abs(p) > 3]))


def compare(raw: np.ndarray, denoised: np.ndarray, voxel_size: float) -> tuple[dict[str, Any], Spectra]:
    """Figures of what was removed."""
    residual, axis = raw - denoised, axis_of(raw)
    mean, sd = robust_statistics(raw)
    spectra = measure_spectra(raw, mean, sd)
    found = mean_spectrum(residual, spectra.block, float(residual.mean()), sd)
    ratio = (band_means(found, spectra.block, SHELLS) / band_means(spectra.noise, spectra.block, SHELLS)).numpy()
    lines = {
        name: layer_line(volume, axis, voxel_size)
        for name, volume in (("before", raw), ("after", denoised), ("residual", residual))
    }
    excess = {name: max(line - beside, 0.0) for name, (line, beside) in lines.items()}
    kept = float(np.sqrt(excess["after"] / excess["before"])) if excess["before"] else float("nan")
    figures: dict[str, Any] = {
        "residual_correlation_with_output": metrics.correlation(residual, denoised),
        "output_variance_share": float(denoised.var() / raw.var()),
        "residual_variance_share": float(residual.var() / raw.var()),
        "noise_variance_share": spectra.noise_fraction,
        "frequency_per_angstrom": ((np.arange(SHELLS) + 0.5) / (2 * SHELLS * voxel_size)).round(5).tolist(),
        "residual_power_over_noise": ratio.round(3).tolist(),
        "autocorrelation": {
            "residual": autocorrelation(found, spectra.block), "noise": autocorrelation(spectra.noise, spectra.block),
        },
        "layer_line": {name: line / beside for name, (line, beside) in lines.items()},
        "layer_line_amplitude_kept": kept,
    }  # fmt: skip
    return figures, spectra


def print_figures(figures: dict[str, Any]) -> None:
    """The figures as Markdown."""
    for name in ("residual_correlation_with_output", "output_variance_share", "residual_variance_share",
                 "noise_variance_share"):  # fmt: skip
        print(f"- {name.replace('_', ' ')}: {figures[name]:.4f}")
    lines = figures["layer_line"]
    print("- 41 A layer line over its surroundings: " + ", ".join(f"{name} {lines[name]:.2f}" for name in lines))
    print(f"- amplitude of the layer line that was kept: {figures['layer_line_amplitude_kept']:.3f}")
    print("\n| lag (voxels) | " + " | ".join(LAGS) + " |\n|---|" + "---|" * len(LAGS))
    for name, values in figures["autocorrelation"].items():
        print(f"| {name} | " + " | ".join(f"{values[lag]:.3f}" for lag in LAGS) + " |")
    print("\n| 1/A | " + " | ".join(f"{value:.4f}" for value in figures["frequency_per_angstrom"]) + " |")
    print("|---|" + "---|" * SHELLS)
    print("| residual / noise | " + " | ".join(f"{value:.2f}" for value in figures["residual_power_over_noise"]) + " |")


def picture(raw: np.ndarray, denoised: np.ndarray, spectra: Spectra, voxel_size: float, path: str) -> None:
    """Slices before, after and residual with one contrast, and their spectra."""
    residual = raw - denoised
    centre = float(raw.mean())
    half = 3 * float(raw.std())
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(
        2, 4, gridspec_kw={"height_ratios": (raw.shape[1], raw.shape[2]), "width_ratios": (1, 1, 1, 2)}
    )
    for column, (name, volume) in enumerate((("before", raw), ("after", denoised), ("residual", residual))):
        middle = centre if column < 2 else float(residual.mean())
        z, y, _ = volume.shape
        for row, section in enumerate((volume[z // 2], volume[:, y // 2])):
            axes[row, column].imshow(section, cmap="gray", vmin=middle - half, vmax=middle + half, origin="lower",
                                     interpolation="nearest")  # fmt: skip
            axes[row, column].set_axis_off()
        axes[0, column].set_title(name, fontsize=10)
    plot = figure.add_subplot(axes[0, 3].get_subplotspec())
    for axis in axes[:, 3]:
        axis.remove()
    for name, volume in (("before", raw), ("after", denoised), ("residual", residual)):
        frequency, power = radial_power_spectrum(volume - volume.mean(), 24)
        plot.semilogy(frequency / voxel_size, power, label=name)
    scale = robust_statistics(raw)[1] ** 2
    frequency = (np.arange(SHELLS) + 0.5) / (2 * SHELLS * voxel_size)
    plot.semilogy(
        frequency, scale * band_means(spectra.noise, spectra.block, SHELLS).numpy(), "k--", label="noise as measured"
    )
    plot.set_xlabel("frequency (1/A)")
    plot.set_ylabel("power")
    plot.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds 13pf_MT.mrc")
    parser.add_argument("--out", required=True)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0 takes the preset's number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redo", action="store_true", help="denoise again although a result is there")
    options = parser.parse_args()
    source, output = os.path.join(options.data, "13pf_MT.mrc"), os.path.join(options.out, "denoised.mrc")
    os.makedirs(options.out, exist_ok=True)
    if options.redo or not os.path.exists(output):
        api.nmsg(source, output, preset=options.preset, steps=options.steps, seed=options.seed, device=options.device,
                 threads=options.threads)  # fmt: skip
    raw, denoised = mrc.read_volume(source), mrc.read_volume(output)
    voxel_size = mrc.read_header(source).voxel_size
    mrc.write_volume(os.path.join(options.out, "residual.mrc"), raw - denoised, voxel_size)
    figures, spectra = compare(raw, denoised, voxel_size)
    write_json(figures, os.path.join(options.out, "figures.json"))
    print_figures(figures)
    picture(raw, denoised, spectra, voxel_size, os.path.join(options.out, "microtubule.png"))


if __name__ == "__main__":
    main()
