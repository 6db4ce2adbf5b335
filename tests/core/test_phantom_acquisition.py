"""Physics of the simulated microscope: contrast transfer, noise, halves and the signal-to-noise ratio delivered."""

import numpy as np
import pytest

from cryoden_core.jobs import JobError
from cryoden_core.phantom.acquisition import acquire, project, reconstruct, signal_to_noise, tilt_angles
from cryoden_core.phantom.optics import (
    Microscope,
    accumulated_dose,
    blur_views,
    contrast_transfer,
    exposure_filter,
    transmission,
)
from cryoden_core.phantom.packing import pack
from cryoden_core.phantom.shapes import builtin_templates

ANGLES = tilt_angles(60, 6)


@pytest.fixture(scope="module")
def model():
    return pack((40, 64, 64), builtin_templates(10.0), particles=14, vesicles=0, seed=2)


@pytest.fixture(scope="module")
def taken(model):
    return acquire(model.density, 10.0, ANGLES, model.specimen_mask(), voxel_snr=0.3)


def wavelength_angstrom(kilovolt: float) -> float:
    volt = kilovolt * 1e3
    return 12.2643 / np.sqrt(volt + 0.97845e-6 * volt**2)


def test_tilt_angles_are_symmetric_and_hold_the_limit():
    np.testing.assert_allclose(tilt_angles(60, 3), np.arange(-60, 61, 3))
    np.testing.assert_allclose(tilt_angles(50, 20), [-40, -20, 0, 20, 40])


@pytest.mark.parametrize("defocus", [2.0, 5.0])
def test_first_zeros_of_the_transfer_function_are_where_theory_has_them(defocus):
    # sin(pi lambda dz k^2 - pi/2 Cs lambda^3 k^4 + asin(A)) = 0, solved for k numerically.
    pixel, size, length = 4.0, 4096, wavelength_angstrom(300)
    transfer = contrast_transfer((4, size), pixel, defocus, Microscope())[0]
    frequency = np.fft.rfftfreq(size, pixel)
    crossings = frequency[np.flatnonzero(np.diff(np.sign(transfer)))][:4]
    fine = np.linspace(0, 0.125, 200001)
    phase = np.pi * length * defocus * 1e4 * fine**2 - np.pi / 2 * 2.7e7 * length**3 * fine**4 + np.arcsin(0.07)
    expected = [fine[np.searchsorted(phase, n * np.pi)] for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(crossings, expected, atol=frequency[1])


def test_transfer_is_the_positive_amplitude_contrast_at_zero_frequency():
    assert contrast_transfer((32, 32), 10.0, 3.0, Microscope())[0, 0] == pytest.approx(0.07, abs=1e-4)


def test_underfocus_keeps_protein_of_the_sign_asked_for(model):
    for sign, factor in (("dark", -1), ("bright", 1)):
        ctf = acquire(model.density, 10.0, ANGLES, voxel_snr=1.0, sign=sign, microscope=Microscope(defocus=3.0))
        assert np.corrcoef(ctf.noise_free.ravel(), factor * model.density.ravel())[0, 1] > 0.3


def test_each_view_takes_its_own_defocus(model):
    projections = project(model.density, ANGLES)
    defocus = np.full(len(ANGLES), 2.0)
    plain = blur_views(projections, ANGLES, 10.0, Microscope(defocus=2.0))
    np.testing.assert_allclose(blur_views(projections, ANGLES, 10.0, Microscope(), defocus), plain, atol=1e-4)
    defocus[3] = 6.0
    changed = np.abs(blur_views(projections, ANGLES, 10.0, Microscope(), defocus) - plain).max(axis=(1, 2)) > 1e-3
    np.testing.assert_array_equal(np.flatnonzero(changed), [3])
    with pytest.raises(JobError, match="one for each view"):
        blur_views(projections, ANGLES, 10.0, Microscope(), defocus[:-1])


def test_damage_falls_with_resolution_and_dose_and_spares_the_mean():
    little, much = (exposure_filter((64, 64), 5.0, dose) for dose in (10.0, 100.0))
    assert little[0, 0] == much[0, 0] == 1
    assert (np.diff(little[0]) < 0).all() and (much[0, 1:] < little[0, 1:]).all()
    # At 10 angstrom the critical exposure is 0.24499 * 0.1 ** -1.6649 + 2.8141 = 14.14 electrons per square angstrom.
    assert little[0, -1] == pytest.approx(np.exp(-10 / (2 * 14.14)), abs=2e-3)


def test_least_tilted_views_come_first_in_dose():
    doses = accumulated_dose(np.array([-6.0, -3.0, 0.0, 3.0, 6.0]), 3.0)
    assert doses.argmin() == 2 and doses[[1, 3]].max() < doses[[0, 4]].min()
    assert doses.max() == pytest.approx(4.5 * 3)


def test_tilted_ice_lets_fewer_electrons_pass():
    np.testing.assert_allclose(transmission(np.array([0.0, 60.0]), 3100.0), np.exp([-1.0, -2.0]))


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
@pytest.mark.parametrize("wanted", [0.3, 0.03])
def test_wanted_voxel_snr_is_delivered_within_ten_percent(model, noise, wanted):
    mask = model.specimen_mask()
    taken = acquire(model.density, 10.0, ANGLES, mask, voxel_snr=wanted, noise=noise)
    measured = signal_to_noise(taken.noise_free, taken.tomogram - taken.noise_free, mask)
    assert measured == pytest.approx(wanted, rel=0.1)
    assert taken.voxel_snr == pytest.approx(measured)


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
def test_wanted_projection_snr_is_delivered(model, noise):
    views = acquire(model.density, 10.0, ANGLES, projection_snr=0.2, noise=noise).tilt_series
    assert signal_to_noise(views.noise_free, views.full - views.noise_free) == pytest.approx(0.2, rel=0.05)


def test_halves_sum_to_the_full_series_and_tomogram(taken):
    views = taken.tilt_series
    np.testing.assert_allclose(views.even + views.odd, views.full, atol=1e-4)
    rebuilt = reconstruct(views.full, ANGLES, *taken.tomogram.shape[::2])
    np.testing.assert_allclose(taken.tomogram, rebuilt, atol=1e-4 * rebuilt.std() * 10)
    np.testing.assert_array_equal(taken.tomogram_even + taken.tomogram_odd, taken.tomogram)


def test_halves_have_half_of_the_signal_and_independent_noise(taken):
    views = taken.tilt_series
    even, odd = (half - views.noise_free / 2 for half in (views.even, views.odd))
    assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 0.02
    assert even.std() == pytest.approx(taken.noise_sd / np.sqrt(2), rel=0.02)
    assert (views.even - views.odd).std() == pytest.approx(taken.noise_sd, rel=0.02)


def test_poisson_noise_has_the_variance_of_its_counts():
    empty = np.zeros((8, 64, 64), np.float32)
    empty[4, 32, 32] = 1e-3
    taken = acquire(empty, 10.0, ANGLES, noise="poisson", electrons_per_pixel=50.0)
    contrast = 3.3e-3 * 10
    assert taken.tilt_series.full.std() == pytest.approx(1 / (contrast * np.sqrt(50)), rel=0.02)
    assert taken.electrons_per_pixel == pytest.approx(50, rel=1e-3)
    counts = 50 * (1 + contrast * taken.tilt_series.full)  # dark protein: fewer electrons, a negative view
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-2)


