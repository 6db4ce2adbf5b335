"""Projection, its adjoint and the tilt geometry."""

import numpy as np
import pytest
import torch

from cryoden_core.jobs import JobError
from cryoden_core.tomography import projector as projector_module
from cryoden_core.tomography.geometry import TiltGeometry, covering_width, width_covering_every_view
from cryoden_core.tomography.projector import Projector, multiply_sections, project, sections_at_once

ANGLES = np.array([-89.0, -60, -33, 0, 0.5, 45, 60, 90])


def blob(shape, centre_zyx, sigma=2.0):
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    square = (z - centre_zyx[0]) ** 2 + (y - centre_zyx[1]) ** 2 + (x - centre_zyx[2]) ** 2
    return torch.from_numpy(np.exp(-square / (2 * sigma**2)).astype(np.float32))


@pytest.mark.parametrize("shape, detector", [((16, 5, 24), 24), ((15, 4, 31), 20), ((7, 3, 12), 33), ((1, 1, 1), 1)])
def test_adjoint_equals_transpose_to_rounding(shape, detector):
    torch.manual_seed(1)
    projector = Projector(TiltGeometry(ANGLES, shape, detector, 0.0, 0.7, 1.3, -2.1))
    volume, views = torch.randn(shape), torch.randn(projector.geometry.projection_shape)
    ahead = (projector.forward(volume).double() * views).sum()
    back = (volume.double() * projector.adjoint(views)).sum()
    norm = projector.forward(volume).double().norm() * views.double().norm()
    assert abs(ahead - back) < 1e-5 * max(abs(ahead), 0.05 * norm)


def test_gradient_of_projection_is_the_adjoint():
    geometry = TiltGeometry(ANGLES, (9, 3, 14), 14)
    volume = torch.randn(geometry.volume_shape, requires_grad=True)
    weights = torch.randn(geometry.projection_shape)
    (project(volume, geometry) * weights).sum().backward()
    torch.testing.assert_close(volume.grad, Projector(geometry).adjoint(weights))


def test_gradient_of_adjoint_is_the_projection():
    geometry = TiltGeometry(ANGLES, (9, 3, 14), 14)
    projector = Projector(geometry)
    views = torch.randn(geometry.projection_shape, requires_grad=True)
    weights = torch.randn(geometry.volume_shape)
    (projector.adjoint(views) * weights).sum().backward()
    torch.testing.assert_close(views.grad, projector.forward(weights))


def test_untilted_view_is_the_sum_along_the_beam():
    volume = torch.rand(6, 4, 11)
    geometry = TiltGeometry(np.zeros(1), (6, 4, 11), 11)
    torch.testing.assert_close(project(volume, geometry)[0], volume.sum(0))


def test_view_at_ninety_degrees_looks_along_x():
    volume = torch.rand(11, 4, 11)
    geometry = TiltGeometry(np.array([90.0]), (11, 4, 11), 11)
    torch.testing.assert_close(project(volume, geometry)[0], volume.sum(2).T, atol=1e-4, rtol=1e-4)


def test_projections_keep_the_mass_of_the_volume():
    volume = torch.rand(12, 3, 20)
    sums = project(volume, TiltGeometry(ANGLES, (12, 3, 20), 40)).sum(dim=(1, 2))
    torch.testing.assert_close(sums, volume.sum().expand(len(ANGLES)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(32, 9, 48), (33, 9, 47)])
def test_blob_lands_where_the_convention_says(shape):
    angles = np.linspace(-60, 60, 13)
    centre = (21.0, 4.0, 30.0)
    views = project(blob(shape, centre), TiltGeometry(angles, shape, shape[2])).numpy().astype(float)
    theta = np.deg2rad(angles)
    middle = [(n - 1) / 2 for n in shape]
    expected = (centre[2] - middle[2]) * np.cos(theta) + (centre[0] - middle[0]) * np.sin(theta) + middle[2]
    measured = (views * np.arange(shape[2])).sum(axis=(1, 2)) / views.sum(axis=(1, 2))
    np.testing.assert_allclose(measured, expected, atol=0.02)


def test_imod_shifts_move_features_the_way_imod_moves_them():
    shape, angles = (40, 3, 64), np.linspace(-60, 60, 9)
    plain = project(blob(shape, (20, 1, 30)), TiltGeometry(angles, shape, 64))
    shifted = TiltGeometry(angles, shape, 64, x_shift=5, z_shift=3)
    torch.testing.assert_close(project(blob(shape, (17, 1, 35)), shifted), plain, atol=1e-3, rtol=1e-3)
    offset = project(blob(shape, (20, 1, 30)), TiltGeometry(angles, shape, 64, tilt_axis_shift=2))
    torch.testing.assert_close(offset[..., 2:], plain[..., :-2], atol=1e-4, rtol=1e-3)


def test_angle_offset_is_added_to_every_angle():
    volume = blob((20, 3, 30), (8, 1, 20))
    with_offset = TiltGeometry(np.array([-10.0, 20]), (20, 3, 30), 30, angle_offset_degrees=4)
    without = TiltGeometry(np.array([-6.0, 24]), (20, 3, 30), 30)
    torch.testing.assert_close(project(volume, with_offset), project(volume, without))


