"""The grand model: a field packed with macromolecules, vesicles and gold beads, with its full truth.

Objects are placed one after the other, the largest first, at random positions and orientations; a position is taken
when no voxel of the object (grown by a gap) is in use yet.  This random sequential addition is the way of the SHREC
and PolNet phantoms; it does not move objects once placed, so it reaches a crowded but not a dense packing.

Coordinates are voxels, 0-based, of the object's centre of mass.  Orientations turn the template into the object;
angles in STAR files are RELION's (intrinsic ZYZ), whose matrix is the inverse of the one that scipy makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..jobs import JobError
from .membranes import LEAFLET_DENSITY, MEMBRANE_HALF_THICKNESS, bead, vesicle
from .templates import SOLVENT_LEVEL, Template

#: Voxels of a particle with at least this share of the interior density get its label.
LABEL_LEVEL = 0.25
#: Positions tried at once, and how often, for each orientation of an object.
_CANDIDATES, _ROUNDS, _ORIENTATIONS = 512, 8, 4
#: Voxels of the object looked at before all of them are.
_PROBES = 48


@dataclass(frozen=True, eq=False)
class Particle:
    """One object of the grand model.

    Attributes
    ----------
    kind
        ``particle``, ``vesicle`` or ``bead``.
    name, label
        Class by name and by its number in the labels volume.
    position
        (3,) x, y, z in voxels, 0-based.
    rotation
        (3, 3) from the template's to the volume's axes, for vectors (x, y, z).
    extent
        (3,) semi-axes of a vesicle or a bead in angstrom; zeros for particles.
    """

    kind: str
    name: str
    label: int
    position: np.ndarray
    rotation: np.ndarray
    extent: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def relion_angles(self) -> np.ndarray:
        """(3,) rlnAngleRot, rlnAngleTilt, rlnAnglePsi in degrees."""
        return relion_angles(self.rotation)


def relion_angles(rotation: np.ndarray) -> np.ndarray:
    """Rot, tilt and psi (degrees) of a rotation (3, 3) that turns the reference into the particle."""
    matrix = rotation.T  # RELION's matrix is the transpose of Rz(rot) Ry(tilt) Rz(psi)
    if np.hypot(matrix[0, 2], matrix[1, 2]) < 1e-9:  # tilt of 0 or 180: only one angle about z is left
        tilt = 0.0 if matrix[2, 2] > 0 else 180.0
        return np.array([np.degrees(np.arctan2(matrix[1, 0], matrix[1, 1])), tilt, 0.0])
    return Rotation.from_matrix(matrix).as_euler("ZYZ", degrees=True)


def rotation_of_relion_angles(angles: Sequence[float]) -> np.ndarray:
    """The rotation (3, 3) that turns the reference into the particle, of rot, tilt and psi in degrees."""
    return Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()


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
        (z, y, x) int32; 0 solvent, else 1 + index into ``particles``.
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


@dataclass
class _Object:
    """Density and footprint of one object in its own box, ready to be stamped."""

    density: np.ndarray
    footprint: np.ndarray
    labelled: np.ndarray
    centre: np.ndarray  # z, y, x in the box
    rotation: np.ndarray
    extent: np.ndarray


def random_rotation(random: np.random.Generator) -> np.ndarray:
    """A rotation (3, 3), uniform over all orientations."""
    return Rotation.from_quat(random.normal(size=4)).as_matrix()


def turn_template(coefficients: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Turn a template about its central voxel and shift it by a fraction of a voxel.

    Parameters
    ----------
    coefficients
        (n, n, n) cubic spline coefficients of the template (``scipy.ndimage.spline_filter``), n odd.
    rotation
        (3, 3) for vectors (x, y, z).
    shift
        (3,) z, y, x in voxels.

    Returns
    -------
    numpy.ndarray
        (n, n, n) float32, not negative.
    """
    backward = rotation.T[::-1, ::-1]  # output to input, for (z, y, x)
    centre = (np.array(coefficients.shape) - 1) / 2
    offset = centre - backward @ (centre + shift)
    turned = ndimage.affine_transform(coefficients, backward, offset, order=3, mode="constant", prefilter=False)
    return np.maximum(turned, 0).astype(np.float32)


