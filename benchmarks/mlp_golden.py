"""Where the coordinate network puts the features of IMOD's test series, beside where they are.

``DATA`` is a folder with cases A (aligned), B (misaligned, two views of garbage excluded), D (A's images in another
order) and F (blobs at odd and even sizes).  Distances are between peaks of local cross-correlations, refined by a
parabola; "upright" and "mirrored" are the correlations with the phantom and with the phantom turned over in z.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import numpy as np
import reconstruction

from cryoden_core import metrics, mrc

CASES: dict[str, dict[str, str]] = {
    "A": {"stack": "A/TS_A.mrc", "tilt_angles": "A/TS_A.rawtlt"},
    "B": {"stack": "B/TS_B.mrc", "tilt_angles": "B/TS_B.rawtlt", "transforms": "B/TS_B.xf", "exclude": "5,20"},
    "D": {"stack": "D/TS_D.mrc", "tilt_angles": "D/TS_D.tlt"},
}


def reconstruct(options: argparse.Namespace, case: dict[str, str], name: str, thickness: int, width: int) -> np.ndarray:
    """Run one case and read its tomogram."""
    output = os.path.join(options.out, name + ".mrc")
    if options.redo or not os.path.exists(output):
        arguments: list[Any] = ["mlp", os.path.join(options.data, case["stack"]), "-o", output, "--preset",
                                options.preset, "--thickness", thickness, "--width", width, "--device", options.device,
                                "--threads", options.threads]  # fmt: skip
        for key in ("tilt_angles", "transforms"):
            if key in case:
                arguments += ["--" + key.replace("_", "-"), os.path.join(options.data, case[key])]
        if "exclude" in case:
            arguments += ["--exclude", case["exclude"]]
        reconstruction.run_core(*arguments)
    return mrc.read_volume(output)


def spheres_case(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Cases A, B and D: the same phantom."""
    volume = reconstruct(options, CASES[name], name, 64, 0)
    phantom = mrc.read_volume(os.path.join(options.data, "phantom.mrc"))
    with open(os.path.join(options.data, "features.json"), encoding="utf-8") as stream:
        truth = json.load(stream)["truth"]
    distances = []
    for feature, about in truth.items():
        if "sphere" in feature:
            box = tuple(slice(c - 10, c + 11) for c in reversed(about["centre"]))
            distances.append(np.abs(metrics.displacement(volume[box], phantom[box])).max())
    return {
        "worst": max(distances), "upright": metrics.correlation(volume, phantom),
        "mirrored": metrics.correlation(volume, phantom[::-1]),
    }  # fmt: skip


def blobs_case(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Case F: Gaussian blobs, against a volume of blobs at the true centres."""
    with open(os.path.join(options.data, "F_odd_sizes/blobs.json"), encoding="utf-8") as stream:
        about = json.load(stream)[name]
    width, height, depth = about["size_xyz"]
    case = {"stack": f"F_odd_sizes/TS_F_{name}.mrc", "tilt_angles": "F_odd_sizes/TS_F.tlt"}
    volume = reconstruct(options, case, "F_" + name, depth, width)
    centres = np.array(about["true_centre_xyz_0based_about_(n-1)/2"])[:, ::-1]
    grid = np.moveaxis(np.indices((depth, height, width)), 0, -1)
    truth = sum(np.exp(-((grid - c) ** 2).sum(-1) / (2 * about["gaussian_sigma_px"] ** 2)) for c in centres)
    distances = []
    for centre in np.rint(centres).astype(int):
        box = tuple(slice(max(0, c - 8), c + 9) for c in centre)
        distances.append(np.abs(metrics.displacement(volume[box], truth[box])).max())
    return {
        "worst": max(distances), "upright": metrics.correlation(volume, truth),
        "mirrored": metrics.correlation(volume, truth[::-1]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the test series")
    parser.add_argument("--out", required=True, help="folder for results")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redo", action="store_true", help="run again what has a result")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    rows = {name: spheres_case(options, name) for name in CASES}
    rows.update({f"F, {name} sizes": blobs_case(options, name) for name in ("even", "odd")})
    columns = {"worst": "largest displacement (voxels)|.3f", "upright": "CC upright|.3f", "mirrored": "CC mirrored|.3f"}
    print(reconstruction.table(columns, rows))


if __name__ == "__main__":
    main()
