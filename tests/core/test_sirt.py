"""SIRT: convergence, constraints, field of view and blocks."""

import itertools

import numpy as np
import pytest
import torch

from cryoden_core.jobs import JobError
from cryoden_core.mrc import read_volume
from cryoden_core.tomography import sirt as sirt_module
from cryoden_core.tomography.geometry import TiltGeometry, width_covering_every_view
from cryoden_core.tomography.projector import project
from cryoden_core.tomography.sirt import sirt

ANGLES = np.linspace(-60, 60, 21)


def spheres(depth=24, height=6, width=48):
    """Solid balls of density 1 as long rods along y, (z, y, x)."""
    z, x = np.mgrid[0:depth, 0:width]
    section = np.zeros((depth, width), dtype=np.float32)
    for centre_z, centre_x, radius in ((11, 14, 6), (8, 34, 4), (17, 30, 3)):
        section[(z - centre_z) ** 2 + (x - centre_x) ** 2 <= radius**2] = 1
    return np.repeat(section[:, None], height, axis=1)


def projected(volume, angles=ANGLES, detector=None):
    width = detector or volume.shape[2]
    return project(torch.from_numpy(volume), TiltGeometry(angles, volume.shape, width)).numpy()


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def error(volume, truth):
    return np.linalg.norm(volume - truth) / np.linalg.norm(truth)


def test_residual_falls_with_every_iteration():
    residuals = []
    sirt(projected(spheres()), ANGLES, 24, 15, report=lambda done, total, residual: residuals.append(residual))
    assert len(residuals) == 15 and residuals[0] == pytest.approx(1)
    assert all(later < earlier for earlier, later in itertools.pairwise(residuals))
    assert residuals[-1] < 0.08


def test_more_iterations_come_nearer_to_the_truth():
    truth = spheres()
    errors = [error(sirt(projected(truth), ANGLES, 24, count), truth) for count in (1, 10, 50)]
    assert errors[0] > errors[1] > errors[2]


def test_non_negative_volume_has_no_negative_voxel_and_is_better_for_densities():
    truth = spheres()
    free = sirt(projected(truth), ANGLES, 24, 50)
    constrained = sirt(projected(truth), ANGLES, 24, 50, non_negative=True)
    assert free.min() < 0 <= constrained.min()
    assert error(constrained, truth) < 0.8 * error(free, truth)


def test_wrong_tilt_sign_mirrors_z():
    truth = spheres()
    volume = sirt(projected(truth), ANGLES, 24, 10)
    np.testing.assert_allclose(sirt(projected(truth), -ANGLES, 24, 10)[::-1], volume, atol=1e-4)
    assert correlation(volume, truth) > 0.8 > correlation(volume[::-1], truth)


def test_golden_series_gives_the_phantom_upright(test_data):
    golden = test_data / "imod_golden"
    stack, angles = read_volume(golden / "A/TS_A.mrc")[:, 20:40], np.loadtxt(golden / "A/TS_A.rawtlt")
    phantom = read_volume(golden / "phantom.mrc")[:, 20:40]
    volume = sirt(stack, angles, 64, 20)
    assert correlation(volume, phantom) > 0.8
    assert correlation(volume[::-1], phantom) < 0.3


def test_going_on_from_a_volume_equals_going_through():
    views = projected(spheres())
    given = {"cover_every_view": False}
    half = sirt(views, ANGLES, 24, 5, **given)
    np.testing.assert_allclose(sirt(views, ANGLES, 24, 5, initial=half, **given), sirt(views, ANGLES, 24, 10, **given))


def test_smaller_relaxation_converges_more_slowly():
    views = projected(spheres())
    last = {}
    for relaxation in (0.3, 1.0, 1.7):
        sirt(
            views, ANGLES, 24, 8, relaxation=relaxation, report=lambda *state, key=relaxation: last.update({key: state})
        )
    assert last[0.3][2] > last[1.0][2] > last[1.7][2]


def test_slab_that_extends_beyond_the_image_needs_the_covering_width():
    """A specimen wider than the detector: without the outside, its density is forced inside."""
    wide = width_covering_every_view(32, 16, ANGLES)
    truth = np.random.default_rng(3).random((16, 2, wide)).astype(np.float32)
    views = projected(truth, detector=32)
    side = (wide - 32) // 2
    inside = truth[:, :, side:-side]
    covered = sirt(views, ANGLES, 16, 30)
    narrow = sirt(views, ANGLES, 16, 30, cover_every_view=False)
    assert covered.shape == narrow.shape == inside.shape
    assert error(covered, inside) < 0.8 * error(narrow, inside)


@pytest.mark.parametrize("width", [31, 48, 64])
def test_width_crops_or_extends_about_the_tilt_axis(width):
    views = projected(spheres())
    reference, volume = sirt(views, ANGLES, 24, 20), sirt(views, ANGLES, 24, 20, width=width)
    assert volume.shape == (24, 6, width)
    if width % 2 == 0:
        common, offset = min(width, 48), (48 - width) // 2
        a = volume[:, :, max(0, -offset) :][:, :, :common]
        b = reference[:, :, max(0, offset) :][:, :, :common]
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_blocks_along_y_join_without_a_seam(monkeypatch):
    truth = spheres(height=7) * np.linspace(1, 2, 7, dtype=np.float32)[None, :, None]
    whole = sirt(projected(truth), ANGLES, 24, 5)
    monkeypatch.setattr(sirt_module, "sections_at_once", lambda device: 3)
    steps = []
    out = np.empty_like(whole)
    assert sirt(projected(truth), ANGLES, 24, 5, out=out, report=lambda *state: steps.append(state)) is out
    np.testing.assert_allclose(out, whole, atol=1e-5)
    assert [state[:2] for state in steps] == [(i + 1, 15) for i in range(15)]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"iterations": 0}, "at least 1 iteration"),
        ({"relaxation": 2.5}, "below 2"),
        ({"initial": np.zeros((1, 2, 3))}, "initial volume has shape"),
        ({"tilt_angles_degrees": [0.0]}, "3 views but there are 1"),
        ({"projections": np.full((3, 4, 8), np.inf)}, "view 1"),
    ],
)
def test_bad_input_is_refused_with_the_reason(change, said):
    given = {"projections": np.zeros((3, 4, 8)), "tilt_angles_degrees": [-1, 0, 1], "thickness": 4}
    with pytest.raises(JobError, match=said):
        sirt(**{**given, **change})
