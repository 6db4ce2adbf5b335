"""The adversarial noise model: its critic's penalty, its generator, a few steps of training."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from cryoden_core.jobs import RunFolder
from cryoden_core.nets.critics import NoiseCritic3d, gradient_penalty
from cryoden_core.nmsg import gan
from cryoden_core.nmsg.gan import NoiseGenerator, NoiseTask, draw
from cryoden_core.nmsg.noise_model import SpectralNoiseModel, excess_kurtosis
from cryoden_core.noise_spectrum import Spectra
from cryoden_core.progress import Progress
from cryoden_core.spectrum import NoiseShare
from cryoden_core.training import Interrupted
from tests.core.noise_volumes import coloured, mean_power, ramp_power, shell_means

CPU = torch.device("cpu")
BLOCK = (16, 16, 16)


class Linear(nn.Module):
    """A critic whose gradient is ``weight`` everywhere."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, cubes: torch.Tensor) -> torch.Tensor:
        return (cubes * self.weight).sum(dim=(1, 2, 3, 4))


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_is_the_square_of_its_norm_minus_one(norm):
    weight = torch.randn(4, 4, 4)
    critic = Linear(weight * norm / weight.norm())
    real, fake = torch.randn(2, 5, 1, 4, 4, 4)
    penalty = gradient_penalty(critic, real, fake, torch.rand(5, 1, 1, 1, 1))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)


def test_the_penalty_teaches_the_critic():
    critic = Linear(torch.randn(4, 4, 4))
    gradient_penalty(critic, *torch.randn(2, 3, 1, 4, 4, 4), torch.rand(3, 1, 1, 1, 1)).backward()
    assert critic.weight.grad is not None and critic.weight.grad.any()


def test_a_score_does_not_depend_on_the_other_cubes():
    torch.manual_seed(0)
    critic, cubes = NoiseCritic3d(features=4), torch.randn(3, 1, 16, 16, 16)
    scores = critic(cubes)
    assert scores.shape == (3,)
    torch.testing.assert_close(critic(cubes[1:2]), scores[1:2], atol=1e-5, rtol=1e-4)


def test_the_critic_sees_the_power_of_each_shell():
    power = NoiseCritic3d(features=2).log_power(2 * torch.randn(4, 1, 16, 16, 16))
    assert power.shape == (4, 12)
    # The innermost shells hold one and a few coefficients, whose logarithm scatters.
    assert float(power[:, 3:].mean()) == pytest.approx(np.log(4), abs=0.1)


@pytest.fixture(scope="module")
def spectral() -> SpectralNoiseModel:
    power = torch.from_numpy(ramp_power(BLOCK)).float()
    return SpectralNoiseModel(power / SpectralNoiseModel(power, BLOCK).sd ** 2, BLOCK)


@pytest.fixture(scope="module")
def spectra(spectral) -> Spectra:
    empty = np.zeros((0, 3), int)
    share = NoiseShare(torch.ones_like(spectral.power), BLOCK, "halves", empty, empty, np.ones(0), 1.0)
    return Spectra(spectral.power, spectral.power, BLOCK, share)


@pytest.fixture(scope="module")
def blocks() -> list[torch.Tensor]:
    volume = torch.from_numpy(coloured((32, 64, 64), seed=2))
    return [
        volume[z : z + 16, y : y + 16, x : x + 16].clone()
        for z in (0, 16) for y in range(0, 64, 16) for x in range(0, 64, 16)
    ]  # fmt: skip


def test_an_untrained_generator_draws_the_spectral_model(spectral):
    fields = torch.randn(2, 4, 12, 14, 10)
    white = NoiseGenerator(channels=3, features=4)(fields).detach()
    assert np.corrcoef(white.flatten(), fields[:, :1].flatten())[0, 1] > 0.97
    drawn = draw(spectral, NoiseGenerator(), (24, 24, 24), torch.Generator().manual_seed(1), CPU)
    assert drawn.shape == (24, 24, 24)
    assert drawn.std().item() == pytest.approx(1, rel=0.15)


