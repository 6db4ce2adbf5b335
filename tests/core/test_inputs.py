"""What reaches the reconstructions of a tilt series: images, angles, sizes, and every refusal of bad input."""

import os
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoden_core.jobs import JobError
from cryoden_core.tomography.binning import bin_image, fourier_crop
from cryoden_core.tomography.inputs import open_halves, open_series, remove_aligned
from cryoden_core.tomography.view_order import likeness_of_neighbours
from cryoden_core.tomography.wbp import weighted_back_projection
from tests.core.tilt_files import ANGLES, SHAPE, density, project, quiet, run_folder, wbp_job, write_mrc, write_numbers


def opened(job, progress=None):
    return open_series(job, run_folder(job), progress or quiet())


def refusal(job):
    """The sentence with which a job is refused; nothing may be written before it."""
    folder = run_folder(job)
    before = os.listdir(folder.path)
    with pytest.raises(JobError) as refused:
        open_series(job, folder, quiet())
    assert os.listdir(folder.path) == before
    message = str(refused.value)
    assert message.endswith(".") and "\n" not in message
    return message


def warnings_of(job):
    progress = quiet()
    opened(job, progress)
    return progress.warnings


def reconstruction(series):
    geometry = series.geometry()
    return weighted_back_projection(
        series.projections, series.tilt_angles_degrees, series.thickness, series.width,
        angle_offset_degrees=series.angle_offset_degrees, tilt_axis_shift=geometry.tilt_axis_shift,
        x_shift=series.x_shift, z_shift=series.z_shift,
    )  # fmt: skip


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


class TestWhatIsOpened:
    def test_an_aligned_stack_is_the_file_itself_and_nothing_is_written(self, tmp_path):
        job = wbp_job(tmp_path)
        series = opened(job)
        assert isinstance(series.projections, np.memmap) and os.path.samefile(series.projections.filename, job.input)
        assert os.listdir(run_folder(job).path) == []
        np.testing.assert_array_equal(series.tilt_angles_degrees, ANGLES)
        np.testing.assert_array_equal(series.weights, 1)
        assert series.volume_shape == SHAPE and series.voxel_size == 10.0

    def test_excluded_images_leave_with_their_angles_and_keep_their_numbers(self, tmp_path):
        series = opened(wbp_job(tmp_path, exclude="1,5-6"))
        kept = np.delete(np.arange(21), [0, 4, 5])
        np.testing.assert_array_equal(series.tilt_angles_degrees, ANGLES[kept])
        np.testing.assert_array_equal(series.image_numbers, kept + 1)
        np.testing.assert_array_equal(series.projections, project()[kept])

    def test_integer_images_become_floats(self, tmp_path):
        series = opened(wbp_job(tmp_path, np.round(100 * project()).astype(np.int16)))
        assert series.projections.dtype == np.float32

    def test_unsorted_angles_stay_with_their_images(self, tmp_path):
        order = np.random.default_rng(3).permutation(len(ANGLES))
        series = opened(wbp_job(tmp_path, project()[order], ANGLES[order]))
        np.testing.assert_array_equal(series.tilt_angles_degrees, ANGLES[order])
        assert correlation(reconstruction(series), density()) > 0.8

    def test_the_flipped_sign_mirrors_the_tomogram_and_leaves_the_offset(self, tmp_path):
        series = opened(wbp_job(tmp_path, flip_tilt_sign=True, angle_offset=3.0))
        np.testing.assert_array_equal(series.tilt_angles_degrees, -ANGLES)
        assert series.angle_offset_degrees == 3.0
        mirrored = opened(wbp_job(tmp_path, flip_tilt_sign=True))
        assert (
            correlation(reconstruction(mirrored)[::-1], density())
            > 0.8
            > correlation(reconstruction(mirrored), density())
        )

    def test_the_origin_is_imods(self, tmp_path, test_data):
        with mrcfile.open(test_data / "imod_golden/A/rec_A_float32.mrc", header_only=True) as stream:
            imod = tuple(float(stream.header.origin[axis]) for axis in "xyz")
        golden = test_data / "imod_golden/A"
        job = wbp_job(tmp_path, input=str(golden / "TS_A.mrc"), tilt_angles=str(golden / "TS_A.rawtlt"), thickness=64)
        assert opened(job).origin == imod

    @pytest.mark.parametrize("changed", [{"thickness": 40}, {"width": 40}, {"x_shift": 6.0, "z_shift": -3.0},
                                         {"binning": 2}, {"binning": 2, "width": 48, "x_shift": -4.0}])  # fmt: skip
    def test_the_origin_follows_the_specimen(self, tmp_path, changed):
        # In IMOD's convention a place in the specimen is index * voxel size - origin, whatever the box around it.
        series = opened(wbp_job(tmp_path, **changed))
        volume = reconstruction(series)
        z, y, x = np.unravel_index(volume.argmax(), volume.shape)
        place = (np.array([x, y, z]) + 0.5) * series.voxel_size - series.origin
        blobs = [(bx + 32, by + 20, bz) for bx, by, bz in ((-14, -8, 5), (9, 0, -6), (3, 9, 2), (18, -4, 7))]
        assert np.abs(np.array(blobs) * 10 - place).max(axis=1).min() <= series.voxel_size

    def test_doses_weigh_the_views_and_the_mean_weight_is_one(self, tmp_path):
        doses = write_numbers(tmp_path / "dose.txt", np.linspace(3, 120, 21))
        weights = opened(wbp_job(tmp_path, doses=doses)).weights
        assert weights.mean() == pytest.approx(1) and (np.diff(weights) < 0).all()
        assert weights[-1] / weights[0] == pytest.approx(np.exp(-117 / 77.4))

    def test_a_narrower_geometry_and_some_views_can_be_asked_for(self, tmp_path):
        series = opened(wbp_job(tmp_path))
        geometry = series.geometry(width=100, views=np.array([3, 7]))
        assert geometry.volume_shape == (24, 40, 100) and geometry.projection_shape == (2, 40, 64)
        np.testing.assert_array_equal(geometry.tilt_angles_degrees, ANGLES[[3, 7]])

    @pytest.mark.parametrize("views", [[0, 2, 4], [5, 1, 2], [7], np.arange(21) % 3 == 0])
    def test_a_subset_holds_its_images_angles_and_numbers(self, tmp_path, views):
        series = opened(wbp_job(tmp_path))
        part = series.subset(views)
        np.testing.assert_array_equal(part.projections, project()[views])
        np.testing.assert_array_equal(part.tilt_angles_degrees, ANGLES[views])
        np.testing.assert_array_equal(part.image_numbers, np.arange(1, 22)[views])


