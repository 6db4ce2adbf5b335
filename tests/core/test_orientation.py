"""What a reference tomogram tells of the sign, the offset and the place of a reconstruction."""

import numpy as np
import pytest

from cryoden_core.tomography.inputs import open_series
from cryoden_core.tomography.orientation import check_orientation, compare_with_reference
from tests.core.tilt_files import ANGLES, SHAPE, density, project, quiet, run_folder, wbp_job, write_mrc


def opened(folder, **given):
    job = wbp_job(folder, project(noise=0.3), **given)
    return open_series(job, run_folder(job), quiet())


@pytest.fixture
def reference(tmp_path):
    return write_mrc(tmp_path / "reference.mrc", density())


def warnings_against(series, reference):
    progress = quiet()
    compare_with_reference(series, reference, "cpu", progress)
    return " ".join(progress.warnings)


def test_the_right_sign_is_recognised_and_passes_without_a_warning(tmp_path, reference):
    series = opened(tmp_path)
    found = check_orientation(series, reference)
    assert not found.mirrored and found.correlation > 0.4 > found.mirrored_correlation
    assert np.abs(found.shift).max() < 0.5 and abs(found.angle_offset_degrees) < 1
    assert warnings_against(series, reference) == ""


def test_the_wrong_sign_is_reported_as_a_mirrored_tomogram(tmp_path, reference):
    series = opened(tmp_path, flip_tilt_sign=True)
    found = check_orientation(series, reference)
    assert found.mirrored and found.mirrored_correlation > 0.4 > found.correlation
    assert np.abs(found.shift).max() < 0.5
    assert "mirrored in z" in warnings_against(series, reference)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("offset", [-3.0, 2.5])
def test_a_wrong_offset_of_the_angles_is_measured_as_the_correction_to_add(tmp_path, reference, flipped, offset):
    series = opened(tmp_path, angle_offset=offset, flip_tilt_sign=flipped)
    found = check_orientation(series, reference)
    assert found.mirrored == flipped
    # After the sign is put right the offset that was given would still be added: the correction must undo it.
    assert found.angle_offset_degrees == pytest.approx(-offset, abs=1)
    assert "tilt angles changed by" in warnings_against(series, reference)


def test_a_shifted_tomogram_is_reported_with_its_shift(tmp_path, reference):
    series = opened(tmp_path, x_shift=4.0, z_shift=-3.0)
    found = check_orientation(series, reference)
    np.testing.assert_allclose(found.shift, (-4, 0, -3), atol=0.5)
    assert "-4, 0, -3 voxels" in warnings_against(series, reference).replace("-0,", "0,")


def test_the_shift_of_a_thicker_reference_is_counted_between_the_centres(tmp_path):
    reference = write_mrc(tmp_path / "reference.mrc", density((35, *SHAPE[1:])))
    assert np.abs(check_orientation(opened(tmp_path), reference).shift).max() < 0.5


@pytest.mark.parametrize("binning", [1, 2])
def test_a_reference_at_another_voxel_size_serves_as_well(tmp_path, binning):
    volume = density((48, 40, 64))
    coarse = volume.reshape(24, 2, 20, 2, 32, 2).mean(axis=(1, 3, 5))
    reference = write_mrc(tmp_path / "reference.mrc", coarse, voxel_size=20.0)
    right, wrong = (check_orientation(opened(tmp_path, binning=binning, flip_tilt_sign=flip), reference)
                    for flip in (False, True))  # fmt: skip
    assert not right.mirrored and wrong.mirrored
    assert np.abs(right.shift).max() < 1


def test_inverted_densities_are_seen_and_do_not_hide_the_sign(tmp_path):
    reference = write_mrc(tmp_path / "reference.mrc", -density())
    found = check_orientation(opened(tmp_path, flip_tilt_sign=True), reference)
    assert found.mirrored and found.contrast_inverted
    assert not check_orientation(opened(tmp_path), write_mrc(tmp_path / "r2.mrc", density())).contrast_inverted


def test_another_specimen_is_recognised_in_no_orientation(tmp_path):
    noise = np.random.default_rng(7).standard_normal(SHAPE).astype(np.float32)
    reference = write_mrc(tmp_path / "reference.mrc", noise)
    assert "resembles the reference" in warnings_against(opened(tmp_path), reference)


def test_nothing_is_compared_without_a_reference(tmp_path):
    assert compare_with_reference(opened(tmp_path), "", "cpu", quiet()) == {}


def test_imods_tomogram_confirms_the_golden_series(test_data, tmp_path):
    golden = test_data / "imod_golden/D"
    given = {"input": str(golden / "TS_D.mrc"), "tilt_angles": str(golden / "TS_D.tlt"), "thickness": 64}
    job = wbp_job(tmp_path, angles=ANGLES, **given)
    series = open_series(job, run_folder(job), quiet())
    found = check_orientation(series, str(test_data / "imod_golden/A/rec_A_int16.mrc"))
    assert not found.mirrored and found.correlation > 0.95
    assert np.abs(found.shift).max() < 0.2 and abs(found.angle_offset_degrees) < 0.2
