"""Membranes as implicit surfaces: their distance, their bilayer, what they enclose and what stands in them."""

import numpy as np
import pytest

from cryoden_core.phantom.bilayers import HEAD_DENSITY, Bilayer, place_membrane
from cryoden_core.phantom.placing import Field, Kind, TurnableTemplate
from cryoden_core.phantom.shapes import channel
from cryoden_core.phantom.surfaces import Sheet, Tube, Vesicle, normals, random_surface, sample

SHAPE, VOXEL = (40, 60, 60), 10.0
BOX = np.array(SHAPE)[::-1] * VOXEL


def sphere(centre, radius: float) -> Vesicle:
    return Vesicle(np.array(centre, float), np.eye(3), np.full(3, radius), np.zeros((0, 3)), np.zeros(0))


def grid(sampled) -> np.ndarray:
    """Coordinates (3, z, y, x; order x, y, z) of the sampled voxels, angstrom."""
    places = np.indices(sampled.distance.shape) + sampled.corner[:, None, None, None]
    return places[::-1] * VOXEL


def test_the_distance_from_a_sphere_across_the_border_is_exact():
    ball = sphere([10.0, 300.0, 200.0], 150.0)
    sampled = sample(ball, SHAPE, VOXEL, 30.0)
    radius = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid(sampled), ball.centre, strict=True)))
    near = np.abs(radius - 150) < 40
    np.testing.assert_allclose(sampled.distance[near], (radius - 150)[near], atol=0.5)
    assert sampled.corner[2] == 0 and sampled.distance.shape[2] < 25  # cut at the border, and no larger than needed


def test_the_distance_from_an_ellipsoid_is_right_on_its_axes():
    ellipsoid = Vesicle(
        np.array([300.0, 300, 200]), np.eye(3), np.array([220.0, 160, 120]), np.zeros((0, 3)), np.zeros(0)
    )
    sampled = sample(ellipsoid, SHAPE, VOXEL, 40.0)
    z, y, x = (np.array([200, 300, 300]) / VOXEL).astype(int) - sampled.corner
    np.testing.assert_allclose(sampled.distance[z, y, x + 20 : x + 25], [-20, -10, 0, 10, 20], atol=1.5)
    np.testing.assert_allclose(sampled.distance[z, y + 14 : y + 19, x], [-20, -10, 0, 10, 20], atol=1.5)


def test_a_straight_tube_and_a_flat_sheet_have_the_distance_of_formulas():
    still = np.array([0.0, 1000.0, 0.0])
    centre = np.array([300.0, 300.0, 200.0])
    tube = Tube(centre, np.eye(3), np.array([120.0, 120.0, 0.0]), np.array([still, still]), still)
    sampled = sample(tube, SHAPE, VOXEL, 30.0)
    assert sampled.distance.shape == SHAPE
    x, y, _ = grid(sampled)
    away = np.hypot(x - 300, y - 300)
    np.testing.assert_allclose(sampled.distance[away > 80], (away - 120)[away > 80], atol=0.6)
    sheet = sample(Sheet(centre, np.eye(3), np.zeros(3), np.array([[0.0, 1000.0, 0.0, 0.0]])), SHAPE, VOXEL, 30.0)
    np.testing.assert_allclose(sheet.distance, grid(sheet)[2] - 200, atol=0.01)


