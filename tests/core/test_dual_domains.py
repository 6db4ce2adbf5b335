"""Volumes as DUAL's networks see them: voxel size, contrast, grey scale, and what is wrong with a file."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryoden_core.contrast import contrast_of
from cryoden_core.dual.domains import (
    check_tomogram,
    mask_padding,
    open_volume_for,
    resample,
    resample_numbers,
    restrict,
    soft_clip,
    soft_unclip,
    wedge_ratio,
)
from cryoden_core.jobs import JobError
from cryoden_core.mrc import read_volume, write_volume
from tests.core.noise_volumes import as_measured, coloured, specimen, wedge

SHAPE = (32, 48, 48)


@pytest.fixture
def said():
    return []


def tomogram(sign: int = -1, seed: int = 0) -> np.ndarray:
    """A noisy tomogram with its missing wedge, dark by default, on some grey scale."""
    signal = as_measured(specimen(SHAPE, seed, count=12, radius=4.0))
    noise = np.fft.irfftn(np.fft.rfftn(np.random.default_rng(seed).normal(size=SHAPE)) * wedge(SHAPE), s=SHAPE)
    return (100 + 7 * (sign * signal + 0.5 * noise)).astype(np.float32)


def written(folder, name: str, data: np.ndarray, voxel_size: float = 10.0) -> str:
    write_volume(str(folder / name), data, voxel_size)
    return str(folder / name)


def test_dark_and_bright_density_look_the_same_to_the_networks(tmp_path, said):
    dark = open_volume_for(10.0, written(tmp_path, "d.mrc", tomogram(-1)), contrast="dark", warn=said.append)
    bright = open_volume_for(10.0, written(tmp_path, "b.mrc", 200 - tomogram(-1)), contrast="bright", warn=said.append)
    np.testing.assert_allclose(dark[:], bright[:], atol=1e-3)
    assert dark[:].std() == pytest.approx(1, abs=0.05) and not said


def test_a_contrast_that_is_guessed_is_said(tmp_path, said):
    for sign, name in ((-1, "dark"), (1, "bright")):
        path = written(tmp_path, f"{name}.mrc", tomogram(sign))
        assert open_volume_for(10.0, path, warn=said.append).scale.sign == sign
        assert f"density looks {name} in {path}" in said[-1]


def test_a_contrast_that_is_contradicted_is_warned_of_and_kept(tmp_path, said):
    path = written(tmp_path, "t.mrc", specimen(SHAPE, count=12, radius=4.0))
    assert open_volume_for(10.0, path, contrast="dark", warn=said.append).scale.sign == -1
    assert "was said to have dark density, but looks bright" in said[0]


def test_a_contrast_that_cannot_be_seen_must_be_given(tmp_path):
    path = written(tmp_path, "n.mrc", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    with pytest.raises(JobError, match="cannot be seen"):
        open_volume_for(10.0, path)
    assert contrast_of(read_volume(path))[1] < 4


def test_restoring_undoes_scale_contrast_and_resampling(tmp_path, said):
    data = tomogram()
    path = written(tmp_path, "t.mrc", data)
    finer = open_volume_for(8.0, path, contrast="dark", warn=said.append)
    assert finer.shape == (40, 60, 60)
    np.testing.assert_allclose(finer.scale.undo(finer.resample_back(finer[:])), data, atol=1e-2)


def test_resampling_keeps_the_mean_and_what_fits_the_coarser_grid():
    x = np.arange(48)
    wave = 3 + np.cos(2 * np.pi * 5 * x / 48)[None, None, :] * np.ones((16, 16, 1))
    coarse = resample(wave.astype(np.float32), (16, 16, 24))
    assert coarse.mean() == pytest.approx(3, abs=1e-5)
    np.testing.assert_allclose(resample(coarse, (16, 16, 48)), wave, atol=1e-4)


@pytest.mark.parametrize("new", [24, 32, 36, 72, 96])
def test_masks_and_labels_are_resampled_to_where_the_densities_are(new):
    """The edges of one mask are known to half a voxel; the mean over many places tells a shift."""
    shifts = []
    for first in range(4, 20):
        mask = np.zeros((8, 8, 48), bool)
        mask[:, :, first : first + 24] = True
        density = resample(gaussian_filter(mask.astype(np.float32), (0, 0, 2), mode="wrap"), (8, 8, new))
        places = [
            np.average(np.arange(new), weights=line[0, 0]) for line in (resample_numbers(mask, (8, 8, new)), density)
        ]
        shifts.append(places[0] - places[1])
    assert abs(np.mean(shifts)) < 0.1 and np.abs(shifts).max() <= 0.51 * max(1, new / 48)


def test_resampling_does_not_alias():
    x = np.arange(48)
    fine = np.cos(2 * np.pi * 20 * x / 48)[None, None, :] * np.ones((16, 16, 1))
    assert np.abs(resample(fine.astype(np.float32), (16, 16, 24))).max() < 1e-5


def test_finer_voxels_than_the_files_are_warned_of(tmp_path, said):
    open_volume_for(8.0, written(tmp_path, "t.mrc", tomogram()), contrast="dark", warn=said.append)
    assert "adds nothing: the outer 20 % of its frequencies are empty" in said[0]


def test_gold_does_not_set_the_grey_scale(tmp_path, said):
    data = tomogram()
    golden = data.copy()
    golden[4:6, 4:6, 4:6] -= 500
    plain, with_gold = (
        open_volume_for(10.0, written(tmp_path, name, values), contrast="dark", warn=said.append)
        for name, values in (("p.mrc", data), ("g.mrc", golden))
    )
    assert with_gold.scale.sd == pytest.approx(plain.scale.sd, rel=0.02)
    assert soft_clip(with_gold[:]).max() < 8.001


def test_clipping_leaves_what_is_ordinary_and_can_be_undone():
    values = np.array([-9.0, -7.0, -6.0, -1.0, 0.0, 5.9, 6.5, 9.0])
    clipped = soft_clip(values)
    assert np.array_equal(clipped[2:6], values[2:6]) and np.abs(clipped).max() < 8
    np.testing.assert_allclose(soft_unclip(clipped), values, rtol=1e-6)


def test_what_cannot_be_read_is_refused(tmp_path):
    nothing = written(tmp_path, "v.mrc", tomogram(), voxel_size=0.0)
    with pytest.raises(JobError, match="no voxel size in its header"):
        open_volume_for(10.0, nothing, contrast="dark")
    constant = written(tmp_path, "c.mrc", np.ones(SHAPE, np.float32))
    with pytest.raises(JobError, match="is constant"):
        open_volume_for(10.0, constant, contrast="dark")
    spoiled = tomogram()
    write_volume(str(tmp_path / "n.mrc"), spoiled, 10.0)
    with open(tmp_path / "n.mrc", "r+b") as stream:
        stream.seek(1024)
        stream.write(np.float32("nan").tobytes())
    with pytest.raises(JobError, match="NaN"):
        open_volume_for(10.0, str(tmp_path / "n.mrc"), contrast="dark")
    with pytest.raises(JobError, match="larger volume"):
        open_volume_for(100.0, written(tmp_path, "t.mrc", tomogram()), contrast="dark")


def test_a_tomogram_that_was_filtered_is_warned_of(tmp_path, said):
    path = written(tmp_path, "t.mrc", gaussian_filter(tomogram(), 2.0))
    check_tomogram(open_volume_for(10.0, path, contrast="dark"), (-60, 60), said.append)
    assert any("was filtered or denoised" in text for text in said)


@pytest.mark.parametrize(("order", "words"), [((0, 1, 2), ""), ((1, 0, 2), "about y"), ((2, 1, 0), "about x")])
def test_a_missing_wedge_on_another_axis_is_warned_of(tmp_path, said, order, words):
    noise = np.random.default_rng(1).normal(size=(48, 48, 48))
    data = np.fft.irfftn(np.fft.rfftn(noise) * wedge((48, 48, 48)), s=(48, 48, 48)).transpose(order)
    path = written(tmp_path, "t.mrc", np.ascontiguousarray(data, np.float32))
    check_tomogram(open_volume_for(10.0, path, contrast="dark", warn=said.append), (-60, 60), said.append)
    assert any("seems to lie " + words in text for text in said) if words else not said


def test_the_wedge_ratio_tells_measured_from_missing():
    noise = np.random.default_rng(0).normal(size=(48, 48, 48)).astype(np.float32)
    assert wedge_ratio(noise) == pytest.approx(1, abs=0.1)
    assert wedge_ratio(coloured((48, 48, 48), power=wedge((48, 48, 48)))) < 0.2


def test_padding_is_found_and_left_out(tmp_path, said):
    data = tomogram()
    data[:, :, 30:] = 0
    volume = open_volume_for(10.0, written(tmp_path, "t.mrc", data), contrast="dark", warn=said.append)
    mask_padding(volume, said.append)
    assert "38 % of" in said[-1] and "padding" in said[-1]
    assert not volume.inside[:, :, 31:].any() and volume.inside[8:-8, 8:-8, :28].all()
    assert volume.scale.mean == pytest.approx(tomogram()[:, :, :30].mean(), abs=0.2)


def test_a_tomogram_without_padding_is_left_alone(tmp_path, said):
    volume = open_volume_for(10.0, written(tmp_path, "t.mrc", tomogram()), contrast="dark", warn=said.append)
    mask_padding(volume, said.append)
    assert volume.inside is None and not said


def test_masks_and_slabs_say_where_crops_may_lie(tmp_path, said):
    path = written(tmp_path, "t.mrc", tomogram())
    mask = np.zeros(SHAPE, np.float32)
    mask[:, :24] = 1
    volume = open_volume_for(10.0, path, contrast="dark")
    restrict(volume, written(tmp_path, "m.mrc", mask), thickness=160.0)
    assert volume.inside[8:24, :24].all() and volume.inside.sum() == 16 * 24 * 48
    empty = written(tmp_path, "e.mrc", np.zeros(SHAPE, np.float32))
    with pytest.raises(JobError, match=r"the mask .*e.mrc is empty"):
        restrict(volume, empty)
    with pytest.raises(JobError, match=r"is 48 x 48 x 16 voxels but"):
        restrict(volume, written(tmp_path, "s.mrc", mask[:16]))
