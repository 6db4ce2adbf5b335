"""Stacks, angle and transform files, exclusion and alignment."""

import mrcfile
import numpy as np
import pytest

from cryoden_core.jobs import JobError
from cryoden_core.mrc import read_volume, write_volume
from cryoden_core.tilt_series import (
    TiltSeries,
    View,
    align_image,
    read_tilt_angles,
    read_transforms,
    sign_of_tilt_series,
)
from cryoden_core.tomogram import open_tomogram
from cryoden_core.tomography.wbp import weighted_back_projection


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.fixture
def folder(tmp_path):
    """A stack of four images of 6 x 8 pixels with different means, and its files."""
    images = np.random.default_rng(1).standard_normal((4, 6, 8)) + np.arange(4)[:, None, None]
    with mrcfile.new(tmp_path / "ts.mrc", data=images.astype(np.float32)) as file:
        file.voxel_size = 5.0
    (tmp_path / "ts.tlt").write_text("0\n  3.00\n-3\n6.\n\n")
    (tmp_path / "ts.xf").write_text("1 0 0 1 1 0\n1 0 0 1 0 1\n1 0 0 1 0 0\n1 0 0 1 -1 0\n")
    return tmp_path


def series(folder, **given):
    return TiltSeries.from_files(folder / "ts.mrc", folder / "ts.tlt", **given)


@pytest.fixture(scope="module")
def golden(test_data):
    return test_data / "imod_golden"


@pytest.fixture(scope="module")
def series_b(golden):
    excluded = [int(word) for word in (golden / "B/excluded_views_1based.txt").read_text().split()]
    return TiltSeries.from_files(golden / "B/TS_B.mrc", golden / "B/TS_B.rawtlt", golden / "B/TS_B.xf", excluded)


def test_aligned_stack_matches_imods_newstack(golden, series_b):
    imod = read_volume(golden / "B/TS_B_newstack_aligned_excluded.mrc")
    ours = series_b.aligned_stack()
    assert ours.shape == imod.shape and ours.dtype == np.float32
    assert correlation(ours[:, 12:-12, 12:-12], imod[:, 12:-12, 12:-12]) > 0.9995
    assert correlation(ours, imod) > 0.998
    np.testing.assert_allclose(ours[:4, 0, 0], imod[:4, 0, 0], rtol=1e-5)  # outside the raw images: their means


def test_misaligned_series_reconstructs_to_imods_tomogram_and_to_the_phantom(golden, series_b):
    tomogram = weighted_back_projection(series_b.aligned_stack(), series_b.tilt_angles_degrees, 64)
    assert correlation(tomogram, read_volume(golden / "B/rec_B_excluded_float32.mrc")) > 0.998
    phantom = read_volume(golden / "phantom.mrc")
    assert correlation(tomogram, phantom) > 0.78
    assert correlation(tomogram[::-1], phantom) < 0.2


def test_excluded_views_leave_with_their_angles(series_b, golden):
    all_angles = np.loadtxt(golden / "B/TS_B.rawtlt")
    np.testing.assert_array_equal(series_b.tilt_angles_degrees, np.delete(all_angles, [4, 19]))
    assert len(series_b.views) == 41 and not series_b.views[4].enabled and not series_b.views[19].enabled


def test_angles_stay_with_their_images_in_an_unsorted_stack(folder):
    loaded = series(folder, exclude=[2])
    np.testing.assert_array_equal(loaded.tilt_angles_degrees, [0, -3, 6])
    np.testing.assert_array_equal(loaded.aligned_stack(), read_volume(folder / "ts.mrc")[[0, 2, 3]])


def test_dose_symmetric_stack_reconstructs_as_the_sorted_one(golden):
    unsorted = TiltSeries.from_files(golden / "D/TS_D.mrc", golden / "D/TS_D.tlt")
    tomogram = weighted_back_projection(unsorted.aligned_stack(), unsorted.tilt_angles_degrees, 64)
    assert correlation(tomogram, read_volume(golden / "A/rec_A_float32.mrc")) > 0.999


