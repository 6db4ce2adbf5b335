"""The equations of DUAL against their closed forms, and their gradients where they could be infinite."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cryoden_core.dual import losses
from cryoden_core.dual.networks import permute_voxels
from cryoden_core.nets.critics import SpectralCritic3d, log_spectrum


def volumes(seed: int = 0, count: int = 4, edge: int = 16) -> torch.Tensor:
    return torch.randn(count, 1, edge, edge, edge, generator=torch.Generator().manual_seed(seed))


def test_reconstruction_is_the_sum_of_two_logarithms():
    a, b = volumes(0), volumes(0) + 0.5 * volumes(1)
    square = float(((a - b) ** 2).mean())
    correlation = np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1]
    expected = math.log(square + 0.1) + math.log(1 - correlation + 0.1)
    assert float(losses.reconstruction(a, b, 0.1).loss) == pytest.approx(expected, rel=1e-4)


def test_reconstruction_of_equal_volumes_stops_at_its_floor():
    a = volumes()
    assert float(losses.reconstruction(a, a, 0.1).loss) == pytest.approx(2 * math.log(0.1), abs=1e-4)


def test_a_constant_volume_has_finite_loss_and_gradient():
    constant = torch.ones(2, 1, 8, 8, 8, requires_grad=True)
    result = losses.reconstruction(volumes(edge=8, count=2), constant, 1e-8)
    result.loss.backward()
    assert torch.isfinite(result.loss) and torch.isfinite(constant.grad).all()


@pytest.mark.parametrize("printed", [False, True])
def test_codes_of_the_normal_distribution_diverge_by_next_to_nothing(printed):
    codes = torch.randn(100_000, 4, generator=torch.Generator().manual_seed(0))
    assert float(losses.code_divergence(codes, printed)) < 1e-2


def test_the_divergence_of_shifted_and_scaled_codes_is_the_closed_form():
    mean, sd, length = 0.7, 1.8, 3
    codes = mean + sd * torch.randn(200_000, length, generator=torch.Generator().manual_seed(0))
    backward = 0.5 * (sd**2 + mean**2 - 1 - math.log(sd**2))
    forward = 0.5 * (1 / sd**2 + mean**2 / sd**2 - 1 + math.log(sd**2)) * length
    assert float(losses.code_divergence(codes, shrinkage=0)) == pytest.approx(backward, rel=0.02)
    assert float(losses.code_divergence(codes, printed=True)) == pytest.approx(forward, rel=0.02)


def test_positions_of_a_map_count_as_samples():
    codes = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    flat = codes.permute(0, 2, 3, 4, 1).reshape(-1, 4)
    assert float(losses.code_divergence(codes)) == pytest.approx(float(losses.code_divergence(flat)), abs=1e-6)


def test_the_printed_divergence_refuses_fewer_codes_than_numbers_and_the_other_stays_finite():
    codes = torch.randn(4, 16, requires_grad=True)
    with pytest.raises(ValueError, match="4 codes of 16 numbers"):
        losses.code_divergence(codes, printed=True)
    losses.code_divergence(codes).backward()
    assert torch.isfinite(codes.grad).all()


def test_critics_that_are_right_lose_nothing_under_hinge():
    real, fake = torch.full((2, 1), 1.5), torch.full((2, 1), -2.0)
    assert float(losses.critic_loss("hinge", real, fake)) == 0
    assert float(losses.critic_loss("hinge", fake, real)) == pytest.approx(3 + 2.5)
    assert float(losses.critic_loss("bce", torch.zeros(1), torch.zeros(1))) == pytest.approx(2 * math.log(2))
    assert float(losses.critic_loss("ls", torch.ones(1), torch.zeros(1))) == 0


@pytest.mark.parametrize("kind", ["bce", "hinge", "ls"])
def test_generators_gain_by_higher_scores(kind):
    assert losses.generator_loss(kind, torch.full((3,), 0.5)) < losses.generator_loss(kind, torch.full((3,), -0.5))


def test_the_gradient_penalty_of_a_linear_critic_is_half_its_squared_norm():
    linear = nn.Linear(8, 1)
    real = torch.randn(5, 8, requires_grad=True)
    penalty = losses.gradient_at_real(linear(real), real).detach()
    assert float(penalty) == pytest.approx(0.5 * float(linear.weight.detach().square().sum()), rel=1e-5)


def test_white_noise_is_white_and_blurred_noise_is_not():
    white = volumes(count=2, edge=32)
    blurred = torch.nn.functional.avg_pool3d(white, 3, 1, 1)
    assert float(losses.whiteness(white)) < 1e-3 < 0.1 < float(losses.whiteness(blurred))


def test_moments_mismatch_by_level_and_by_spread():
    a = volumes()
    assert float(losses.moment_mismatch(a, a)) == 0
    assert float(losses.moment_mismatch(a + 0.5, a)) == pytest.approx(0.25, rel=1e-4)
    assert float(losses.moment_mismatch(math.e * a, a)) == pytest.approx(
        1 + ((math.e - 1) * float(a.mean())) ** 2, rel=1e-3
    )


def test_real_spectra_do_not_mismatch_and_others_do():
    critic = SpectralCritic3d(16, 8)
    critic.measure([volumes(seed, 16) for seed in range(8)])
    real, blurred = volumes(9, 16), torch.nn.functional.avg_pool3d(volumes(9, 16), 3, 1, 1)
    assert abs(float(losses.spectral_mismatch(critic.standardised(real)))) < 0.05
    assert float(losses.spectral_mismatch(critic.standardised(blurred))) > 1


def test_what_lies_in_the_missing_wedge_is_not_visible():
    shape = (16, 16, 16)
    wave = torch.cos(2 * math.pi * torch.arange(16) / 16)
    along_x, along_z = wave.expand(1, 1, *shape), wave[:, None, None].expand(1, 1, *shape)
    measured = torch.ones(16, 16, 9)
    measured[1, 0, 0] = measured[15, 0, 0] = 0
    assert torch.allclose(losses.visible(along_x + along_z, measured), along_x, atol=1e-5)


def test_halves_disagree_less_the_better_one_tells_the_other():
    random = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.avg_pool3d(torch.randn(2, 1, 24, 24, 24, generator=random), 5, 1, 2) * 8
    even, odd = (truth + torch.randn(truth.shape, generator=random) for _ in range(2))
    everything = torch.ones(24, 24, 13)
    best, raw, copied = (float(losses.half_disagreement(x, odd, everything)) for x in (3 * truth + 1, even, odd))
    assert copied == pytest.approx(0, abs=1e-5) and copied < best < raw < 1
    unmeasured = everything.clone()
    unmeasured[:, :, 3:] = 0
    assert losses.half_disagreement(truth, odd, unmeasured) > best


def test_permuted_voxels_are_the_same_values_elsewhere_in_each_sample():
    a = volumes(count=2, edge=8).requires_grad_(True)
    shuffled = permute_voxels(a, torch.Generator().manual_seed(0))
    flat, moved = a.detach().flatten(1), shuffled.detach().flatten(1)
    assert torch.equal(flat.sort(1).values, moved.sort(1).values) and not torch.equal(flat, moved)
    # The two samples are shuffled differently.
    ranks = [values.argsort() for values in (moved[0], moved[1])]
    assert not torch.equal(flat[0].argsort()[ranks[0].argsort()], flat[1].argsort()[ranks[1].argsort()])


def test_the_gradient_of_a_permutation_goes_back_to_where_values_came_from():
    a = volumes(count=1, edge=4).requires_grad_(True)
    weight = volumes(seed=1, count=1, edge=4)
    shuffled = permute_voxels(a, torch.Generator().manual_seed(0))
    (shuffled * weight).sum().backward()
    source = torch.tensor([int((a.detach().flatten() == value).nonzero()) for value in shuffled.detach().flatten()])
    expected = torch.zeros(64).index_put((source,), weight.flatten())
    assert torch.allclose(a.grad.flatten(), expected)


def test_a_plane_wave_peaks_at_its_frequency():
    z, x = torch.arange(16)[:, None, None], torch.arange(16)[None, None, :]
    wave = torch.cos(2 * math.pi * (3 * z + 2 * x) / 16).expand(16, 16, 16)
    spectrum = log_spectrum(wave[None, None])[0, 0]
    assert np.unravel_index(int(spectrum.argmax()), spectrum.shape) == (8 + 3, 8, 2)


def test_the_window_removes_the_cross_of_a_ramp():
    ramp = torch.linspace(-1, 1, 16).expand(16, 16, 16)
    windowed = log_spectrum(ramp[None, None])[0, 0]
    plain = torch.fft.fftshift(torch.fft.rfftn(ramp, norm="ortho").abs()[..., :-1].add(1e-3).log(), dim=(0, 1))
    assert windowed[8, 8, 7] < plain[8, 8, 7] - 2


def test_the_level_is_left_out_of_mean_free_spectra_and_constant_cubes_have_gradients():
    cubes = volumes(count=2)
    louder = log_spectrum(1000 * cubes, mean_free=True)
    assert torch.allclose(louder, log_spectrum(2000 * cubes, mean_free=True), atol=1e-3)
    constant = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    log_spectrum(constant).sum().backward()
    assert torch.isfinite(constant.grad).all()


def test_a_spectral_critic_standardises_by_what_it_measured():
    torch.manual_seed(0)
    critic = SpectralCritic3d(16, 8)
    cubes = volumes(count=32) * torch.linspace(0.5, 2, 16)
    critic.measure([cubes[:16], cubes[16:]])
    seen = (log_spectrum(cubes, True) - critic.centre) / critic.spread
    assert abs(float(seen.mean())) < 0.01 and 0.7 < float(seen.std()) < 1.05
    assert critic(volumes(count=3, edge=32)).shape == (3, 1)
