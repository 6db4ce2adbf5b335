"""A training set for segmentation: tomogram, class mask, locations and metadata on one grid, in one folder.

The layout is what DeepFinder-like programs learn from: a tomogram, a volume with the number of each voxel's class, and
a list of objects (``locations.xml``, in DeepFinder's form, beside ``locations.star``).  Nothing is resampled: what lies
on different grids is refused.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .. import mrc
from ..jobs import JobError, TrainingSetJob, read_json, whole_file, write_json
from ..phantom.particles import SHAPES, Particle, count_by_class, read_star, write_star
from ..phantom.storage import ABOUT
from ..progress import Progress
from ..runs import begin

TOMOGRAM, CLASS_MASK, METADATA = "tomogram.mrc", "class_mask.mrc", "metadata.json"
LOCATIONS, OBJECT_LIST, CROPS = "locations.star", "locations.xml", "crops"
#: Voxel sizes may differ by this share.
_SAME_VOXEL_SIZE = 0.01
#: A location's class must be found within this distance (voxels), for this share of the locations.
_NEAR, _AGREEMENT = 3, 0.8


def make_training_set(job: TrainingSetJob, progress: Progress) -> dict[str, Any]:
    """Check that tomogram, labels and particles belong together and write them as a training set.

    Returns
    -------
    dict
        What is also written to ``result.json``; ``metadata.json`` holds the description of the set.

    Raises
    ------
    JobError
        Before anything is written: the grids differ, the labels are no labels, or a class is unknown.
    """
    started = time.monotonic()
    folder = job.folder()
    assert folder is not None
    progress.stage("checking the input")
    tomogram, labels, voxel_size = read_labelled(job.tomogram, job.labels)
    particles = read_locations(job.particles, job.tomogram) if job.particles else []
    names = class_names(job.labels, labels, particles)
    numbers = choose_classes(names, job.classes)
    kept = [dataclasses.replace(p, label=numbers[p.label]) for p in particles if p.label in numbers]
    if job.crop > min(tomogram.shape):
        raise JobError(f"a crop of {job.crop} voxels does not fit into {job.tomogram}; take a smaller one.")
    mrc.check_writable(folder.result)
    begin(folder, job)
    progress.stage("writing the training set")
    output = Path(job.output)
    mask = renumber(labels, numbers)
    mrc.write_volume(str(output / TOMOGRAM), tomogram, voxel_size)
    mrc.write_volume(str(output / CLASS_MASK), mask, voxel_size, mode="int16")
    if job.particles:
        write_star(kept, output / LOCATIONS, output.absolute().name)
        write_object_list(kept, output / OBJECT_LIST)
    if job.crop:
        _write_crops(output / CROPS, kept, tomogram, mask, job.crop, voxel_size)
    agreement = share_on_labels(kept, mask)
    if kept and agreement < _AGREEMENT:
        progress.warn(
            f"only {agreement:.0%} of the locations lie on their class in {job.labels}: is it the same field?"
        )
    metadata = {
        "tomogram": TOMOGRAM,
        "class_mask": CLASS_MASK,
        "sources": {"tomogram": job.tomogram, "labels": job.labels, "particles": job.particles},
        "voxel_size": voxel_size,
        "shape_zyx": list(tomogram.shape),
        "class_of_label": {"0": "background", **{str(new): names[old] for old, new in numbers.items()}},
        "label_in_source": {str(new): old for old, new in numbers.items()},
        "share_of_label": {
            str(label): round(float(count) / mask.size, 6)
            for label, count in enumerate(np.bincount(mask.ravel(), minlength=len(numbers) + 1))
        },
        "count_of_class": count_by_class(kept),
        "locations_on_their_class": round(agreement, 4) if kept else None,
        "crop": job.crop,
    }
    write_json(metadata, str(output / METADATA))
    result = {"output": job.output, "metadata": str(output / METADATA), **metadata, "warnings": progress.warnings,
              "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
    write_json(result, folder.result)
    return result


def read_labelled(path: str, labels_path: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Tomogram (a memory map), the labels of its voxels (int32) and the voxel size (angstrom).

    Raises
    ------
    JobError
        When the two lie on different grids, or the labels are no whole numbers or all background.
    """
    tomogram = mrc.open_volume(path)
    labels = mrc.open_volume(labels_path)
    if tomogram.shape != labels.shape:
        raise JobError(
            f"{labels_path} is {mrc.size_text(labels.shape)} voxels but {path} is {mrc.size_text(tomogram.shape)}; one "
            "grid is needed."
        )
    sizes = [mrc.read_header(name).voxel_size for name in (path, labels_path)]
    if all(sizes) and not same_voxel_size(*sizes):
        raise JobError(
            f"{path} has {sizes[0]:.3f} angstrom a voxel and {labels_path} {sizes[1]:.3f}; they must lie on one grid."
        )
    mrc.check_finite_and_varying(tomogram, path)
    values = np.asarray(labels)
    whole = np.rint(values).astype(np.int32)
    if whole.min() < 0 or not np.array_equal(whole, values):
        raise JobError(f"{labels_path} holds values that are no whole numbers from 0 on; give the numbers of classes.")
    if not whole.any():
        raise JobError(f"{labels_path} is all background; no voxel of it has a class.")
    return tomogram, whole, sizes[0] or sizes[1]


