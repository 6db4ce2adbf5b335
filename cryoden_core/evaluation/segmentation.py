"""What ``cryoden evaluate segmentation`` does: are training sets of use to a network that has to segment tomograms?

The small network of :mod:`cryoden_core.dual.segmentation` is trained on training sets, simulated ones as a rule, and
segments tomograms whose labels are known.  Judged are the Dice coefficient of each class and, with the places of the
particles, the F1 of the connected regions that were found.  What counts is the comparison of trainings on different
sets, with the same steps and seeds: the network itself is small, and no figure here is the best that could be had.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import mrc
from ..device import resolve_device
from ..dual.segmentation import (
    LabelledTomogram,
    SegmentationSettings,
    figures_of,
    read_training_set,
    score_segmentation,
    segment,
    train_segmentation,
)
from ..dual.training_set import class_names, read_labelled, read_locations, same_voxel_size
from ..excerpts import robust_statistics
from ..jobs import EvaluateSegmentationJob, JobError, write_json
from ..nets.unet3d import UNet3d
from ..progress import Progress
from ..runs import begin
from .common import finish, line, storable
from .segmentation_classes import Groups, choose_groups

FIGURES = ("dice", "f1", "precision", "recall")
_TITLES = ("Dice", "F1", "precision", "recall")
#: Classes whose mean stands out from the background by less than this (standard deviations) tell no contrast.
_FAINT = 0.05


def evaluate(job: EvaluateSegmentationJob, progress: Progress | None = None) -> dict[str, Any]:
    """Train, segment every tomogram, compare with the labels, print a table, write what the job asks for.

    Returns
    -------
    dict
        ``groups``, the classes in each, and ``left_out``, those in none; ``tomograms``, a list with ``tomogram``,
        ``segmentation`` (the file) and what :func:`cryoden_core.dual.segmentation.score_segmentation` gives;
        ``together``, the same figures with the voxels and regions of all tomograms counted as one.

    Raises
    ------
    JobError
        Before anything is written, when a file or a group cannot be used.
    """
    start = time.monotonic()
    progress = progress or Progress(quiet=True)
    device = resolve_device(job, progress.warn)
    progress.stage("reading the training sets")
    sets = [read_training_set(path) for path in job.training_sets]
    groups = choose_groups(sets, job.groups, job.smallest)
    learned, judged = [groups.apply(volume) for volume in sets], _read_tests(job, sets, groups, progress)
    _warn_of_contrast(job, learned, judged, progress)
    for path in job.outputs():
        mrc.check_writable(path)
    folder = job.folder()
    if folder:
        begin(folder, job)
    for name in groups.left_out:
        progress.warn(f"class {name!r} is left out: its voxels teach nothing and are not judged.")
    settings = SegmentationSettings(job.steps, job.features, job.patch, job.batch)
    checkpoint = folder.checkpoint if folder else ""
    network = train_segmentation(learned, settings, device, job.seed, progress, checkpoint, job.resume)
    rows = [_judge(job, index, network, truth, device, progress) for index, truth in enumerate(judged)]
    result = storable({
        "training_sets": job.training_sets, "groups": groups.members, "left_out": groups.left_out, "tomograms": rows,
        "together": figures_of([row["counts"] for row in rows]),
        "steps": job.steps, "seed": job.seed, "device": str(device),
        "seconds": round(time.monotonic() - start, 1), "warnings": progress.warnings,
    })  # fmt: skip
    finish(result, format_table(result), job.output)
    if folder:
        write_json(result, folder.result)
    return result


def _read_tests(
    job: EvaluateSegmentationJob, sets: Sequence[LabelledTomogram], groups: Groups, progress: Progress
) -> list[LabelledTomogram]:
    """The tomograms with their labels as groups."""
    tests = []
    for index, (path, labels_path) in enumerate(zip(job.tomograms, job.labels, strict=True)):
        data, labels, voxel_size = read_labelled(path, labels_path)
        voxel_size = voxel_size or sets[0].voxel_size
        for folder, volume in zip(job.training_sets, sets, strict=True):
            if not same_voxel_size(volume.voxel_size or voxel_size, voxel_size):
                raise JobError(
                    f"{path} has {voxel_size:.3f} angstrom a voxel and the training set {folder} "
                    f"{volume.voxel_size:.3f}; bring them to one voxel size first."
                )
        if job.particles and not voxel_size:
            raise JobError(
                f"neither {path} nor the training sets have a voxel size, which the distance of a hit needs; set it in "
                "the header, or leave out the particles."
            )
        particles = read_locations(job.particles[index], path) if job.particles else []
        names = class_names(labels_path, labels, particles)
        truth = LabelledTomogram(data, labels, *robust_statistics(data), names, particles, voxel_size)
        tests.append(groups.apply(truth))
        there = {label: names[label] for label in np.unique(labels[labels > 0]).tolist()}
        if not (tests[-1].mask > 0).any():
            learned = ", ".join(name for members in groups.members.values() for name in members)
            raise JobError(
                f"no class of {labels_path} ({', '.join(there.values())}) is one of those learned ({learned}); a "
                "volume.json beside the labels names them."
            )
        for label, name in there.items():
            if not groups.known_as(name, label):
                progress.warn(f"class {name!r} of {labels_path} is not in the training sets and is not judged.")
    return tests


def _warn_of_contrast(
    job: EvaluateSegmentationJob, learned: Sequence[LabelledTomogram], judged: Sequence[LabelledTomogram],
    progress: Progress,
) -> None:  # fmt: skip
    """Warn when what has a class is darker than the background on one side and brighter on the other."""
    usual = float(np.mean([_contrast(volume) for volume in learned]))
    for path, truth in zip(job.tomograms, judged, strict=True):
        found = _contrast(truth)
        if usual * found < 0 and min(abs(usual), abs(found)) > _FAINT:
            looks = "dark" if found < 0 else "bright"
            progress.warn(f"density looks {looks} in {path} but not in the training sets; invert one of them.")


def _contrast(volume: LabelledTomogram) -> float:
    """Mean of the voxels with a class over that of the background, standard deviations."""
    data, mask = np.asarray(volume.data), np.asarray(volume.mask)
    return float(data[mask > 0].mean() - data[mask == 0].mean()) / volume.sd


def _judge(
    job: EvaluateSegmentationJob, index: int, network: UNet3d, truth: LabelledTomogram, device: torch.device,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Segment one tomogram, write that where the job says, and score it."""
    name = f"segmenting {index + 1} of {len(job.tomograms)}"
    labels = segment(network, truth.data, device, lambda tiles: progress.stage(name, tiles), progress.advance)
    path = job.segmentation_of(index)
    if path:
        mrc.write_volume(path, labels, truth.voxel_size, mode="int16")
    return {"tomogram": job.tomograms[index], "segmentation": path or None, **score_segmentation(labels, truth)}


def format_table(result: dict[str, Any]) -> str:
    """The figures of :func:`evaluate` as lines of text, for each tomogram and for several together."""
    blocks = [(row["tomogram"], row) for row in result["tomograms"]]
    if len(blocks) > 1:
        blocks.append(("all tomograms together", result["together"]))
    lines = []
    for title, row in blocks:
        lines.append(line(title, *_TITLES))
        for name, figures in row["classes"].items():
            lines.append(line("  " + name, *(figures.get(figure) for figure in FIGURES), form="%.3f"))
        lines.append(line("  mean of the classes", row["mean_dice"], row["mean_f1"], form="%.3f"))
        lines.append(line("  all classes as one", row["foreground_dice"], form="%.3f"))
    return "\n".join(lines)
