"""What was placed, where and how it is turned, and the STAR file that says so.

Coordinates are voxels, 0-based, of the object's centre of mass.  Orientations turn the template into the object;
angles in STAR files are RELION's (intrinsic ZYZ), whose matrix is the inverse of the one that scipy makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..jobs import JobError
from ..star import read_rows, star_word, write_table

#: Kinds that have no pose worth a row in a table of particles.
SHAPES = ("vesicle", "tube", "sheet", "bead")
_COLUMNS = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnAngleRot", "rlnAngleTilt",
            "rlnAnglePsi", "rlnClassNumber", "rlnHelicalTubeID", "cryodenClassName", "cryodenKind", "cryodenInstance",
            "cryodenCompartment", "cryodenMassKilodalton"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Particle:
    """One object of the grand model.

    Attributes
    ----------
    kind
        ``particle``, ``filament`` (one unit of it), ``membrane protein``, or one of :data:`SHAPES`.
    name, label
        Class by name and by its number in the labels volume.
    position
        (3,) x, y, z in voxels, 0-based.
    rotation
        (3, 3) from the template's to the volume's axes, for vectors (x, y, z).
    extent
        (3,) semi-axes of a vesicle or a bead in angstrom; zeros for particles.
    instance
        Its number in the instances volume; 0 when unknown.
    chain
        Number of the filament or cluster that it belongs to; 0 for single ones.
    compartment
        Number of the membrane that encloses it (its instance); 0 outside of all.
    kilodalton
        Mass; 0 when unknown.
    """

    kind: str
    name: str
    label: int
    position: np.ndarray
    rotation: np.ndarray
    extent: np.ndarray = field(default_factory=lambda: np.zeros(3))
    instance: int = 0
    chain: int = 0
    compartment: int = 0
    kilodalton: float = 0.0

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


def random_rotation(random: np.random.Generator) -> np.ndarray:
    """A rotation (3, 3), uniform over all orientations."""
    return Rotation.from_quat(random.normal(size=4)).as_matrix()


def count_by_class(particles: Sequence[Particle]) -> dict[str, int]:
    """How many of each class there are, by name."""
    counts: dict[str, int] = {}
    for item in particles:
        counts[item.name] = counts.get(item.name, 0) + 1
    return counts


def describe_shapes(particles: Sequence[Particle]) -> list[dict[str, object]]:
    """The membranes and beads among the particles, in JSON's terms."""
    return [
        {"kind": item.kind, "position_voxels": item.position.round(3).tolist(),
         "semi_axes_angstrom": item.extent.round(1).tolist(), "rotation": item.rotation.round(5).tolist()}
        for item in particles if item.kind in SHAPES
    ]  # fmt: skip


def write_star(particles: Sequence[Particle], path: str | Path, tomogram_name: str) -> None:
    """Write the particles (no membranes, no beads) as a STAR file for RELION and others, whole or not at all.

    Parameters
    ----------
    particles
        Those of a grand model.
    path
        File to write.
    tomogram_name
        Goes to ``rlnTomoName``.
    """
    name, rows = star_word(tomogram_name), []
    for item in particles:
        if item.kind not in SHAPES:
            numbers = [round(float(value), 4) for value in (*item.position, *item.relion_angles)]
            rows.append((
                name, *numbers, item.label, item.chain, star_word(item.name), star_word(item.kind), item.instance,
                item.compartment, round(item.kilodalton, 2),
            ))  # fmt: skip
    write_table(path, "particles", _COLUMNS, rows)


def read_star(path: str | Path) -> list[Particle]:
    """Read what :func:`write_star` wrote, or another table ``particles`` with coordinates and class numbers.

    Absent angles are 0, an absent name is ``class_N``.

    Raises
    ------
    JobError
        When the file is missing or lacks a coordinate or the number of the class.
    """
    try:
        return [_particle(row) for row in read_rows(path, "particles")]
    except (OSError, AttributeError, ValueError, TypeError) as error:
        raise JobError(f"cannot read particles from {path}: {error}.") from error


def _particle(row: object) -> Particle:
    def number(name: str, *default: float) -> float:
        return float(getattr(row, name, *default))

    label = int(number("rlnClassNumber"))
    return Particle(
        str(getattr(row, "cryodenKind", "particle")).replace("_", " "),
        str(getattr(row, "cryodenClassName", f"class_{label}")),
        label,
        np.array([number("rlnCoordinateX"), number("rlnCoordinateY"), number("rlnCoordinateZ")]),
        rotation_of_relion_angles([number(f"rlnAngle{name}", 0) for name in ("Rot", "Tilt", "Psi")]),
        instance=int(number("cryodenInstance", 0)),
        chain=int(number("rlnHelicalTubeID", 0)),
        compartment=int(number("cryodenCompartment", 0)),
        kilodalton=number("cryodenMassKilodalton", 0),
    )
