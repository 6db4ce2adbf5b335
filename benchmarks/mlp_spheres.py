"""The study of hollow spheres (Van Veen, Missing Wedge Completion): coordinate network against filters and SIRT.

Hollow spheres with exact projections over -60 to 60 degrees are reconstructed by back-projection with the plain ramp
(fbp), with IMOD's filter (wbp), by SIRT with and without non-negativity, and by the network with and without the
Crowther penalty (mlp_reg, mlp), without any penalty, with non-negativity, and with sines in place of the lattice.
Every figure is taken after the best gain and offset.  Non-negativity is true for this phantom and for density maps,
not for images with a transfer function: rows that use it are marked ``+``.

    --study methods     the table of methods (default)
    --study noise       Poisson noise of several doses
    --study batches     sections a step: seconds and memory
    --study averages    mean of several networks with different seeds
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import reconstruction

from cryoden_core import mrc
from cryoden_core.phantom.spheres import HollowSpheres, random_spheres

TILT_LIMIT = 60.0

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "fbp": ("wbp", {"radial_cutoff": 0.5, "radial_falloff": 0.0}),
    "wbp": ("wbp", {}),
    "sirt 20": ("sirt", {"iterations": 20}),
    "sirt 100": ("sirt", {"iterations": 100}),
    "sirt 200": ("sirt", {"iterations": 200}),
    "sirt+ 20": ("sirt", {"iterations": 20, "non_negative": True}),
    "sirt+ 200": ("sirt", {"iterations": 200, "non_negative": True}),
    "mlp fast": ("mlp", {"preset": "fast"}),
    "mlp": ("mlp", {"crowther_weight": 0}),
    "mlp_reg": ("mlp", {"crowther_weight": 0.05}),
    "mlp_reg strong": ("mlp", {"crowther_weight": 0.2}),
    "mlp, no penalties": ("mlp", {"crowther_weight": 0, "sparsity": 0, "total_variation": 0}),
    "mlp siren": ("mlp", {"field": "siren"}),
    "mlp paper": ("mlp", {"preset": "paper"}),
    "mlp+": ("mlp", {"non_negative": True}),
}
UNASKED = [name for name in METHODS if name not in ("mlp paper", "mlp siren", "mlp_reg strong")]

COLUMNS = {
    "psnr": "PSNR (dB)|.2f", "ssim": "SSIM|.3f", "vif": "VIF|.3f", "frc": "FRC = 0.5|.3f", "fsc": "FSC = 0.5|.3f",
    "wedge": "CC in the wedge|.3f", "correlation": "CC|.4f", "psnr_spread": "PSNR spread over y (dB)|.2f",
    "seconds": "seconds|.0f", "gibibytes": "GiB|.2f",
}  # fmt: skip


def make_series(options: argparse.Namespace, name: str, noise: Callable[[np.ndarray], np.ndarray]) -> str:
    """Write the phantom and its tilt series once; returns the path of the stack."""
    stack = os.path.join(options.out, name + ".mrc")
    if not os.path.exists(stack):
        spheres = specimen(options)
        mrc.write_volume(os.path.join(options.out, "density.mrc"), spheres.volume(), 10.0)
        angles = np.linspace(-TILT_LIMIT, TILT_LIMIT, options.views)
        reconstruction.write_series(stack, noise(spheres.project(angles)), angles, 10.0)
    return stack


def specimen(options: argparse.Namespace) -> HollowSpheres:
    return random_spheres(tuple(options.shape), options.spheres, options.seed)


def poisson(electrons: float, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Counting noise of ``electrons`` a pixel behind a specimen that stops 10 % where it is thickest."""

    def add(views: np.ndarray) -> np.ndarray:
        scale = 0.1 / views.max()
        counts = np.random.default_rng(seed).poisson(electrons * np.exp(-scale * views.astype(np.float64)))
        return (-np.log(np.maximum(counts, 0.5) / electrons) / scale).astype(np.float32)

    return add


def run(options: argparse.Namespace, stack: str, method: str, extra: dict[str, Any]) -> dict[str, Any]:
    """Reconstruct and score."""
    system, settings = METHODS[method]
    settings = {**settings, **extra, "thickness": options.shape[0], "threads": options.threads,
                "device": options.device}  # fmt: skip
    if system == "mlp":
        settings["seed"] = options.seed
    suffix = "".join(f"_{name}{value}" for name, value in extra.items())
    label = method.replace(", ", "_").replace(" ", "_").replace("+", "_non_negative") + suffix
    output = os.path.join(options.out, os.path.splitext(os.path.basename(stack))[0], label + ".mrc")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    result = reconstruction.reconstruct(system, stack, output, settings, options.redo)
    truth = mrc.read_volume(os.path.join(options.out, "density.mrc"))
    return {**result, **reconstruction.score(mrc.read_volume(output), truth, TILT_LIMIT)}


def study_methods(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every method on exact projections."""
    stack = make_series(options, "exact", lambda views: views)
    return {method: run(options, stack, method, {}) for method in options.methods}


def study_noise(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Methods under Poisson noise."""
    rows = {}
    for electrons in options.electrons:
        stack = make_series(options, f"poisson_{electrons:g}", poisson(electrons, options.seed))
        for method in options.methods:
            rows[f"{electrons:g} e/pixel, {method}"] = run(options, stack, method, {})
    return rows


def study_batches(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Sections a step."""
    stack = make_series(options, "exact", lambda views: views)
    return {f"{n} sections": run(options, stack, "mlp_reg", {"slices": n}) for n in options.sections}


def study_averages(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Means over seeds, without and with noise."""
    rows = {}
    for name, noise in (("exact", lambda views: views), ("poisson_1000", poisson(1000, options.seed))):
        stack = make_series(options, name, noise)
        for count in options.ensembles:
            rows[f"{name}, {count} networks"] = run(options, stack, "mlp_reg", {"ensemble": count})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for phantom, tilt series and results")
    parser.add_argument("--study", choices=("methods", "noise", "batches", "averages"), default="methods")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=UNASKED)
    parser.add_argument("--shape", type=int, nargs=3, default=[32, 128, 128], metavar=("Z", "Y", "X"))
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--spheres", type=int, default=40)
    parser.add_argument("--electrons", type=float, nargs="+", default=[1000, 100])
    parser.add_argument("--sections", type=int, nargs="+", default=[128, 64, 32, 16])
    parser.add_argument("--ensembles", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redo", action="store_true", help="run again what has a result")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    studies = {"methods": study_methods, "noise": study_noise, "batches": study_batches, "averages": study_averages}
    print(reconstruction.table(COLUMNS, studies[options.study](options)))


if __name__ == "__main__":
    main()