def test_views_given_in_another_order_are_kept_in_stack_order(folder):
    views = [View(3, 6.0), View(0, 0.0), View(2, -3.0, enabled=False)]
    loaded = TiltSeries(folder / "ts.mrc", views)
    np.testing.assert_array_equal(loaded.tilt_angles_degrees, [0, 6])
    np.testing.assert_array_equal(loaded.aligned_stack(), read_volume(folder / "ts.mrc")[[0, 3]])


def test_shift_moves_the_image_by_the_transform_and_fills_with_the_mean(folder):
    raw = read_volume(folder / "ts.mrc")
    aligned = series(folder, transforms=folder / "ts.xf").aligned_stack()
    np.testing.assert_allclose(aligned[0, :, 1:], raw[0, :, :-1], atol=1e-5)
    np.testing.assert_allclose(aligned[0, :, 0], raw[0].mean(), rtol=1e-5)
    np.testing.assert_allclose(aligned[1, 1:], raw[1, :-1], atol=1e-5)
    np.testing.assert_array_equal(aligned[2], raw[2])


def test_quarter_turn_swaps_width_and_height(folder):
    (folder / "ts.xf").write_text("0 -1 1 0 0 0\n" * 4)
    loaded = series(folder, transforms=folder / "ts.xf")
    assert loaded.aligned_shape == (4, 8, 6)
    raw = read_volume(folder / "ts.mrc")
    np.testing.assert_allclose(loaded.aligned_stack(), np.rot90(raw, -1, axes=(1, 2)), atol=1e-5)


def test_transform_is_undone_by_its_inverse():
    y, x = np.mgrid[0:64, 0:80]
    image = np.exp(-((x - 45) ** 2 + (y - 25) ** 2) / 50).astype(np.float32)
    turn = np.deg2rad(12)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 3.3], [np.sin(turn), np.cos(turn), -1.7], [0, 0, 1]])
    there = align_image(image, matrix, (64, 80))
    back = align_image(there, np.linalg.inv(matrix), (64, 80))
    np.testing.assert_allclose(back[8:-16, 16:-12], image[8:-16, 16:-12], atol=0.01)


def test_integer_stack_is_read_and_voxel_size_kept(folder):
    with mrcfile.new(folder / "ts.mrc", data=np.arange(96, dtype=np.int16).reshape(2, 6, 8), overwrite=True) as file:
        file.voxel_size = 2.5
    (folder / "ts.tlt").write_text("-3\n3\n")
    loaded = series(folder)
    assert loaded.voxel_size == pytest.approx(2.5)
    assert loaded.aligned_stack().dtype == np.float32


def test_aligned_stack_can_be_filled_in_place(folder, tmp_path):
    out = np.memmap(tmp_path / "out", dtype=np.float32, shape=(4, 6, 8), mode="w+")
    assert series(folder).aligned_stack(out=out) is out
    np.testing.assert_array_equal(out, read_volume(folder / "ts.mrc"))
    with pytest.raises(JobError, match="shape"):
        series(folder).aligned_stack(out=out[:2])


def test_further_columns_of_an_angle_file_are_ignored(folder):
    (folder / "ts.tlt").write_text("-3.0 12.5\n0.0 2.5\n")
    assert read_tilt_angles(folder / "ts.tlt") == [-3, 0]


def test_a_tilt_series_in_place_of_a_tomogram_is_warned_of(tmp_path):
    volume = np.random.default_rng(1).standard_normal((16, 32, 32)).astype(np.float32)
    for stack in (True, False):
        said: list[str] = []
        write_volume(str(tmp_path / "a.mrc"), volume, 10.0, stack=stack)
        open_tomogram(str(tmp_path / "a.mrc"), 0.0, said.append)
        assert any("looks like a tilt series" in text for text in said) == stack


