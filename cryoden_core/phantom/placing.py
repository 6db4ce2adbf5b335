"""A field being filled: where there is room for an object, and stamping it there.

Objects are placed one after the other; a position is taken when no voxel of the object (grown by a gap) is in use yet.
This random sequential addition is the way of the SHREC and PolNet phantoms; it does not move objects once placed, so
it reaches a crowded but not a dense packing.  Where random positions find no room any more, only those are tried that
are as far from everything as the object is deep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .particles import Particle, random_rotation
from .templates import LABEL_LEVEL, SOLVENT_LEVEL, Template

#: Positions tried at once, and how often, for each orientation of an object.
_CANDIDATES, _ROUNDS, _ORIENTATIONS = 512, 8, 4
#: Voxels of the object looked at before all of them are.
_PROBES = 48
#: Positions tried in the gaps of a crowded field, and by how much its objects may grow in number before the distances
#: from them are computed again.
_GAP_CANDIDATES, _STALE = 4096, 1.15


@dataclass
class Item:
    """Density and footprint of one object in its own box (z, y, x), ready to be stamped.

    ``labelled`` are the voxels that get its label; ``centre`` (z, y, x) its centre of mass in the box; ``rotation``
    and ``extent`` go to the :class:`Particle`.
    """

    density: np.ndarray
    footprint: np.ndarray
    labelled: np.ndarray
    centre: np.ndarray
    rotation: np.ndarray
    extent: np.ndarray


@dataclass(frozen=True)
class Kind:
    """What an object is, for the table of particles; see :class:`Particle`."""

    kind: str
    name: str
    label: int
    kilodalton: float = 0.0


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


class TurnableTemplate:
    """A template prepared for being turned many times."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._coefficients = ndimage.spline_filter(template.density, order=3, output=np.float32)

    def turned(self, rotation: np.ndarray, shift: np.ndarray) -> Item:
        """The template turned by ``rotation`` and shifted by ``shift`` (z, y, x; a fraction of a voxel)."""
        density = turn_template(self._coefficients, rotation, shift)
        centre = (np.array(density.shape) - 1) / 2 + shift
        labelled = density > LABEL_LEVEL * density.max()
        return Item(density, density > SOLVENT_LEVEL, labelled, centre, rotation, np.zeros(3))

    def at(self, position: np.ndarray, rotation: np.ndarray) -> tuple[Item, np.ndarray]:
        """The template with its centre at ``position`` (x, y, z in voxels), and the corner (z, y, x) of its box."""
        whole = np.rint(position[::-1])
        item = self.turned(rotation, position[::-1] - whole)
        corner = whole.astype(int) - np.array(item.density.shape) // 2
        trimmed = trim(item)
        return trimmed, corner + np.rint(item.centre - trimmed.centre).astype(int)

    def in_any_orientation(self, random: np.random.Generator) -> Item:
        """The template in a random orientation, at a random fraction of a voxel."""
        return self.turned(random_rotation(random), random.uniform(-0.5, 0.5, 3))


