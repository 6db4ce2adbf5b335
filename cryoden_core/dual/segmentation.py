"""A small segmentation network, to test whether simulated tomograms are of use for training.

A 3-level U-Net (Ronneberger et al. 2015) learns the class of each voxel from training sets (:mod:`training_set`) by
cross-entropy and soft Dice loss.  Judged are the Dice coefficient of each class, and the F1 of the places of connected
regions against the true locations.  It is a yardstick, not a segmentation program: touching particles of one class are
not taken apart.  Voxels with the label :data:`LEFT_OUT` teach nothing and are not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from .. import mrc
from ..device import mixed_precision
from ..excerpts import robust_statistics
from ..jobs import JobError, read_json
from ..nets.unet3d import UNet3d
from ..phantom.particles import Particle, read_star
from ..picking import DetectionScore, match
from ..progress import Progress
from ..spectrum import read_block
from ..tiling import Shape, apply_tiled, choose_tile, shape_of
from ..training import Trainer, TrainingSettings, random_integer
from .training_set import CLASS_MASK, LOCATIONS, METADATA, TOMOGRAM

#: Label of voxels that are neither a class nor background.
LEFT_OUT = -1
#: A region counts as found where its centre lies this near to a location.
HIT_ANGSTROM = 80.0
#: Regions with less than this share of the voxels that a particle of the class has on average are specks.
SPECK_SHARE = 0.25


@dataclass(frozen=True)
class SegmentationSettings:
    """How to train.

    ``features`` are the channels at full resolution, twice as many on each level below up to ``max_features``; ``crop``
    is the edge of the training crops in voxels, ``batch`` their number in a step.
    """

    steps: int
    features: int
    crop: int
    batch: int
    depth: int = 2
    max_features: int = 64
    rate: float = 1e-3


@dataclass(frozen=True, eq=False)
class LabelledTomogram:
    """One training set, read.

    Attributes
    ----------
    data, mask
        (z, y, x) tomogram and class of each voxel (0 is background, :data:`LEFT_OUT` neither), arrays or memory maps.
    mean, sd
        Of the tomogram, without its extremes.
    class_names
        By label, from 1 on.
    particles
        Locations; empty when the set has none.
    voxel_size
        Angstrom.
    source_labels
        Number of each label in the volume that the mask was made of, where that is another.
    """

    data: np.ndarray
    mask: np.ndarray
    mean: float
    sd: float
    class_names: dict[int, str]
    particles: list[Particle]
    voxel_size: float
    source_labels: dict[int, int] = field(default_factory=dict)


def read_training_set(folder: str | Path) -> LabelledTomogram:
    """Open what ``cryoden dual make-training-set`` wrote.

    Raises
    ------
    JobError
        When the folder holds no training set.
    """
    folder = Path(folder)
    metadata = read_json(str(folder / METADATA))
    if not metadata:
        raise JobError(f"{folder} holds no training set ({METADATA} is missing); make one with dual make-training-set.")
    data, mask = (mrc.open_volume(str(folder / name)) for name in (TOMOGRAM, CLASS_MASK))
    names = {int(label): name for label, name in metadata["class_of_label"].items() if label != "0"}
    sources = {int(label): number for label, number in metadata["label_in_source"].items()}
    particles = read_star(folder / LOCATIONS) if (folder / LOCATIONS).exists() else []
    return LabelledTomogram(data, mask, *robust_statistics(data), names, particles, metadata["voxel_size"], sources)


class SegmentationTask:
    """The training task: crops, half of them centred on a voxel of a class drawn evenly, mirrored at random."""

    name = "training the segmentation"

    def __init__(
        self, tomograms: Sequence[LabelledTomogram], settings: SegmentationSettings, device: torch.device, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.tomograms, self.settings, self.device = tomograms, settings, device
        self.classes = 1 + max(max(tomogram.class_names) for tomogram in tomograms)
        network = UNet3d(
            1, self.classes, settings.features, settings.depth, max_features=settings.max_features, zero_last=False
        )
        self.network = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.networks: dict[str, nn.Module] = {"segmentation": self.network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "segmentation": torch.optim.AdamW(self.network.parameters(), settings.rate, weight_decay=1e-4)
        }
        smallest = np.min([tomogram.data.shape for tomogram in tomograms], axis=0)
        multiple = network.multiple
        self.crop: Shape = tuple(  # type: ignore[assignment]
            int(min(settings.crop, edge)) // multiple * multiple for edge in smallest
        )
        self.places = [
            [np.flatnonzero(np.asarray(tomogram.mask) == label) for label in tomogram.class_names]
            for tomogram in tomograms
        ]

    def step(self, step: int, trainer: Trainer) -> dict[str, float]:
        """One batch, one descent."""
        volumes, labels = self._draw(trainer.generator)
        with trainer.autocast():
            scores = self.network(volumes.contiguous(memory_format=torch.channels_last_3d))
        scores = scores.float()
        entropy = functional.cross_entropy(scores, labels, ignore_index=LEFT_OUT, reduction="sum")
        entropy = entropy / (labels != LEFT_OUT).sum().clamp(min=1)
        overlap = soft_dice_loss(scores, labels)
        loss = entropy + overlap
        trainer.update("segmentation", loss)
        return {"loss": loss.item(), "cross_entropy": entropy.item(), "soft_dice": overlap.item()}

    def _draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops (batch, 1, z, y, x) and their labels (batch, z, y, x), on the device."""
        volumes, labels = [], []
        for index in range(self.settings.batch):
            which = random_integer(generator, len(self.tomograms))
            tomogram = self.tomograms[which]
            corner = self._corner(which, generator, centred=index % 2 == 0)
            # Mirrors keep the missing wedge; turns by 90 degrees would not.
            flips = [axis for axis in range(3) if random_integer(generator, 2)]
            volumes.append(((read_block(tomogram.data, corner, self.crop) - tomogram.mean) / tomogram.sd).flip(flips))
            labels.append(read_block(tomogram.mask, corner, self.crop).long().flip(flips))
        return torch.stack(volumes)[:, None].to(self.device), torch.stack(labels).to(self.device)

    def _corner(self, which: int, generator: torch.Generator, centred: bool) -> np.ndarray:
        shape = self.tomograms[which].data.shape
        room = np.array(shape) - self.crop
        present = [places for places in self.places[which] if places.size]
        if not centred or not present:
            return np.array([random_integer(generator, int(r) + 1) for r in room])
        places = present[random_integer(generator, len(present))]
        centre = np.array(np.unravel_index(places[random_integer(generator, places.size)], shape))
        return np.clip(centre - np.array(self.crop) // 2, 0, room)


def soft_dice_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One less the mean Dice coefficient of probabilities, over the classes (without background) in the batch.

    Parameters
    ----------
    scores
        (batch, classes, z, y, x) before the softmax.
    labels
        (batch, z, y, x) integers.
    """
    judged = (labels != LEFT_OUT).flatten()
    probabilities = scores.softmax(dim=1).movedim(1, 0).flatten(1) * judged
    truth = functional.one_hot(labels.clamp(min=0), scores.shape[1]).movedim(-1, 0).flatten(1) * judged
    both, total = (probabilities * truth).sum(1)[1:], (probabilities + truth).sum(1)[1:]
    present = truth.sum(1)[1:] > 0
    if not present.any():
        return scores.sum() * 0
    return 1 - (2 * both[present] / total[present]).mean()


def train_segmentation(
    tomograms: Sequence[LabelledTomogram],
    settings: SegmentationSettings,
    device: torch.device,
    seed: int,
    progress: Progress,
    checkpoint: str = "",
    resume: bool = False,
) -> UNet3d:
    """Train a network on one or several tomograms and return it with its averaged weights.

    Raises
    ------
    JobError
        When no tomogram is given, their classes differ, or none has a labelled voxel.
    """
    if not tomograms:
        raise JobError("there is no training set to learn from; give at least one.")
    if any(tomogram.class_names != tomograms[0].class_names for tomogram in tomograms):
        raise JobError("the training sets have different classes; make them with the same list of classes.")
    task = SegmentationTask(tomograms, settings, device, seed)
    if not any(places.size for of_tomogram in task.places for places in of_tomogram):
        raise JobError("no voxel of the training sets belongs to a class; there is nothing to learn.")
    learned = [(t.data.shape, round(t.mean, 6), round(t.sd, 6), t.class_names) for t in tomograms]
    fingerprint = repr((settings, seed, learned))
    trainer = Trainer(task, TrainingSettings(settings.steps), device, seed, progress, checkpoint, fingerprint)
    trainer.fit(resume=resume)
    trainer.use_averages()
    return task.network


@torch.no_grad()
def segment(
    network: UNet3d,
    volume: np.ndarray,
    device: torch.device,
    on_tiles: Callable[[int], None] | None = None,
    on_tile: Callable[[], None] | None = None,
) -> np.ndarray:
    """The class of each voxel of a tomogram (z, y, x; any grey scale), int16."""
    network.eval()
    mean, sd = robust_statistics(volume)
    widest = max(network.architecture["features"], network.architecture["out_channels"])
    halo = network.receptive_radius

    def classify(data: torch.Tensor) -> torch.Tensor:
        batch = ((data - mean) / sd)[None, None].contiguous(memory_format=torch.channels_last_3d)
        with mixed_precision(device):
            return network(batch)[0].float().argmax(dim=0).float()

    output = np.zeros(volume.shape, np.float32)
    tile = choose_tile(shape_of(volume), 4 * 4 * widest + 64, device, widest, halo, network.multiple)
    # Classes cannot be blended; with a halo of the receptive radius neighbouring tiles agree anyway.
    apply_tiled(
        classify, volume, output, tile, halo=halo, multiple=network.multiple, blend=0, device=device,
        on_tiles=on_tiles, on_tile=on_tile,
    )  # fmt: skip
    return output.astype(np.int16)


def region_centres(labels: np.ndarray, label: int, smallest: float) -> np.ndarray:
    """Centres (n, 3; z, y, x) of a label's connected regions of at least ``smallest`` voxels, the largest first."""
    regions, _ = ndimage.label(labels == label, np.ones((3, 3, 3)))
    sizes = np.bincount(regions.ravel())
    kept = np.flatnonzero(sizes >= smallest)
    kept = kept[kept > 0]
    kept = kept[np.argsort(-sizes[kept], kind="stable")]
    return np.array(ndimage.center_of_mass(regions > 0, regions, kept)).reshape(-1, 3)


def voxel_score(labels: np.ndarray, mask: np.ndarray, label: int) -> DetectionScore:
    """Voxels of a label that were found, are there, and both; its F1 is the Dice coefficient."""
    mask = np.asarray(mask)
    found, true = (labels == label) & (mask != LEFT_OUT), mask == label
    return DetectionScore(*(int(np.count_nonzero(part)) for part in (found, true, found & true)))


def score_segmentation(labels: np.ndarray, truth: LabelledTomogram) -> dict[str, Any]:
    """Compare a segmentation with the truth.

    Parameters
    ----------
    labels
        (z, y, x) class of each voxel.
    truth
        The training set of the same tomogram.

    Returns
    -------
    dict
        The figures of :func:`figures_of`, and ``counts``: for each of ``classes`` its ``voxels`` and, where the truth
        has locations, ``regions``, and the voxels of the ``foreground``, of all classes as one; each as numbers found,
        true, and both.
    """
    classes: dict[str, dict[str, list[int]]] = {}
    for label, name in truth.class_names.items():
        voxels = voxel_score(labels, truth.mask, label)
        classes[name] = {"voxels": _numbers(voxels)}
        places = np.array([item.position[::-1] for item in truth.particles if item.label == label]).reshape(-1, 3)
        if len(places):
            found = region_centres(labels, label, SPECK_SHARE * voxels.truths / len(places))
            hits = int((match(found, places, HIT_ANGSTROM / truth.voxel_size) >= 0).sum())
            classes[name]["regions"] = [len(found), len(places), hits]
    judged = np.asarray(truth.mask) != LEFT_OUT
    foreground = voxel_score((labels > 0) & judged, np.asarray(truth.mask) > 0, True)
    counts = {"classes": classes, "foreground": _numbers(foreground)}
    return {"counts": counts, **figures_of([counts])}


def _numbers(score: DetectionScore) -> list[int]:
    return [score.picks, score.truths, score.hits]


def figures_of(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one or several tomograms together, by the counts of each.

    Returns
    -------
    dict
        ``classes``: for each class by name its ``dice`` and, where the truth has locations, ``precision``,
        ``recall`` and ``f1`` of the regions' centres; ``mean_dice`` and ``mean_f1`` over the classes;
        ``foreground_dice``, of all classes as one.  A class that is in none of the tomograms has no figures.
    """

    def together(numbers: Sequence[list[int]]) -> DetectionScore:
        return DetectionScore(*(sum(column) for column in zip(*numbers, strict=True)))

    classes: dict[str, dict[str, float]] = {}
    for name in counts[0]["classes"]:
        of_class = [item["classes"][name] for item in counts]
        voxels = together([item["voxels"] for item in of_class])
        classes[name] = {"dice": voxels.f1} if voxels.truths else {}
        with_places = [item["regions"] for item in of_class if "regions" in item]
        if with_places:
            regions = together(with_places)
            classes[name].update(precision=regions.precision, recall=regions.recall, f1=regions.f1)
    result: dict[str, Any] = {
        "classes": classes, "foreground_dice": together([item["foreground"] for item in counts]).f1,
    }  # fmt: skip
    for figure in ("dice", "f1"):
        values = [figures[figure] for figures in classes.values() if figure in figures]
        result[f"mean_{figure}"] = float(np.mean(values)) if values else None
    return result