class TestAlignment:
    SHIFTS = np.random.default_rng(2).uniform(-3, 3, (21, 2))

    def job(self, folder, **given):
        """Images moved by known shifts, with the transforms that move them back."""
        from scipy import ndimage

        moved = [ndimage.shift(view, -shift[::-1], order=3) for view, shift in zip(project(), self.SHIFTS, strict=True)]
        lines = np.column_stack([np.tile([1, 0, 0, 1], (21, 1)), self.SHIFTS])
        return wbp_job(folder, np.stack(moved), transforms=write_numbers(folder / "ts.xf", lines), **given)

    def test_images_are_aligned_into_a_temporary_stack_that_is_removed_in_the_end(self, tmp_path):
        job = self.job(tmp_path)
        folder = run_folder(job)
        series = opened(job)
        assert os.path.samefile(series.projections.filename, folder.aligned())
        assert correlation(series.projections[:, 4:-4, 4:-4], project()[:, 4:-4, 4:-4]) > 0.999
        remove_aligned(folder)
        assert os.listdir(folder.path) == []

    def test_resume_takes_the_aligned_stack_only_when_it_was_made_from_the_same(self, tmp_path):
        job = self.job(tmp_path)
        opened(job)
        path = Path(run_folder(job).aligned())
        with mrcfile.mmap(path, "r+") as stream:
            stream.data[:] += 1
        job.resume = True
        marked = float(opened(job).projections[0, 0, 0])
        job.exclude = "21"
        assert float(opened(job).projections[0, 0, 0]) == pytest.approx(marked - 1)
        job.exclude, job.resume = "", False
        assert float(opened(job).projections[0, 0, 0]) == pytest.approx(marked - 1)

    def test_a_stack_that_was_being_written_when_the_run_died_is_made_again(self, tmp_path):
        job = self.job(tmp_path)
        whole = np.array(opened(job).projections)
        folder = run_folder(job)
        os.remove(folder.aligned().replace(".mrc", ".json"))
        with mrcfile.mmap(folder.aligned(), "r+") as stream:
            stream.data[5:] = 0
        job.resume = True
        np.testing.assert_array_equal(opened(job).projections, whole)