class Field:
    """The field being filled.

    Parameters
    ----------
    shape
        (z, y, x) voxels.
    voxel_size
        Angstrom.
    gap
        Free space around each object, voxels.
    random
        Source of every random number.

    Attributes
    ----------
    density, labels, instances
        As in :class:`packing.GrandModel`.
    used
        (z, y, x) bool, where nothing more may go.
    compartments
        (z, y, x) int16, the instance of the membrane that encloses a voxel; 0 outside.
    outside
        (z, y, x) bool, the vacuum at which membranes end, or None where all is ice.
    particles
        What was stamped.
    """

    def __init__(self, shape: tuple[int, int, int], voxel_size: float, gap: float, random: np.random.Generator) -> None:
        self.shape, self.voxel_size, self.random = shape, voxel_size, random
        self.density = np.zeros(shape, np.float32)
        self.labels = np.zeros(shape, np.int16)
        self.instances = np.zeros(shape, np.int32)
        self.used = np.zeros(shape, bool)
        self.compartments = np.zeros(shape, np.int16)
        self.outside: np.ndarray | None = None
        self.particles: list[Particle] = []
        self._strides = np.array([shape[1] * shape[2], shape[2], 1])
        self._clearance: np.ndarray | None = None
        self._clearance_of = 0
        reach = int(np.floor(gap))
        axis = np.arange(-reach, reach + 1)
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        self.growth = z * z + y * y + x * x <= gap * gap

    def place(self, make: Callable[[], Item], kind: Kind, chain: int = 0) -> bool:
        """Find room for an object, in one of several orientations, and stamp it."""
        for _ in range(_ORIENTATIONS):
            item = trim(make())
            corner = self.find_room(item.footprint)
            if corner is not None:
                self.stamp(item, corner, kind, chain)
                return True
        return False

    def find_room(self, footprint: np.ndarray) -> np.ndarray | None:
        """Corner (z, y, x) of a free place for a footprint, wholly inside the field, or None."""
        room = np.array(self.shape) - footprint.shape + 1
        if (room <= 0).any():
            return None
        offsets = np.argwhere(footprint) @ self._strides
        probes = self.random.choice(offsets, min(_PROBES, offsets.size), replace=False)
        for _ in range(_ROUNDS):
            corners = self.random.integers(0, room, size=(_CANDIDATES, 3))
            found = self._first_free(corners, probes, offsets)
            if found is not None:
                return found
        return self._first_free(self._gaps_for(footprint, room), probes, offsets)

    def _first_free(self, corners: np.ndarray, probes: np.ndarray, offsets: np.ndarray) -> np.ndarray | None:
        """The first of several corners at which no voxel of an object is in use; a few are looked at before all."""
        used, starts = self.used.ravel(), corners @ self._strides
        for index in np.flatnonzero(~used[starts[:, None] + probes].any(axis=1)):
            if not used[starts[index] + offsets].any():
                return corners[index]
        return None

    def _gaps_for(self, footprint: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Corners (n, 3) that bring the deepest voxel of a footprint to where there is about as much room."""
        if self._clearance is None or len(self.particles) > _STALE * self._clearance_of:
            # Every other voxel will do, and old distances too: they can only have become smaller.
            self._clearance = 2 * ndimage.distance_transform_edt(~self.used[::2, ::2, ::2]).astype(np.float32)
            self._clearance_of = len(self.particles)
        depth = ndimage.distance_transform_edt(np.pad(footprint, 1))
        deepest = np.array(np.unravel_index(depth.argmax(), depth.shape)) - 1
        places = np.flatnonzero(self._clearance.ravel() >= depth.max() - 1)
        if not places.size:
            return np.zeros((0, 3), int)
        chosen = self.random.choice(places, min(_GAP_CANDIDATES, places.size), replace=False)
        centres = 2 * np.stack(np.unravel_index(chosen, self._clearance.shape), axis=1)
        corners = centres + self.random.integers(-1, 2, centres.shape) - deepest
        return corners[((corners >= 0) & (corners < room)).all(axis=1)]

    def holds(self, position: np.ndarray) -> bool:
        """Whether a position (x, y, z in voxels) lies in the field."""
        return bool(((position > -0.5) & (position < np.array(self.shape)[::-1] - 0.5)).all())

    def is_free(self, footprint: np.ndarray, corner: np.ndarray) -> bool:
        """Whether a footprint fits at a corner; what lies beyond the field's borders does not count."""
        region, inside = self.overlap(corner, footprint.shape)
        return not (self.used[region] & footprint[inside]).any()

    def overlap(
        self, corner: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]]:  # fmt: skip
        """The part of a box that lies in the field: its region of the field, and of the box."""
        low, high = np.maximum(corner, 0), np.minimum(np.array(corner) + shape, self.shape)
        region = tuple(slice(int(a), max(int(a), int(b))) for a, b in zip(low, high, strict=True))
        inside = tuple(slice(r.start - int(c), r.stop - int(c)) for r, c in zip(region, corner, strict=True))
        return region, inside

    def stamp(self, item: Item, corner: np.ndarray, kind: Kind, chain: int = 0) -> Particle:
        """Put an object at a corner (z, y, x), which may lie outside; voxels of another keep their label."""
        region, inside = self.overlap(corner, item.density.shape)
        position = (corner + item.centre)[::-1].astype(float)
        nearest = np.clip(np.rint(position[::-1]).astype(int), 0, np.array(self.shape) - 1)
        particle = Particle(
            kind.kind, kind.name, kind.label, position, item.rotation, item.extent, len(self.particles) + 1, chain,
            int(self.compartments[tuple(nearest)]), kind.kilodalton,
        )  # fmt: skip
        self.density[region] += item.density[inside]
        own = item.labelled[inside] & (self.instances[region] == 0)
        self.labels[region][own] = kind.label
        self.instances[region][own] = particle.instance
        self._use(item.footprint, corner)
        self.particles.append(particle)
        return particle

    def _use(self, footprint: np.ndarray, corner: np.ndarray) -> None:
        """Mark a footprint grown by the gap as in use."""
        reach = self.growth.shape[0] // 2
        grown = ndimage.binary_dilation(np.pad(footprint, reach), self.growth) if reach else footprint
        region, inside = self.overlap(corner - reach, grown.shape)
        self.used[region] |= grown[inside]


def trim(item: Item) -> Item:
    """Cut the box to the footprint."""
    box = ndimage.find_objects(item.footprint.astype(np.uint8))[0]
    first = np.array([part.start for part in box])
    kept = item.footprint[box]
    return Item(
        np.where(kept, item.density[box], 0), kept, item.labelled[box], item.centre - first, item.rotation, item.extent
    )
