"""Weighted back-projection against IMOD's own reconstructions and against known positions."""

import json

import numpy as np
import pytest

from cryoden_core.jobs import JobError
from cryoden_core.mrc import read_volume
from cryoden_core.tomography import projector
from cryoden_core.tomography.wbp import padded_length, radial_filter, view_weights, weighted_back_projection


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def centre_xyz(volume, near, radius=6):
    """Centre of the voxels above half of the peak near a position (x, y, z)."""
    corner = [round(value) - radius for value in near]
    box = volume[tuple(slice(c, c + 2 * radius + 1) for c in corner[::-1])].astype(float)
    mass = np.clip(box - box.max() / 2, 0, None)
    grid = np.indices(box.shape)
    return np.array([(mass * grid[2 - i]).sum() / mass.sum() + corner[i] for i in range(3)])


@pytest.fixture(scope="module")
def golden(test_data):
    return test_data / "imod_golden"


@pytest.fixture(scope="module")
def tomogram_a(golden):
    stack, angles = read_volume(golden / "A/TS_A.mrc"), np.loadtxt(golden / "A/TS_A.rawtlt")
    return weighted_back_projection(stack, angles, 64, imod_scale=True)


def test_equals_imods_plain_linear_reconstruction(golden, tomogram_a):
    imod = read_volume(golden / "A/rec_A_noCosineStretch_float32.mrc")
    assert correlation(tomogram_a, imod) > 0.9999
    slope, constant = np.polyfit(imod.ravel(), tomogram_a.ravel(), 1)
    assert abs(slope - 1) < 0.005 and abs(constant) < 0.01 * imod.std()


def test_agrees_with_imods_default_reconstruction(golden, tomogram_a):
    assert correlation(tomogram_a, read_volume(golden / "A/rec_A_float32.mrc")) > 0.999


def test_wrong_tilt_sign_mirrors_z(golden, tomogram_a):
    phantom = read_volume(golden / "phantom.mrc")
    assert correlation(tomogram_a, phantom) > 0.8
    assert correlation(tomogram_a[::-1], phantom) < 0.2
    stack, angles = read_volume(golden / "A/TS_A.mrc"), np.loadtxt(golden / "A/TS_A.rawtlt")
    mirrored = weighted_back_projection(stack, -angles, 64, imod_scale=True)
    np.testing.assert_allclose(mirrored[::-1], tomogram_a, atol=0.01)


def test_unsorted_views_with_their_angles_give_the_sorted_tomogram(golden, tomogram_a):
    stack, angles = read_volume(golden / "D/TS_D.mrc"), np.loadtxt(golden / "D/TS_D.tlt")
    np.testing.assert_allclose(
        weighted_back_projection(stack, angles, 64, imod_scale=True), tomogram_a, atol=1e-5 * np.ptp(tomogram_a)
    )
    assert correlation(weighted_back_projection(stack, np.sort(angles), 64), tomogram_a) < 0.5


def test_gap_of_excluded_views_is_weighted_as_imod_weights_it(golden):
    stack = read_volume(golden / "B/TS_B_newstack_aligned_excluded.mrc")
    angles = np.delete(np.loadtxt(golden / "B/TS_B.rawtlt"), [4, 19])
    imod = read_volume(golden / "B/rec_B_excluded_float32.mrc")
    weighted = weighted_back_projection(stack, angles, 64, imod_scale=True)
    unweighted = weighted_back_projection(stack, angles, 64, density_weighting=False)
    assert correlation(weighted, imod) > 0.9998 > correlation(unweighted, imod)
    assert abs(np.polyfit(imod.ravel(), weighted.ravel(), 1)[0] - 1) < 0.02


@pytest.mark.parametrize("size", ["even", "odd"])
def test_blobs_lie_where_they_are_at_even_and_odd_sizes(golden, size):
    folder = golden / "F_odd_sizes"
    about = json.loads((folder / "blobs.json").read_text())[size]
    angles = np.loadtxt(folder / "TS_F.tlt")
    tomogram = weighted_back_projection(read_volume(folder / f"TS_F_{size}.mrc"), angles, about["size_xyz"][2])
    assert tomogram.shape == tuple(about["size_xyz"][::-1])
    for true_centre in about["true_centre_xyz_0based_about_(n-1)/2"]:
        np.testing.assert_allclose(centre_xyz(tomogram, true_centre), true_centre, atol=0.1)


@pytest.mark.parametrize("size, shift", [("even", (0, 0)), ("odd", (0.5, 0.5))])
def test_differs_from_imod_at_odd_sizes_by_half_a_voxel_only(golden, size, shift):
    folder = golden / "F_odd_sizes"
    imod = read_volume(folder / f"rec_F_{size}_float32.mrc")
    ours = weighted_back_projection(
        read_volume(folder / f"TS_F_{size}.mrc"), np.loadtxt(folder / "TS_F.tlt"), len(imod), imod_scale=True,
        x_shift=-shift[0], z_shift=-shift[1],
    )  # fmt: skip
    assert correlation(ours, imod) > 0.9999
    assert abs(np.polyfit(imod.ravel(), ours.ravel(), 1)[0] - 1) < 0.01