def test_bumps_have_the_spread_that_is_drawn():
    random = np.random.default_rng(1)
    directions = random.normal(size=(400, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    spreads = []
    for _ in range(30):
        vesicle = random_surface("vesicle", BOX, (500.0, 500.0), random)
        steps = np.linspace(0.6, 1.5, 181)
        unit = directions * vesicle.extent  # in the vesicle's own axes
        points = vesicle.centre + (unit @ vesicle.rotation.T)[None] * steps[:, None, None]
        level = vesicle.level(points[..., 0], points[..., 1], points[..., 2])
        spreads.append(steps[np.abs(level).argmin(axis=0)].std())
    assert 0.015 < np.mean(spreads) < 0.055 and max(spreads) < 0.12


def test_leaflets_lie_at_their_distance_with_ice_between():
    bilayer = Bilayer(40.0, 7.0, 0.0)
    distance = np.arange(-60, 60.5, 0.5)
    density = bilayer.density(distance, 1.0)
    peaks = distance[1:-1][(density[1:-1] > density[:-2]) & (density[1:-1] > density[2:])]
    np.testing.assert_allclose(peaks, [-20, 20], atol=0.5)
    assert density.max() == pytest.approx(HEAD_DENSITY, rel=0.02) and density[120] < 0.05
    assert Bilayer(40.0, 7.0, -0.1).density(np.zeros(1), 1.0)[0] < 0


def test_a_coarse_grid_keeps_the_mass_of_a_membrane():
    bilayer = Bilayer(38.0, 7.0, 0.0)
    masses = []
    for voxel_size in (1.0, 10.0, 14.0):
        shifts = [bilayer.density(np.arange(-80, 81) * voxel_size + s, voxel_size).sum() * voxel_size
                  for s in np.linspace(0, voxel_size, 7)]  # fmt: skip
        masses.append(np.mean(shifts))
    np.testing.assert_allclose(masses, masses[0], rtol=0.04)


def test_normals_point_outwards():
    ball = sphere([300.0, 300.0, 200.0], 150.0)
    sampled = sample(ball, SHAPE, VOXEL, 30.0)
    places = np.argwhere(np.abs(sampled.distance) < 5)[::17]
    outwards = (places + sampled.corner)[:, ::-1] * VOXEL - ball.centre
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    assert (normals(sampled, places) * outwards).sum(axis=1).min() > 0.99


@pytest.fixture(scope="module")
def with_proteins():
    field = Field(SHAPE, VOXEL, 1.0, np.random.default_rng(4))
    protein = channel(VOXEL)
    kinds = [(TurnableTemplate(protein), Kind("membrane protein", protein.name, 2, protein.kilodalton))]
    membrane = place_membrane(field, Kind("vesicle", "membrane", 1), (180.0, 180.0), kinds, 12)
    return field, membrane


def test_a_vesicle_encloses_its_inside_and_nothing_else(with_proteins):
    field, membrane = with_proteins
    inside = field.compartments == membrane.instance
    z, y, x = np.indices(SHAPE) * VOXEL
    away = np.sqrt(sum((axis - c * VOXEL) ** 2 for axis, c in zip((x, y, z), membrane.position, strict=True)))
    assert inside.any() and away[inside].max() < 180 * 1.35
    shrunk = away < 0.8 * membrane.extent.min() - 60
    assert not shrunk.any() or inside[shrunk].all()
    assert not inside[field.labels == membrane.label].any()


def test_membrane_proteins_stand_upright_in_the_middle_of_the_bilayer(with_proteins):
    field, membrane = with_proteins
    proteins = [item for item in field.particles if item.kind == "membrane protein"]
    assert len(proteins) >= 3
    for item in proteins:
        outwards = item.position * VOXEL - membrane.position * VOXEL
        away = np.linalg.norm(outwards)
        assert 0.6 * 180 < away < 1.25 * 180
        assert item.rotation[:, 2] @ outwards / away > 0.8  # an ellipsoid's normal leans from the radius
        assert (field.instances == item.instance).sum() > 50


def test_membranes_may_cross_the_border():
    touching = 0
    for seed in range(6):
        field = Field(SHAPE, VOXEL, 1.0, np.random.default_rng(seed))
        assert place_membrane(field, Kind("vesicle", "membrane", 1), (150.0, 150.0)) is not None
        faces = [np.moveaxis(field.labels, axis, 0)[[0, -1]] for axis in range(3)]
        touching += any(face.any() for face in faces)
    assert touching >= 3
