"""Filaments: spacing, twist, stiffness, and what ends them."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryoden_core.phantom.filaments import FILAMENTS, builtin_filament, next_frame, place_filament, random_frame
from cryoden_core.phantom.placing import Field, Kind, TurnableTemplate

SHAPE, VOXEL = (48, 96, 96), 10.0


@pytest.fixture(scope="module")
def kinds():
    return {name: builtin_filament(name, VOXEL) for name in FILAMENTS}


def placed(kinds, name: str, seed: int = 0, **changes):
    filament = dataclasses.replace(kinds[name], **changes)
    field = Field(SHAPE, VOXEL, 1.0, np.random.default_rng(seed))
    count = place_filament(field, filament, TurnableTemplate(filament.unit), Kind("filament", name, 1), 7)
    assert count == len(field.particles) > 0
    return field, filament


def test_rings_of_a_microtubule_are_one_monomer_apart(kinds):
    field, _ = placed(kinds, "microtubule")
    steps = np.diff([item.position for item in field.particles], axis=0) * VOXEL
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 40.6, rtol=1e-3)
    along = [item.rotation[:, 2] for item in field.particles[1:]]
    assert (steps * along).sum(axis=1).min() > 0.99 * 40.6


def test_subunits_of_actin_follow_its_helix(kinds):
    field, filament = placed(kinds, "actin", persistence_length=1e12)
    first = field.particles[0].rotation
    for index, item in enumerate(field.particles):
        turn = Rotation.from_matrix(item.rotation @ first.T).as_rotvec(degrees=True)
        expected = index * filament.twist
        assert (turn @ first[:, 2] - expected + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
        axis = item.position * VOXEL - item.rotation[:, 0] * filament.radius
        start = field.particles[0].position * VOXEL - first[:, 0] * filament.radius
        np.testing.assert_allclose(axis - start, index * filament.rise * first[:, 2], atol=0.1)


def test_units_of_one_filament_share_its_number_and_each_has_voxels(kinds):
    field, _ = placed(kinds, "actin", seed=2)
    assert {item.chain for item in field.particles} == {7}
    for item in field.particles:
        assert (field.instances == item.instance).sum() > 5


def test_the_path_bends_as_its_persistence_length_says(kinds):
    filament = dataclasses.replace(kinds["actin"], persistence_length=2000.0)
    random, steps = np.random.default_rng(5), 36  # about half a persistence length
    cosines = []
    for _ in range(400):
        first = frame = random_frame(random, SHAPE)
        for _ in range(steps):
            frame = next_frame(frame, filament, random)
        cosines.append(first[:, 2] @ frame[:, 2])
    assert np.mean(cosines) == pytest.approx(np.exp(-steps * filament.rise / 2000.0), abs=0.04)
    np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-9)


def test_a_filament_goes_on_to_the_border_and_beyond_nothing_that_is_in_use(kinds):
    field, filament = placed(kinds, "microtubule", seed=3, persistence_length=1e12)
    for end, sense in ((field.particles[0], -1), (field.particles[-1], 1)):
        beyond = end.position + sense * end.rotation[:, 2] * filament.rise / VOXEL
        assert field.holds(end.position) and not field.holds(beyond)
    wall = Field(SHAPE, VOXEL, 1.0, np.random.default_rng(3))
    wall.used[:, :, 40:44] = True
    place_filament(wall, filament, TurnableTemplate(filament.unit), Kind("filament", "microtubule", 1), 1)
    sides = {bool(item.position[0] > 42) for item in wall.particles}
    assert len(sides) == 1


def test_a_full_field_takes_no_filament(kinds):
    field = Field(SHAPE, VOXEL, 1.0, np.random.default_rng(0))
    field.used[:] = True
    filament = kinds["actin"]
    assert place_filament(field, filament, TurnableTemplate(filament.unit), Kind("filament", "actin", 1), 1) == 0
    assert not field.particles


def test_a_microtubule_is_hollow_and_13_fold(kinds):
    density = kinds["microtubule"].unit.density
    middle = density[density.shape[0] // 2]
    assert middle[middle.shape[0] // 2, middle.shape[1] // 2] == 0
    y, x = np.indices(middle.shape) - (np.array(middle.shape)[:, None, None] - 1) / 2
    radius = (np.hypot(y, x) * density.sum(axis=0)).sum() / density.sum() * VOXEL
    assert radius == pytest.approx(112, abs=4)
