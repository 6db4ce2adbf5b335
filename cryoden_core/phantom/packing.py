"""The grand model: a field packed with macromolecules, vesicles and gold beads, with its full truth.

:func:`pack` places given numbers of each class; :mod:`cell` packs fields whose membranes, filaments and composition
vary.  Coordinates and orientations are those of :mod:`particles`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..jobs import JobError
from .membranes import LEAFLET_DENSITY, MEMBRANE_HALF_THICKNESS, bead, vesicle
from .particles import Particle, random_rotation
from .placing import Field, Item, Kind, TurnableTemplate
from .templates import LABEL_LEVEL, Template


@dataclass
class GrandModel:
    """A packed field and all that is known of it.

    Attributes
    ----------
    density
        (z, y, x) float32; solvent 0, protein 1.
    labels
        (z, y, x) int16; 0 solvent, then the number of the class.
    instances
        (z, y, x) int32; 0 solvent, else the ``instance`` of a particle: 1 + its index in ``particles``.
    particles
        Everything that was placed, vesicles and beads too.
    class_names
        Name by label.
    voxel_size
        Angstrom.
    missing
        How many objects found no place.
    """

    density: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    particles: list[Particle]
    class_names: dict[int, str]
    voxel_size: float
    missing: int = 0

    def specimen_mask(self) -> np.ndarray:
        """(z, y, x) bool: particles and membranes, without gold, which would outweigh all else."""
        gold = [label for label, name in self.class_names.items() if name == "bead"]
        return (self.labels > 0) & ~np.isin(self.labels, gold)


def pack(
    shape: tuple[int, int, int],
    templates: Sequence[Template],
    particles: int = 200,
    vesicles: int = 2,
    beads: int = 0,
    seed: int = 1,
    gap: float = 1.0,
    vesicle_radius: tuple[float, float] | None = None,
    bead_radius: float = 50.0,
    on_placed: Callable[[], None] | None = None,
) -> GrandModel:
    """Pack a field; the same seed gives the same field.

    Parameters
    ----------
    shape
        (z, y, x) voxels.
    templates
        At least one, all of one voxel size, which becomes the model's; each is used equally often.
    particles, vesicles, beads
        How many to place.
    seed
        Of the random numbers.
    gap
        Free space around each object, voxels.
    vesicle_radius
        Smallest and largest, angstrom; by default from what fits the thickness.
    bead_radius
        Angstrom.
    on_placed
        Called after each object, placed or not.

    Raises
    ------
    JobError
        When there is no template, voxel sizes differ, or a parameter makes no sense.
    """
    voxel_size = check_templates(templates)
    if len(shape) != 3 or min(shape) < 8 or min(particles, vesicles, beads) < 0 or gap < 0:
        raise JobError(f"a phantom needs edges of at least 8 voxels and counts of at least 0, not {tuple(shape)}.")
    random = np.random.default_rng(seed)
    field = Field((shape[0], shape[1], shape[2]), voxel_size, gap, random)
    names = [template.name for template in templates] + ["vesicle", "bead"]
    class_names = {index + 1: name for index, name in enumerate(names)}
    shapes = [(vesicles, "vesicle", len(templates) + 1, _vesicle_maker(field, vesicle_radius)),
              (beads, "bead", len(templates) + 2, bead_maker(bead_radius, voxel_size))]  # fmt: skip
    missing = 0
    for count, kind, label, make in shapes:
        for _ in range(count):
            missing += not field.place(make, Kind(kind, kind, label))
            if on_placed:
                on_placed()
    order = np.argsort([-template.mass for template in templates], kind="stable")
    first = random.permutation(len(templates))  # which classes get one more when the division leaves a rest
    for index in order:
        count = particles // len(templates) + int(first[index] < particles % len(templates))
        template, turnable = templates[index], TurnableTemplate(templates[index])
        kind_of_class = Kind("particle", template.name, int(index) + 1, template.kilodalton)
        for _ in range(count):
            missing += not field.place(partial(turnable.in_any_orientation, random), kind_of_class)
            if on_placed:
                on_placed()
    return GrandModel(field.density, field.labels, field.instances, field.particles, class_names, voxel_size, missing)


def check_templates(templates: Sequence[Template]) -> float:
    """The templates' common voxel size, angstrom.

    Raises
    ------
    JobError
        When there is no template, or voxel sizes differ.
    """
    if not templates:
        raise JobError("there is no template to pack; give at least one.")
    voxel_size = templates[0].voxel_size
    if any(abs(template.voxel_size - voxel_size) > 1e-6 for template in templates):
        raise JobError("the templates differ in voxel size; resample them first.")
    return voxel_size


def _vesicle_maker(field: Field, radius: tuple[float, float] | None) -> Callable[[], Item]:
    if radius is None:
        largest = min(field.shape) * field.voxel_size / 2 - MEMBRANE_HALF_THICKNESS - 2 * field.voxel_size
        radius = (0.6 * largest, largest)

    def make() -> Item:
        axes = np.sort(field.random.uniform(max(radius[0], 80.0), max(radius[1], 80.0), 3))
        rotation = random_rotation(field.random)
        density, membrane = vesicle(axes, rotation, field.voxel_size)
        centre = (np.array(density.shape) - 1) / 2
        return Item(density, membrane, density > LABEL_LEVEL * LEAFLET_DENSITY, centre, rotation, axes)

    return make


def bead_maker(radius: float, voxel_size: float) -> Callable[[], Item]:
    """What makes gold beads of a radius (angstrom), for :meth:`Field.place`."""

    def make() -> Item:
        density, mask = bead(radius, voxel_size)
        return Item(density, mask, mask, (np.array(density.shape) - 1) / 2, np.eye(3), np.full(3, radius))

    return make