def wild_generator() -> NoiseGenerator:
    """A generator with random weights: heavy tails."""
    torch.manual_seed(0)
    network = NoiseGenerator(channels=3, features=4)
    for p in network.parameters():
        nn.init.normal_(p, std=0.25)
    return network


def test_the_sign_of_the_noise_is_that_of_a_field_which_its_strength_does_not_see():
    network, fields = wild_generator(), torch.randn(2, 4, 10, 10, 10)
    mirrored = torch.cat([-fields[:, :1], fields[:, 1:]], 1)
    assert torch.equal(network(mirrored), -network(fields))
    assert excess_kurtosis(network(fields)) > 0.5


def test_whatever_its_weights_the_generator_keeps_the_measured_spectrum(spectral):
    """This is what lets training change the tails without spoiling what the spectral model has right."""
    network, random = wild_generator(), torch.Generator().manual_seed(2)
    with torch.no_grad():
        draws = [draw(spectral, network, (48, 48, 48), random, CPU) for _ in range(6)]
    wanted = spectral.amplitude((48, 48, 48), CPU).square()
    ratio = shell_means(mean_power([noise.numpy() for noise in draws]), (48, 48, 48), 8) / shell_means(
        wanted, (48, 48, 48), 8
    )
    np.testing.assert_allclose(ratio[1:], 1, atol=0.06)
    assert excess_kurtosis(draws) > 0.5


def test_the_noise_of_a_generator_is_periodic():
    network, fields = wild_generator(), torch.randn(1, 4, 10, 10, 10)
    rolled = network(fields.roll((3, 5), (2, 4)))
    torch.testing.assert_close(rolled, network(fields).roll((3, 5), (2, 4)), atol=1e-5, rtol=1e-4)


def train(folder, spectral, blocks, spectra, steps, resume=False):
    folder = RunFolder(str(folder))
    progress = Progress(folder, quiet=True)
    return gan.fit(spectral, blocks, spectra, 1, CPU, progress, folder.noise_checkpoint, resume, steps=steps)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(gan, "BATCH", 2)
    monkeypatch.setattr(gan, "CRITIC_STEPS", 1)
    monkeypatch.setattr(gan, "NoiseGenerator", lambda: NoiseGenerator(channels=3, features=6))
    monkeypatch.setattr(gan, "NoiseCritic3d", lambda: NoiseCritic3d(features=6))


def test_twenty_steps_stay_finite_and_move_the_generator(tmp_path, spectral, blocks, spectra, small):
    torch.manual_seed(1)
    before = NoiseGenerator(channels=3, features=6).modulation[-1].weight
    model = train(tmp_path, spectral, blocks, spectra, steps=20)
    assert model.kind == "gan"
    noise = model.sample((20, 24, 18), torch.Generator().manual_seed(4), CPU)
    assert noise.shape == (20, 24, 18) and torch.isfinite(noise).all()
    assert 0.7 < float(noise.std()) < 1.3
    assert abs(float(noise.mean())) < 0.1
    assert not torch.equal(model.network.modulation[-1].weight, before)
    again = model.sample((20, 24, 18), torch.Generator().manual_seed(4), CPU)
    assert torch.equal(noise, again)


def test_resumed_adversarial_training_equals_uninterrupted(tmp_path, spectral, blocks, spectra, small, monkeypatch):
    whole = train(tmp_path / "whole", spectral, blocks, spectra, steps=6)
    step = NoiseTask.step

    def interrupted(self, number, trainer):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, trainer)

    monkeypatch.setattr(NoiseTask, "step", interrupted)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", spectral, blocks, spectra, steps=6)
    monkeypatch.setattr(NoiseTask, "step", step)
    parts = train(tmp_path / "parts", spectral, blocks, spectra, steps=6, resume=True)
    weights = parts.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.network.state_dict().items())
