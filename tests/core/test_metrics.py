"""Figures of merit against scikit-image, formulas and cases whose answer is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cryoden_core import fourier, metrics


def noise(seed: int, shape: tuple = (48, 48, 48)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return gaussian_filter(noise(0, (24, 64, 70)), 2).astype(np.float32)


def test_correlation_equals_numpy_and_ignores_gain_and_offset(truth: np.ndarray) -> None:
    test = truth + 0.1 * noise(1, truth.shape)
    expected = np.corrcoef(test.ravel(), truth.ravel())[0, 1]
    assert metrics.correlation(test, truth) == pytest.approx(expected, rel=1e-6)
    assert metrics.correlation(5 * test + 1000, truth) == pytest.approx(expected, rel=1e-3)
    assert metrics.correlation(-test, truth) == pytest.approx(-expected, rel=1e-6)
    assert np.isnan(metrics.correlation(np.ones_like(truth), truth))


def test_standardised_figures_are_those_of_volumes_with_mean_0_and_sd_1(truth: np.ndarray) -> None:
    test = 3 * truth + 0.05 * noise(1, truth.shape) + 7
    standard = metrics.standardised(test), metrics.standardised(truth)
    assert (standard[0].mean(), standard[0].std()) == pytest.approx((0, 1), abs=1e-4)
    error = np.mean((standard[0] - standard[1]) ** 2)
    assert metrics.standardised_square_error(test, truth) == pytest.approx(error, rel=1e-3)
    decibels, peak = metrics.psnr_standardised(test, truth)
    assert peak == pytest.approx(np.ptp(truth) / truth.std(), rel=1e-5)
    assert decibels == pytest.approx(10 * np.log10(peak**2 / error), abs=1e-2)
    assert metrics.psnr_standardised(truth, truth)[0] == np.inf
    with pytest.raises(ValueError, match="constant"):
        metrics.standardised(np.ones((4, 4, 4), np.float32))


def test_ssim_with_a_uniform_window_equals_scikit_image(truth: np.ndarray) -> None:
    test = truth + 0.05 * noise(1, truth.shape)
    expected = structural_similarity(test, truth, win_size=7, data_range=2)
    assert metrics.ssim3d(test, truth, 2.0, uniform_window=7) == pytest.approx(expected, abs=1e-6)


def test_contrast_to_noise_has_the_sign_of_the_contrast_and_the_background_as_unit() -> None:
    inside = np.zeros((20, 20, 20), bool)
    inside[5:15, 5:15, 5:15] = True
    volume = 0.5 * noise(0, inside.shape) - 2 * inside
    assert metrics.contrast_to_noise(volume, inside, ~inside) == pytest.approx(-4, rel=0.03)
    assert np.isnan(metrics.contrast_to_noise(volume, np.zeros_like(inside), ~inside))


def test_correlation_and_change_over_a_region_of_fourier_space_ignore_what_lies_outside(truth: np.ndarray) -> None:
    low = (fourier.frequency_radius(truth.shape) < 0.1).astype(np.float32)
    transform = np.fft.rfftn(truth) + np.fft.rfftn(10 * noise(3, truth.shape)) * (1 - low)
    spoiled = np.fft.irfftn(transform, s=truth.shape).astype(np.float32)
    assert metrics.fourier_correlation(spoiled, truth, low) == pytest.approx(1, abs=1e-3)
    assert metrics.fourier_change(spoiled, truth, low) < 0.02
    assert abs(metrics.fourier_correlation(spoiled, truth, 1 - low)) < 0.3
    assert metrics.fourier_change(2 * truth, truth) == pytest.approx(1, abs=1e-4)


def test_a_mask_hides_what_lies_outside(truth: np.ndarray) -> None:
    mask = np.zeros(truth.shape, np.float32)
    mask[:, 20:40, 20:40] = 1
    spoiled = np.where(mask > 0, 2 * truth + 1, 1e3 * noise(2, truth.shape)).astype(np.float32)
    assert metrics.correlation(spoiled, truth, mask) == pytest.approx(1.0, abs=1e-6)
    assert metrics.affine_fit(spoiled, truth, mask) == pytest.approx((0.5, -0.5), abs=1e-5)
    assert metrics.psnr_affine(spoiled, truth, mask=mask) > 100
    with pytest.raises(ValueError):
        metrics.correlation(truth, truth, mask[1:])


def test_affine_fit_is_least_squares(truth: np.ndarray) -> None:
    test = 3 * truth + 7 + 0.05 * noise(3, truth.shape)
    expected = np.polyfit(test.ravel().astype(np.float64), truth.ravel().astype(np.float64), 1)
    assert metrics.affine_fit(test, truth) == pytest.approx(tuple(expected), rel=1e-6)


def test_psnr_equals_scikit_image(truth: np.ndarray) -> None:
    test = truth + 0.1 * noise(4, truth.shape)
    expected = peak_signal_noise_ratio(truth, test, data_range=2.5)
    assert metrics.psnr(test, truth, 2.5) == pytest.approx(expected, abs=1e-4)
    assert metrics.psnr(truth, truth) == np.inf


def test_affine_psnr_is_blind_to_scale_and_never_below_the_plain_one(truth: np.ndarray) -> None:
    test = truth + 0.1 * noise(5, truth.shape)
    value = metrics.psnr_affine(test, truth)
    assert value == pytest.approx(metrics.psnr_affine(-40 * test + 12, truth), abs=1e-3)
    assert value >= metrics.psnr(test, truth)


def test_minmax_psnr_is_ruled_by_one_extreme_voxel(truth: np.ndarray) -> None:
    test = 9 * truth - 4
    assert metrics.psnr_minmax(test, truth) > 100
    test[0, 0, 0] = 10 * test.max()
    assert metrics.psnr_minmax(test, truth) < 15


def test_minmax_psnr_is_that_of_both_volumes_scaled_to_one(truth: np.ndarray) -> None:
    test = 30 * truth + 4 + noise(29, truth.shape)
    scaled = [(values - values.min()) / np.ptp(values) for values in (test, truth)]
    assert metrics.psnr_minmax(test, truth) == pytest.approx(metrics.psnr(*scaled, 1.0), abs=1e-4)


def test_figures_of_a_memory_map_by_slabs_equal_those_of_the_array(
    truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, mask = truth + 0.1 * noise(30, truth.shape), np.abs(noise(31, truth.shape))
    whole = [metrics.correlation(test, truth, mask), metrics.psnr_affine(test, truth, mask=mask)]
    monkeypatch.setattr(metrics.slabs, "__defaults__", (5 * 64 * 70 * 4,))
    parts = [metrics.correlation(test, truth, mask), metrics.psnr_affine(test, truth, mask=mask)]
    assert parts == pytest.approx(whole, rel=1e-9)


def test_an_empty_mask_is_an_error(truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="empty"):
        metrics.correlation(truth, truth, np.zeros_like(truth))


def test_ssim_equals_scikit_image_with_a_gaussian_window_in_three_dimensions(truth: np.ndarray) -> None:
    test = truth + 0.1 * noise(6, truth.shape)
    expected = structural_similarity(
        test, truth, data_range=1.7, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert metrics.ssim3d(test, truth, 1.7) == pytest.approx(expected, abs=1e-6)
    assert metrics.ssim3d(truth, truth) == pytest.approx(1.0)
    slice_wise = structural_similarity(
        test[12], truth[12], data_range=1.7, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert abs(expected - slice_wise) > 1e-3


@pytest.mark.parametrize("depth", [4, 7, 10])
def test_ssim_of_a_thin_volume_is_a_number(truth: np.ndarray, depth: int) -> None:
    thin = truth[:depth]
    assert 0 < metrics.ssim3d(thin + 0.05 * noise(7, thin.shape), thin) < 1


def test_masked_ssim_sees_only_the_mask(truth: np.ndarray) -> None:
    mask = np.zeros(truth.shape, np.float32)
    mask[:, :20] = 1
    spoiled = truth.copy()
    spoiled[:, 40:] += 1
    assert metrics.ssim3d(spoiled, truth, mask=mask) == pytest.approx(1.0)
    assert metrics.ssim3d(spoiled, truth) < 0.9


def vif_written_out(test: np.ndarray, truth: np.ndarray) -> float:
    kept = available = 0.0
    for scale in range(1, 5):
        size = 2 ** (5 - scale) + 1
        line = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * (size / 5) ** 2))
        window = np.outer(line, line) / line.sum() ** 2

        def local(image: np.ndarray, window: np.ndarray = window) -> np.ndarray:
            return fftconvolve(image, window, mode="valid")

        if scale > 1:
            test, truth = local(test)[::2, ::2], local(truth)[::2, ::2]
        var_truth = local(truth**2) - local(truth) ** 2
        covariance = local(test * truth) - local(test) * local(truth)
        gain = np.maximum(covariance / var_truth, 0)
        rest = local(test**2) - local(test) ** 2 - np.where(gain > 0, gain * covariance, 0)
        kept += np.log(1 + gain**2 * var_truth / (np.maximum(rest, 0) + 2)).sum()
        available += np.log(1 + var_truth / 2).sum()
    return kept / available


def test_vif_equals_the_published_formula_written_out() -> None:
    truth = gaussian_filter(noise(8, (96, 100)), 1.5)
    truth = (255 * (truth - truth.min()) / np.ptp(truth)).astype(np.float64)
    test = gaussian_filter(truth, 1) + 8 * noise(9, truth.shape)
    assert metrics.vif(test, truth) == pytest.approx(vif_written_out(test, truth), rel=1e-4)
    stack = metrics.vif(np.stack([test, truth]), np.stack([truth, truth]))
    assert stack == pytest.approx((vif_written_out(test, truth) + 1) / 2, rel=1e-4)


def test_vif_falls_with_noise_and_blur_and_rises_with_contrast(truth: np.ndarray) -> None:
    values = [metrics.vif(truth + sd * noise(10, truth.shape), truth) for sd in (0.0, 0.02, 0.1, 0.5)]
    assert values[0] == pytest.approx(1.0)
    assert sorted(values, reverse=True) == values
    assert metrics.vif(gaussian_filter(truth, 2), truth) < 0.8
    assert metrics.vif(1.5 * truth, truth) > 1.0
    with pytest.raises(ValueError):
        metrics.vif(truth[:, :10], truth[:, :10])


@pytest.mark.parametrize("shape", [(20, 20, 20), (7, 24, 31), (32, 21)])
def test_fsc_of_a_volume_with_itself_is_one(shape: tuple) -> None:
    volume = noise(11, shape)
    frequency, curve = metrics.fsc(volume, 3 * volume + 100)
    assert frequency.shape == curve.shape == (max(shape) // 2,)
    np.testing.assert_allclose(curve, 1.0, atol=1e-4)


def test_fsc_equals_shells_summed_over_the_whole_transform() -> None:
    a, b = noise(12, (14, 15, 16)), noise(13, (14, 15, 16))
    b += a
    transform_a, transform_b = (np.fft.fftn(v - v.mean()) for v in (a, b))
    shell = np.rint(fourier.frequency_radius(a.shape, half=False) * 16)
    _, curve = metrics.fsc(a, b)
    for number in range(1, 9):
        inside = shell == number
        cross = (transform_a[inside] * transform_b[inside].conj()).sum().real
        power = (np.abs(transform_a[inside]) ** 2).sum() * (np.abs(transform_b[inside]) ** 2).sum()
        assert curve[number - 1] == pytest.approx(cross / np.sqrt(power), abs=1e-5)


def test_fsc_of_two_noisy_copies_follows_the_signal_to_noise_ratio_of_each_shell() -> None:
    signal = 4 * gaussian_filter(noise(14, (64, 64, 64)), 1.2, mode="wrap")
    frequency, power = fourier.radial_power_spectrum(signal)
    ratio = power / 0.25
    first, second = (signal + 0.5 * noise(seed, signal.shape) for seed in (15, 16))
    _, between = metrics.fsc(first, second)
    _, to_truth = metrics.fsc(first, signal)
    enough = frequency > 0.1
    np.testing.assert_allclose(between[enough], (ratio / (1 + ratio))[enough], atol=0.05)
    np.testing.assert_allclose(to_truth[enough], np.sqrt(ratio / (1 + ratio))[enough], atol=0.05)


def test_a_mask_does_not_make_unrelated_noise_correlate() -> None:
    distance = np.linalg.norm(np.indices((48, 48, 48)) - 23.5, axis=0)
    mask = np.clip((18 - distance) / 4, 0, 1).astype(np.float32)
    frequency, curve = metrics.fsc(noise(17) + 50, noise(18) - 20, mask)
    assert np.abs(curve[frequency > 0.1]).max() < 0.2


def test_frc_of_slices_is_that_of_the_image_and_shows_a_bad_direction() -> None:
    volume = noise(19)
    first, second = volume[3], volume[4] + volume[3]
    np.testing.assert_allclose(metrics.frc(first, second)[1], metrics.frc(first[None], second[None])[1], atol=1e-5)
    spoiled = volume + 2 * noise(20, (48, 1, 1))
    across_z, across_y = metrics.frc(volume, spoiled, 0)[1], metrics.frc(volume, spoiled, 1)[1]
    assert across_z.min() > 0.99 > across_y.min()


@pytest.mark.parametrize(
    ("curve", "threshold", "expected"),
    [
        ([1.0, 0.8, 0.2, 0.0], 0.5, 0.25),
        ([1.0, 0.8, 0.2, 0.9], 0.5, 0.25),
        ([1.0, 0.9, 0.8, 0.7], 0.5, 0.4),
        ([0.1, 0.9, 0.8, 0.7], 0.5, 0.0),
        ([np.nan, 0.9, np.nan, 0.1], 0.5, 0.3),
        ([np.nan] * 4, 0.5, 0.0),
    ],
)
def test_frequency_at_a_threshold_is_interpolated(curve: list, threshold: float, expected: float) -> None:
    found = metrics.frequency_at(np.array([0.1, 0.2, 0.3, 0.4]), np.array(curve), threshold)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.1, 0.9, 0.1, 0.0], 0.25),
        ([0.6, 0.1, 0.9, 0.1], 0.35),
        ([0.9, 0.3, 0.8, 0.1], 0.1 + 0.4 / 0.6 * 0.1),
        ([0.1, 0.4, 0.2, 0.1], 0.0),
        ([0.1, np.nan, 0.9, 0.8], 0.4),
        ([np.nan] * 4, 0.0),
    ],
)
def test_a_curve_that_begins_low_is_followed_from_its_highest_value_on(curve: list, expected: float) -> None:
    found = metrics.frequency_at(np.array([0.1, 0.2, 0.3, 0.4]), np.array(curve), 0.5, from_highest=True)
    assert found == pytest.approx(expected)


def test_directional_fsc_finds_the_direction_in_which_halves_disagree() -> None:
    volume, other = noise(21), noise(22)
    transform = np.fft.rfftn(volume)
    kz, ky, kx = fourier.frequency_axes(volume.shape)
    along_beam = np.abs(kz) > np.sqrt(ky**2 + kx**2) * np.sqrt(3)
    mixed = np.fft.irfftn(np.where(along_beam, np.fft.rfftn(other), transform), volume.shape)
    _, angle, curve = metrics.directional_fsc(volume, mixed, 3)
    np.testing.assert_allclose(angle, [15, 45, 75])
    assert np.nanmean(np.abs(curve[5:, 0])) < 0.15
    assert np.nanmin(curve[5:, 1:]) > 0.9


def test_wedge_fsc_tells_measured_from_missing() -> None:
    volume, other = noise(23), noise(24)
    measured = fourier.missing_wedge_mask(volume.shape, -60, 50)
    filled = np.fft.irfftn(np.where(measured, np.fft.rfftn(volume), np.fft.rfftn(other)), volume.shape)
    frequency, inside, missing = metrics.wedge_fsc(volume, filled, -60, 50)
    assert inside[:-1].min() > 0.97
    assert np.abs(missing[frequency > 0.1]).max() < 0.3
    _, wrong_sign, _ = metrics.wedge_fsc(volume, filled, -50, 60)
    assert wrong_sign[10:].min() < inside[10:-1].min()


def test_whiteness_is_one_for_white_noise_and_falls_with_colour() -> None:
    white = noise(25)
    assert metrics.residual_whiteness(white) == pytest.approx(1.0, abs=0.01)
    assert metrics.residual_whiteness(gaussian_filter(white, 1)) < 0.5


def test_whiteness_against_the_noise_is_one_for_its_colour_and_less_when_structure_goes_with_it() -> None:
    first, second, structure = (gaussian_filter(noise(seed), 1, mode="wrap") for seed in (26, 27, 28))
    assert metrics.residual_whiteness(first, second) == pytest.approx(1.0, abs=0.03)
    removed = first + 2 * gaussian_filter(structure, 3, mode="wrap") / gaussian_filter(structure, 3).std() * first.std()
    assert metrics.residual_whiteness(removed, second) < 0.95


@pytest.mark.parametrize("place", [(10.0, 11.0, 9.0), (10.3, 10.0, 9.6)])
def test_the_displacement_of_a_feature_is_known_to_a_tenth_of_a_voxel_with_its_sign(place) -> None:
    def ball(centre) -> np.ndarray:
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices((21, 21, 21)), centre, strict=True)))
        return np.clip(4.5 - distance, 0, 1)

    found = metrics.displacement(ball(place) + noise(31, (21, 21, 21)) * 0.02, ball((10, 10, 10)))
    np.testing.assert_allclose(found, np.array(place) - 10, atol=0.1)
