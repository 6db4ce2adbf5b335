"""Lipid bilayers along surfaces, with the proteins that sit in them, stamped into a field.

Across a membrane the density is two Gaussians, the head groups, with the tails between them at about the density of
ice; thickness, width and tail density are drawn for each membrane.  A protein displaces the lipids where it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .particles import Particle
from .placing import Field, Item, Kind, TurnableTemplate
from .surfaces import SampledSurface, Surface, normals, random_surface, sample

#: Ranges that are drawn from: distance of the leaflets and the width of each (angstrom), density of the tails.
LEAFLET_DISTANCES, LEAFLET_WIDTHS, TAIL_DENSITIES = (32.0, 44.0), (6.0, 10.0), (-0.1, 0.2)
#: Density of the head groups where protein has 1.
HEAD_DENSITY = 1.2
#: Membranes drawn before one is given up, and places tried for each membrane protein.
_DRAWS, _PLACES = 20, 30
#: A membrane of which less than this is inside the field is drawn again, voxels.
_FEWEST_VOXELS = 200


@dataclass(frozen=True)
class Bilayer:
    """Density across a membrane; lengths in angstrom."""

    leaflet_distance: float
    leaflet_width: float
    tail_density: float

    @property
    def half_thickness(self) -> float:
        """Beyond this distance from the middle there is nothing."""
        return self.leaflet_distance / 2 + 2.5 * self.leaflet_width

    def density(self, distance: np.ndarray, voxel_size: float) -> np.ndarray:
        """Density at a distance (angstrom) from the middle, averaged over a voxel's width."""
        # Averaging over a voxel widens a Gaussian by the variance of the voxel and keeps its integral.
        width = np.sqrt(self.leaflet_width**2 + voxel_size**2 / 12)
        side = self.leaflet_distance / 2
        heads = _gaussian(distance - side, width) + _gaussian(distance + side, width)
        tail_width = np.sqrt((self.leaflet_distance / 5) ** 2 + voxel_size**2 / 12)
        tails = self.tail_density * self.leaflet_distance / 5 / tail_width * _gaussian(distance, tail_width)
        found = HEAD_DENSITY * self.leaflet_width / width * heads + tails
        return np.where(np.abs(distance) <= self.half_thickness, found, 0).astype(np.float32)


def _gaussian(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-0.5 * (distance / width) ** 2)


def random_bilayer(random: np.random.Generator) -> Bilayer:
    """Draw the thickness and the density of a membrane."""
    return Bilayer(random.uniform(*LEAFLET_DISTANCES), random.uniform(*LEAFLET_WIDTHS), random.uniform(*TAIL_DENSITIES))


def place_membrane(
    field: Field,
    kind: Kind,
    radii: tuple[float, float],
    proteins: Sequence[tuple[TurnableTemplate, Kind]] = (),
    protein_count: int = 0,
) -> Particle | None:
    """Place one membrane, which may cross the borders of the field and of its ice, and proteins in it.

    Parameters
    ----------
    field
        Where; membranes must be placed before what they enclose, and the larger before the smaller.
    kind
        Of the membrane; its ``kind`` names the surface.
    radii
        Smallest and largest, angstrom.
    proteins, protein_count
        Templates whose z axis points outwards and whose centre of mass lies in the middle of the bilayer, and how
        many to try to place.

    Returns
    -------
    Particle or None
        None when no membrane found room.
    """
    box = np.array(field.shape)[::-1] * field.voxel_size
    for _ in range(_DRAWS):
        surface, bilayer = random_surface(kind.kind, box, radii, field.random), random_bilayer(field.random)
        sampled = sample(surface, field.shape, field.voxel_size, bilayer.half_thickness)
        if sampled is None:
            continue
        region, _ = field.overlap(sampled.corner, sampled.distance.shape)
        membrane = np.abs(sampled.distance) <= bilayer.half_thickness
        if field.outside is not None:
            membrane &= ~field.outside[region]
        if membrane.sum() < _FEWEST_VOXELS or not field.is_free(membrane, sampled.corner):
            continue
        enclosed = sampled.distance < 0
        number = len(field.particles) + 1
        lipids = _stamp_bilayer(field, surface, bilayer, sampled, membrane, kind)
        field.compartments[region][enclosed & ~membrane] = number
        if proteins and protein_count:
            _place_proteins(field, sampled, number, proteins, protein_count)
        return lipids
    return None


def _stamp_bilayer(
    field: Field, surface: Surface, bilayer: Bilayer, sampled: SampledSurface, membrane: np.ndarray, kind: Kind
) -> Particle:
    density = np.where(membrane, bilayer.density(sampled.distance, field.voxel_size), 0)
    labelled = membrane & (np.abs(sampled.distance) <= bilayer.leaflet_distance / 2 + bilayer.leaflet_width)
    centre = surface.centre[::-1] / field.voxel_size - sampled.corner
    item = Item(density, membrane, labelled, centre, surface.rotation, surface.extent)
    return field.stamp(item, sampled.corner, kind)


def _place_proteins(
    field: Field, sampled: SampledSurface, membrane: int,
    proteins: Sequence[tuple[TurnableTemplate, Kind]], count: int,
) -> None:  # fmt: skip
    """Put proteins at random places of a membrane, upright in it; places without room are passed over."""
    middle = np.argwhere(np.abs(sampled.distance) < 0.5 * field.voxel_size)
    if not len(middle):
        return
    placed = 0
    for place in middle[field.random.integers(0, len(middle), count * _PLACES)]:
        if placed == count:
            return
        turnable, kind = proteins[field.random.integers(len(proteins))]
        normal = normals(sampled, place[None])[0]
        position = (place + sampled.corner)[::-1] - normal * sampled.distance[tuple(place)] / field.voxel_size
        item, corner = turnable.at(position, _upright(normal, field.random))
        placed += _displace_lipids(field, item, corner, kind, membrane)


def _upright(normal: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A rotation (3, 3) that brings z to the normal, with a random spin about it."""
    across = np.cross(normal, random.normal(size=3))
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(normal, across), normal], axis=1)


def _displace_lipids(field: Field, item: Item, corner: np.ndarray, kind: Kind, membrane: int) -> bool:
    """Stamp a protein where only the lipids of its membrane stand in the way, and take those away."""
    region, inside = field.overlap(corner, item.footprint.shape)
    footprint = item.footprint[inside]
    if not footprint.any():
        return False
    if field.outside is not None and field.outside[region][footprint].any():
        return False
    owners = field.instances[region][footprint]
    if not ((owners == 0) | (owners == membrane)).all():
        return False
    protein = np.clip(item.density[inside], 0, 1)
    lipids = field.instances[region] == membrane
    field.density[region] *= np.where(footprint, 1 - protein, 1).astype(np.float32)
    replaced = lipids & item.labelled[inside]
    field.labels[region][replaced] = 0
    field.instances[region][replaced] = 0
    field.stamp(item, corner, kind)
    return True
