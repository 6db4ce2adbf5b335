"""Hollow spheres: the phantom whose projections are known exactly.

The line integral through a ball is a chord, ``2 sqrt(R^2 - r^2)``, and a hollow sphere is a ball less a smaller one;
under parallel projection a sphere stays a disc at any tilt.  Projections are therefore formulas, evaluated at several
points of each pixel and averaged, as the density is in each voxel.  Phantoms of spheres have long served to test
reconstruction; they have no texture and no preferred direction.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..jobs import JobError

#: Points along each edge of a pixel or a voxel over which projections and densities are averaged.
SAMPLES_PER_EDGE = 4


@dataclass(frozen=True, eq=False)
class HollowSpheres:
    """Hollow spheres in a volume.

    Attributes
    ----------
    shape
        (z, y, x) voxels.
    centres
        (n, 3) x, y, z in voxels, 0-based.
    outer_radii, inner_radii
        (n,) voxels; an inner radius of 0 is a solid ball.
    densities
        (n,) of the shells.
    """

    shape: tuple[int, int, int]
    centres: np.ndarray
    outer_radii: np.ndarray
    inner_radii: np.ndarray
    densities: np.ndarray

    def volume(self) -> np.ndarray:
        """Sample the density, (z, y, x) float32; a voxel on a surface holds its share of the shell."""
        result = np.zeros(self.shape, np.float32)
        for index in range(len(self.centres)):
            box, inside = self._coverage(index)
            result[box] += np.float32(self.densities[index]) * inside
        return result

    def labels(self) -> np.ndarray:
        """Number of the sphere (from 1) in voxels at least half of which are shell, (z, y, x) int32."""
        result = np.zeros(self.shape, np.int32)
        for index in range(len(self.centres)):
            box, inside = self._coverage(index)
            result[box][inside >= 0.5] = index + 1
        return result

    def _coverage(self, index: int) -> tuple[tuple[slice, slice, slice], np.ndarray]:
        """The box of one sphere and the share of each of its voxels that lies in the shell."""
        centre, reach = self.centres[index][::-1], self.outer_radii[index] + 1
        low = np.maximum(np.floor(centre - reach), 0).astype(int)
        high = np.minimum(np.ceil(centre + reach) + 1, self.shape).astype(int)
        high = np.maximum(high, low)
        axes = [np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True)]
        fine = (np.arange(SAMPLES_PER_EDGE) + 0.5) / SAMPLES_PER_EDGE - 0.5
        inside = np.zeros(high - low, np.float32)
        for offset in itertools.product(fine, repeat=3):
            z, y, x = np.meshgrid(*(axis + o for axis, o in zip(axes, offset, strict=True)), indexing="ij", sparse=True)
            squared = z * z + y * y + x * x
            inside += (squared < self.outer_radii[index] ** 2) & (squared >= self.inner_radii[index] ** 2)
        inside /= SAMPLES_PER_EDGE**3
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), inside  # type: ignore

    def project(
        self, tilt_angles_degrees: np.ndarray, detector_width: int = 0, samples_per_edge: int = SAMPLES_PER_EDGE
    ) -> np.ndarray:
        """Exact line integrals, averaged over pixels.

        Parameters
        ----------
        tilt_angles_degrees
            (views,); ``u = x cos(theta) + z sin(theta)`` about the centres ``(n - 1) / 2``.
        detector_width
            Pixels along u; 0 takes the volume's width.
        samples_per_edge
            1 gives the integrals through the centres of the pixels.

        Returns
        -------
        numpy.ndarray
            (views, y, u) float32, density times voxels.  Spheres that reach out of the volume are projected whole.
        """
        depth, height, width = self.shape
        detector_width = detector_width or width
        fine = (np.arange(samples_per_edge) + 0.5) / samples_per_edge - 0.5
        rows = (np.arange(height)[:, None] + fine).ravel()
        columns = (np.arange(detector_width)[:, None] + fine).ravel()
        centred = self.centres - (np.array([width, height, depth]) - 1) / 2
        views = np.zeros((len(tilt_angles_degrees), height, detector_width), np.float32)
        for view, angle in zip(views, np.radians(tilt_angles_degrees), strict=True):
            positions = centred[:, 0] * np.cos(angle) + centred[:, 2] * np.sin(angle) + (detector_width - 1) / 2
            for index, u in enumerate(positions):
                self._add_chords(view, index, float(u), rows, columns, samples_per_edge)
        return views

    def _add_chords(
        self, view: np.ndarray, index: int, u: float, rows: np.ndarray, columns: np.ndarray, samples: int
    ) -> None:
        """Add the chords of one sphere, centred at column ``u``, to the pixels near it."""
        v, reach = self.centres[index, 1], self.outer_radii[index] + 1
        top, bottom = max(0, int(v - reach)), min(view.shape[0], int(v + reach) + 2)
        left, right = max(0, int(u - reach)), min(view.shape[1], int(u + reach) + 2)
        if top >= bottom or left >= right:
            return
        fine_rows, fine_columns = rows[top * samples : bottom * samples], columns[left * samples : right * samples]
        squared = (fine_rows[:, None] - v) ** 2 + (fine_columns[None] - u) ** 2
        chords = np.sqrt(np.maximum(self.outer_radii[index] ** 2 - squared, 0))
        chords -= np.sqrt(np.maximum(self.inner_radii[index] ** 2 - squared, 0))
        pixels = chords.reshape(bottom - top, samples, right - left, samples).mean(axis=(1, 3))
        view[top:bottom, left:right] += (2 * self.densities[index] * pixels).astype(np.float32)


def random_spheres(
    shape: tuple[int, int, int],
    count: int = 40,
    seed: int = 1,
    radius: tuple[float, float] | None = None,
    wall: tuple[float, float] = (0.2, 0.5),
    gap: float = 1.0,
    attempts: int = 2000,
) -> HollowSpheres:
    """Place hollow spheres of random size inside a volume without overlap, the largest first.

    Parameters
    ----------
    shape
        (z, y, x) voxels.
    count
        Wanted; fewer are placed when there is no room.
    seed
        Of the random numbers.
    radius
        Smallest and largest outer radius, voxels; by default 1/20 and 1/6 of the shortest edge, 2 voxels at least.
    wall
        Smallest and largest thickness of the wall as a share of the outer radius.
    gap
        Free space between surfaces and to the volume's faces, voxels.
    attempts
        Positions tried for each sphere.

    Raises
    ------
    JobError
        When no sphere fits.
    """
    random = np.random.default_rng(seed)
    smallest, largest = radius or (max(2.0, min(shape) / 20), max(3.0, min(shape) / 6))
    edges = np.array(shape[::-1], float)
    centres, radii = np.zeros((0, 3)), np.zeros(0)
    for size in np.sort(random.uniform(smallest, largest, count))[::-1]:
        low, high = size + gap - 0.5, edges - 0.5 - size - gap
        if (high < low).any():
            continue
        for candidate in random.uniform(low, high, (attempts, 3)):
            if (np.linalg.norm(centres - candidate, axis=1) >= radii + size + gap).all():
                centres, radii = np.vstack([centres, candidate]), np.append(radii, size)
                break
    if not radii.size:
        raise JobError(f"no sphere of {smallest:g} to {largest:g} voxels fits into {shape}; choose smaller ones.")
    walls = radii * random.uniform(*wall, radii.size)
    densities = random.uniform(0.7, 1.3, radii.size)
    return HollowSpheres((shape[0], shape[1], shape[2]), centres, radii, radii - walls, densities)
