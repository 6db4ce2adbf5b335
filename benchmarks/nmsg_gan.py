"""Where NMSG's adversarial noise model earns its place: a tomogram whose noise has heavy tails.

Outlying pixels (X-ray hits, hot and dead pixels that nobody removed), bright or dark, are added to the views of a
packed phantom, whose noise is Gaussian otherwise.  Each becomes a streak in a section of the tomogram, and the noise
there is far from Gaussian.  NMSG sees the single tomogram, once in mode ``auto``, which trains the adversarial noise
model because the spectral one fails its report, and keeps the better of the two, and once with the spectral one.
Written are ``OUT/tomogram.mrc``, the results and ``figures.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import numpy as np
import scoring
from nmsg_quality import make_phantom
from scipy import stats

from cryoden_core import api, mrc
from cryoden_core.jobs import RunFolder, write_json
from cryoden_core.phantom.acquisition import reconstruct, tilt_angles

MODELS = ("auto", "spectral")


def outliers(shape: tuple[int, ...], share: float, strength: float, seed: int) -> np.ndarray:
    """Pixels of either sign with exponentially distributed heights of mean ``strength``, 0 elsewhere; float32."""
    random = np.random.default_rng(seed)
    heights = random.exponential(strength, shape) * random.choice((-1, 1), shape)
    return np.where(random.random(shape) < share, heights, 0).astype(np.float32)


def make_tomogram(options: argparse.Namespace) -> dict[str, Any]:
    """Write OUT/tomogram.mrc with outliers; returns figures of its noise."""
    phantom = os.path.join(options.out, "phantom")
    made = make_phantom(phantom, options.snr, options)
    views = mrc.read_volume(os.path.join(phantom, "tilt_series.mrc"))
    truth = mrc.read_volume(os.path.join(phantom, "noise_free.mrc"))
    hits = outliers(views.shape, options.share, options.strength * made["noise_sd_of_views"], options.seed)
    parameters = made["job"]["parameters"]
    angles = tilt_angles(parameters["tilt_limit"], parameters["tilt_step"])
    streaks = reconstruct(hits, angles, truth.shape[0], truth.shape[2])
    tomogram = mrc.read_volume(os.path.join(phantom, "tomogram.mrc")) + streaks
    mrc.write_volume(os.path.join(options.out, "tomogram.mrc"), tomogram, 10.0)
    noise = (tomogram - truth).ravel()
    return {"excess_kurtosis": float(stats.kurtosis(noise)), "voxel_snr": float(truth.var() / noise.var())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True, help="folder of density maps; '' takes the built-in shapes")
    parser.add_argument("--out", required=True)
    parser.add_argument("--snr", type=float, default=0.3, help="voxel SNR before the outliers are added")
    parser.add_argument("--share", type=float, default=0.004, help="share of the pixels that are outliers")
    parser.add_argument("--strength", type=float, default=8.0, help="their mean height, in noise sd of a view")
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 160, 160], metavar=("Z", "Y", "X"))
    parser.add_argument("--particles", type=int, default=78)
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0 takes the preset's number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    figures: dict[str, Any] = {"noise": make_tomogram(options)}
    print(json.dumps(figures["noise"]), flush=True)
    phantom = os.path.join(options.out, "phantom")
    truths = {name: mrc.read_volume(os.path.join(phantom, name + ".mrc")) for name in scoring.TRUTHS}
    source = os.path.join(options.out, "tomogram.mrc")
    rows = {"raw": scoring.score(mrc.read_volume(source), truths, 10.0, 60.0)}
    for name in MODELS:
        output, started = os.path.join(options.out, name + ".mrc"), time.monotonic()
        result = api.nmsg(source, output, noise_model=name, steps=options.steps, seed=options.seed,
                          device=options.device, threads=options.threads)  # fmt: skip
        with open(RunFolder.beside(output).noise_report, encoding="utf-8") as stream:
            report = json.load(stream)
        checks = {row["name"]: (round(row["value"], 3), row["passed"]) for row in report["checks"]}
        used = f"{result['noise_model']}, report " + ("passed" if report["passed"] else "not passed")
        rows[name] = {"setting": used, "seconds": time.monotonic() - started,
                      **scoring.score(mrc.read_volume(output), truths, 10.0, 60.0)}  # fmt: skip
        figures[name] = {"checks": checks, **rows[name]}
        write_json(figures, os.path.join(options.out, "figures.json"))
        print(checks, flush=True)
        print(scoring.table(rows), flush=True)


if __name__ == "__main__":
    main()
