"""The folder of a grand model: its density, labels, instances, table of particles and what is known of its making."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..jobs import read_json, write_json
from ..mrc import write_volume
from ..star import write_table
from .packing import GrandModel
from .particles import write_star

DENSITY, LABELS, INSTANCES = "density.mrc", "labels.mrc", "instances.mrc"
PARTICLES, ABOUT = "particles.star", "volume.json"
_LARGEST_UINT16 = 65535


def write_grand_model(model: GrandModel, folder: str | Path, sign: str, about: dict[str, Any]) -> dict[str, Any]:
    """Write a grand model; ``volume.json`` comes last and says that the folder is whole.

    Parameters
    ----------
    model
        With bright density.
    folder
        Made when it is not there; its name becomes that of the tomogram.
    sign
        ``bright`` or ``dark`` protein in ``density.mrc``.
    about
        What else to say in ``volume.json``, in JSON's terms.

    Returns
    -------
    dict
        The content of ``volume.json``.
    """
    folder = Path(folder)
    whole = folder / ABOUT
    if whole.exists():
        whole.unlink()
    density = model.density if sign == "bright" else -model.density
    write_volume(str(folder / DENSITY), density, model.voxel_size)
    write_volume(str(folder / LABELS), model.labels, model.voxel_size, mode="int16")
    # 16 bits hold the instances of all but the fullest fields.
    mode = "uint16" if model.instances.max() <= _LARGEST_UINT16 else "float32"
    write_volume(str(folder / INSTANCES), model.instances, model.voxel_size, mode=mode)
    write_star(model.particles, folder / PARTICLES, folder.name)
    content = {
        "name": folder.name,
        "voxel_size": model.voxel_size,
        "shape_zyx": list(model.density.shape),
        "sign": sign,
        "class_of_label": {str(label): name for label, name in model.class_names.items()},
        "labelled_share": round(float((model.labels > 0).mean()), 5),
        **about,
    }
    write_json(content, str(whole))
    return content


def finished_model(folder: str | Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """The content of a folder's ``volume.json`` when it is whole and was made as ``about`` says, else None."""
    content = read_json(str(Path(folder) / ABOUT))
    files = (DENSITY, LABELS, INSTANCES, PARTICLES)
    if not content or not all((Path(folder) / name).exists() for name in files):
        return None
    return content if all(content.get(name) == value for name, value in about.items()) else None


def write_tomogram_list(volumes: Sequence[dict[str, Any]], output: str) -> str:
    """Write ``tomograms.star`` with one row for each folder of a grand model; returns its path."""
    columns = [
        "rlnTomoName", "rlnTomoReconstructedTomogram", "rlnTomoTiltSeriesPixelSize", "rlnTomoTomogramBinning",
        "cryodenLabels", "cryodenParticles",
    ]  # fmt: skip
    rows = [
        (name, f"{name}/{DENSITY}", volume["voxel_size"], 1, f"{name}/{LABELS}", f"{name}/{PARTICLES}")
        for volume in volumes
        for name in [volume["name"]]
    ]
    path = os.path.join(output, "tomograms.star")
    write_table(path, "global", columns, rows)
    return path
