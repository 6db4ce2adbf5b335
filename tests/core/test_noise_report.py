"""The noise report passes for the right noise and fails for each way of being wrong."""

import math

import numpy as np
import pytest
import torch

from cryoden_core.fourier import frequency_radius
from cryoden_core.nmsg.noise_model import SpectralNoiseModel
from cryoden_core.nmsg.noise_report import Check, NoiseReport, make_report, noise_band
from cryoden_core.noise_spectrum import Spectra, measure_spectra
from cryoden_core.spectrum import NoiseShare
from cryoden_core.tomogram import HalfDifference
from tests.core.noise_volumes import as_measured, coloured, ramp_power, specimen

CPU = torch.device("cpu")
BLOCK = (32, 32, 32)


class Transformed:
    """A wrong noise model: another one's draws, changed."""

    kind = "wrong"

    def __init__(self, inner, change) -> None:
        self.inner, self.change = inner, change

    def sample(self, shape, generator, device):
        return self.change(self.inner.sample(shape, generator, device))


@pytest.fixture(scope="module")
def real() -> list[torch.Tensor]:
    big = coloured((64, 128, 128), seed=9)
    return [
        torch.from_numpy(big[z : z + 32, y : y + 32, x : x + 32].copy())
        for z in range(0, 64, 32) for y in range(0, 128, 32) for x in range(0, 128, 32)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def right() -> SpectralNoiseModel:
    block = (64, 64, 64)
    power = torch.from_numpy(ramp_power(block)).float()
    model = SpectralNoiseModel(power, block)
    return SpectralNoiseModel(power / model.sd**2, block)


@pytest.fixture(scope="module")
def spectra(right) -> Spectra:
    empty = np.zeros((0, 3), int)
    share = NoiseShare(torch.ones_like(right.power), right.block, "halves", empty, empty, np.ones(0), 1.0)
    return Spectra(right.power, right.power, right.block, share)


def report(model, real, spectra) -> NoiseReport:
    return make_report(model, real, spectra, 1, CPU, "halves")


def test_noise_of_the_right_spectrum_passes(right, real, spectra):
    found = report(right, real, spectra)
    assert found.passed, {check.name: check.value for check in found.checks if not check.passed}
    assert found.failures == [] and found.samples == len(real)


@pytest.mark.parametrize("halves", [False, True])
def test_a_spectrum_measured_beside_a_specimen_passes(real, halves):
    """The true noise has unit variance, and so the volume is standardised by one."""
    shape = (64, 128, 128)
    signal = 3 * as_measured(specimen(shape, count=12, radius=7))
    even, odd = (signal + math.sqrt(2) * coloured(shape, seed=seed) for seed in (10, 11))
    volume = (even + odd) / 2
    spectra = measure_spectra(volume, float(volume.mean()), 1.0, HalfDifference(even, odd) if halves else None)
    found = report(SpectralNoiseModel(spectra.noise, spectra.block), real, spectra)
    assert found.passed, {check.name: check.value for check in found.checks if not check.passed}


def test_white_in_place_of_coloured_fails(real, spectra):
    white = SpectralNoiseModel(torch.ones(8, 8, 5), (8, 8, 8))
    failures = report(white, real, spectra).failures
    assert {"power by shell", "power by direction", "autocorrelation", "wedge"} <= set(failures)


def test_a_stack_of_two_dimensional_fields_fails(right, real, spectra):
    """The right spectrum in each slice, but slices that do not know of each other."""
    in_plane = right.power.mean(0, keepdim=True).expand_as(right.power)
    failures = report(SpectralNoiseModel(in_plane.contiguous(), right.block), real, spectra).failures
    assert {"power by direction", "autocorrelation", "wedge"} <= set(failures)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_wrong_amplitude_fails(right, real, spectra, factor):
    failures = report(Transformed(right, lambda noise: factor * noise), real, spectra).failures
    assert {"variance", "power by shell"} <= set(failures)


def test_noise_clipped_on_one_side_fails(right, real, spectra):
    """What a generator makes that ends in a range of 0 to 1."""
    failures = report(Transformed(right, lambda noise: noise.clamp_min(0)), real, spectra).failures
    assert {"mean", "skewness"} <= set(failures)


def test_a_trend_fails(right, real, spectra):
    failures = report(Transformed(right, lambda noise: noise + 0.1), real, spectra).failures
    assert failures == ["mean"]


def test_heavy_tails_fail(right, real, spectra):
    def heavy(noise: torch.Tensor) -> torch.Tensor:
        white = torch.randn(noise.shape, generator=torch.Generator().manual_seed(int(noise.abs().sum())))
        return noise * (0.6 + 0.8 * (white > 0))

    failures = report(Transformed(right, lambda noise: noise.sign() * noise.abs() ** 1.6), real, spectra).failures
    assert "excess kurtosis" in failures
    assert "excess kurtosis" in report(Transformed(right, heavy), real, spectra).failures


def test_noise_copied_from_the_tomogram_fails(right, real, spectra):
    class Copy:
        kind = "copy"
        next = 0

        def sample(self, shape, generator, device):
            self.next += 1
            return real[self.next % len(real)].clone()

    assert "memory" in report(Copy(), real, spectra).failures


def test_few_real_blocks_are_not_asked_for_more_than_they_tell(right, real, spectra):
    """Their autocorrelations differ among each other by more than the limit for many."""
    found = {check.name: check for check in report(right, real[:6], spectra).checks}["autocorrelation"]
    assert found.high > 0.03 and found.passed
    many = {check.name: check for check in report(right, real, spectra).checks}["autocorrelation"]
    assert many.high < found.high
    white = SpectralNoiseModel(torch.ones(8, 8, 5), (8, 8, 8))
    assert "autocorrelation" in report(white, real[:6], spectra).failures


def test_the_json_form_holds_every_row(right, real, spectra):
    content = report(right, real, spectra).to_dict()
    assert content["passed"] is True and content["source"] == "halves"
    assert all(set(row) == {"name", "value", "low", "high", "meaning", "passed"} for row in content["checks"])


def test_a_figure_that_is_not_finite_does_not_pass():
    assert not Check("x", float("nan"), 0, 1, "").passed
    assert Check("x", 1.0, 0, 1, "").passed


def test_the_noise_band_begins_where_noise_takes_over(right, spectra):
    share = spectra.share
    radius = torch.from_numpy(frequency_radius(right.block))
    signal = right.power.mean() * 100 * (radius < 0.2)
    band = noise_band(Spectra(right.power + signal, right.power, right.block, share), BLOCK)
    inside = frequency_radius(BLOCK)[band.numpy()]
    assert 0.18 < float(inside.min()) < 0.25
    assert noise_band(spectra, BLOCK).float().mean() > 0.99
