"""Fourier geometry against counting, Parseval's theorem, white noise and simple waves."""

from pathlib import Path

import numpy as np
import pytest

from cryoden_core import fourier, mrc

SHAPES = [(16, 16, 16), (9, 14, 21), (12, 7, 10), (11, 16), (8, 13)]


@pytest.mark.parametrize("shape", SHAPES)
def test_half_transform_with_its_weights_counts_every_coefficient_once(shape: tuple) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    power = np.abs(fourier.half_transform(values)).astype(np.float64) ** 2
    weights = fourier.hermitian_weights(shape[-1])
    assert (np.ones_like(power) * weights).sum() == values.size
    assert (power * weights).sum() / values.size == pytest.approx((values.astype(np.float64) ** 2).sum(), rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_shells_of_the_half_transform_equal_shells_of_the_whole(shape: tuple) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    values -= values.mean()
    whole = np.abs(np.fft.fftn(values)) ** 2 / values.size
    radius = fourier.frequency_radius(shape, half=False)
    shell = np.rint(radius * max(shape)).astype(int)
    frequency, power = fourier.radial_power_spectrum(values)
    assert frequency.size == max(shape) // 2
    for number in range(1, frequency.size + 1):
        assert frequency[number - 1] == pytest.approx(number / max(shape))
        assert power[number - 1] == pytest.approx(whole[shell == number].mean(), rel=1e-4)


def test_white_noise_has_its_variance_as_power_at_every_frequency_and_angle() -> None:
    noise = np.random.default_rng(2).normal(50.0, 3.0, (48, 48, 48))
    _, power = fourier.radial_power_spectrum(noise, radial_bins=8)
    np.testing.assert_allclose(power, 9.0, rtol=0.12)
    _, angle, conical = fourier.conical_power_spectrum(noise, radial_bins=4, cone_bins=3)
    np.testing.assert_allclose(angle, [15, 45, 75])
    np.testing.assert_allclose(conical[1:], 9.0, rtol=0.12)


def test_edge_taper_keeps_the_level_of_white_noise_and_removes_the_cross_of_a_ramp() -> None:
    noise = np.random.default_rng(3).normal(size=(40, 40, 40))
    _, power = fourier.radial_power_spectrum(noise, 5, edge_taper=0.25)
    np.testing.assert_allclose(power, 1.0, rtol=0.12)
    ramp = np.broadcast_to(np.linspace(-1, 1, 40), (40, 40, 40))
    plain, tapered = (fourier.radial_power_spectrum(ramp, 10, taper)[1][-1] for taper in (0.0, 0.25))
    assert tapered < 0.05 * plain


@pytest.mark.parametrize(("axis", "cone"), [(0, 0), (1, 5), (2, 5)])
def test_a_wave_has_its_power_in_the_cone_of_its_direction(axis: int, cone: int) -> None:
    shape = (32, 32, 32)
    position = [1, 1, 1]
    position[axis] = 32
    wave = np.broadcast_to(np.cos(2 * np.pi * 5 * np.arange(32) / 32).reshape(position), shape)
    frequency, _, power = fourier.conical_power_spectrum(wave, cone_bins=6)
    assert np.unravel_index(np.nanargmax(power), power.shape) == (4, cone)
    assert frequency[4] == pytest.approx(5 / 32)


def test_a_constant_added_to_a_volume_does_not_change_its_spectrum() -> None:
    values = np.random.default_rng(4).normal(size=(16, 16, 16))
    np.testing.assert_allclose(
        fourier.radial_power_spectrum(values)[1], fourier.radial_power_spectrum(values + 1000)[1], rtol=1e-3
    )


def test_the_wedge_of_60_degrees_is_one_third_of_the_plane() -> None:
    shape = (128, 2, 128)
    measured = fourier.missing_wedge_mask(shape, half=False)[:, 0]
    kz, _, kx = fourier.frequency_axes(shape, half=False)
    inside = np.hypot(kz, kx)[:, 0] < 0.5
    assert 1 - measured[inside].mean() == pytest.approx(1 / 3, abs=0.01)


def test_wedge_masks_of_half_and_whole_transforms_agree() -> None:
    shape = (9, 4, 15)
    half = fourier.missing_wedge_mask(shape, -50, 66)
    whole = fourier.missing_wedge_mask(shape, -50, 66, half=False)
    np.testing.assert_array_equal(half, whole[:, :, :8])
    kept = np.fft.fftn(np.random.default_rng(5).normal(size=shape)) * whole
    assert np.abs(np.fft.ifftn(kept).imag).max() < 1e-12


def test_the_wedge_of_a_single_view_lies_where_that_view_measures() -> None:
    """A wave that a view at +30 degrees sees, u = x cos + z sin, is measured by 20..40 and not by -40..-20."""
    shape = (64, 1, 64)
    kx, kz = 7, 4
    assert np.degrees(np.arctan2(kz, kx)) == pytest.approx(29.7, abs=0.1)
    assert fourier.missing_wedge_mask(shape, 20, 40)[kz, 0, kx]
    assert not fourier.missing_wedge_mask(shape, -40, -20)[kz, 0, kx]


def test_the_wedge_is_in_physical_directions_whatever_the_box() -> None:
    """At equal frequency the direction is 45 degrees, though the indices differ by the ratio of the sides."""
    mask = fourier.missing_wedge_mask((16, 4, 64), -46, 46)
    assert mask[4, 0, 16] and not mask[4, 0, 12]


def test_the_tilt_axis_is_always_measured_and_the_beam_never() -> None:
    mask = fourier.missing_wedge_mask((16, 16, 16), -60, 60)
    assert mask[0].all() and mask[0, :, 0].all()
    assert not mask[1:, :, 0].any()


def test_what_lies_on_the_first_and_the_last_view_is_measured() -> None:
    mask = fourier.missing_wedge_mask((16, 1, 16), -45, 45)[:, 0]
    diagonal = np.arange(1, 8)
    assert mask[diagonal, diagonal].all() and mask[-diagonal, diagonal].all()
    assert not mask[diagonal[:-1] + 1, diagonal[:-1]].any() and not mask[-diagonal[:-1] - 1, diagonal[:-1]].any()


def test_polar_bins_are_rings_and_angles_of_views() -> None:
    """A frequency at 29.7 degrees and a length of 8.06 / 64 lies in the bin of that angle and that ring."""
    index, frequency, angle = fourier.polar_bins((64, 64), 32, 18)
    ring, sector = divmod(int(index[4, 7]), 18)
    assert frequency[ring] == pytest.approx(8 / 64) and angle[sector] == pytest.approx(25)
    assert angle[index[-4, 7] % 18] == pytest.approx(-25)
    assert index[0, 0] == -1 and index[32, 32] == -1
    assert angle[0] == -85 and angle[-1] == 85 and frequency[-1] == 0.5


def test_a_tilt_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError):
        fourier.missing_wedge_mask((8, 8, 8), 60, -60)


