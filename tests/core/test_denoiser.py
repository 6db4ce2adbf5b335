"""The denoiser against theory, and what its application must keep."""

import numpy as np
import pytest
import torch

from cryoden_core.nmsg.denoiser import (
    HALO,
    RecorruptedTask,
    TrainingVolume,
    denoise_volume,
    mirrored_average,
)
from cryoden_core.nmsg.noise_model import NoiseLevel, SpectralNoiseModel
from cryoden_core.nmsg.presets import Preset
from cryoden_core.progress import Progress
from cryoden_core.spectrum import NoiseShare
from cryoden_core.tomogram import HalfDifference
from cryoden_core.training import Trainer, TrainingSettings
from tests.core.noise_volumes import as_measured, coloured, ramp_power, specimen, wedge

CPU = torch.device("cpu")
SHAPE = (24, 96, 96)
SMALL = Preset(features=4, depth=3, steps=120, tile=48, batch=1, rate=4e-3, flips=2, alpha=1.0)
BLOCK = (32, 64, 64)


def noise_model(sd: float = 1.0) -> SpectralNoiseModel:
    power = torch.from_numpy(ramp_power(BLOCK)).float()
    return SpectralNoiseModel(power * (sd / SpectralNoiseModel(power, BLOCK).sd) ** 2, BLOCK)


def uniform(shape=SHAPE) -> NoiseLevel:
    empty = np.zeros((0, 3), int)
    return NoiseLevel(NoiseShare(torch.ones(1), BLOCK, "halves", empty, empty, np.ones(0), 1.0), shape)


def volume_of(data: np.ndarray, noise_sd: float, **more) -> TrainingVolume:
    """The exact noise model: its deviation is ``noise_sd`` on the scale of ``data``."""
    mean, sd = float(data.mean()), float(data.std())
    return TrainingVolume(data, mean, sd, noise_model(noise_sd / sd), uniform(data.shape), 1.5, **more)


def train(volume: TrainingVolume, preset: Preset, steps: int) -> RecorruptedTask:
    task = RecorruptedTask([volume], preset, CPU, seed=1)
    trainer = Trainer(task, TrainingSettings(steps), CPU, 1, Progress(None, quiet=True))
    trainer.fit()
    trainer.use_averages()
    return task


def apply(network, data: np.ndarray, mean: float, sd: float, **more) -> np.ndarray:
    output = np.zeros_like(data)
    denoise_volume(network, data, output, mean, sd, device=CPU, precision=False, **more)
    return output


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return 1.5 * as_measured(specimen(SHAPE, count=10, radius=6))


@pytest.fixture(scope="module")
def noisy(truth) -> np.ndarray:
    return truth + coloured(SHAPE, seed=1)


@pytest.fixture(scope="module")
def trained(noisy):
    return train(volume_of(noisy, 1.0), SMALL, SMALL.steps).network


def linear_gain(volume: TrainingVolume, alpha: float, draws: int = 40) -> float:
    """The gain of the best linear voxel-wise denoiser for the task's pairs of input and target."""
    task = RecorruptedTask([volume], SMALL, CPU, 1)
    generator = torch.Generator().manual_seed(2)
    above = below = 0.0
    for _ in range(draws):
        crop, noise = task._draw(generator)
        given, target = crop + alpha * noise, crop - noise / alpha
        above += float((given * target).sum())
        below += float(given.square().sum())
    return above / below


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_recorrupted_pairs_lead_to_the_gain_of_theory(alpha):
    """S / (S + (1 + a^2) N): the gain that supervised training on the recorrupted input would have."""
    signal, noise = 0.7 * coloured(SHAPE, seed=3, power=np.ones((24, 96, 49))), coloured(SHAPE, seed=4)
    power = 0.49, 1.0
    gain = linear_gain(volume_of(signal + noise, 1.0), alpha)
    assert gain == pytest.approx(power[0] / (power[0] + (1 + alpha**2) * power[1]), abs=0.02)


@pytest.mark.parametrize(("factor", "expected"), [(0.7, 0.342), (1.0, 0.0), (1.4, -0.324)])
def test_noise_modelled_too_weak_stays_and_too_strong_is_inverted(factor, expected):
    """(1 - c^2) / (1 + a^2 c^2) on noise alone."""
    gain = linear_gain(volume_of(coloured(SHAPE, seed=4), factor), 1.0)
    assert gain == pytest.approx(expected, abs=0.03)


def test_noise_alone_is_removed():
    data = coloured(SHAPE, seed=5)
    task = train(volume_of(data, 1.0), SMALL, 60)
    assert apply(task.network, data, 0.0, 1.0).std() < 0.3


def test_the_denoised_volume_is_nearer_to_the_truth(trained, noisy, truth):
    output = apply(trained, noisy, float(noisy.mean()), float(noisy.std()), flips=4)
    assert np.square(output - truth).mean() < 0.3 * np.square(noisy - truth).mean()
    gain = np.cov(output.ravel(), truth.ravel())
    assert 0.5 < gain[0, 1] / gain[1, 1] <= 1.1, "the grey scale must not be inflated"