def same_voxel_size(one: float, other: float) -> bool:
    """Whether two voxel sizes (angstrom) are the same grid's."""
    return abs(one - other) <= _SAME_VOXEL_SIZE * one


def class_names(path: str, labels: np.ndarray, particles: Sequence[Particle]) -> dict[int, str]:
    """Names by label: of the file that describes the labels, of the particles, else ``class_N``.

    The file is ``volume.json`` beside them, for the mask of a training set its ``metadata.json``.  Classes that it
    knows are there even when this volume has none of them, so that all volumes of a clean domain get the same numbers.
    """
    about = Path(path).parent / (METADATA if Path(path).name == CLASS_MASK else ABOUT)
    known = read_json(str(about)).get("class_of_label", {})
    names = {item.label: item.name for item in particles}
    names.update({int(label): str(name) for label, name in known.items() if label != "0"})
    for label in np.unique(labels[labels > 0]).tolist():
        names.setdefault(int(label), f"class_{label}")
    return dict(sorted(names.items()))


def choose_classes(names: dict[int, str], chosen: Sequence[str]) -> dict[int, int]:
    """New numbers (from 1 on) of the chosen classes by their old ones; nothing chosen keeps all, in their order.

    Raises
    ------
    JobError
        When a chosen class is not there, or chosen twice.
    """
    if not chosen:
        return {old: new + 1 for new, old in enumerate(sorted(names))}
    by_name = {**{str(label): label for label in names}, **{name: label for label, name in names.items()}}
    numbers: dict[int, int] = {}
    for new, name in enumerate(chosen):
        if name not in by_name:
            raise JobError(f"there is no class {name!r}; there are: {', '.join(names.values())}.")
        if by_name[name] in numbers:
            raise JobError(f"class {name!r} is chosen twice.")
        numbers[by_name[name]] = new + 1
    return numbers


def renumber(labels: np.ndarray, numbers: dict[int, int]) -> np.ndarray:
    """Labels (z, y, x) with new numbers, int16; what has none becomes background."""
    table = np.zeros(int(labels.max()) + 1, np.int16)
    for old, new in numbers.items():
        if old < table.size:
            table[old] = new
    return table[labels]


def read_locations(path: str, tomogram: str) -> list[Particle]:
    """The particles of a STAR file, without shapes such as vesicles.

    Raises
    ------
    JobError
        When one lies outside of the tomogram.
    """
    particles = [item for item in read_star(path) if item.kind not in SHAPES]
    size = np.array(mrc.open_volume(tomogram).shape)[::-1]
    outside = sum(not ((p.position > -1) & (p.position < size)).all() for p in particles)
    if outside:
        raise JobError(
            f"{outside} of the {len(particles)} locations in {path} lie outside of {tomogram}; they must be voxels of "
            "that tomogram."
        )
    return particles


def share_on_labels(particles: Sequence[Particle], mask: np.ndarray) -> float:
    """Share of the particles with their class within a few voxels of their place (the middle may be hollow)."""
    found = 0
    for item in particles:
        centre = np.rint(item.position[::-1]).astype(int)
        found += bool((mask[tuple(slice(max(c - _NEAR, 0), c + _NEAR + 1) for c in centre)] == item.label).any())
    return found / max(1, len(particles))


def write_object_list(particles: Sequence[Particle], path: Path) -> None:
    """Write DeepFinder's list of objects: class and coordinates in voxels."""
    root = ElementTree.Element("objlist")
    for item in particles:
        x, y, z = (f"{value:.2f}" for value in item.position)
        ElementTree.SubElement(
            root, "object", {"tomo_idx": "0", "class_label": str(item.label), "x": x, "y": y, "z": z}
        )
    ElementTree.indent(root)
    with mrc.errors_of_writing(str(path)), whole_file(str(path)) as temporary:
        ElementTree.ElementTree(root).write(temporary)


def _write_crops(
    folder: Path, particles: Sequence[Particle], tomogram: np.ndarray, mask: np.ndarray, edge: int, voxel_size: float
) -> None:
    """Cut tomogram and mask around each location, moved inside where they would reach beyond the border."""
    for index, item in enumerate(particles):
        corner = np.rint(item.position[::-1]).astype(int) - edge // 2
        corner = np.clip(corner, 0, np.array(mask.shape) - edge)
        box = tuple(slice(c, c + edge) for c in corner)
        stem = str(folder / f"{index + 1:05d}")
        mrc.write_volume(stem + "_tomogram.mrc", np.asarray(tomogram[box], np.float32), voxel_size)
        mrc.write_volume(stem + "_mask.mrc", mask[box], voxel_size, mode="int16")