def test_grey_values_are_densities():
    """A wide Gaussian seen from all sides comes back with its own height."""
    u = np.arange(96) - 47.5
    line = np.sqrt(2 * np.pi) * 4 * np.exp(-(u**2) / 32)
    stack = np.repeat(line[None, None].astype(np.float32), 60, axis=0)
    tomogram = weighted_back_projection(stack, np.arange(-90, 90, 3), 32)
    assert tomogram[15:17, 0, 47:49].mean() == pytest.approx(np.exp(-0.5 / 32), rel=0.05)


def test_constant_views_leave_no_ramps_at_the_borders():
    stack = np.full((41, 2, 128), 100, dtype=np.float32)
    tomogram = weighted_back_projection(stack, np.linspace(-60, 60, 41), 16)
    step_like = weighted_back_projection(np.eye(128, dtype=np.float32)[None, :1] * 100, [0.0], 16)
    assert np.ptp(tomogram) < 0.02 * np.ptp(step_like)


def test_wider_and_narrower_tomograms_agree_where_they_overlap(golden, tomogram_a):
    stack, angles = read_volume(golden / "A/TS_A.mrc")[:, :8], np.loadtxt(golden / "A/TS_A.rawtlt")
    wide = weighted_back_projection(stack, angles, 64, width=160, imod_scale=True)
    narrow = weighted_back_projection(stack, angles, 32, width=96, imod_scale=True)
    np.testing.assert_allclose(wide[:, :, 16:-16], tomogram_a[:, :8], atol=0.01)
    np.testing.assert_allclose(narrow, tomogram_a[16:48, :8, 16:-16], atol=0.01)


def test_single_untilted_view_smears_along_the_beam():
    view = np.random.default_rng(1).standard_normal((1, 5, 32)).astype(np.float32)
    tomogram = weighted_back_projection(view, [0.0], 6)
    assert tomogram.shape == (6, 5, 32) and np.ptp(tomogram, axis=0).max() == 0


def test_integer_and_read_only_stacks_give_the_float_result():
    stack = np.random.default_rng(1).integers(0, 1000, (5, 4, 32)).astype(">u2")
    stack.flags.writeable = False
    angles = np.linspace(-40, 40, 5)
    expected = weighted_back_projection(stack.astype(np.float32), angles, 6)
    np.testing.assert_array_equal(weighted_back_projection(stack, angles, 6), expected)


def test_output_can_be_filled_in_place(golden, tmp_path):
    stack, angles = read_volume(golden / "A/TS_A.mrc"), np.loadtxt(golden / "A/TS_A.rawtlt")
    out = np.memmap(tmp_path / "out", dtype=np.float32, shape=(20, 96, 128), mode="w+")
    assert weighted_back_projection(stack, angles, 20, out=out) is out
    assert np.array_equal(out, weighted_back_projection(stack, angles, 20))


def test_slabs_join_without_a_seam(monkeypatch, golden):
    stack, angles = read_volume(golden / "A/TS_A.mrc"), np.loadtxt(golden / "A/TS_A.rawtlt")
    whole = weighted_back_projection(stack, angles, 30)
    monkeypatch.setattr(projector, "MATRIX_ENTRIES_AT_ONCE", 2 * 41 * 128 * 7)
    np.testing.assert_allclose(weighted_back_projection(stack, angles, 30), whole, atol=1e-6 * np.ptp(whole))


def test_filter_is_a_ramp_with_a_gaussian_end():
    weights = radial_filter(1000, 0.35, 0.035)
    np.testing.assert_allclose(weights[1:351], np.arange(1, 351) / 1000, rtol=1e-5)
    assert weights[385] == pytest.approx(0.35 * np.exp(-0.5), rel=1e-4)
    assert radial_filter(1000, 0.35, 0.0)[351:].max() == 0


def test_lines_are_padded_to_imods_measured_lengths():
    assert [padded_length(width) for width in (96, 97, 128)] == [112, 112, 144]


def test_evenly_spaced_views_count_the_same():
    np.testing.assert_allclose(view_weights(np.random.default_rng(1).permutation(np.arange(-60, 61, 3))), 1)
    np.testing.assert_allclose(view_weights([7.0]), 1)
    np.testing.assert_allclose(view_weights([7.0, 7.0]), 1)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tilt_angles_degrees": [0, 1]}, "3 views but there are 2"),
        ({"thickness": 0}, "at least 1"),
        ({"radial_cutoff": 0.7}, "at most 0.5"),
        ({"projections": np.zeros((3, 4))}, "three dimensions"),
        ({"projections": np.full((3, 4, 8), np.nan)}, "view 1"),
        ({"out": np.zeros((1, 1, 1))}, "shape"),
    ],
)
def test_bad_input_is_refused_with_the_reason(change, said):
    given = {"projections": np.zeros((3, 4, 8)), "tilt_angles_degrees": [-1, 0, 1], "thickness": 4}
    with pytest.raises(JobError, match=said):
        weighted_back_projection(**{**given, **change})


def test_progress_is_told_step_by_step_to_the_last(monkeypatch):
    monkeypatch.setattr("cryoden_core.tomography.projector.MATRIX_ENTRIES_AT_ONCE", 2000)
    steps = []
    projections = np.ones((21, 100, 16), np.float32)
    weighted_back_projection(projections, np.linspace(-60, 60, 21), 12, report=lambda *state: steps.append(state))
    total = len(steps)
    # Three blocks of sections are filtered, then the slabs back-projected.
    assert total > 3 and steps == [(number, total) for number in range(1, total + 1)]