class _Packer:
    """The field being filled."""

    def __init__(self, shape: tuple[int, int, int], voxel_size: float, gap: float, random: np.random.Generator) -> None:
        self.shape, self.voxel_size, self.random = shape, voxel_size, random
        self.density = np.zeros(shape, np.float32)
        self.labels = np.zeros(shape, np.int16)
        self.instances = np.zeros(shape, np.int32)
        self.used = np.zeros(shape, bool)
        self.particles: list[Particle] = []
        reach = int(np.floor(gap))
        axis = np.arange(-reach, reach + 1)
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        self.growth = z * z + y * y + x * x <= gap * gap

    def place(self, make: Callable[[], _Object], kind: str, name: str, label: int) -> bool:
        """Find room for an object, in one of several orientations, and stamp it."""
        for _ in range(_ORIENTATIONS):
            item = _trim(make())
            corner = self._find_room(item.footprint)
            if corner is not None:
                self._stamp(item, corner, kind, name, label)
                return True
        return False

    def _find_room(self, footprint: np.ndarray) -> np.ndarray | None:
        """Corner (z, y, x) of a free place for a footprint, or None."""
        room = np.array(self.shape) - footprint.shape + 1
        if (room <= 0).any():
            return None
        strides = np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        offsets = np.argwhere(footprint) @ strides
        probes = self.random.choice(offsets, min(_PROBES, offsets.size), replace=False)
        used = self.used.ravel()
        for _ in range(_ROUNDS):
            corners = self.random.integers(0, room, size=(_CANDIDATES, 3))
            starts = corners @ strides
            for index in np.flatnonzero(~used[starts[:, None] + probes].any(axis=1)):
                if not used[starts[index] + offsets].any():
                    return corners[index]
        return None

    def _stamp(self, item: _Object, corner: np.ndarray, kind: str, name: str, label: int) -> None:
        box = tuple(slice(c, c + n) for c, n in zip(corner, item.density.shape, strict=True))
        self.density[box] += item.density
        self.labels[box][item.labelled] = label
        self.instances[box][item.labelled] = len(self.particles) + 1
        self._use(item.footprint, corner)
        position = (corner + item.centre)[::-1].astype(float)
        self.particles.append(Particle(kind, name, label, position, item.rotation, item.extent))

    def _use(self, footprint: np.ndarray, corner: np.ndarray) -> None:
        """Mark a footprint grown by the gap as in use."""
        reach = self.growth.shape[0] // 2
        grown = ndimage.binary_dilation(np.pad(footprint, reach), self.growth) if reach else footprint
        first = corner - reach
        last = first + grown.shape
        low, high = np.maximum(first, 0), np.minimum(last, self.shape)
        inside = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
        self.used[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= grown[inside]


def _trim(item: _Object) -> _Object:
    """Cut the box to the footprint."""
    box = ndimage.find_objects(item.footprint.astype(np.uint8))[0]
    first = np.array([part.start for part in box])
    kept = item.footprint[box]
    return _Object(
        np.where(kept, item.density[box], 0), kept, item.labelled[box], item.centre - first, item.rotation, item.extent
    )


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
    if not templates:
        raise JobError("there is no template to pack; give at least one.")
    voxel_size = templates[0].voxel_size
    if any(abs(template.voxel_size - voxel_size) > 1e-6 for template in templates):
        raise JobError("the templates differ in voxel size; resample them first.")
    if len(shape) != 3 or min(shape) < 8 or min(particles, vesicles, beads) < 0 or gap < 0:
        raise JobError(f"a phantom needs edges of at least 8 voxels and counts of at least 0, not {tuple(shape)}.")
    random = np.random.default_rng(seed)
    packer = _Packer((shape[0], shape[1], shape[2]), voxel_size, gap, random)
    names = [template.name for template in templates] + ["vesicle", "bead"]
    class_names = {index + 1: name for index, name in enumerate(names)}
    jobs = [(vesicles, "vesicle", len(templates) + 1, _vesicle_maker(packer, vesicle_radius)),
            (beads, "bead", len(templates) + 2, _bead_maker(packer, bead_radius))]  # fmt: skip
    missing = 0
    for count, kind, label, make in jobs:
        for _ in range(count):
            missing += not packer.place(make, kind, kind, label)
            if on_placed:
                on_placed()
    order = np.argsort([-template.mass for template in templates], kind="stable")
    first = random.permutation(len(templates))  # which classes get one more when the division leaves a rest
    for index in order:
        count = particles // len(templates) + int(first[index] < particles % len(templates))
        make = _particle_maker(packer, templates[index])
        for _ in range(count):
            missing += not packer.place(make, "particle", templates[index].name, int(index) + 1)
            if on_placed:
                on_placed()
    return GrandModel(
        packer.density, packer.labels, packer.instances, packer.particles, class_names, voxel_size, missing
    )


def _particle_maker(packer: _Packer, template: Template) -> Callable[[], _Object]:
    coefficients = ndimage.spline_filter(template.density, order=3, output=np.float32)

    def make() -> _Object:
        rotation, shift = random_rotation(packer.random), packer.random.uniform(-0.5, 0.5, 3)
        density = turn_template(coefficients, rotation, shift)
        centre = (np.array(density.shape) - 1) / 2 + shift
        return _Object(
            density, density > SOLVENT_LEVEL, density > LABEL_LEVEL * density.max(), centre, rotation, np.zeros(3)
        )

    return make


def _vesicle_maker(packer: _Packer, radius: tuple[float, float] | None) -> Callable[[], _Object]:
    if radius is None:
        largest = min(packer.shape) * packer.voxel_size / 2 - MEMBRANE_HALF_THICKNESS - 2 * packer.voxel_size
        radius = (0.6 * largest, largest)

    def make() -> _Object:
        axes = np.sort(packer.random.uniform(max(radius[0], 80.0), max(radius[1], 80.0), 3))
        rotation = random_rotation(packer.random)
        density, membrane = vesicle(axes, rotation, packer.voxel_size)
        centre = (np.array(density.shape) - 1) / 2
        return _Object(density, membrane, density > LABEL_LEVEL * LEAFLET_DENSITY, centre, rotation, axes)

    return make


def _bead_maker(packer: _Packer, radius: float) -> Callable[[], _Object]:
    def make() -> _Object:
        density, mask = bead(radius, packer.voxel_size)
        return _Object(density, mask, mask, (np.array(density.shape) - 1) / 2, np.eye(3), np.full(3, radius))

    return make


def write_star(particles: Sequence[Particle], path: str | Path, tomogram_name: str) -> None:
    """Write the particles (no vesicles, no beads) as a STAR file for RELION and others.

    Parameters
    ----------
    particles
        Those of a grand model.
    path
        File to write.
    tomogram_name
        Goes to ``rlnTomoName``.
    """
    from emtable import Table

    columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ",
               "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnClassNumber", "cryodenClassName"]  # fmt: skip
    table = Table(columns=columns)
    for item in particles:
        if item.kind == "particle":
            numbers = [round(float(value), 4) for value in (*item.position, *item.relion_angles)]
            table.addRow(tomogram_name, *numbers, item.label, item.name)
    table.write(str(path), tableName="particles")


def read_star(path: str | Path) -> list[Particle]:
    """Read what :func:`write_star` wrote.

    Raises
    ------
    JobError
        When the file is missing or lacks one of the columns.
    """
    from emtable import Table

    try:
        rows = list(Table(fileName=str(path), tableName="particles"))
        return [
            Particle(
                "particle", str(row.cryodenClassName), int(row.rlnClassNumber),
                np.array([row.rlnCoordinateX, row.rlnCoordinateY, row.rlnCoordinateZ], float),
                rotation_of_relion_angles([float(row.rlnAngleRot), float(row.rlnAngleTilt), float(row.rlnAnglePsi)]),
            )
            for row in rows
        ]  # fmt: skip
    except (OSError, AttributeError, ValueError) as error:
        raise JobError(f"cannot read particles from {path}: {error}.") from error
