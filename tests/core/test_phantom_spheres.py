"""The hollow spheres' formulas against sums over their voxels and against the projector."""

import numpy as np
import pytest

from cryoden_core.jobs import JobError
from cryoden_core.phantom.acquisition import project
from cryoden_core.phantom.spheres import HollowSpheres, random_spheres

ANGLES = np.arange(-60.0, 61.0, 20.0)


def one_sphere(x: float, y: float, z: float, outer: float = 9.0, inner: float = 5.0) -> HollowSpheres:
    return HollowSpheres((32, 40, 48), np.array([[x, y, z]]), np.array([outer]), np.array([inner]), np.array([2.0]))


def test_volume_holds_the_mass_of_the_shell():
    volume = one_sphere(22.3, 19.6, 15.1).volume()
    assert volume.sum() == pytest.approx(2 * 4 / 3 * np.pi * (9**3 - 5**3), rel=2e-3)
    assert volume[15, 20, 22] == 0 and volume[15, 20, 29] == 2


@pytest.mark.parametrize("shape", [(40, 48, 64), (41, 47, 65)])
def test_projector_agrees_with_the_exact_projections(shape):
    spheres = random_spheres(shape, 12, seed=3, radius=(6, 9), wall=(0.4, 0.8))
    exact = spheres.project(ANGLES, 90)
    numerical = project(spheres.volume(), ANGLES, 90)
    assert np.sqrt(np.mean((exact - numerical) ** 2)) < 0.03 * exact.std()


def test_projections_at_the_opposite_tilt_are_told_apart():
    spheres = one_sphere(24, 20, 22)
    exact = spheres.project(np.array([40.0]))
    wrong = project(spheres.volume(), np.array([-40.0]))
    assert np.sqrt(np.mean((exact - wrong) ** 2)) > 0.5 * exact.std()


def test_sphere_beyond_the_centre_moves_to_positive_u_with_positive_tilt():
    spheres = one_sphere(23.5, 19.5, 21.5)
    view = spheres.project(np.array([30.0]))[0]
    columns = np.arange(view.shape[1])
    assert (view.sum(axis=0) @ columns) / view.sum() == pytest.approx(23.5 + 6 * np.sin(np.radians(30)), abs=1e-3)


def test_chord_through_the_centre_is_twice_the_wall():
    view = one_sphere(24, 20, 15.5).project(np.array([0.0]), samples_per_edge=1)[0]
    assert view[20, 24] == pytest.approx(2 * 2 * (9 - 5))


def test_sphere_outside_the_detector_leaves_no_trace():
    assert one_sphere(24, 20, 15.5).project(np.array([0.0]), detector_width=8).sum() > 0
    assert one_sphere(500, 20, 15.5).project(np.array([0.0])).sum() == 0


def test_random_spheres_do_not_overlap_and_stay_inside():
    spheres = random_spheres((40, 60, 60), 30, seed=5)
    distances = np.linalg.norm(spheres.centres[:, None] - spheres.centres[None], axis=-1)
    touching = spheres.outer_radii[:, None] + spheres.outer_radii[None]
    np.fill_diagonal(distances, np.inf)
    assert (distances >= touching + 1 - 1e-9).all()
    assert (spheres.centres - spheres.outer_radii[:, None] >= -0.5).all()
    assert (spheres.centres + spheres.outer_radii[:, None] <= np.array([60, 60, 40]) - 0.5).all()


def test_same_seed_gives_the_same_spheres_and_another_does_not():
    first, again, other = (random_spheres((30, 40, 40), 8, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.centres, again.centres)
    assert not np.array_equal(first.centres, other.centres)


def test_spheres_larger_than_the_volume_are_refused():
    with pytest.raises(JobError, match="no sphere"):
        random_spheres((16, 16, 16), 3, radius=(20, 30))
