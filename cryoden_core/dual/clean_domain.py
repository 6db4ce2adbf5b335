"""Make DUAL's clean domain: a folder of grand models, packed here or brought from elsewhere into one layout.

Each grand model has a folder of its own with density, labels, instances, particles and parameters (see
:mod:`cryoden_core.phantom.storage`); ``tomograms.star`` lists them and ``result.json``, written last, sums up.  The
noisy domain, and the choice of tomograms that are clean enough to serve as clean domain, are not made here.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import mrc, report
from ..jobs import CleanDomainJob, write_json
from ..phantom.cell import CellRecipe, check_cell, pack_cell
from ..phantom.packing import GrandModel
from ..phantom.particles import count_by_class
from ..phantom.shapes import builtin_templates, channel
from ..phantom.storage import DENSITY, LABELS, PARTICLES, finished_model, write_grand_model, write_tomogram_list
from ..phantom.templates import Template, read_templates
from ..progress import Progress
from ..runs import begin
from .existing import ExistingModel, find_models, read_model

#: Parameters that change nothing in the volumes.
_OUTSIDE = ("output", "resume", "run_folder", "volumes")
#: Volumes shown in the report.
_PICTURED = 3
#: Steps that one volume counts in the progress.
_STEPS = 100


def recipe_of(job: CleanDomainJob) -> CellRecipe:
    """What each packed field of a job holds."""
    return CellRecipe(
        particles=job.particles,
        occupancy=(job.occupancy_min, job.occupancy_max),
        abundance_spread=job.abundance_spread,
        vesicles=job.vesicles,
        tubes=job.tubes,
        sheets=job.sheets,
        beads=job.beads,
        actin=job.actin,
        microtubules=job.microtubules,
        clusters=job.clusters,
        membrane_proteins=job.membrane_proteins,
        membrane_radii=(job.membrane_radius_min, job.membrane_radius_max),
        bead_radii=(job.bead_radius_min, job.bead_radius_max),
        cluster_template=job.cluster_template,
        gold_contrast=job.gold_contrast,
        crowding=job.crowding,
        ice_thickness=(job.ice_thickness_min, job.ice_thickness_max),
        gap=job.gap,
    )


def seed_of(job: CleanDomainJob, index: int) -> int:
    """The seed of one volume; it depends neither on the number of volumes nor on the others."""
    return int(np.random.SeedSequence([job.seed, index]).generate_state(1)[0])


#: Makes a grand model, telling the share of the work that is done; returns what was drawn too.
Make = Callable[[Callable[[float], None]], tuple[GrandModel, dict[str, Any]]]
#: What a volume is made of (a finished one with the same need not be made again), and what makes it.
Maker = tuple[dict[str, Any], Make]


def make_clean_domain(job: CleanDomainJob, progress: Progress) -> dict[str, Any]:
    """Make the grand models of a job.

    Parameters
    ----------
    job
        A validated job.
    progress
        Is told the stages.

    Returns
    -------
    dict
        What is also written to ``result.json``; ``volumes`` holds one entry for each grand model, with the paths of
        its files.

    Raises
    ------
    JobError
        When a template or a grand model cannot be used, or the folder cannot be written.
    """
    started = time.monotonic()
    folder = job.folder()
    assert folder is not None
    progress.stage("checking the input")
    makers = list(_existing(job) if job.existing else _packed(job, progress))
    mrc.check_writable(folder.result)
    os.makedirs(job.output, exist_ok=True)
    begin(folder, job)
    progress.stage("making grand models", _STEPS * len(makers))
    volumes = []
    for index, (about, make) in enumerate(makers):
        volumes.append(_one(job, about, make, os.path.join(job.output, f"volume_{index + 1:03d}"), progress))
    result = {
        "output": job.output,
        "tomograms": write_tomogram_list(volumes, job.output),
        "volumes": [_entry(job, volume) for volume in volumes],
        "job": job.to_dict(),
        "warnings": progress.warnings,
        "seconds": round(time.monotonic() - started, 1),
    }
    _write_picture(job, volumes, folder.report)
    write_json(result, folder.result)
    return result


def _write_picture(job: CleanDomainJob, volumes: list[dict[str, Any]], path: str) -> None:
    """Central slices and power spectra of the first volumes that have the size of the first."""
    alike = [v["name"] for v in volumes if v["shape_zyx"] == volumes[0]["shape_zyx"]][:_PICTURED]
    densities = {name: mrc.open_volume(os.path.join(job.output, name, DENSITY)) for name in alike}
    report.write_reconstruction(path, densities, volumes[0]["voxel_size"], title="Clean domain")


def _one(job: CleanDomainJob, about: dict[str, Any], make: Make, path: str, progress: Progress) -> dict[str, Any]:
    """Make and write one volume, unless it is there already; returns the content of its ``volume.json``."""
    done = 0

    def on_share(share: float) -> None:
        nonlocal done
        steps = int(_STEPS * share) - done
        if steps > 0:
            done += steps
            progress.advance(steps)

    content = finished_model(path, about) if job.resume else None
    if content is None:
        model, drawn = make(on_share)
        content = write_grand_model(model, path, job.sign, {**about, **drawn})
        _warn(content, progress)
    on_share(1.0)
    return content


def _warn(content: dict[str, Any], progress: Progress) -> None:
    """Say what the volume lacks of what was asked for."""
    name = content["name"]
    if content.get("missing"):
        progress.warn(f"{content['missing']} objects found no room in {name}.")
    wanted, reached = content.get("occupancy_wanted", 0), content.get("occupancy", 0)
    if content.get("full") and reached < 0.9 * wanted:
        progress.warn(f"{name} is full at an occupancy of {reached:.3f} where {wanted:.3f} was wanted.")


def _entry(job: CleanDomainJob, volume: dict[str, Any]) -> dict[str, Any]:
    """What ``result.json`` says of a volume."""
    kept = ("name", "shape_zyx", "voxel_size", "seed", "occupancy", "count_of_class", "class_of_label", "source")
    folder = os.path.join(job.output, volume["name"])
    files = {"density": DENSITY, "labels": LABELS, "particles": PARTICLES}
    return {
        **{name: volume[name] for name in kept if name in volume},
        **{role: os.path.join(folder, name) for role, name in files.items()},
    }


def _packed(job: CleanDomainJob, progress: Progress) -> Iterator[Maker]:
    """Makers of packed volumes; templates are read at once."""
    templates = (
        read_templates(job.templates, job.voxel_size, job.resolution)
        if job.templates
        else builtin_templates(job.voxel_size)
    )
    in_membranes: list[Template] = []
    if job.membrane_proteins:
        given = job.membrane_templates
        in_membranes = read_templates(given, job.voxel_size, job.resolution) if given else [channel(job.voxel_size)]
    asked = {name: value for name, value in dataclasses.asdict(job).items() if name not in _OUTSIDE}
    shape, recipe = (job.depth, job.height, job.width), recipe_of(job)
    check_cell(shape, templates, recipe)
    for index in range(job.volumes):
        seed = seed_of(job, index)

        def make(on_share: Callable[[float], None], seed: int = seed) -> tuple[GrandModel, dict[str, Any]]:
            return pack_cell(shape, templates, recipe, seed, in_membranes, on_share)

        yield {"made_by": "packing", "parameters": asked, "seed": seed}, make


def _existing(job: CleanDomainJob) -> Iterator[Maker]:
    """Makers of volumes that are read."""
    for model in find_models(job.existing, job.existing_voxel_size):
        about = {
            "made_by": "reading",
            "source": str(model.density),
            "voxel_size_of_source": model.voxel_size,
            "sign_of_source": job.existing_sign,
            "sign": job.sign,
            "voxel_size": job.voxel_size,
        }

        def make(_: Callable[[float], None], model: ExistingModel = model) -> tuple[GrandModel, dict[str, Any]]:
            found = read_model(model, job.voxel_size, job.existing_sign)
            return found, {"count_of_class": count_by_class(found.particles)}

        yield about, make
