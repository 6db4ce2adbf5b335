"""Noise models: draws have the spectrum, mean and level that were measured."""

import numpy as np
import pytest
import torch

from cryoden_core.excerpts import robust_statistics
from cryoden_core.nmsg.noise_model import NoiseLevel, SpectralNoiseModel, excess_kurtosis
from cryoden_core.noise_spectrum import measure_spectra
from cryoden_core.spectrum import NoiseShare, share_from_background
from cryoden_core.tomogram import HalfDifference
from tests.core.noise_volumes import SHAPE, coloured, mean_power, ramp_power, shell_means, specimen, wedge

CPU = torch.device("cpu")
BLOCK = (32, 48, 48)


def model_of(power: np.ndarray, block=BLOCK) -> SpectralNoiseModel:
    return SpectralNoiseModel(torch.from_numpy(power).float(), block)


def draws(model: SpectralNoiseModel, shape, count=12) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(3)
    return [model.sample(shape, generator, CPU).numpy() for _ in range(count)]


@pytest.mark.parametrize("shape", [BLOCK, (24, 40, 36), (48, 64, 50), (33, 31, 35)])
def test_draws_have_the_variance_of_the_spectrum_and_zero_mean(shape):
    model = model_of(ramp_power(BLOCK))
    drawn = np.stack(draws(model, shape, 8))
    assert drawn.shape[1:] == shape
    assert drawn.std() == pytest.approx(model.sd, rel=0.03)
    assert abs(drawn.mean()) < 0.02 * model.sd


def test_draws_have_the_spectrum():
    power = ramp_power(BLOCK)
    drawn = mean_power(draws(model_of(power), BLOCK, 20))
    used = shell_means(power, BLOCK) > 1e-3 * power.max()
    ratio = shell_means(drawn, BLOCK)[used] / shell_means(power, BLOCK)[used]
    np.testing.assert_allclose(ratio[1:], 1, atol=0.1)


@pytest.mark.parametrize("shape", [BLOCK, (24, 36, 36), (64, 64, 64)])
def test_draws_do_not_fill_the_missing_wedge(shape):
    window = np.einsum("i,j,k->ijk", *(np.hanning(n) for n in shape))
    drawn = mean_power([d * window for d in draws(model_of(ramp_power(BLOCK)), shape)])
    inside = wedge(shape, 72) == 0
    kz = np.abs(np.fft.fftfreq(shape[0]))[:, None, None] * np.ones(drawn.shape)
    band = (kz > 0.15) & (kz < 0.4)
    assert drawn[inside & band].mean() < 0.06 * drawn[(wedge(shape, 50) == 1) & band].mean()


def test_each_draw_is_fresh_and_the_seed_repeats_it():
    model = model_of(ramp_power(BLOCK))
    first, second = draws(model, BLOCK, 2)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03
    assert np.array_equal(draws(model, BLOCK, 1)[0], first)


def measured_ratio(volume: np.ndarray, noise: np.ndarray, difference=None) -> tuple[np.ndarray, np.ndarray]:
    """Measured over true noise by shell, and the share of noise in each shell."""
    mean, scale = robust_statistics(volume)
    spectra = measure_spectra(volume, mean, scale, difference)
    true = measure_spectra(noise, 0.0, scale).total
    profile = shell_means(true, spectra.block)
    return shell_means(spectra.noise, spectra.block) / profile, profile / shell_means(spectra.total, spectra.block)


def test_white_noise_is_measured_flat():
    volume = np.random.default_rng(0).normal(size=(48, 128, 128)).astype(np.float32)
    spectra = measure_spectra(volume, 0.0, 1.0)
    profile = shell_means(spectra.noise, spectra.block)
    np.testing.assert_allclose(profile[2:], 1, atol=0.15)
    assert spectra.noise_fraction > 0.9


def test_noise_beside_a_specimen_is_measured_within_fifteen_percent_where_it_dominates():
    noise = coloured(seed=1)
    ratio, share = measured_ratio(noise + 2 * specimen(), noise)
    dominated = share > 0.6
    dominated[0] = False
    assert dominated.sum() >= 6
    np.testing.assert_allclose(ratio[dominated], 1, atol=0.15)


def test_halves_give_the_noise_within_fifteen_percent_in_every_shell():
    signal = 2 * specimen()
    even, odd = (signal + 1.4 * coloured(seed=s) for s in (1, 2))
    noise = (even - odd) / 2
    ratio, _ = measured_ratio((even + odd) / 2, noise, HalfDifference(even, odd))
    # The innermost shells are narrower than what the spectrum resolves.
    np.testing.assert_allclose(ratio[2:], 1, atol=0.15)