def test_the_missing_wedge_is_not_filled(trained, noisy):
    output = apply(trained, noisy, float(noisy.mean()), float(noisy.std()), flips=4)
    power = np.abs(np.fft.rfftn(output - output.mean())) ** 2
    assert power[wedge(SHAPE, 62) == 0].sum() < 0.05 * power.sum()


def test_another_grey_scale_gives_the_same_result_on_that_scale(trained, noisy):
    mean, sd = float(noisy.mean()), float(noisy.std())
    expected = apply(trained, noisy, mean, sd)
    other = apply(trained, 30 * noisy - 400, 30 * mean - 400, 30 * sd)
    np.testing.assert_allclose((other + 400) / 30, expected, atol=1e-3 * sd)


def test_density_keeps_its_sign(trained, noisy, truth):
    output = apply(trained, noisy, float(noisy.mean()), float(noisy.std()))
    assert np.corrcoef(output.ravel(), truth.ravel())[0, 1] > 0.5


def test_tiles_with_the_halo_differ_from_the_whole_by_less_than_a_hundredth():
    """The measurement behind ``HALO``: it is shorter than the receptive radius, and still long enough."""
    shape = (16, 160, 160)
    data = 1.5 * as_measured(specimen(shape, count=12, radius=6)) + coloured(shape, seed=7)
    volume = volume_of(data, 1.0)
    network = train(volume, SMALL, 60).network
    assert network.receptive_radius > HALO
    whole = apply(network, data, volume.mean, volume.sd, tile=160)
    tiled = apply(network, data, volume.mean, volume.sd, tile=96)
    assert not np.array_equal(whole, tiled)
    assert np.abs(whole - tiled).max() < 1e-2 * volume.sd


def test_strength_blends_with_the_input(trained, noisy):
    mean, sd = float(noisy.mean()), float(noisy.std())
    full, half, none = (apply(trained, noisy, mean, sd, strength=s) for s in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(none, noisy, atol=1e-5)
    np.testing.assert_allclose(half, (full + noisy) / 2, atol=1e-5)


def test_all_eight_mirrored_copies_make_the_result_equivariant(trained, noisy):
    mean, sd = float(noisy.mean()), float(noisy.std())
    noisy = noisy[:16, 20:52, 20:52]
    expected = apply(trained, noisy, mean, sd, flips=8)
    for axis in range(3):
        mirrored = apply(trained, np.flip(noisy, axis).copy(), mean, sd, flips=8)
        np.testing.assert_allclose(np.flip(mirrored, axis), expected, atol=1e-4)
    assert np.abs(apply(trained, noisy, mean, sd, flips=1) - expected).max() > 1e-3


def test_mirrored_copies_are_mirrored_back():
    data = torch.randn(4, 5, 6)
    for flips in (1, 2, 4, 8):
        torch.testing.assert_close(mirrored_average(lambda x: 2 * x, data, flips), 2 * data)


def test_a_volume_of_any_size_is_denoised(trained):
    data = coloured((18, 50, 42), seed=8)[:17, :49, :41].copy()
    assert np.isfinite(apply(trained, data, 0.0, 1.0)).all()


def test_a_tile_smaller_than_its_context_is_widened(trained, noisy):
    data = noisy[:, :, :48]
    small, least = (apply(trained, data, 0.0, 1.0, tile=tile) for tile in (16, 72))
    np.testing.assert_array_equal(small, least)


def test_crops_are_centred_on_the_mask():
    data = coloured(SHAPE, seed=5)
    centres = np.array([[12, 80, 16]])
    task = RecorruptedTask([volume_of(data, 1.0, centres=centres)], SMALL, CPU, 1)
    assert task.crop == (24, 48, 48)
    assert task._corner(task.volumes[0], torch.Generator().manual_seed(1)).tolist() == [0, 48, 0]


def test_half_of_the_draws_are_the_real_noise_of_the_crop_where_halves_exist():
    data = coloured((24, 48, 48), seed=5)
    even, odd = data + 1, data - 1  # a difference that no model would draw: the constant 1
    volume = volume_of(data, 1.0, difference=HalfDifference(even, odd))
    task = RecorruptedTask([volume], SMALL, CPU, 1)
    generator = torch.Generator().manual_seed(1)
    noises = [task._draw(generator)[1] for _ in range(60)]
    real = [float(noise.mean()) * volume.sd for noise in noises if float(noise.std()) < 1e-4]
    assert 18 <= len(real) <= 42
    assert {round(value, 3) for value in real} == {-1.0, 1.0}, "both signs are drawn"


def test_constant_input_does_not_make_nan():
    data = np.full((16, 32, 32), 3.0, np.float32)
    task = RecorruptedTask([TrainingVolume(data, 3.0, 1.0, noise_model(1.0), uniform(data.shape), 1.0)], SMALL, CPU, 1)
    np.testing.assert_allclose(apply(task.network, data, 3.0, 1.0), 3.0)
