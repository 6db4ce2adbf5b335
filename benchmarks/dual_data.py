"""Ten specimens like those of SHREC 2021, their tilt series and tomograms, and DUAL trained on them.

The split is that of the DUAL paper (Zeng et al. 2024): models 0 to 3 are seen as tomograms, 4 to 7 as densities, so
that no specimen is known from both sides; 8 chooses settings and 9 is tested.  Specimens are packed by ``cryoden dual
clean-domain`` from density maps: macromolecules of all classes in even numbers, at most a vesicle and a gold bead,
no more, and an empty background, as in SHREC.  Particles are dark in tomograms; ``truth.mrc`` is the density with
that sign.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoden_core import api, mrc
from cryoden_core.jobs import CleanDomainJob, DualTrainJob, Job, read_json, write_json
from cryoden_core.phantom.acquisition import Acquisition, acquire, tilt_angles
from cryoden_core.phantom.optics import Microscope

NOISY, CLEAN, CHOOSING, TEST = (0, 1, 2, 3), (4, 5, 6, 7), 8, 9
VOXEL_SIZE, TILT_LIMIT = 10.0, 60.0


@dataclass(frozen=True)
class Model:
    """The files of one specimen; there is a tomogram where the split has one."""

    folder: str
    gold_label: int

    def file(self, name: str) -> str:
        """One of density, truth, labels, tomogram, tomogram_even, tomogram_odd, noise_free."""
        return os.path.join(self.folder, name + ".mrc")

    @property
    def particles(self) -> str:
        """Where the macromolecules are (STAR)."""
        return os.path.join(self.folder, "particles.star")

    def volume(self, name: str) -> np.ndarray:
        """One of the files, (z, y, x)."""
        return mrc.read_volume(self.file(name))


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the data and the training need to know."""
    parser.add_argument("--templates", required=True, help="folder of density maps")
    parser.add_argument("--out", required=True, help="folder for specimens, models, results and scores")
    parser.add_argument("--shape", type=int, nargs=3, default=[48, 160, 160], metavar=("Z", "Y", "X"),
                        help="of a specimen, voxels of 10 angstrom; SHREC: 200 512 512")  # fmt: skip
    parser.add_argument("--particles", type=int, default=100, help="in each specimen; SHREC: 1500")
    parser.add_argument("--vesicles", type=int, default=1, help="in each specimen, at most")
    parser.add_argument("--beads", type=int, default=1, help="of gold in each specimen, at most; SHREC: 20")
    parser.add_argument("--vesicle-radius", type=float, default=200.0, help="at most, angstrom; SHREC: 800")
    parser.add_argument("--tilt-step", type=float, default=3.0, help="degrees; SHREC: 2")
    parser.add_argument("--snr", type=float, default=0.1, help="voxel signal-to-noise ratio in the macromolecules")
    parser.add_argument("--defocus", type=float, default=3.0, help="micrometres")
    parser.add_argument("--preset", default="fast", choices=("fast", "robust", "paper"))
    parser.add_argument("--steps", type=int, default=0, help="of DUAL; 0 takes the preset's number")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of DUAL's trainings")
    parser.add_argument("--data-seed", type=int, default=1, help="of specimens and their noise")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redo", action="store_true", help="run again what has a result; the data are kept")


def quietly(job: Job) -> dict[str, Any]:
    """Run a job without its progress and its printed tables."""
    with contextlib.redirect_stdout(io.StringIO()):
        return api.run(job, quiet=True)


def once(path: str, make: Callable[[], dict[str, Any]], redo: bool) -> dict[str, Any]:
    """What a JSON file holds, or what ``make`` returns, which is then stored there."""
    found = {} if redo else read_json(path)
    if not found:
        found = make()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_json(found, path)
    return found


def make_models(options: argparse.Namespace) -> list[Model]:
    """The ten specimens, with tomograms where they are needed; what is there already is kept."""
    models = pack(os.path.join(options.out, "specimens"), 10, options.data_seed, options)
    for index, model in enumerate(models):
        image(model, index, options)
    return models