class TestBinning:
    @pytest.mark.parametrize("size, small", [(64, 32), (63, 21), (60, 25), (65, 64)])
    def test_cropping_keeps_the_mean_and_the_centre(self, size, small):
        x = np.arange(size) - (size - 1) / 2
        blob = np.exp(-((x - 5) ** 2) / 72)
        cropped = fourier_crop(blob, (small,))
        positions = (np.arange(small) - (small - 1) / 2) * size / small
        assert cropped.mean() == pytest.approx(blob.mean(), rel=1e-5)
        assert (cropped * positions).sum() / cropped.sum() == pytest.approx((blob * x).sum() / blob.sum(), abs=0.05)

    def test_frequencies_beyond_the_new_limit_vanish_instead_of_folding(self):
        x = np.arange(64) + 0.5
        fine, coarse = np.cos(np.pi * 45 * x / 64), np.cos(np.pi * 20 * x / 64)
        assert np.abs(fourier_crop(fine, (32,))).max() < 1e-5
        np.testing.assert_allclose(
            fourier_crop(coarse, (32,)), np.cos(np.pi * 20 * (np.arange(32) + 0.5) / 32), atol=1e-5
        )

    def test_growing_is_refused(self):
        with pytest.raises(ValueError, match="cannot crop 8 samples to 9"):
            fourier_crop(np.zeros(8), (9,))

    def test_edges_do_not_ring_into_each_other(self):
        ramp = np.tile(np.arange(64.0), (64, 1))
        expected = np.tile(np.arange(32) * 2 + 0.5, (32, 1))
        assert np.abs(bin_image(ramp, 2) - expected).max() < 0.5

    @pytest.mark.parametrize("size", [64, 65, 66, 67])
    @pytest.mark.parametrize("factor", [2, 3])
    def test_features_stay_in_place_at_any_size(self, tmp_path, size, factor):
        series = opened(wbp_job(tmp_path, project(shape=(48, size)), binning=factor))
        # Sizes that are no multiple leave the axis off the centre: the geometry must say by how much.
        detector = series.projections.shape[2]
        u = (np.arange(detector) - (detector - 1) / 2 - series.tilt_axis_shift) * factor
        for view, angle in zip(series.projections, ANGLES, strict=True):
            line = view.sum(axis=0)
            blobs = np.array([(x, z) for x, _, z in ((-14, 0, 5), (9, 0, -6), (3, 0, 2), (18, 0, 7))])
            expected = (blobs @ [np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))]).mean()
            assert (line * u).sum() / line.sum() == pytest.approx(expected, abs=0.1)

    def test_sizes_and_shifts_become_binned_ones(self, tmp_path):
        series = opened(wbp_job(tmp_path, binning=2, width=48, x_shift=4.0, z_shift=2.0, tilt_axis_shift=1.0))
        assert series.volume_shape == (12, 20, 24) and series.projections.shape == (21, 20, 32)
        assert (series.x_shift, series.z_shift, series.tilt_axis_shift) == (2, 1, 0.5) and series.voxel_size == 20

    def test_binning_keeps_the_density_and_equals_binning_afterwards(self, tmp_path):
        whole = opened(wbp_job(tmp_path))
        binned = opened(wbp_job(tmp_path, binning=2))
        np.testing.assert_allclose(whole.binned(2).projections, binned.projections, atol=1e-6)
        assert whole.binned(2).volume_shape == binned.volume_shape and whole.binned(2).origin == binned.origin
        coarse = reconstruction(whole).reshape(12, 2, 20, 2, 32, 2).mean(axis=(1, 3, 5))
        slope = np.polyfit(coarse.ravel(), reconstruction(binned).ravel(), 1)[0]
        assert slope == pytest.approx(1, abs=0.1)