def test_crowther_frequency_falls_with_thickness_and_step_and_stops_at_nyquist() -> None:
    assert fourier.crowther_frequency(100, 3) == pytest.approx(1 / (100 * np.pi / 60))
    assert fourier.crowther_frequency(100, 3) == pytest.approx(2 * fourier.crowther_frequency(200, 3))
    assert fourier.crowther_frequency(4, 1) == 0.5


def test_edge_window_keeps_a_thin_volume() -> None:
    window = fourier.edge_window((6, 64, 64), 0.1)
    assert window[:, 32, 32].min() == 1.0
    assert window[3, 0, 32] < 0.05


def test_radial_average_of_the_radius_is_the_radius() -> None:
    shape = (24, 20, 30)
    frequency, average = fourier.radial_average(fourier.frequency_radius(shape), shape)
    np.testing.assert_allclose(average, frequency, atol=0.5 / 30)


def missing_over_measured(volume: np.ndarray, measured: np.ndarray, lowest: float, highest: float) -> float:
    """Mean power outside ``measured`` over that inside, between two frequencies."""
    values = (volume - volume.mean()) * fourier.edge_window(volume.shape, 0.1)
    power = np.abs(fourier.half_transform(values)) ** 2
    radius = fourier.frequency_radius(volume.shape)
    band = (radius > lowest) & (radius < highest)
    return float(power[band & ~measured].mean() / power[band & measured].mean())


def test_an_imod_tomogram_is_empty_in_its_missing_wedge(test_data: Path) -> None:
    volume = mrc.read_volume(str(test_data / "imod_golden" / "A" / "rec_A_float32.mrc"))
    assert missing_over_measured(volume, fourier.missing_wedge_mask(volume.shape, -60, 60), 0.1, 0.3) < 0.06
    assert missing_over_measured(volume, fourier.missing_wedge_mask(volume.shape, -40, 60), 0.1, 0.3) > 0.2


def test_a_view_left_out_by_imod_is_missing_at_its_own_sign_of_angle(test_data: Path) -> None:
    """Case B lacks the views at -48 and -3 degrees, and has those at +48 and +3."""
    volume = mrc.read_volume(str(test_data / "imod_golden" / "B" / "rec_B_excluded_float32.mrc"))
    shape = volume.shape
    for angle in (3.0, 48.0):
        absent = fourier.missing_wedge_mask(shape, -angle - 0.5, -angle + 0.5)
        present = fourier.missing_wedge_mask(shape, angle - 0.5, angle + 0.5)
        power = [missing_over_measured(volume, ~selected, 0.15, 0.3) for selected in (absent, present)]
        assert power[0] < 0.6 * power[1]


def test_a_band_ends_where_the_next_begins_and_the_corners_lie_beyond():
    index = fourier.band_index((8, 8, 8), 4)
    assert index[0, 0].tolist() == [0, 1, 2, 3, 4]
    assert index[0, :, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert index[1, 1, 1] == 1 and index[4, 4, 4] == 6


def test_cones_are_ranges_of_the_angle_to_the_beam():
    shape = (32, 32, 32)
    radius = fourier.frequency_radius(shape)
    index = fourier.cone_index(fourier.frequency_axes(shape)[0], radius, 3)
    assert index[5, 0, 0] == index[-5, 0, 0] == 0
    assert index[0, 5, 0] == index[0, 0, 5] == 2
    assert index[5, 5, 0] == 1 and index[5, 2, 0] == 0 and index[2, 0, 5] == 2
