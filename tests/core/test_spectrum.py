"""Spectra measured on volumes whose spectra are known."""

import numpy as np
import pytest
import torch

from cryoden_core.fourier import frequency_radius
from cryoden_core.spectrum import (
    block_corners,
    block_shape,
    hann_window,
    mean_spectrum,
    resample_spectrum,
    share_from_background,
    without_peaks,
)
from tests.core.noise_volumes import SHAPE, coloured, ramp_power, shell_means, specimen, wedge


def full_mean(power: torch.Tensor, shape: tuple[int, int, int]) -> float:
    """Mean over the full grid of a half-grid spectrum: the variance."""
    return float((power.sum() + power[..., 1 : (shape[2] + 1) // 2].sum()) / np.prod(shape))


def test_white_noise_has_a_flat_spectrum_of_one():
    volume = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    block = block_shape(SHAPE, 32)
    profile = shell_means(mean_spectrum(volume, block), block)
    # The innermost shells hold few coefficients, and the zero frequency is taken out.
    np.testing.assert_allclose(profile[2:], 1, atol=0.06)


def test_mean_and_scale_standardise_the_volume():
    volume = 100 + 7 * np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    block = block_shape(SHAPE, 32)
    profile = shell_means(mean_spectrum(volume, block, 100, 7), block)
    # The innermost shells hold few coefficients, and the zero frequency is taken out.
    np.testing.assert_allclose(profile[2:], 1, atol=0.06)


def test_the_ramp_and_the_wedge_are_measured_within_ten_percent():
    block = block_shape(SHAPE, 32)
    measured = mean_spectrum(coloured(), block)
    true = torch.from_numpy(ramp_power(block)).float()
    true = true / full_mean(true, block)
    used = shell_means(true, block) > 0.01 * shell_means(true, block).max()
    used[:2] = False
    ratio = shell_means(measured, block)[used] / shell_means(true, block)[used]
    np.testing.assert_allclose(ratio, 1, atol=0.1)
    inside = wedge(block, 70) == 0
    band = (frequency_radius(block) > 0.15) & (frequency_radius(block) < 0.4)
    assert measured[torch.from_numpy(inside & band)].mean() < 0.05 * measured[torch.from_numpy(~inside & band)].mean()


@pytest.mark.parametrize("shape", [(16, 24, 24), (48, 64, 40), (32, 32, 50), (30, 34, 31)])
def test_resampling_keeps_the_variance(shape):
    block = (32, 32, 32)
    power = torch.from_numpy(ramp_power(block)).float()
    again = resample_spectrum(power, shape)
    assert again.shape == (shape[0], shape[1], shape[2] // 2 + 1)
    assert full_mean(again, shape) == pytest.approx(full_mean(power, block), rel=0.03)


def test_resampling_to_the_same_grid_changes_nothing_and_a_flat_spectrum_stays_flat():
    power = torch.rand(8, 8, 5)
    assert torch.equal(resample_spectrum(power, (8, 8, 8)), power)
    torch.testing.assert_close(resample_spectrum(torch.ones(8, 8, 5), (12, 6, 10)), torch.ones(12, 6, 6))


def test_a_window_has_unit_mean_square_and_a_block_fits_into_the_volume():
    assert float(hann_window((8, 12, 16)).square().mean()) == pytest.approx(1, rel=1e-5)
    assert block_shape((17, 100, 33), 64) == (16, 64, 32)


def test_blocks_reach_every_border_and_are_an_even_subset_when_many():
    corners = block_corners((20, 100, 50), (16, 32, 32))
    assert corners.min(0).tolist() == [0, 0, 0]
    assert corners.max(0).tolist() == [4, 68, 18]
    assert len(block_corners((64, 512, 512), (16, 16, 16), 100)) == 100


def test_noise_alone_is_all_noise_share():
    share = share_from_background(coloured(), 0, 1)
    profile = shell_means(share.rho, share.block)
    assert profile[2:].min() > 0.85
    assert share.contrast < 1.5


def test_background_gives_the_noise_within_fifteen_percent_where_noise_dominates():
    noise, signal = coloured(seed=1), 2 * specimen()
    volume = noise + signal
    mean, scale = float(volume.mean()), float(volume.std())
    share = share_from_background(volume, mean, scale)
    block = share.block
    total = mean_spectrum(volume, block, mean, scale)
    true = mean_spectrum(noise, block, 0, scale)
    dominated = shell_means(true, block) / shell_means(total, block) > 0.5
    dominated[0] = False
    assert dominated[1:].sum() >= 6
    ratio = shell_means(share.rho * total, block)[dominated] / shell_means(true, block)[dominated]
    np.testing.assert_allclose(ratio, 1, atol=0.15)


def test_the_chosen_background_lies_outside_the_specimen():
    signal = 4 * specimen()
    share = share_from_background(coloured(seed=1) + signal, 0.0, 1.0)
    crowded = [float(signal[tuple(slice(c, c + b) for c, b in zip(corner, share.block, strict=True))].mean())
               for corner in share.corners]  # fmt: skip
    assert np.mean(crowded) < 0.2 * signal[:, :, :40].mean()
    assert share.contrast > 1.15


def test_a_layer_line_is_brought_down_to_its_surroundings_and_the_wedge_keeps_its_edges():
    block = (32, 64, 64)
    power = torch.from_numpy(ramp_power(block)).float()
    share = torch.full_like(power, 0.6)
    smooth = without_peaks(power, share, block)
    # At the tip of the wedge the measured directions are narrower than the surroundings that are looked at.
    np.testing.assert_allclose(shell_means(smooth, block)[2:5], shell_means(power, block)[2:5], rtol=0.12)
    np.testing.assert_allclose(shell_means(smooth, block)[5:], shell_means(power, block)[5:], rtol=0.05)
    line = power.clone()
    line[:, 15:18, :5] *= 6
    np.testing.assert_allclose(without_peaks(line, share, block)[4, 15:18, 2:5], power[4, 15:18, 2:5], rtol=0.6)
    assert torch.equal(without_peaks(line, torch.ones_like(power), block), line)
