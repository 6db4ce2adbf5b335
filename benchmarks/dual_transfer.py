"""Is what DUAL simulates of use to train a segmentation that has to work on tomograms?

Specimens are made to learn from (``--learning-specimens``), which no training of DUAL has seen, with several vesicles
and gold beads: with one of each at most, four specimens hold too few for a network to learn them even of tomograms.
The same small network is trained, with the same steps and seeds, on these specimens as each kind shows them:

- real: their tomograms, with labels, which nobody has of real data: what can be reached at best.
- dual: DUAL's simulations of their densities.
- spectrum: their densities in the missing wedge, with noise of the spectrum of the tomograms 0 to 3.
- white_wedge: the same with white noise; white: without the missing wedge either.

So the kinds differ in nothing but the imaging.  Fewer steps than the default are not enough: a class that is rarer and
harder to see than the others, the membrane, is learned late, and after 1000 of them by some networks only.  Those
without learning have the signal-to-noise ratio of the tomograms, inside the macromolecules.  Tested is on the tomogram
of model 9 and on those of specimens made for this alone (``--test-specimens``).  Macromolecules are grouped by size
(:data:`GROUPS`): each of the 13 classes has some eight particles in a specimen, thirty to learn from, and the small
ones too few voxels to be judged by themselves.

The second study, ``style``, is the domain adaptation of the DUAL paper: a network that has only seen clean densities is
applied to the test tomograms as they are, and to what ``dual convert`` and ``dual denoise`` make of them.

A model of DUAL is trained as in ``dual_quality.py``, or taken with ``--models``.  Results are kept in OUT.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dual_data
import numpy as np
from dual_data import NOISY, TEST, TILT_LIMIT, VOXEL_SIZE, Model, computing, once, quietly
from dual_quality import table

from cryoden_core import metrics, mrc
from cryoden_core.dual.segmentation import figures_of
from cryoden_core.evaluation.spectrum_matching import spectrum_matched, white_noise_added
from cryoden_core.jobs import (
    DualConvertJob,
    DualDenoiseJob,
    DualSimulateJob,
    EvaluateSegmentationJob,
    RunFolder,
    TrainingSetJob,
)

#: By size: more than 2500 voxels of 10 A (2.3 to 5.2 MDa); 380 to 630 voxels; and less than 190, hardly 6 voxels wide.
GROUPS = {
    "large": ("4cr2", "4v94", "5mrc"), "medium": ("1bxn", "1qvr", "1u6g", "2cg9", "3cf3", "3d2f"),
    "small": ("1s3x", "3gl1", "3h84", "3qm1"), "membrane": ("membrane",), "gold": ("bead",),
}  # fmt: skip
UNLEARNED = {
    "white": "white noise", "white_wedge": "white noise, map in its wedge",
    "spectrum": "noise of the tomograms' spectrum, map in its wedge",
}  # fmt: skip


class Bench:
    """Specimens, DUAL's models and the files of a run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.models = dual_data.make_models(options)
        given = options.models or [dual_data.train(self.models, seed, options) for seed in options.seeds]
        #: Files of DUAL's models by the name of their folder.
        self.dual = {os.path.basename(os.path.dirname(os.path.abspath(path))): path for path in given}
        shapes = {"vesicles": options.learning_shapes, "beads": options.learning_shapes}
        rich = argparse.Namespace(**{**vars(options), **shapes})
        self.learned = self._more_specimens("learning_specimens", options.learning_specimens, 20, rich)
        self.tests = [self.models[TEST], *self._more_specimens("test_specimens", options.test_specimens, 10, options)]

    def _more_specimens(self, name: str, count: int, first: int, options: argparse.Namespace) -> list[Model]:
        """Specimens that no training of DUAL has seen, numbered from ``first`` on, with their tomograms."""
        if not count:
            return []
        made = dual_data.pack(os.path.join(options.out, name), count, options.data_seed + 100_000 * first, options)
        for index, model in enumerate(made):
            dual_data.image(model, first + index, options)
        return made

    def path(self, *names: str) -> str:
        """A file of this study."""
        path = os.path.join(self.options.out, "segmentation", *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def name_of(self, model: Model) -> str:
        """Short and different for every specimen."""
        parts = os.path.abspath(model.folder).split(os.sep)
        return f"{parts[-2]}_{parts[-1]}"


# ---- the volumes to learn from ---------------------------------------------------------------------------------------


def noisy_volumes(bench: Bench, kind: str) -> list[tuple[Model, str]]:
    """The specimens to learn from as a kind shows them: real, one of UNLEARNED, or the name of a DUAL model."""
    if kind == "real":
        return [(model, model.file("tomogram")) for model in bench.learned]
    return [(model, _simulated(bench, kind, index)) for index, model in enumerate(bench.learned)]


def _simulated(bench: Bench, kind: str, index: int) -> str:
    output, model = bench.path("volumes", f"{kind}_{index}.mrc"), bench.learned[index]
    if os.path.exists(output) and not bench.options.redo:
        return output
    if kind in bench.dual:
        quietly(DualSimulateJob.from_parameters({
            "input": model.file("density"), "output": output, "model": bench.dual[kind],
            "seed": index + 1, **computing(bench.options),
        }))  # fmt: skip
    else:
        mrc.write_volume(output, _without_learning(bench, kind, model, seed=index), VOXEL_SIZE)
    return output


def _without_learning(bench: Bench, kind: str, model: Model, seed: int) -> np.ndarray:
    tilts = (-90.0, 90.0) if kind == "white" else (-TILT_LIMIT, TILT_LIMIT)
    truth, snr = model.volume("truth"), bench.options.snr
    signal = white_noise_added(truth, 1.0, tilts)
    share = snr / (snr + float(signal[dual_data.specimen_mask(model)].var()))
    if kind == "spectrum":
        real = [bench.models[noisy].volume("tomogram") for noisy in NOISY]
        return spectrum_matched(truth, real, share, tilts, seed)
    return white_noise_added(truth, share, tilts, seed)


def training_sets(bench: Bench, name: str, volumes: Sequence[tuple[Model, str]]) -> list[str]:
    """The folders of training sets made of volumes and the labels of their specimens."""
    folders = []
    for model, path in volumes:
        folders.append(bench.path("sets", f"{name}_{bench.name_of(model)}"))
        job = {"tomogram": path, "labels": model.file("labels"), "particles": model.particles, "output": folders[-1]}
        if not os.path.exists(os.path.join(folders[-1], "result.json")) or bench.options.redo:
            quietly(TrainingSetJob.from_parameters(job))
    return folders


# ---- training and testing --------------------------------------------------------------------------------------------


def judge(bench: Bench, name: str, sets: list[str], tests: list[tuple[Model, str]], seed: int) -> dict[str, Any]:
    """Train the network on training sets and test it on volumes with the labels of their specimens."""
    output = bench.path("figures", f"{name}_{bench.options.network_steps}_{seed}.json")

    def run() -> dict[str, Any]:
        print(f"training the segmentation on {name}, seed {seed}", flush=True)
        folder = RunFolder.beside(output)
        return quietly(EvaluateSegmentationJob.from_parameters({
            "tomograms": [path for _, path in tests], "labels": [model.file("labels") for model, _ in tests],
            "particles": [model.particles for model, _ in tests], "training_sets": sets,
            "groups": [f"{group}={','.join(names)}" for group, names in GROUPS.items()],
            "steps": bench.options.network_steps, "features": bench.options.features, "seed": seed,
            "run_folder": folder.path, "resume": os.path.exists(folder.checkpoint) and not bench.options.redo,
            **computing(bench.options),
        }))  # fmt: skip

    return once(output, run, bench.options.redo)


HEAD = (*(f"Dice {group}" for group in GROUPS), "mean Dice", "mean Dice of each seed", "Dice, all as one",
        "F1 large", "F1 medium")  # fmt: skip


def row(found: Sequence[dict[str, Any]]) -> list[str]:
    """The cells of :data:`HEAD`: the test volumes together, means over the seeds of the network (``found``)."""

    def mean(values: list[Any]) -> str:
        known = [value for value in values if value is not None]
        return f"{np.mean(known):.3f}" if known else "none"

    means = [result["together"] for result in found]
    return [
        *(mean([item["classes"][group].get("dice") for item in means]) for group in GROUPS),
        mean([item["mean_dice"] for item in means]),
        " / ".join(f"{item['mean_dice']:.3f}" for item in means),
        mean([item["foreground_dice"] for item in means]),
        *(mean([item["classes"][group].get("f1") for item in means]) for group in ("large", "medium")),
    ]


def transfer(bench: Bench) -> None:
    """Print what the network is worth after learning from each kind of volumes, and what it gains on white noise."""
    tests = [(model, model.file("tomogram")) for model in bench.tests]
    kinds = [kind for kind in ("real", *UNLEARNED) if kind in bench.options.kinds]
    kinds += [*bench.dual] if "dual" in bench.options.kinds else []
    found, signal = {}, {}
    for kind in kinds:
        volumes = noisy_volumes(bench, kind)
        signal[kind] = np.mean([_signal(model, path) for model, path in volumes])
        sets = training_sets(bench, kind, volumes)
        found[kind] = [judge(bench, kind, sets, tests, seed) for seed in bench.options.network_seeds]
    rows = [[name(bench, kind), f"{signal[kind]:.3f}", *row(found[kind])] for kind in kinds]
    print("\n" + table(("trained on", "its r with the density", *HEAD), rows) + "\n")
    if "white" in found:
        rows = [[name(bench, kind), *gains(found[kind], found["white"])] for kind in kinds if kind != "white"]
        head = ("mean Dice over that of white noise", "mean", "smallest", "largest", "better in")
        print(f"By test specimen and seed of the network:\n\n{table(head, rows)}", flush=True)


def _signal(model: Model, path: str) -> float:
    """Correlation of a volume with the density, in the macromolecules: equal where the signal-to-noise ratio is."""
    mask = dual_data.specimen_mask(model).astype(np.float32)
    return metrics.correlation(mrc.read_volume(path), model.volume("truth"), mask)


def name(bench: Bench, kind: str) -> str:
    """How a kind is called in the tables."""
    if kind in bench.dual:
        return f"DUAL's simulations ({kind})"
    return UNLEARNED.get(kind, "real tomograms")


def gains(found: Sequence[dict[str, Any]], over: Sequence[dict[str, Any]]) -> list[str]:
    """Mean, smallest and largest difference in mean Dice, over test volumes and seeds, and how many are positive."""
    values = np.array([
        mine["mean_dice"] - other["mean_dice"]
        for result, reference in zip(found, over, strict=True)
        for mine, other in zip(result["tomograms"], reference["tomograms"], strict=True)
    ])  # fmt: skip
    return [f"{values.mean():+.3f}", f"{values.min():+.3f}", f"{values.max():+.3f}",
            f"{(values > 0).sum()} of {len(values)}"]  # fmt: skip


# ---- a network that knows the clean style ----------------------------------------------------------------------------


def style(bench: Bench) -> None:
    """Print what a network that learned from clean densities makes of tomograms, as they are and converted."""
    sets = training_sets(bench, "clean", [(model, model.file("density")) for model in bench.learned])
    ways: dict[str, Callable[[Model], str]] = {"density": lambda model: model.file("density")}
    ways["tomogram as it is"] = partial(_inverted, bench)
    for dual in bench.dual:
        ways[f"converted ({dual})"] = partial(_converted, bench, dual)
        ways[f"denoised ({dual})"] = partial(_denoised, bench, dual)
    tests = [(model, make(model)) for make in ways.values() for model in bench.tests]
    stem = "clean_" + "_".join(bench.dual)
    found = [judge(bench, stem, sets, tests, seed) for seed in bench.options.network_seeds]
    rows = [[way, *row([_part(result, index, len(bench.tests)) for result in found])] for index, way in enumerate(ways)]
    print("\n" + table(("applied to", *HEAD), rows), flush=True)


def _part(result: dict[str, Any], index: int, count: int) -> dict[str, Any]:
    """The figures of one way, as :func:`row` reads them."""
    rows = result["tomograms"][index * count : (index + 1) * count]
    return {"together": figures_of([row["counts"] for row in rows])}


def _inverted(bench: Bench, model: Model) -> str:
    """The tomogram with the contrast of densities."""
    return _made(bench, "inverted", model, lambda path: mrc.write_volume(path, -model.volume("tomogram"), VOXEL_SIZE))


def _converted(bench: Bench, dual: str, model: Model) -> str:
    def make(path: str) -> None:
        job = {"input": model.file("tomogram"), "output": path, "model": bench.dual[dual], "to": "clean"}
        quietly(DualConvertJob.from_parameters({**job, **computing(bench.options)}))

    return _made(bench, f"converted_{dual}", model, make)


def _denoised(bench: Bench, dual: str, model: Model) -> str:
    """What ``dual denoise`` makes of the tomogram, with the contrast of densities."""

    def make(path: str) -> None:
        dark = path.replace(".mrc", "_dark.mrc")
        job = {"input": model.file("tomogram"), "output": dark, "model": bench.dual[dual]}
        quietly(DualDenoiseJob.from_parameters({**job, **computing(bench.options)}))
        mrc.write_volume(path, -mrc.read_volume(dark), VOXEL_SIZE)

    return _made(bench, f"denoised_{dual}", model, make)


def _made(bench: Bench, way: str, model: Model, make: Callable[[str], None]) -> str:
    path = bench.path("volumes", f"{way}_{bench.name_of(model)}.mrc")
    if not os.path.exists(path) or bench.options.redo:
        make(path)
    return path


STUDIES = {"transfer": transfer, "style": style}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    dual_data.add_options(parser)
    parser.add_argument("--models", nargs="+", help="DUAL models to simulate with, in place of training them")
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--kinds", nargs="+", choices=("real", "dual", *UNLEARNED),
                        default=["real", "dual", *UNLEARNED], help="of volumes to learn from")  # fmt: skip
    parser.add_argument("--test-specimens", type=int, default=3, help="made beside model 9, to test on")
    parser.add_argument("--learning-specimens", type=int, default=4, help="made to learn from")
    parser.add_argument("--learning-shapes", type=int, default=6, help="vesicles, and gold beads, in each, at most")
    parser.add_argument("--network-seeds", type=int, nargs="+", default=[1, 2], help="of the segmentation's trainings")
    parser.add_argument("--network-steps", type=int, default=2000, help="of the segmentation's trainings")
    parser.add_argument("--features", type=int, default=16, help="of the segmentation at full resolution")
    options = parser.parse_args()
    bench = Bench(options)
    print(dual_data.describe(options))
    for study in options.studies:
        print(f"\n## {study}\n", flush=True)
        STUDIES[study](bench)


if __name__ == "__main__":
    main()