def pack(folder: str, count: int, seed: int, options: argparse.Namespace) -> list[Model]:
    """Specimens without tomograms; what is there already is kept."""
    depth, height, width = options.shape
    made = quietly(CleanDomainJob.from_parameters({
        "output": folder, "volumes": count, "depth": depth, "height": height, "width": width, "voxel_size": VOXEL_SIZE,
        "templates": [options.templates], "particles": options.particles, "abundance_spread": 100.0,
        "vesicles": options.vesicles, "membrane_radius_min": 150.0, "membrane_radius_max": options.vesicle_radius,
        "membrane_proteins": 0, "tubes": 0, "sheets": 0, "actin": 0, "microtubules": 0, "clusters": 0,
        "beads": options.beads, "crowding": 0.0, "seed": seed, "resume": True,
    }))  # fmt: skip
    models = []
    for volume in made["volumes"]:
        gold = [int(label) for label, name in volume["class_of_label"].items() if name == "bead"]
        models.append(Model(os.path.dirname(volume["density"]), gold[0]))
    return models


def image(model: Model, index: int, options: argparse.Namespace) -> None:
    """Write ``truth.mrc`` and, where the split wants it, the tomogram, its halves and what it is without noise."""
    summary = os.path.join(model.folder, "acquisition.json")
    about = {
        "snr": options.snr, "defocus": options.defocus, "tilt_step": options.tilt_step, "seed": options.data_seed,
        "density": os.path.getmtime(model.file("density")),
    }  # fmt: skip
    found = read_json(summary)
    if found and {name: found.get(name) for name in about} == about:
        return
    density = model.volume("density")
    mrc.write_volume(model.file("truth"), -density, VOXEL_SIZE)
    if index not in CLEAN:
        taken = _acquire(model, density, 1000 * options.data_seed + index, options)
        for name in ("tomogram", "tomogram_even", "tomogram_odd", "noise_free"):
            mrc.write_volume(model.file(name), getattr(taken, name), VOXEL_SIZE)
        about["voxel_snr"] = taken.voxel_snr
    write_json(about, summary)


def _acquire(model: Model, density: np.ndarray, seed: int, options: argparse.Namespace) -> Acquisition:
    return acquire(
        density, VOXEL_SIZE, tilt_angles(TILT_LIMIT, options.tilt_step), specimen_mask(model),
        voxel_snr=options.snr, sign="dark", microscope=Microscope(defocus=options.defocus), seed=seed,
        device="cpu" if options.device == "auto" else options.device,
    )  # fmt: skip


def specimen_mask(model: Model) -> np.ndarray:
    """The voxels in which the signal-to-noise ratio is told, bool (z, y, x): all that is labelled but gold.

    Gold would set the level of the noise by its size, and the particles would have another one in each specimen.
    """
    labels = model.volume("labels")
    return (labels > 0) & (labels != model.gold_label)


def computing(options: argparse.Namespace) -> dict[str, Any]:
    """Device and threads, for a job."""
    return {"device": options.device, "threads": options.threads}


def train(models: list[Model], seed: int, options: argparse.Namespace) -> str:
    """Train DUAL, or take the model that is there; an interrupted training goes on.  Returns the model's file."""
    folder = os.path.join(options.out, f"dual_{options.preset}_{options.steps or 'full'}_{seed}")
    job = DualTrainJob.from_parameters({
        "noisy": [models[index].file("tomogram") for index in NOISY],
        "clean": [models[index].file("density") for index in CLEAN],
        "validation_noisy": models[CHOOSING].file("tomogram"), "validation_clean": models[CHOOSING].file("density"),
        "contrast": "dark", "clean_contrast": "bright", "tilt_min": -TILT_LIMIT, "tilt_max": TILT_LIMIT,
        "output": folder, "preset": options.preset, "steps": options.steps, "seed": seed, **computing(options),
        "resume": os.path.exists(os.path.join(folder, "checkpoint.pt")),
    })  # fmt: skip
    assert isinstance(job, DualTrainJob)
    if not read_json(job.folder().result):  # type: ignore[union-attr]
        print(f"training DUAL, preset {options.preset}, seed {seed}", flush=True)
        api.run(job)
    return job.model


def training_figures(model: str) -> dict[str, Any]:
    """What the training said of itself: seconds, steps, figures of its last check, alarms."""
    return read_json(os.path.join(os.path.dirname(model), "result.json"))


def describe(options: argparse.Namespace) -> str:
    """The options as one line, to stand above the tables."""
    kept = {name: value for name, value in vars(options).items() if name not in ("templates", "out", "redo")}
    return json.dumps(kept)