def test_dose_of_the_microscope_sets_poisson_noise(model):
    taken = acquire(model.density, 10.0, ANGLES, noise="poisson", microscope=Microscope(dose_per_view=2.0))
    assert 0.7 * 200 < taken.electrons_per_pixel < 200


def test_thick_ice_makes_tilted_views_noisier(model):
    microscope = Microscope(thickness_loss=True)
    views = acquire(model.density, 10.0, ANGLES, voxel_snr=0.1, microscope=microscope).tilt_series
    sd = (views.full - views.noise_free).std(axis=(1, 2))
    middle = len(ANGLES) // 2
    expected = np.sqrt(np.divide(*transmission(np.array([0.0, 60.0]), 400.0)))
    assert sd[0] / sd[middle] == pytest.approx(expected, rel=0.05)


def test_dose_weighting_lowers_high_frequencies_of_the_tomogram(model):
    weighted, plain = (
        acquire(model.density, 10.0, ANGLES, projection_snr=0.1, microscope=Microscope(dose_weighting=on)).tomogram
        for on in (True, False)
    )
    rough = [np.abs(np.diff(volume, axis=2)).mean() for volume in (weighted, plain)]
    assert rough[0] < 0.9 * rough[1]


def test_signs_are_mirror_images(model):
    dark, bright = (acquire(model.density, 10.0, ANGLES, voxel_snr=0.1, sign=sign) for sign in ("dark", "bright"))
    np.testing.assert_allclose(dark.noise_free, -bright.noise_free, atol=1e-5)
    assert np.corrcoef(dark.noise_free.ravel(), model.density.ravel())[0, 1] < -0.6


def test_same_seed_gives_the_same_noise_whatever_its_strength(model):
    first, again, weaker, other = (
        acquire(model.density, 10.0, ANGLES, voxel_snr=snr, seed=seed)
        for snr, seed in ((0.1, 1), (0.1, 1), (0.4, 1), (0.1, 2))
    )
    np.testing.assert_array_equal(first.tomogram, again.tomogram)
    half = (first.tomogram - first.noise_free) / 2
    np.testing.assert_allclose(weaker.tomogram - weaker.noise_free, half, atol=1e-4)
    assert abs(np.corrcoef(half.ravel(), (other.tomogram - other.noise_free).ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"voxel_snr": 0.1, "projection_snr": 0.1}, "give one of"),
        ({"electrons_per_pixel": 5.0}, "poisson"),
        ({"noise": "pink"}, "noise must be one of"),
        ({"mask": np.zeros((4, 4, 4), bool)}, "mask"),
        ({"angles": np.array([0.0])}, "at least 2 angles"),
    ],
)
def test_contradictory_choices_are_refused(model, choices, message):
    with pytest.raises(JobError, match=message):
        acquire(**{"density": model.density, "voxel_size": 10.0, "angles": ANGLES, **choices})


def test_empty_specimen_is_refused():
    with pytest.raises(JobError, match="not all the same"):
        acquire(np.zeros((16, 16, 16)), 10.0, ANGLES)
