"""Membranes of many shapes, sampled where they lie: bumpy vesicles, undulating tubes and curved sheets.

Each shape is an implicit surface, a smooth function that is negative inside and zero in the middle of the bilayer.
Divided by its gradient it is the distance from the membrane to first order, which is good to a few percent of the
thickness while the radius of curvature is several times the thickness.  Surfaces are sampled on the part of the field
that they reach, so they may cross its borders.  Shapes do not minimise any bending energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .particles import random_rotation

#: Share of the radius by which a vesicle's surface is bumped (standard deviation), and the bumps' numbers.
BUMPS, BUMP_DEGREES = (0.02, 0.05), (2, 3, 4)
#: Wave lengths of tubes and sheets, angstrom, and the largest slope of their waves.
WAVE_LENGTHS, LARGEST_SLOPE = (1500.0, 6000.0), 0.3
#: Sections sampled at once.
_SECTIONS = 16


@dataclass(frozen=True, eq=False)
class Surface:
    """A membrane's shape.

    Attributes
    ----------
    centre
        (3,) x, y, z in angstrom, the first voxel at 0.
    rotation
        (3, 3) from the surface's own axes to x, y, z.
    extent
        (3,) semi-axes or radii, angstrom; zeros where they mean nothing.
    """

    kind: ClassVar[str]

    centre: np.ndarray
    rotation: np.ndarray
    extent: np.ndarray

    @property
    def reach(self) -> float:
        """Radius about the centre beyond which there is nothing, angstrom; infinite for tubes and sheets."""
        return np.inf

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Negative inside, 0 on the surface, about the distance elsewhere (angstrom)."""
        raise NotImplementedError

    def own_axes(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
        """Coordinates along the surface's own axes, from its centre."""
        x, y, z = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        return [self.rotation[0, i] * x + self.rotation[1, i] * y + self.rotation[2, i] * z for i in range(3)]


@dataclass(frozen=True, eq=False)
class Vesicle(Surface):
    """An ellipsoid (semi-axes ``extent``, angstrom) with bumps along ``directions`` (k, 3) of its own axes.

    A bump is a Legendre polynomial of the angle to its direction: a spherical harmonic about that axis.
    """

    kind: ClassVar[str] = "vesicle"

    directions: np.ndarray
    amplitudes: np.ndarray

    @property
    def reach(self) -> float:
        return float(self.extent.max() * (1 + np.abs(self.amplitudes).sum()))

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        a, b, c = (own / axis for own, axis in zip(self.own_axes(x, y, z), self.extent, strict=True))
        radius = np.sqrt(a * a + b * b + c * c)
        inverse = 1 / np.maximum(radius, 1e-3)
        bumps = np.zeros_like(radius)
        for index, (direction, amplitude) in enumerate(zip(self.directions, self.amplitudes, strict=True)):
            cosine = (direction[0] * a + direction[1] * b + direction[2] * c) * inverse
            bumps += amplitude * _legendre(BUMP_DEGREES[index % len(BUMP_DEGREES)], cosine)
        return (radius - 1 - bumps) * self.extent.min()


def _legendre(degree: int, cosine: np.ndarray) -> np.ndarray:
    square = cosine * cosine
    if degree == 2:
        return 1.5 * square - 0.5
    if degree == 3:
        return (2.5 * square - 1.5) * cosine
    return (4.375 * square - 3.75) * square + 0.375


@dataclass(frozen=True, eq=False)
class Tube(Surface):
    """A tube of radius ``extent[0]`` along the third axis of ``rotation``, whose axis and radius undulate.

    ``bends`` (2, 3) hold amplitude, wave length (angstrom) and phase of the axis along the other two; ``waist`` the
    same of the radius.
    """

    kind: ClassVar[str] = "tube"

    bends: np.ndarray
    waist: np.ndarray

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        across, beside, along = self.own_axes(x, y, z)
        across = across - _wave(self.bends[0], along)
        beside = beside - _wave(self.bends[1], along)
        return np.sqrt(across * across + beside * beside) - self.extent[0] - _wave(self.waist, along)


@dataclass(frozen=True, eq=False)
class Sheet(Surface):
    """A sheet across the third axis of ``rotation``, curved by ``waves`` (k, 4).

    A wave has an amplitude and wave length (angstrom), a phase, and the angle of its direction within the sheet.
    """

    kind: ClassVar[str] = "sheet"

    waves: np.ndarray

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        across, beside, height = self.own_axes(x, y, z)
        for amplitude, length, phase, angle in self.waves:
            height = height - _wave((amplitude, length, phase), np.cos(angle) * across + np.sin(angle) * beside)
        return height


def _wave(wave: np.ndarray | tuple[float, float, float], along: np.ndarray) -> np.ndarray:
    amplitude, length, phase = wave
    return amplitude * np.sin(2 * np.pi / length * along + phase)


@dataclass(frozen=True, eq=False)
class SampledSurface:
    """A surface on the part of the field that it reaches.

    Attributes
    ----------
    corner
        (3,) z, y, x of the part's first voxel.
    distance
        (z, y, x) float32, angstrom from the middle of the bilayer, negative inside.
    """

    corner: np.ndarray
    distance: np.ndarray


def sample(surface: Surface, shape: tuple[int, int, int], voxel_size: float, margin: float) -> SampledSurface | None:
    """Distance from a surface on the part of a field (z, y, x) that it reaches, or None when that is empty.

    ``margin`` (angstrom) is how far beyond the surface the part must extend.
    """
    centre = surface.centre[::-1] / voxel_size
    reach = min((surface.reach + margin) / voxel_size, 1e6)
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, shape).astype(int)
    if (high - low < 2).any():
        return None
    axes = [(np.arange(a - 1, b + 1) * voxel_size).astype(np.float32) for a, b in zip(low, high, strict=True)]
    distance = np.empty(tuple(high - low), np.float32)
    y, x = axes[1][None, :, None], axes[2][None, None, :]
    for first in range(0, distance.shape[0], _SECTIONS):
        z = axes[0][first : first + _SECTIONS + 2, None, None]
        distance[first : first + z.shape[0] - 2] = _to_distance(surface.level(x, y, z).astype(np.float32), voxel_size)
    return SampledSurface(low, distance)


