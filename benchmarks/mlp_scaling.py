"""Seconds and memory of the coordinate network as the volume grows, and what they mean for a full-sized tomogram.

Hollow spheres are projected into 60 views at each size and reconstructed by the command line.  ``--passes`` fixes the
number of passes so that sizes compare; the rate is that of the fit alone, the seconds those of the whole process.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
import reconstruction

from cryoden_core import mrc
from cryoden_core.phantom.spheres import random_spheres

COLUMNS = {
    "megavoxels": "megavoxels|.1f", "seconds": "seconds|.0f", "gibibytes": "GiB|.2f",
    "rate": "megavoxels a second|.2f", "psnr": "PSNR (dB)|.2f", "full": "projected minutes for 1024 x 1024 x 256|.0f",
}  # fmt: skip

FULL_MEGAVOXELS = 1024 * 1024 * 256 / 1e6


def run(options: argparse.Namespace, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Reconstruct spheres of one size."""
    name = "x".join(map(str, shape))
    stack = os.path.join(options.out, name + ".mrc")
    truth = os.path.join(options.out, name + "_density.mrc")
    if not os.path.exists(stack):
        spheres = random_spheres(shape, 40, 1)
        mrc.write_volume(truth, spheres.volume(), 10.0)
        angles = np.linspace(-60, 60, 60)
        reconstruction.write_series(stack, spheres.project(angles), angles, 10.0)
    output = os.path.join(options.out, f"{name}_{options.preset}_bin{options.binning}.mrc")
    result = reconstruction.reconstruct("mlp", stack, output, {
        "thickness": shape[0], "preset": options.preset, "passes": options.passes, "held_out": False,
        "device": options.device, "threads": options.threads, "max_memory": options.max_memory, "preview_every": 0,
        "binning": options.binning,
    }, options.redo)  # fmt: skip
    volume = mrc.read_volume(output)
    megavoxels = volume.size / 1e6
    expected = block_means(mrc.read_volume(truth), options.binning)
    score = reconstruction.score(volume, expected, 60.0)
    rate = result["mvoxels_per_second"]
    # The fit visits every voxel once a pass at each bin; starting and writing grow alike.
    return {**score, **result, "megavoxels": megavoxels, "rate": rate,
            "full": result["seconds"] * FULL_MEGAVOXELS / megavoxels / 60}  # fmt: skip


def block_means(volume: np.ndarray, factor: int) -> np.ndarray:
    """Means over cubes of ``factor`` voxels; the edges of the volume must be multiples of it."""
    z, y, x = (edge // factor for edge in volume.shape)
    return volume.reshape(z, factor, y, factor, x, factor).mean(axis=(1, 3, 5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for phantoms and results")
    parser.add_argument("--sizes", nargs="+", default=["32x128x128", "64x256x256"], metavar="ZxYxX")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--passes", type=int, default=0, help="0 takes the preset's")
    parser.add_argument("--binning", type=int, default=1)
    parser.add_argument("--max-memory", type=float, default=0.0, help="GiB; 0 takes what is free")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redo", action="store_true", help="run again what has a result")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    rows = {}
    for size in options.sizes:
        depth, height, width = (int(edge) for edge in size.split("x"))
        rows[size] = run(options, (depth, height, width))
    print(reconstruction.table(COLUMNS, rows))


if __name__ == "__main__":
    main()