def test_an_empty_angle_file_is_refused_by_its_name(folder):
    (folder / "ts.tlt").write_text("\n")
    with pytest.raises(JobError, match=r"ts.tlt is empty"):
        read_tilt_angles(folder / "ts.tlt")


def test_files_written_on_windows_read_as_any_other(folder):
    (folder / "ts.tlt").write_bytes(b"\xef\xbb\xbf-3.0\r\n0.0\r\n")
    assert read_tilt_angles(folder / "ts.tlt") == [-3, 0]


def test_imods_stacks_look_like_tilt_series_and_its_tomograms_do_not(golden):
    for path in sorted(golden.glob("*/*.mrc")):
        assert bool(sign_of_tilt_series(path)) == path.name.startswith("TS_"), path


def test_a_stack_that_calls_itself_a_volume_is_known_by_its_angles_or_its_name(folder):
    assert "ts.tlt has as many angles" in sign_of_tilt_series(folder / "ts.mrc")
    (folder / "ts.tlt").write_text("0\n3\n6\n")
    assert sign_of_tilt_series(folder / "ts.mrc") == ""
    (folder / "ts.mrc").rename(folder / "ts.st")
    assert "ends in .st" in sign_of_tilt_series(folder / "ts.st")


def test_counts_that_differ_are_refused_with_both_counts(folder):
    (folder / "ts.tlt").write_text("0\n3\n6\n")
    with pytest.raises(JobError, match=r"ts.tlt holds 3 tilt angles but the stack .* has 4 images"):
        series(folder)
    (folder / "ts.tlt").write_text("0\n3\n6\n9\n")
    (folder / "ts.xf").write_text("1 0 0 1 0 0\n" * 5)
    with pytest.raises(JobError, match=r"ts.xf holds 5 transforms"):
        series(folder, transforms=folder / "ts.xf")


@pytest.mark.parametrize("name", ["ts.mrc", "ts.tlt", "ts.xf"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(JobError, match=name):
        series(folder, transforms=folder / "ts.xf")


def test_unreadable_line_is_named_with_its_number(folder):
    (folder / "ts.tlt").write_text("0\n3\nangle\n6\n")
    with pytest.raises(JobError, match=r"line 3 of .*ts.tlt must hold a number, not 'angle'"):
        series(folder)
    (folder / "ts.xf").write_text("1 0 0 1 0\n")
    with pytest.raises(JobError, match=r"line 1 of .*ts.xf must hold 6 numbers"):
        read_transforms(folder / "ts.xf")


@pytest.mark.parametrize("number", [0, 5])
def test_excluding_an_unknown_view_is_refused(folder, number):
    with pytest.raises(JobError, match=f"view {number} cannot be excluded"):
        series(folder, exclude=[number])


@pytest.mark.parametrize(
    "views, said",
    [
        ([View(0, 1.0), View(0, 2.0)], "same image"),
        ([View(4, 1.0)], "image 5"),
        ([View(-1, 1.0)], "image 0"),
        ([View(0, 1.0, enabled=False)], "every view"),
        ([], "every view"),
        ([View(0, np.nan)], "not a number"),
        ([View(0, 1.0, np.zeros((3, 3)))], "cannot be inverted"),
    ],
)
def test_senseless_views_are_refused_with_the_reason(folder, views, said):
    with pytest.raises(JobError, match=said):
        TiltSeries(folder / "ts.mrc", views)


def test_pixels_that_are_not_numbers_are_refused_unless_their_view_is_excluded(folder):
    with mrcfile.mmap(folder / "ts.mrc", mode="r+") as file:
        file.data[1, 2, 3] = np.nan
    with pytest.raises(JobError, match="image 2 of"):
        series(folder).aligned_stack()
    assert np.isfinite(series(folder, exclude=[2]).aligned_stack()).all()