def _to_distance(level: np.ndarray, voxel_size: float) -> np.ndarray:
    """Distance to first order, without the outermost voxels that the gradient needs."""
    core = (slice(1, -1),) * 3
    squared = np.zeros(tuple(size - 2 for size in level.shape), np.float32)
    for axis in range(3):
        ahead = tuple(slice(2, None) if a == axis else slice(1, -1) for a in range(3))
        behind = tuple(slice(None, -2) if a == axis else slice(1, -1) for a in range(3))
        squared += np.square((level[ahead] - level[behind]) / np.float32(2 * voxel_size))
    return level[core] / np.sqrt(np.maximum(squared, 1e-4))


def normals(sampled: SampledSurface, places: np.ndarray) -> np.ndarray:
    """Outward unit normals (n, 3; x, y, z) at voxels (n, 3; z, y, x) of the sampled part."""
    steps = []
    for axis in range(3):
        ahead, behind = places.copy(), places.copy()
        ahead[:, axis] = np.minimum(places[:, axis] + 1, sampled.distance.shape[axis] - 1)
        behind[:, axis] = np.maximum(places[:, axis] - 1, 0)
        span = ahead[:, axis] - behind[:, axis]
        steps.append((sampled.distance[tuple(ahead.T)] - sampled.distance[tuple(behind.T)]) / span)
    vectors = np.stack(steps[::-1], axis=1).astype(float)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def random_surface(
    kind: str, box: np.ndarray, radii: tuple[float, float], random: np.random.Generator
) -> Surface:  # fmt: skip
    """Draw a membrane.

    Parameters
    ----------
    kind
        ``vesicle``, ``tube`` or ``sheet``.
    box
        (3,) edges x, y, z of the field, angstrom; the centre lies in it.
    radii
        Smallest and largest radius of vesicles, angstrom; tubes have a third of it, 100 angstrom at least.
    """
    centre, rotation = random.uniform(0, box), random_rotation(random)
    if kind == "vesicle":
        # Small ones are the more frequent, as the logarithm is uniform.
        radius = np.exp(random.uniform(*np.log(radii)))
        extent = radius * random.uniform(0.8, 1.0, 3)
        directions = random.normal(size=(6, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        # A zonal harmonic of degree l has the mean square 1 / (2 l + 1) over the sphere.
        scale = np.sqrt(2 * np.array([BUMP_DEGREES[i % len(BUMP_DEGREES)] for i in range(6)]) + 1)
        amplitudes = random.uniform(*BUMPS) * scale * random.normal(size=6) / np.sqrt(6)
        return Vesicle(centre, rotation, extent, directions, np.clip(amplitudes, -0.12, 0.12))
    if kind == "tube":
        radius = max(100.0, random.uniform(radii[0], radii[1]) / 3)
        bends = np.array([_random_wave(random, LARGEST_SLOPE) for _ in range(2)])
        waist = _random_wave(random, 0.1)
        waist[0] = min(waist[0], 0.15 * radius)
        return Tube(centre, rotation, np.array([radius, radius, 0.0]), bends, waist)
    waves = np.array([[*_random_wave(random, LARGEST_SLOPE / 2), random.uniform(0, np.pi)] for _ in range(3)])
    return Sheet(centre, rotation, np.zeros(3), waves)


def _random_wave(random: np.random.Generator, slope: float) -> np.ndarray:
    """Amplitude, wave length and phase of a wave whose steepest slope is at most ``slope``."""
    length = random.uniform(*WAVE_LENGTHS)
    return np.array([random.uniform(0, slope) * length / (2 * np.pi), length, random.uniform(0, 2 * np.pi)])
