"""Ten protein-like shapes described by formulas, for phantoms without any density map at hand.

Each is a union of solids (balls, rods, tubes) given by their signed distance in angstrom, in the manner of
constructive solid geometry; the density falls from 1 to 0 over a soft edge.  Sizes and outlines are those of common
complexes (a barrel like a proteasome, a ring like an AAA ATPase, a cage like ferritin); they have no inner detail.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from .templates import Template, make_template

Point = tuple[float, float, float]
#: Signed distance in angstrom at points (..., 3) as x, y, z; negative inside.
Solid = Callable[[np.ndarray], np.ndarray]

#: Width of the soft edge in angstrom, about that of a map at 20 angstrom resolution.
EDGE_ANGSTROM = 6.0


def ball(centre: Point, radius: float) -> Solid:
    """A solid sphere."""
    return lambda points: np.linalg.norm(points - np.array(centre), axis=-1) - radius


def rod(start: Point, end: Point, radius: float) -> Solid:
    """A rod with round ends."""
    first, along = np.array(start), np.array(end) - np.array(start)

    def distance(points: np.ndarray) -> np.ndarray:
        share = np.clip((points - first) @ along / (along @ along), 0, 1)
        return np.linalg.norm(points - first - share[..., None] * along, axis=-1) - radius

    return distance


def tube(height: float, radius: float, wall: float, centre_z: float = 0.0) -> Solid:
    """A tube along z; ``radius`` is that of the middle of its wall."""

    def distance(points: np.ndarray) -> np.ndarray:
        across = np.abs(np.hypot(points[..., 0], points[..., 1]) - radius) - wall / 2
        along = np.abs(points[..., 2] - centre_z) - height / 2
        return np.maximum(across, along)

    return distance


def cage(radius: float, wall: float) -> Solid:
    """A spherical shell; ``radius`` is that of the middle of its wall."""
    return lambda points: np.abs(np.linalg.norm(points, axis=-1) - radius) - wall / 2


def ring_of_balls(count: int, ring_radius: float, radius: float, z: float = 0.0) -> list[Solid]:
    """Balls at equal angles about the z axis."""
    angles = 2 * np.pi * np.arange(count) / count
    return [ball((ring_radius * np.cos(a), ring_radius * np.sin(a), z), radius) for a in angles]


def _solids() -> dict[str, list[Solid]]:
    arms = [rod((0, 0, 0), end, 19) for end in ((0, 0, -75), (62, 0, 48), (-62, 0, 48))]
    return {
        "barrel": [tube(150, 38, 36), *ring_of_balls(7, 34, 16, 82), *ring_of_balls(7, 34, 16, -82)],
        "cage": [cage(52, 22)],
        "double_ring": [*ring_of_balls(8, 52, 27, 34), *ring_of_balls(8, 52, 27, -34)],
        "forked": [*arms, ball((62, 0, 48), 26), ball((-62, 0, 48), 26)],
        "globule": [ball((0, 0, 0), 30), ball((20, 8, 14), 20)],
        "hexamer": [*ring_of_balls(6, 46, 27), *ring_of_balls(6, 58, 16, 30)],
        "horseshoe": [rod((-40, 0, -45), (-40, 0, 30), 20), rod((40, 0, -45), (40, 0, 30), 20),
                      rod((-40, 0, 30), (0, 0, 62), 22), rod((40, 0, 30), (0, 0, 62), 22)],
        "ribosome_like": [ball((0, 0, 30), 82), ball((22, 0, -62), 56), ball((-45, 30, -58), 40),
                          rod((55, 10, 50), (112, 20, 72), 17), rod((-50, -20, 70), (-96, -44, 92), 15)],
        "rod": [rod((0, 0, -85), (0, 0, 85), 22), ball((18, 0, 60), 26)],
        "tetramer": [ball(p, 32) for p in ((30, 30, 30), (-30, -30, 30), (-30, 30, -30), (30, -30, -30))],
    }  # fmt: skip


def builtin_templates(voxel_size: float) -> list[Template]:
    """The built-in shapes as templates, in the order of their names.

    Parameters
    ----------
    voxel_size
        Angstrom.  Shapes are sampled at half of it (10 angstrom at most) and resampled as any other map.

    Raises
    ------
    JobError
        When a shape vanishes at this voxel size.
    """
    return [template_of_solids(name, solids, voxel_size) for name, solids in sorted(_solids().items())]


def template_of_solids(name: str, solids: list[Solid], voxel_size: float) -> Template:
    """A union of solids as a template, sampled finely and resampled as any other map."""
    fine = min(voxel_size / 2, 10.0) if voxel_size > 6 else voxel_size
    return make_template(name, _sample(solids, fine), fine, voxel_size)


def channel(voxel_size: float) -> Template:
    """A membrane protein: a pore through the bilayer at z = 0 with a wider head outside (z > 0) than inside."""
    pore = [rod((14 * np.cos(a), 14 * np.sin(a), -30), (14 * np.cos(a), 14 * np.sin(a), 30), 11)
            for a in 2 * np.pi * np.arange(5) / 5]  # fmt: skip
    return template_of_solids("channel", [*pore, *ring_of_balls(5, 24, 16, 52), ball((0, 0, -52), 27)], voxel_size)


def _sample(solids: list[Solid], voxel_size: float) -> np.ndarray:
    """Density of a union of solids in a cube that holds all built-in shapes (radius 145 angstrom)."""
    half = int(np.ceil(145 / voxel_size))
    axis = np.arange(-half, half + 1) * voxel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    distance = np.min([solid(points) for solid in solids], axis=0)
    return (0.5 - 0.5 * erf(distance / EDGE_ANGSTROM)).astype(np.float32)