class TestHalves:
    def test_views_are_dealt_out_in_the_order_of_their_angles(self, tmp_path):
        order = np.random.default_rng(4).permutation(len(ANGLES))
        job = wbp_job(tmp_path, project()[order], ANGLES[order], halves="views")
        series = opened(job)
        even, odd = open_halves(job, series, run_folder(job), quiet())
        assert sorted(even.tilt_angles_degrees) == list(ANGLES[0::2])
        assert sorted(odd.tilt_angles_degrees) == list(ANGLES[1::2])
        for half in (even, odd):
            for number, view in zip(half.image_numbers, half.projections, strict=True):
                np.testing.assert_array_equal(view, project()[order][number - 1])

    def test_stacks_are_aligned_and_excluded_like_the_whole(self, tmp_path):
        even, odd = (write_mrc(tmp_path / f"{name}.mrc", project() + value) for name, value in (("e", 1), ("o", 2)))
        job = wbp_job(tmp_path, halves="stacks", even=even, odd=odd, exclude="3", binning=2)
        series = opened(job)
        for half, value in zip(open_halves(job, series, run_folder(job), quiet()), (1, 2), strict=True):
            np.testing.assert_array_equal(half.image_numbers, series.image_numbers)
            np.testing.assert_allclose(half.projections, series.projections + value / 2, atol=1e-5)

    def test_there_are_none_unless_asked_for(self, tmp_path):
        job = wbp_job(tmp_path)
        assert open_halves(job, opened(job), run_folder(job), quiet()) is None

    def test_stacks_of_another_size_are_refused(self, tmp_path):
        even, odd = write_mrc(tmp_path / "e.mrc", project()), write_mrc(tmp_path / "o.mrc", project()[:, :-2])
        message = refusal(wbp_job(tmp_path, halves="stacks", even=even, odd=odd))
        assert "o.mrc is 64 x 38 x 21" in message and "64 x 40 x 21" in message

    def test_a_constant_image_in_a_half_is_named(self, tmp_path):
        broken = project()
        broken[6] = 0
        even, odd = write_mrc(tmp_path / "e.mrc", project()), write_mrc(tmp_path / "o.mrc", broken)
        message = refusal(
            wbp_job(tmp_path, np.round(50 * project()).astype(np.int16), halves="stacks", even=even, odd=odd)
        )
        assert "image 7 of" in message and "o.mrc" in message and "exclude 7" in message