def test_projection_of_a_gaussian_is_a_gaussian():
    shape, sigma, angles = (40, 5, 64), 3.0, np.array([-60.0, -45, -20, 0, 30, 52])
    views = project(blob(shape, (19.5, 2, 31.5), sigma), TiltGeometry(angles, shape, 64)).numpy()[:, 2]
    expected = np.sqrt(2 * np.pi) * sigma * np.exp(-((np.arange(64) - 31.5) ** 2) / (2 * sigma**2))
    assert np.linalg.norm(views - expected) < 0.05 * np.linalg.norm(expected) * np.sqrt(len(angles))


def test_any_number_of_sections_goes_through_one_projector():
    projector = Projector(TiltGeometry(ANGLES, (9, 4, 14), 14))
    many = torch.randn(9, sections_at_once(torch.device("cpu")) * 2 + 3, 14)
    whole = projector.forward(many)
    assert whole.shape == (len(ANGLES), many.shape[1], 14)
    one_by_one = torch.cat([projector.forward(many[:, i : i + 1]) for i in range(many.shape[1])], dim=1)
    torch.testing.assert_close(whole, one_by_one)


def test_matrix_built_by_slabs_equals_the_whole(monkeypatch):
    geometry, volume = TiltGeometry(ANGLES, (9, 4, 14), 14), torch.rand(9, 4, 14)
    whole = Projector(geometry)
    monkeypatch.setattr(projector_module, "MATRIX_ENTRIES_AT_ONCE", 2 * len(ANGLES) * 14 * 2)
    slabbed = Projector(geometry)
    torch.testing.assert_close(slabbed.forward(volume), whole.forward(volume))
    torch.testing.assert_close(slabbed.adjoint(whole.forward(volume)), whole.adjoint(whole.forward(volume)))


def test_mixed_precision_does_not_reach_the_projector():
    projector = Projector(TiltGeometry(ANGLES, (9, 4, 14), 14))
    volume = torch.rand(9, 4, 14)
    plain = projector.forward(volume)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(projector.forward(volume), plain)


def test_sections_are_independent():
    dense = torch.eye(6)
    data = torch.rand(2, 5, 3)
    torch.testing.assert_close(multiply_sections(dense.to_sparse_csr(), data, (2, 3)), data)


@pytest.mark.parametrize("width", [31, 40, 300])
@pytest.mark.parametrize(("axis_shift", "x_shift", "z_shift"), [(0, 0, 0), (3.2, 0, 0), (0, -5.5, 0), (-2.5, 4, 6)])
def test_the_slab_around_a_shifted_volume_fills_the_detector_too(width, axis_shift, x_shift, z_shift):
    angles = np.linspace(-60, 60, 31)
    geometry = TiltGeometry(angles, (10, 1, width), 32, 0.0, axis_shift, x_shift, z_shift)
    wide = covering_width(geometry)
    assert wide >= width and (wide - width) % 2 == 0
    seen = TiltGeometry(angles, (10, 1, wide), 32, 0.0, axis_shift, x_shift, z_shift).detector_positions()
    assert seen[:, :, 0].max() <= 0 and seen[:, :, -1].min() >= 31


@pytest.mark.parametrize("detector", [32, 33])
def test_widths_that_cover_are_even_or_odd_as_what_they_cover(detector):
    """Else the centres of voxels and pixels would lie half a pixel apart."""
    for thickness in range(4, 12):
        angles = np.linspace(-60, 50, 12)
        assert (width_covering_every_view(detector, thickness, angles) - detector) % 2 == 0
        for width in (20, 21):
            geometry = TiltGeometry(angles, (thickness, 4, width), detector, 0.0, 1.5, 2.5, -3.5)
            assert (covering_width(geometry) - width) % 2 == 0


def test_covering_width_fills_the_detector_in_every_view():
    angles = np.linspace(-60, 60, 5)
    width = width_covering_every_view(32, 10, angles)
    assert (width - 32) % 2 == 0
    views = project(torch.ones(10, 1, width), TiltGeometry(angles, (10, 1, width), 32))
    expected = torch.from_numpy(10 / np.cos(np.deg2rad(angles))).float()
    smooth = views[:, 0].unfold(1, 8, 1).mean(-1)
    torch.testing.assert_close(smooth, expected[:, None].expand_as(smooth), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    "angles, shape, said",
    [
        ([], (4, 4, 4), "one angle per view"),
        ([[0, 1]], (4, 4, 4), "one angle per view"),
        ([0, np.nan], (4, 4, 4), "view 2"),
        ([0, 120], (4, 4, 4), "120 degrees"),
        ([0], (0, 4, 4), "must be positive"),
    ],
)
def test_senseless_geometry_is_refused_with_the_reason(angles, shape, said):
    with pytest.raises(JobError, match=said):
        TiltGeometry(np.array(angles), shape, 8)


def test_wrong_shapes_are_refused():
    projector = Projector(TiltGeometry(ANGLES, (9, 4, 14), 14))
    with pytest.raises(JobError, match="does not fit"):
        projector.forward(torch.zeros(9, 4, 13))
    with pytest.raises(JobError, match="do not fit"):
        projector.adjoint(torch.zeros(9, 4, 14))
