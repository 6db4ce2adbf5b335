"""Vesicles with two leaflets and gold beads, sampled from formulas.

A lipid bilayer shows in cryo-electron microscopy as two dark lines, the phosphate groups, about 40 angstrom apart,
with tails of nearly the density of water between them; each leaflet is a Gaussian here.  The distance to an
ellipsoid is the first-order one, exact for spheres and good to a few percent of the thickness for mild ellipsoids.
Membranes hold no proteins.
"""

from __future__ import annotations

import numpy as np

#: Distance of the head groups from the middle of the bilayer, and the width of their Gaussian, angstrom.
LEAFLET_DISTANCE, LEAFLET_WIDTH = 20.0, 7.0
#: Density of the head groups where protein has 1.
LEAFLET_DENSITY = 0.9
#: Half the thickness of the whole membrane, angstrom.
MEMBRANE_HALF_THICKNESS = LEAFLET_DISTANCE + 2.5 * LEAFLET_WIDTH
#: Contrast of gold against ice where protein has 1 (mean inner potentials of about 30, 5 and 7 volt).
GOLD_DENSITY = 12.0


def vesicle(semi_axes: np.ndarray, rotation: np.ndarray, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample one vesicle in a cube of odd edge around its centre.

    Parameters
    ----------
    semi_axes
        (3,) to the middle of the bilayer, angstrom.
    rotation
        (3, 3), from the vesicle's axes to x, y, z.
    voxel_size
        Angstrom.

    Returns
    -------
    density, membrane
        (n, n, n) float32, and a mask of the membrane's voxels.
    """
    half = int(np.ceil((np.max(semi_axes) + MEMBRANE_HALF_THICKNESS) / voxel_size)) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32) * np.float32(voxel_size)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    own = [rotation[0, i] * x + rotation[1, i] * y + rotation[2, i] * z for i in range(3)]
    scaled = np.sqrt(sum((own[i] / semi_axes[i]) ** 2 for i in range(3)))
    gradient = np.sqrt(sum((own[i] / semi_axes[i] ** 2) ** 2 for i in range(3)))
    distance = (scaled - 1) * scaled / np.maximum(gradient, 1e-6)
    # The first-order distance vanishes at the centre, where it would pass for membrane.
    distance[scaled < 0.3] = -np.min(semi_axes)
    leaflets = sum(np.exp(-0.5 * ((distance - side * LEAFLET_DISTANCE) / LEAFLET_WIDTH) ** 2) for side in (-1.0, 1.0))
    membrane = np.abs(distance) <= MEMBRANE_HALF_THICKNESS
    return np.where(membrane, LEAFLET_DENSITY * leaflets, 0).astype(np.float32), membrane


def bead(radius: float, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample one gold bead.

    Parameters
    ----------
    radius, voxel_size
        Angstrom.

    Returns
    -------
    density, mask
        (n, n, n) float32 with an edge one voxel wide, and the voxels it fills.
    """
    half = int(np.ceil(radius / voxel_size)) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    coverage = np.clip(radius / voxel_size + 0.5 - np.sqrt(x * x + y * y + z * z), 0, 1)
    return (GOLD_DENSITY * coverage).astype(np.float32), coverage > 0