def test_the_half_difference_is_scaled_by_its_gain_where_it_is_read():
    even, odd = coloured(seed=1), coloured(seed=2)
    region = (slice(2, 4), slice(0, 3), slice(1, 2))
    difference = HalfDifference(even, odd, gain=3.0)
    np.testing.assert_allclose(difference[region], 1.5 * (even - odd)[region], rtol=1e-5)
    assert difference.shape == SHAPE


def test_a_filtered_volume_has_empty_shells_and_a_raw_one_has_none():
    from scipy import ndimage

    raw = coloured()
    assert measure_spectra(raw, 0.0, 1.0).empty_shells() < 0.1
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), 3)
    assert measure_spectra(smooth, 0.0, float(smooth.std())).empty_shells() > 0.3


def test_more_noise_asks_for_a_wider_gaussian():
    signal = 2 * specimen()
    sigmas = []
    for sd in (0.1, 1.0, 4.0):
        volume = signal + sd * coloured(seed=4)
        mean, scale = robust_statistics(volume)
        sigmas.append(measure_spectra(volume, mean, scale).best_gaussian_sigma())
    assert sigmas[0] < sigmas[1] < sigmas[2]


def test_uniform_noise_needs_no_map_of_its_level():
    level = NoiseLevel(share_from_background(coloured(), 0.0, 1.0), SHAPE)
    assert level.grid is None and level.crop((0, 0, 0), (4, 4, 4)) == 1.0


def test_noise_that_grows_along_y_is_followed():
    shape = (32, 256, 64)
    slope = np.linspace(0.5, 1.5, shape[1], dtype=np.float32)[None, :, None]
    volume = coloured(shape, seed=5) * slope
    level = NoiseLevel(share_from_background(volume, 0.0, 1.0), shape)
    assert level.grid is not None
    crop = level.crop((0, 0, 0), shape).numpy()
    assert crop.shape == shape
    for start in range(32, 224, 32):
        block = slice(start, start + 32)
        assert crop[:, block].mean() == pytest.approx(float(slope[:, block].mean()), rel=0.15)
    part = level.crop((3, 100, 7), (8, 20, 9))
    np.testing.assert_allclose(part, crop[3:11, 100:120, 7:16], rtol=1e-5)


def test_half_differences_have_no_map():
    empty = np.zeros((0, 3), int)
    share = NoiseShare(torch.ones(1), (8, 8, 8), "halves", empty, empty, np.ones(0), 1.0)
    assert NoiseLevel(share, SHAPE).grid is None


def test_gold_does_not_move_mean_and_deviation():
    volume = 5 + 2 * np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    volume[:4, :4, :4] = -1000
    mean, sd = robust_statistics(volume)
    assert mean == pytest.approx(5, abs=0.05) and sd == pytest.approx(2, rel=0.03)
    assert robust_statistics(np.full((4, 4, 4), 7.0, np.float32)) == (7.0, 1.0)


def test_kurtosis_tells_gaussian_from_heavy_tails():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(50000, generator=generator)
    assert abs(excess_kurtosis([normal])) < 0.1
    assert excess_kurtosis([normal**3]) > 5
    assert excess_kurtosis([normal.sign()]) == pytest.approx(-2, abs=0.01)


def test_the_layer_line_of_a_filament_does_not_pass_for_noise():
    """A filament along y with a repeat of four voxels has all of its power in a thin plane."""
    shape = (32, 128, 96)
    noise = coloured(shape, seed=1)
    z, y, x = np.indices(shape)
    tube = np.exp(-((z - 15.5) ** 2 + (x - 30) ** 2) / 50)
    volume = noise + (1.5 * tube * (1 + np.cos(2 * np.pi * y / 4))).astype(np.float32)
    mean, scale = robust_statistics(volume)
    spectra = measure_spectra(volume, mean, scale)
    true = measure_spectra(noise, 0.0, scale).total
    # Near the axis of the plane, where x and z are not much in the wedge.
    line = (slice(0, 2), slice(spectra.block[1] // 4, spectra.block[1] // 4 + 1), slice(1, 4))
    assert spectra.total[line].mean() > 8 * true[line].mean()
    assert 0.5 < spectra.noise[line].mean() / true[line].mean() < 2
