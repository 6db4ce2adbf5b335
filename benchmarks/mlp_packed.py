"""The coordinate network on a packed phantom with transfer function and noise, beside WBP, SIRT, and WBP with NMSG.

The specimen is that of ``nmsg_quality.py``; its views carry a contrast transfer function that is not corrected and
Gaussian noise of a signal-to-noise ratio given for the projections.  There are two truths: the noise-free
back-projection, which has the transfer function and the missing wedge, and the density itself.  "wbp, nmsg" is the
back-projection denoised by NMSG's default; it is told only the noisy tomogram.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import reconstruction

from cryoden_core import metrics, mrc
from cryoden_core.phantom.acquisition import acquire, tilt_angles
from cryoden_core.phantom.optics import Microscope
from cryoden_core.phantom.packing import pack
from cryoden_core.phantom.shapes import builtin_templates
from cryoden_core.phantom.templates import read_templates

VOXEL_SIZE = 10.0
TILT_LIMIT = 60.0

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "wbp": ("wbp", {}),
    "sirt 20": ("sirt", {"iterations": 20}),
    "mlp fast": ("mlp", {"preset": "fast"}),
    "mlp": ("mlp", {}),
    "mlp, 4 networks": ("mlp", {"ensemble": 4}),
    "wbp, nmsg": ("nmsg", {}),
    "mlp, nmsg": ("nmsg", {}),
}

COLUMNS = {
    "cc_free": "CC, noise-free|.4f", "cc_density": "CC, density|.4f", "fsc_free": "FSC = 0.5, noise-free (A)|.1f",
    "fsc_density": "FSC = 0.5, density (A)|.1f", "wedge": "CC in the wedge, density|.3f", "passes": "passes|d",
    "seconds": "seconds|.0f", "gibibytes": "GiB|.2f",
}  # fmt: skip


def make_level(options: argparse.Namespace, level: float) -> str:
    """Specimen, tilt series and truths of one noise level; returns the folder."""
    folder = os.path.join(options.out, f"{level:g}")
    if os.path.exists(os.path.join(folder, "series.mrc")):
        return folder
    os.makedirs(folder, exist_ok=True)
    templates = read_templates(options.templates, VOXEL_SIZE) if options.templates else builtin_templates(VOXEL_SIZE)
    model = pack(tuple(options.shape), templates, options.particles, 2, 0, options.seed)
    angles = tilt_angles(TILT_LIMIT, 3.0)
    taken = acquire(
        model.density, VOXEL_SIZE, angles, model.specimen_mask(), projection_snr=level, sign="bright",
        microscope=Microscope(defocus=3.0), seed=options.seed,
    )  # fmt: skip
    mrc.write_volume(os.path.join(folder, "density.mrc"), model.density, VOXEL_SIZE)
    mrc.write_volume(os.path.join(folder, "noise_free.mrc"), taken.noise_free, VOXEL_SIZE)
    reconstruction.write_series(os.path.join(folder, "series.mrc"), taken.tilt_series.full, angles, VOXEL_SIZE)
    return folder


def run(options: argparse.Namespace, folder: str, method: str) -> str:
    """Reconstruct with one method; returns the path."""
    system, settings = METHODS[method]
    output = os.path.join(folder, method.replace(", ", "_").replace(" ", "_") + ".mrc")
    settings = {**settings, "threads": options.threads, "device": options.device}
    if system == "nmsg":
        source = run(options, folder, method.split(",")[0])
        if options.redo or not os.path.exists(output):
            reconstruction.run_core("nmsg", source, "-o", output, "--device", options.device)
        return output
    if system == "mlp":
        settings["seed"] = options.seed
    settings["thickness"] = options.shape[0]
    costs[output] = reconstruction.reconstruct(system, os.path.join(folder, "series.mrc"), output, settings,
                                               options.redo)  # fmt: skip
    return output


costs: dict[str, dict[str, Any]] = {}


def score(path: str, truths: dict[str, np.ndarray]) -> dict[str, Any]:
    """Figures of merit of one tomogram against both truths."""
    volume = mrc.read_volume(path)
    row: dict[str, Any] = {}
    for name, truth in truths.items():
        row[f"cc_{name}"] = metrics.correlation(volume, truth)
        frequency = metrics.frequency_at(*metrics.fsc(volume, truth), 0.5, from_highest=True)
        row[f"fsc_{name}"] = VOXEL_SIZE / frequency if frequency > 0 else None
    row["wedge"] = reconstruction.wedge_correlation(volume, truths["density"], TILT_LIMIT)
    return {**row, **costs.get(path, {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True, help="folder of density maps; '' takes the built-in shapes")
    parser.add_argument("--out", required=True, help="folder for phantoms and results")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.5, 0.15, 0.05], help="SNRs of the projections")
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 160, 160], metavar=("Z", "Y", "X"))
    parser.add_argument("--particles", type=int, default=78)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redo", action="store_true", help="run again what has a result")
    options = parser.parse_args()
    for level in options.levels:
        folder = make_level(options, level)
        truths = {
            "free": mrc.read_volume(os.path.join(folder, "noise_free.mrc")),
            "density": mrc.read_volume(os.path.join(folder, "density.mrc")),
        }
        rows = {method: score(run(options, folder, method), truths) for method in options.methods}
        print(f"\nSNR of the projections {level:g}\n\n{reconstruction.table(COLUMNS, rows)}", flush=True)


if __name__ == "__main__":
    main()