class TestBadInput:
    def test_angles_and_images_of_different_number(self, tmp_path):
        message = refusal(wbp_job(tmp_path, angles=ANGLES[:-1]))
        assert "20 tilt angles" in message and "21 images" in message

    def test_a_volume_in_place_of_the_stack_is_recognised(self, tmp_path):
        job = wbp_job(tmp_path)
        mrcfile.write(job.input, density(), overwrite=True)
        assert "its header calls it a volume" in refusal(job)

    def test_a_stack_with_a_volumes_header_is_taken_when_the_numbers_agree(self, tmp_path):
        job = wbp_job(tmp_path)
        mrcfile.write(job.input, project(), overwrite=True, voxel_size=10)
        assert opened(job).views == 21

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_images_with_pixels_that_are_no_numbers_are_all_named(self, tmp_path, bad):
        views = project()
        views[3, 2, 1] = views[11, 0, 0] = bad
        message = refusal(wbp_job(tmp_path, views))
        assert "images 4,12" in message and "exclude 4,12" in message
        assert opened(wbp_job(tmp_path, views, exclude="4,12")).views == 19

    def test_constant_images_are_left_out_with_a_warning(self, tmp_path):
        views = project()
        views[2], views[9] = 0, 5
        progress = quiet()
        series = opened(wbp_job(tmp_path, views), progress)
        assert not {3, 10} & set(series.image_numbers) and series.views == 19
        assert any("images 3,10" in warning and "left out" in warning for warning in progress.warnings)

    def test_too_few_views(self, tmp_path):
        assert "9 views" in refusal(wbp_job(tmp_path, exclude="1-12"))
        views = project()
        views[9:] = 0
        assert "leaves 9 views" in refusal(wbp_job(tmp_path, views))

    def test_a_steep_angle_is_named_and_can_be_excluded(self, tmp_path):
        angles = ANGLES.copy()
        angles[4] = 91.5
        message = refusal(wbp_job(tmp_path, angles=angles))
        assert "image 5" in message and "91.5 degrees" in message
        assert opened(wbp_job(tmp_path, angles=angles, exclude="5")).views == 20
        assert "86 degrees" in refusal(wbp_job(tmp_path, angle_offset=26.0))

    def test_a_narrow_range_and_wide_gaps_are_warned_about(self, tmp_path):
        assert warnings_of(wbp_job(tmp_path)) == []
        assert any("span only 40 degrees" in w for w in warnings_of(wbp_job(tmp_path, angles=ANGLES / 3)))
        gap = [w for w in warnings_of(wbp_job(tmp_path, exclude="8,9")) if "no view lies between" in w]
        assert gap and "-24 and -6" in gap[0]

    def test_repeated_angles_are_allowed(self, tmp_path):
        angles = ANGLES.copy()
        angles[1] = angles[0]
        assert opened(wbp_job(tmp_path, angles=angles, exclude="3")).views == 20

    @pytest.mark.parametrize("axis", [85.0, -96.0, 12.0, 168.0])
    def test_a_slanting_axis_without_transforms_is_refused(self, tmp_path, axis):
        message = refusal(wbp_job(tmp_path, tilt_axis_angle=axis))
        assert "align the series first" in message and f"{axis:g} degrees" in message

    @pytest.mark.parametrize("axis", [0.0, 3.0, -177.0, 180.0, 359.0])
    def test_a_nearly_vertical_axis_is_taken(self, tmp_path, axis):
        assert opened(wbp_job(tmp_path, tilt_axis_angle=axis)).views == 21

    def test_transforms_that_do_not_turn_the_axis_upright_are_warned_about(self, tmp_path):
        still = write_numbers(tmp_path / "ts.xf", np.tile([1, 0, 0, 1, 0, 0], (21, 1)))
        job = wbp_job(tmp_path, transforms=still, tilt_axis_angle=85.0)
        assert any("check that it belongs to this series" in warning for warning in warnings_of(job))
        turned = write_numbers(tmp_path / "ts.xf", np.tile([0.0872, 0.9962, -0.9962, 0.0872, 0, 0], (21, 1)))
        job = wbp_job(tmp_path, transforms=turned, tilt_axis_angle=85.0)
        assert not any("check that it belongs" in warning for warning in warnings_of(job))

    def test_senseless_sizes_are_refused(self, tmp_path):
        assert "more than twice the 64 pixels" in refusal(wbp_job(tmp_path, thickness=129))
        assert any("is that meant?" in warning for warning in warnings_of(wbp_job(tmp_path, thickness=70)))
        assert "less than 8 voxels after binning 2" in refusal(wbp_job(tmp_path, thickness=14, binning=2))
        assert "fewer than 16 along a side" in refusal(wbp_job(tmp_path, binning=3, thickness=64))
        assert "width 300 is far from the 64" in refusal(wbp_job(tmp_path, width=300))
        with pytest.raises(JobError, match="'thickness' must be at least 8"):
            wbp_job(tmp_path, thickness=7)

    def test_a_missing_pixel_size_is_warned_about(self, tmp_path):
        job = wbp_job(tmp_path)
        write_mrc(job.input, project(), voxel_size=0)
        assert any("no pixel size" in warning for warning in warnings_of(job))
        job.voxel_size = 4.0
        assert warnings_of(job) == [] and opened(job).voxel_size == 4.0

    def test_doses_must_be_as_many_as_images_and_not_negative(self, tmp_path):
        doses = write_numbers(tmp_path / "dose.txt", np.arange(20))
        assert "20 doses" in refusal(wbp_job(tmp_path, doses=doses))
        doses = write_numbers(tmp_path / "dose.txt", np.arange(21) - 3)
        assert "negative dose" in refusal(wbp_job(tmp_path, doses=doses))

    @pytest.mark.parametrize(
        "shape, said", [((24, 40, 64), None), ((30, 20, 32), None), ((24, 64, 40), "same field of view"),
                        ((40, 24, 64), "sections along y"), ((12, 40, 50), "same field of view")],
    )  # fmt: skip
    def test_a_reference_of_another_field_of_view_is_refused(self, tmp_path, shape, said):
        reference = write_mrc(tmp_path / "ref.mrc", density(shape))
        job = wbp_job(tmp_path, reference=reference)
        if said:
            assert said in refusal(job)
        else:
            opened(job)


class TestOrder:
    def test_sorted_angles_beside_a_dose_symmetric_stack_are_suspected(self, tmp_path):
        order = np.argsort(np.abs(ANGLES + 0.1), kind="stable")
        views = project(noise=0.3)[order]
        assert not any("another order" in warning for warning in warnings_of(wbp_job(tmp_path, views, ANGLES[order])))
        assert any("another order" in warning for warning in warnings_of(wbp_job(tmp_path, views, ANGLES)))

    def test_noise_alone_says_nothing(self):
        noise = np.random.default_rng(5).standard_normal((21, 40, 64))
        assert likeness_of_neighbours(noise, ANGLES) is None

    @pytest.mark.parametrize("noise", [0.0, 1.0])
    def test_neighbours_are_alike_in_golden_series_whatever_the_order_of_the_stack(self, test_data, noise):
        views = mrcfile.read(test_data / "imod_golden/D/TS_D.mrc")
        angles = np.loadtxt(test_data / "imod_golden/D/TS_D.tlt")
        views = views + noise * views.std() * np.random.default_rng(6).standard_normal(views.shape)
        assert likeness_of_neighbours(views, angles) > 0.9
        assert likeness_of_neighbours(views, np.sort(angles)) < 0.2
