"""NMSG against raw tomograms, filters, BM4D and its published form, on packed phantoms with a known truth.

At each noise level a phantom is made (64 x 160 x 160 voxels of 10 A, 78 macromolecules, 2 vesicles, 41 views of -60 to
60 degrees, noise made in the views) and reconstructed with and without noise; every method gets the same tomogram.
Results are kept in OUT/LEVEL/METHOD.mrc and used again unless ``--redo``, so that methods can be run one by one; scores
are collected in OUT/scores.json.

- gaussian, gaussian_threshold, tv, diffusion, perona_malik, nlm: the best of their settings by correlation with the
  noise-free truth (an oracle's choice).
- bm4d: with the true noise spectrum, from the halves (its best case); needs ``--bm4d-python``, see ``run_bm4d.py``.
- wiener: the spectra that NMSG measures on the single noisy tomogram.
- paper: loss, data and optimiser as published with a smaller network, for as many steps as the default takes.
- paper_literal: the ``paper`` preset as it is (48 features, depth 5, tile 128, 40 epochs of 3 tiles = 80 steps at the
  phantom's size): about an hour a level on two CPU cores, so it is not among the methods that run unasked.
- nmsg_halves: the default with the even and odd tomograms given as well.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import comparators
import scoring

from cryoden_core import api, mrc
from cryoden_core.jobs import NmsgJob, write_json
from cryoden_core.nmsg.presets import PRESETS

UNASKED = [name for name in comparators.known_methods() if name not in ("paper_literal", "nmsg_fast", "nmsg_best")]
PICTURED = ("raw", "gaussian", "bm4d", "paper", "nmsg_default", "nmsg_halves")


def make_phantom(folder: str, level: float, options: argparse.Namespace) -> dict[str, Any]:
    """Make the phantom of a level, or take the one that is there if it is the same; returns its ``phantom.json``."""
    wanted = {
        "kind": "packed", "depth": options.shape[0], "height": options.shape[1], "width": options.shape[2],
        "particles": options.particles, "vesicles": 2, "templates": options.templates, "snr": level,
        "seed": options.seed, "voxel_size": 10.0,
    }  # fmt: skip
    summary = os.path.join(folder, "phantom.json")
    if os.path.exists(summary):
        with open(summary, encoding="utf-8") as stream:
            made = json.load(stream)
        used = made["job"]["parameters"]
        different = [name for name in wanted if name != "templates" and used[name] != wanted[name]]
        if different:
            raise SystemExit(f"{folder} holds another phantom ({', '.join(different)}); choose another --out.")
        return made
    return api.phantom(output=folder, **{"device": options.device, "threads": options.threads, **wanted})


def run_nmsg(method: str, phantom: str, output: str, options: argparse.Namespace) -> str:
    """Run NMSG or its published form; returns what to say of the setting."""
    preset = {"nmsg_fast": "fast", "nmsg_best": "best", "paper_literal": "paper"}.get(method, "default")
    parameters: dict[str, Any] = {
        "preset": preset, "seed": options.seed, "steps": options.steps, "device": options.device,
        "threads": options.threads,
    }  # fmt: skip
    tomogram = os.path.join(phantom, "tomogram.mrc")
    if method == "paper":
        parameters.update(preset="paper", steps=options.steps or PRESETS["default"].steps)
        job = NmsgJob.from_parameters({"input": tomogram, "output": output, **parameters})
        comparators.reduced_paper(job)  # type: ignore[arg-type]
        return comparators.describe(comparators.REDUCED_PAPER, parameters["steps"])
    if method == "nmsg_halves":
        parameters.update({half: os.path.join(phantom, f"tomogram_{half}.mrc") for half in ("even", "odd")})
    result = api.nmsg(tomogram, output, **parameters)
    if method == "paper_literal":
        return "48 features, depth 5, tile 128"
    return "noise report passed" if result["noise_report_passed"] else "noise report not passed"


def run_filter(method: str, phantom: str, output: str, options: argparse.Namespace) -> str:
    """Run a filter; returns its setting."""
    noisy = mrc.read_volume(os.path.join(phantom, "tomogram.mrc"))
    truth = mrc.read_volume(os.path.join(phantom, "noise_free.mrc"))
    searched = {
        "gaussian": comparators.gaussian, "gaussian_threshold": comparators.gaussian_threshold,
        "tv": comparators.total_variation, "diffusion": comparators.anisotropic_diffusion,
        "perona_malik": comparators.perona_malik, "nlm": comparators.non_local_means,
    }  # fmt: skip
    if method in searched:
        volume, setting = comparators.best_of(searched[method](noisy), truth)
        setting += ", oracle"
    elif method == "bm4d":
        halves = [mrc.read_volume(os.path.join(phantom, f"tomogram_{half}.mrc")) for half in ("even", "odd")]
        volume = comparators.bm4d(noisy, comparators.noise_spectrum(*halves), options.bm4d_python)
        setting = "true noise spectrum"
    elif method == "wiener":
        volume, setting = comparators.wiener(noisy), "spectra measured by NMSG"
    else:
        volume, setting = noisy, ""
    mrc.write_volume(output, volume, 10.0)
    return setting


def run_level(level: float, options: argparse.Namespace, scores: dict[str, Any]) -> None:
    """Run the methods asked for at one level; scores are stored after each."""
    folder = os.path.join(options.out, f"{level:g}")
    phantom = os.path.join(folder, "phantom")
    made = make_phantom(phantom, level, options)
    truths = {name: mrc.read_volume(os.path.join(phantom, name + ".mrc")) for name in scoring.TRUTHS}
    tilt_limit = made["job"]["parameters"]["tilt_limit"]
    rows = scores.setdefault(f"{level:g}", {})
    for method in options.methods:
        output = os.path.join(folder, method + ".mrc")
        about = {name: rows.get(method, {}).get(name) for name in ("setting", "seconds")}
        if options.redo or not os.path.exists(output):
            print(f"voxel SNR {level:g}: {method}", flush=True)
            started = time.monotonic()
            trained = method.startswith(("nmsg", "paper"))
            about["setting"] = (run_nmsg if trained else run_filter)(method, phantom, output, options)
            about["seconds"] = round(time.monotonic() - started, 1) if method != "raw" else None
        rows[method] = {**about, **scoring.score(mrc.read_volume(output), truths, 10.0, tilt_limit)}
        write_json(scores, os.path.join(options.out, "scores.json"))
    ceiling = scoring.score(truths["noise_free"], {"noise_free": truths["noise_free"], "density": truths["density"]},
                            10.0, tilt_limit)  # fmt: skip
    ordered = {name: rows[name] for name in comparators.known_methods() if name in rows}
    print(f"\nVoxel SNR {level:g} (measured {made['voxel_snr']:.3f}); against noise-free reconstruction / density\n")
    print(scoring.table({**ordered, "noise-free": ceiling}), flush=True)
    shown = {"noise-free": truths["noise_free"]}
    for method in PICTURED:
        path = os.path.join(folder, method + ".mrc")
        if os.path.exists(path):
            shown[method.replace("_", " ")] = mrc.read_volume(path)
    scoring.picture(shown, "noise-free", os.path.join(options.out, f"quality_{level:g}.png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True, help="folder of density maps; '' takes the built-in shapes")
    parser.add_argument("--out", required=True, help="folder for phantoms, results, scores and pictures")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.3, 0.1, 0.03], help="voxel SNRs")
    parser.add_argument("--shape", type=int, nargs=3, default=[64, 160, 160], metavar=("Z", "Y", "X"))
    parser.add_argument("--particles", type=int, default=78)
    parser.add_argument("--methods", nargs="+", choices=list(comparators.known_methods()), default=UNASKED)
    parser.add_argument("--seed", type=int, default=1, help="of the phantom and of every training")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0 takes the preset's number")
    parser.add_argument("--bm4d-python", default="", help="interpreter that has BM4D")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redo", action="store_true", help="run again what has a result")
    options = parser.parse_args()
    if "bm4d" in options.methods and not options.bm4d_python:
        options.methods = [name for name in options.methods if name != "bm4d"]
        print("bm4d is left out: no --bm4d-python was given.")
    os.makedirs(options.out, exist_ok=True)
    path = os.path.join(options.out, "scores.json")
    scores: dict[str, Any] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            scores = json.load(stream)
    for level in options.levels:
        run_level(level, options, scores)


if __name__ == "__main__":
    main()
