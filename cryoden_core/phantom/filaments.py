"""Filaments: units along a worm-like path, each turned by the helical twist of the last.

The path is a discrete worm-like chain: from unit to unit the tangent turns by a Gaussian angle of variance
``rise / persistence length`` in each of two directions, and the frame about it is carried along without twist of its
own.  Units of one filament touch; what blocks the path ends it.  Filaments are neither branched nor bundled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from .placing import Field, Item, Kind, TurnableTemplate
from .shapes import ball, template_of_solids
from .templates import Template

#: Shortest filament that is kept, and how many starts are tried for each.
SHORTEST_ANGSTROM, _STARTS = 400.0, 20
#: Names of the built-in filaments.
FILAMENTS = ("actin", "microtubule")
#: 13 protofilaments on a lattice whose neighbours are shifted by 3/13 of a monomer's 40.6 angstrom.
_PROTOFILAMENTS, _MONOMER = 13, 40.6


@dataclass(frozen=True, eq=False)
class Filament:
    """A kind of filament.

    Attributes
    ----------
    unit
        What is repeated; its z axis lies along the filament.
    rise, twist
        Angstrom along the axis and degrees about it, from one unit to the next.
    radius
        Distance of the unit's centre from the axis, angstrom.
    persistence_length
        Angstrom.
    """

    unit: Template
    rise: float
    twist: float
    radius: float
    persistence_length: float


def builtin_filament(name: str, voxel_size: float) -> Filament:
    """An ``actin`` filament or a ``microtubule``, of simple solids, sampled at ``voxel_size`` (angstrom).

    Actin: 27.5 angstrom and -166.6 degrees a subunit.  Microtubule: rings of 13 monomers every 40.6 angstrom; the two
    kinds of tubulin are not told apart.  Persistence lengths are 10 and 30 micrometres, as seen in cells.

    Raises
    ------
    JobError
        When a unit vanishes at this voxel size.
    """
    if name == "actin":
        solids = [ball((0, 12, 0), 19), ball((0, -10, 6), 17)]
        return Filament(template_of_solids(name, solids, voxel_size), 27.5, -166.6, 24.0, 1e5)
    ring = [ball(_lattice_place(index), 22) for index in range(_PROTOFILAMENTS)]
    return Filament(template_of_solids(name, ring, voxel_size), _MONOMER, 0.0, 0.0, 3e5)


def _lattice_place(index: int) -> tuple[float, float, float]:
    angle = 2 * np.pi * index / _PROTOFILAMENTS
    height = (index / _PROTOFILAMENTS * 3 * _MONOMER + _MONOMER / 2) % _MONOMER - _MONOMER / 2
    return (112 * np.cos(angle), 112 * np.sin(angle), height)


def random_frame(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A frame (3, 3; columns) whose third axis is random, and the flatter the thinner the field (z, y, x) is."""
    tangent = random.normal(size=3) * np.array([1.0, 1.0, min(1.0, shape[0] / max(shape[1:]))])
    tangent /= np.linalg.norm(tangent)
    across = np.cross(tangent, random.normal(size=3))
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(tangent, across), tangent], axis=1)


def next_frame(frame: np.ndarray, filament: Filament, random: np.random.Generator) -> np.ndarray:
    """The frame one rise further: bent at random, not twisted."""
    angles = random.normal(scale=np.sqrt(filament.rise / filament.persistence_length), size=2)
    bend = Rotation.from_rotvec(frame[:, 0] * angles[0] + frame[:, 1] * angles[1])
    return bend.as_matrix() @ frame


def place_filament(field: Field, filament: Filament, turnable: TurnableTemplate, kind: Kind, chain: int) -> int:
    """Place one filament that begins at a random place and goes on until it leaves the field or is blocked.

    Returns
    -------
    int
        Number of units placed; 0 when no start had room for the shortest filament.
    """
    for _ in range(_STARTS):
        start = field.random.uniform(-0.5, np.array(field.shape)[::-1] - 0.5)
        frame = random_frame(field.random, field.shape)
        units = _grow(field, filament, turnable, start, frame, 1)
        if units:
            units = _grow(field, filament, turnable, start, frame, -1)[:0:-1] + units
        if len(units) * filament.rise >= SHORTEST_ANGSTROM:
            for item, corner in units:
                field.stamp(item, corner, kind, chain)
            return len(units)
    return 0


def _grow(
    field: Field, filament: Filament, turnable: TurnableTemplate, start: np.ndarray, frame: np.ndarray, sense: int
) -> list[tuple[Item, np.ndarray]]:
    """Units from a start on, forwards (1) or backwards (-1), while there is room."""
    units: list[tuple[Item, np.ndarray]] = []
    axis_point = start
    while True:
        twist = Rotation.from_rotvec(frame[:, 2] * np.radians(sense * len(units) * filament.twist)).as_matrix()
        rotation = twist @ frame
        centre = axis_point + rotation[:, 0] * filament.radius / field.voxel_size
        if not field.holds(centre):
            return units
        item, corner = turnable.at(centre, rotation)
        if not field.is_free(item.footprint, corner):
            return units
        units.append((item, corner))
        frame = next_frame(frame, filament, field.random)
        axis_point = axis_point + sense * frame[:, 2] * filament.rise / field.voxel_size
