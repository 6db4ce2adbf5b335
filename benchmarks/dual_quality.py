"""DUAL against raw tomograms, filters and NMSG on SHREC-like specimens with a known truth, as in its paper's tables.

Ten specimens are made and imaged, DUAL is trained without pairs (see ``dual_data.py``), and each study prints a table:

- denoise: the test tomogram against its density, whole (as published) and near the macromolecules, gold left out.
- picking: difference of Gaussians, with the width that does best on the raw tomogram of model 8 (``--own-widths``: on
  what each method makes of it); as many picks for each particle as in the paper, which puts a ceiling on F1.
- strength: the test tomogram at several strengths.
- simulation, wedge, hallucination: see ``dual_checks.py``.

Filters have the setting that correlates best with the truth of model 8.  ``dual`` is ``cryoden dual denoise`` as it is,
``dual_free`` with ``--no-hold-data``: the network's output alone.  Results are kept in OUT and used again unless
``--redo``; DUAL's models are kept by preset, steps and seed, and are never trained twice.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import comparators
import dual_checks
import dual_data
import numpy as np
import scoring
from dual_data import CHOOSING, TEST, VOXEL_SIZE, Model, once, quietly

from cryoden_core import metrics, mrc
from cryoden_core.jobs import DualDenoiseJob, EvaluateJob, EvaluatePickingJob, NmsgJob, read_json

FILTERS = {
    "gaussian": comparators.gaussian, "gaussian_threshold": comparators.gaussian_threshold,
    "perona_malik": comparators.perona_malik, "nlm": comparators.non_local_means,
}  # fmt: skip
#: In the order of the tables; DUAL's rows follow, one for each seed.
OTHERS = ("none", *FILTERS, "nmsg")
TRAINED = ("dual", "dual_free")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Picks for each particle in the paper's table 2: 500 for about 410.
PICKS_PER_PARTICLE = 500 / 410
#: Widths of the inner Gaussian to choose from, angstrom; the classes have radii of 30 to 140.
SIGMAS = (20.0, 30.0, 40.0, 50.0, 60.0, 80.0)
TOLERANCE = 80.0
#: Largest frequency of the mean of the Fourier shell correlation, per angstrom.
FSC_BAND = 1 / 40

#: Title, name in the figures of ``evaluate volume``, and form.
COLUMNS = (
    ("r", "correlation", "{:.4f}"), ("MSE ratio", "mse_ratio", "{:.3f}"), ("delta-PSNR (dB)", "psnr_gain", "{:+.2f}"),
    ("SSIM, 7^3, range 2", "standardised_ssim_2", "{:.4f}"), ("r near", "near_correlation", "{:.4f}"),
    ("SSIM near", "near_ssim", "{:.4f}"), ("CNR", "contrast_to_noise", "{:.2f}"),
    ("mean FSC", "mean_fsc", "{:.3f}"), ("FSC = 0.5 (A)", "falls_below_0.5", "{:.1f}"),
    ("0.143 (A)", "falls_below_0.143", "{:.1f}"),
)  # fmt: skip


class Bench:
    """The specimens, the trained models and the folder of results.

    Parameters
    ----------
    options
        Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.models = dual_data.make_models(options)
        self.trained = {seed: dual_data.train(self.models, seed, options) for seed in options.seeds}
        self.specimen = self.models[TEST]

    def path(self, *names: str) -> str:
        """A file of results."""
        path = os.path.join(self.options.out, "results", *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def training(self, seed: int) -> str:
        """Name of a training, for the files that depend on it."""
        return os.path.basename(os.path.dirname(self.trained[seed]))

    def name(self, method: str, seed: int) -> str:
        """Name of a result of DUAL, in files and tables."""
        steps = f", {self.options.steps} steps" if self.options.steps else ""
        return f"{method} ({self.options.preset}{steps}, seed {seed})"

    def rows(self) -> list[tuple[str, str, int]]:
        """Name, method and seed of each row."""
        kept = [(method, method, 0) for method in OTHERS if method in self.options.methods]
        return kept + [
            (self.name(method, seed), method, seed)
            for method in TRAINED if method in self.options.methods for seed in self.options.seeds
        ]  # fmt: skip

    def denoised(self, method: str, seed: int, model: Model) -> tuple[str, dict[str, Any]]:
        """The file of a denoised tomogram, made when it is not there, and its ``setting`` and ``seconds``."""
        tomogram = model.file("tomogram")
        if method == "none":
            return tomogram, {"setting": "", "seconds": 0.0}
        of = self.options.nmsg_preset if method == "nmsg" else self.training(seed) if method in TRAINED else ""
        stem = f"{method}_{of}" if of else method
        output = self.path(os.path.basename(model.folder), stem + ".mrc")

        def make() -> dict[str, Any]:
            print(f"{os.path.basename(model.folder)}: {stem}", flush=True)
            started = time.monotonic()
            if method in FILTERS:
                setting = self._filter(method, tomogram, output)
            elif method == "nmsg":
                job = {"input": tomogram, "output": output, "preset": self.options.nmsg_preset}
                quietly(NmsgJob.from_parameters({**job, **dual_data.computing(self.options)}))
                setting = self.options.nmsg_preset
            else:
                self.dual(seed, tomogram, output, hold_data=method == "dual")
                setting = ""
            return {"setting": setting, "seconds": round(time.monotonic() - started, 1)}

        redo = self.options.redo or not os.path.exists(output)
        return output, once(os.path.splitext(output)[0] + "_about.json", make, redo)

    def denoised_file(self, method: str, seed: int, model: Model) -> str:
        """The file alone."""
        return self.denoised(method, seed, model)[0]

    def dual(self, seed: int, tomogram: str, output: str, **parameters: Any) -> None:
        """``cryoden dual denoise``."""
        given = {"input": tomogram, "output": output, "model": self.trained[seed], **parameters}
        quietly(DualDenoiseJob.from_parameters({**given, **dual_data.computing(self.options)}))

    def _filter(self, method: str, tomogram: str, output: str) -> str:
        choosing = self.models[CHOOSING]
        volume, setting = comparators.chosen_on(
            FILTERS[method], choosing.volume("tomogram"), choosing.volume("truth"), mrc.read_volume(tomogram)
        )
        mrc.write_volume(output, volume, VOXEL_SIZE)
        return setting

    def figures(self, volume: str) -> dict[str, Any]:
        """Figures of merit of a file against the density of the test specimen."""
        job = EvaluateJob.from_parameters({
            "test": volume, "reference": self.specimen.file("truth"), "input": self.specimen.file("tomogram"),
            "labels": self.specimen.file("labels"), "gold_label": self.specimen.gold_label,
        })  # fmt: skip
        stem = os.path.relpath(os.path.splitext(volume)[0], self.options.out).replace(os.sep, "_")
        found = once(self.path("figures", stem + ".json"), partial(quietly, job), self.options.redo)
        return {**found, **agreement(found["reference_fsc"])}


def agreement(curve: dict[str, Any]) -> dict[str, float | None]:
    """``mean_fsc`` up to :data:`FSC_BAND`, and the detail at which a curve falls below 0.5 and 0.143, angstrom.

    Contrast transfer takes the lowest frequencies away, so the fall is looked for from the curve's highest value on.
    """
    frequency, fsc = (np.array(curve[name], float) for name in ("frequency", "fsc"))
    found: dict[str, float | None] = {"mean_fsc": float(np.nanmean(fsc[(frequency > 0) & (frequency <= FSC_BAND)]))}
    for level in (0.5, 0.143):
        crossing = metrics.frequency_at(frequency, fsc, level, from_highest=True)
        found[f"falls_below_{level:g}"] = 1 / crossing if crossing > 0 else None
    return found


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def cell(value: Any, form: str) -> str:
    """A figure in its form."""
    return "none" if value is None else form.format(value)


def denoise(bench: Bench) -> None:
    """The table of denoising."""
    rows, shown = [], {"density": bench.specimen.volume("truth")}
    for name, method, seed in bench.rows():
        path, about = bench.denoised(method, seed, bench.specimen)
        title = f"{name} ({about['setting']})" if about["setting"] else name
        rows.append([*_row(title, bench.figures(path)), cell(about["seconds"], "{:.0f}")])
        shown[method.replace("_", " ")] = mrc.read_volume(path)
    rows.append([*_row("noise-free", bench.figures(bench.specimen.file("noise_free"))), ""])
    print(table(("method", *(title for title, _, _ in COLUMNS), "seconds"), rows), flush=True)
    # Each at the scale of least squares, since tomograms and densities have different ones.
    for name, volume in shown.items():
        gain, offset = metrics.affine_fit(volume, shown["density"])
        shown[name] = gain * volume + offset
    scoring.picture(shown, "density", bench.path("denoise.png"))


def _row(title: str, figures: dict[str, Any]) -> list[str]:
    return [title, *(cell(figures[key], form) for _, key, form in COLUMNS)]


def strength(bench: Bench) -> None:
    """Figures of merit by strength, and whether they rise all the way."""
    for seed in bench.options.seeds:
        rows, curves = [], []
        for value in STRENGTHS:
            path = bench.path("strength", f"{bench.training(seed)}_{value:g}.mrc")
            if bench.options.redo or not os.path.exists(path):
                bench.dual(seed, bench.specimen.file("tomogram"), path, strength=value)
            figures = bench.figures(path)
            rows.append(_row(f"{value:g}", figures))
            curves.append(
                [figures[key] for key in ("correlation", "standardised_ssim_2", "near_correlation", "mean_fsc")]
            )
        same = np.array_equal(
            mrc.read_volume(bench.path("strength", f"{bench.training(seed)}_0.mrc")), bench.specimen.volume("tomogram")
        )
        print(table(("strength", *(title for title, _, _ in COLUMNS)), rows))
        names = ("r", "SSIM", "r near", "mean FSC")
        rising = [name for name, values in zip(names, np.transpose(curves), strict=True) if (np.diff(values) > 0).all()]
        print(f"seed {seed}: rise all the way: {', '.join(rising) or 'none'}; strength 0 is the input: {same}\n")


def best_sigma(bench: Bench, name: str, file: Callable[[Model], str], clip: float) -> float:
    """The width with the highest F1 on model 8: in the raw tomogram, or with ``--own-widths`` in the volume itself."""
    choosing = bench.models[CHOOSING]
    own = bench.options.own_widths
    volume, clip = (file(choosing), clip) if own else (choosing.file("tomogram"), 0.0)

    def search() -> dict[str, Any]:
        found = {f"{sigma:g}": picking_figures(volume, choosing, sigma, clip)["f1"] for sigma in SIGMAS}
        return {"f1_of_sigma": found, "sigma": float(max(found, key=lambda name: found[name]))}

    kept = f"picking_sigma_{re.sub('[^0-9a-z]+', '_', name)}.json" if own else "picking_sigma.json"
    return float(once(bench.path(kept), search, bench.options.redo)["sigma"])


def picking_figures(volume: str, model: Model, sigma: float, clip: float = 0.0, dark: bool = True) -> dict[str, Any]:
    """Figures of picking in one volume."""
    whole = quietly(EvaluatePickingJob.from_parameters({
        "tomograms": [volume], "truth": [model.particles], "contrast": "dark" if dark else "bright", "sigma": sigma,
        "exclusion": 3 * sigma, "count": round(PICKS_PER_PARTICLE * true_particles(model)), "tolerance": TOLERANCE,
        "clip": clip,
    }))  # fmt: skip
    return whole["tomograms"][0]


def true_particles(model: Model) -> int:
    """How many macromolecules a specimen has."""
    about = read_json(os.path.join(model.folder, "volume.json"))
    return sum(number for name, number in about["count_of_class"].items() if name not in ("bead", "membrane"))


def picking(bench: Bench) -> None:
    """The table of picking, on the test specimen or the mean over several."""
    specimens = [bench.models[index] for index in bench.options.pick_in]
    volumes: list[tuple[str, Callable[[Model], str], float]] = [
        ("density", lambda model: model.file("truth"), 0.0),
        ("noise-free", lambda model: model.file("noise_free"), 0.0),
        ("none, within 3 sd", lambda model: model.file("tomogram"), 3.0),
    ]  # fmt: skip
    for name, method, seed in bench.rows():
        volumes.append((name, partial(bench.denoised_file, method, seed), 0.0))
    keys = ("precision", "recall", "f1", "f1_ceiling", "average_precision", "f1_best")
    sigmas = {name: best_sigma(bench, name, file, clip) for name, file, clip in volumes}
    found = {
        name: [[picking_figures(file(model), model, sigmas[name], clip)[key] for key in keys] for model in specimens]
        for name, file, clip in volumes
    }
    raw = np.array(found["none"])[:, 2] if "none" in found else np.full(len(specimens), np.nan)
    rows = []
    for name, values in found.items():
        numbers = np.array(values)
        gains = numbers[:, 2] - raw
        spread = f" +- {gains.std(ddof=1):.3f}" if len(gains) > 1 else ""
        rows.append(
            [
                name,
                f"{sigmas[name]:g}",
                *(f"{value:.3f}" for value in numbers.mean(axis=0)),
                f"{gains.mean():+.3f}{spread}",
            ]
        )
    count = sum(true_particles(model) for model in specimens)
    print(f"Exclusion 3 sigma; {count} particles in {len(specimens)} specimens\n")
    head = (
        "volume",
        "sigma (A)",
        "precision",
        "recall",
        "F1",
        "F1 ceiling",
        "av. precision",
        "best F1",
        "F1 over none",
    )
    print(table(head, rows), flush=True)


STUDIES: dict[str, Callable[[Bench], None]] = {
    "denoise": denoise, "picking": picking, "strength": strength, "simulation": dual_checks.simulation,
    "wedge": dual_checks.wedge, "hallucination": dual_checks.hallucination,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    dual_data.add_options(parser)
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--methods", nargs="+", choices=(*OTHERS, *TRAINED), default=[*OTHERS, *TRAINED])
    parser.add_argument("--nmsg-preset", default="default", choices=("fast", "default", "best"))
    parser.add_argument("--pick-in", type=int, nargs="+", choices=(0, 1, 2, 3, 9), default=[TEST],
                        help="specimens to pick in; DUAL was trained on the tomograms of 0 to 3")  # fmt: skip
    parser.add_argument("--own-widths", action="store_true",
                        help="choose the width for picking in each kind of volume by itself, on model 8")  # fmt: skip
    parser.add_argument("--wedge-preset", default="fast", choices=("fast", "default"))
    parser.add_argument("--wedge-steps", type=int, default=0, help="0 takes the preset's number")
    parser.add_argument("--network-steps", type=int, default=300, help="of the network that tells simulations apart")
    options = parser.parse_args()
    bench = Bench(options)
    for seed, model in bench.trained.items():
        told = dual_data.training_figures(model)
        print(f"seed {seed}: {told['steps']} steps in {told['seconds']:.0f} s; alarms: {told['alarms'] or 'none'}")
    for study in options.studies:
        print(f"\n## {study}\n", flush=True)
        STUDIES[study](bench)


if __name__ == "__main__":
    main()
