"""The guidance and sparsity terms, by their published numbers and their own."""

import pytest
import torch

from cryoden_core.nmsg.guidance import Guidance, SparsityExtractor, gaussian_kernel, smooth


def ramp(axis: int, slope: float = 1.0) -> torch.Tensor:
    line = slope * torch.arange(8.0)
    return line.reshape([-1 if a == axis else 1 for a in range(3)]).expand(8, 8, 8)[None, None]


def white(edge: int = 48) -> torch.Tensor:
    return torch.randn(1, 1, edge, edge, edge, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("slope", [1.0, -0.5])
def test_a_ramp_along_x_or_y_gives_24_times_its_slope_as_published(slope):
    published = SparsityExtractor("xy", normalise=False)
    for axis in (1, 2):
        torch.testing.assert_close(published(ramp(axis, slope)), torch.full((1, 1, 6, 6, 6), 24 * abs(slope)))


def test_the_published_extractor_does_not_see_a_ramp_along_z_and_ours_does():
    assert not SparsityExtractor("xy", normalise=False)(ramp(0)).any()
    raw = SparsityExtractor("xyz", normalise=False)(ramp(0))
    torch.testing.assert_close(raw, torch.full((1, 1, 6, 6, 6), 24.0))


@pytest.mark.parametrize("axes", ["xy", "xyz"])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_constant_has_no_gradient(axes, normalise):
    response = SparsityExtractor(axes, normalise)(torch.full((1, 1, 8, 8, 8), 3.0))
    assert float(response.abs().max()) < 1e-5


@pytest.mark.parametrize("axes", ["xy", "xyz"])
def test_white_noise_gives_a_response_of_one(axes):
    response = SparsityExtractor(axes)(white())
    assert float(response.square().mean().sqrt()) == pytest.approx(1, rel=0.03)


def test_the_published_kernels_amplify_white_noise_by_eleven():
    response = SparsityExtractor("xy", normalise=False)(white())
    # |Gx| + |Gy| with kernels of norm 6 that share no sign: sqrt(2 * 36 * (1 + 2 / pi)).
    assert float(response.square().mean().sqrt()) == pytest.approx(10.85, rel=0.03)


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match="'xy' or 'xyz'"):
        SparsityExtractor("x")


def test_the_gaussian_keeps_the_mean_and_narrows_the_spectrum():
    assert float(gaussian_kernel(1.3).sum()) == pytest.approx(1)
    constant = torch.full((1, 1, 5, 9, 12), 2.0)
    torch.testing.assert_close(smooth(constant, 2.0), constant)
    noise = white(24)
    assert float(smooth(noise, 1.5).std()) < 0.2


def test_a_volume_thinner_than_the_filter_is_still_filtered():
    thin = smooth(torch.randn(1, 1, 3, 16, 16), 2.0)
    assert thin.shape == (1, 1, 3, 16, 16) and torch.isfinite(thin).all()


def test_an_output_equal_to_the_guide_costs_nothing():
    noisy = white(16)
    guide, _ = Guidance(1.0, 1.5)(smooth(noisy, 1.0), noisy)
    assert float(guide) == 0
    other, _ = Guidance(1.0, 1.5)(noisy, noisy)
    assert float(other) > 0.5


def test_flat_input_and_equal_output_cost_nothing():
    flat = torch.full((1, 1, 12, 12, 12), 0.7)
    guide, sparsity = Guidance(1.0, 1.5)(flat, flat)
    assert float(guide) < 1e-9 and float(sparsity) < 1e-5


def test_the_sparsity_term_prefers_flatness_with_edges_to_noise():
    step = torch.zeros(1, 1, 24, 24, 24)
    step[..., 12:] = 4
    noisy = step + 0.7 * white(24)
    guidance = Guidance(1.0, 1.5)
    assert float(guidance(smooth(step, 1.5), noisy)[1]) < 0.5 * float(guidance(noisy, noisy)[1])


def test_gradients_reach_the_output_and_not_the_target():
    output, noisy = white(12).requires_grad_(), white(12).requires_grad_()
    sum(Guidance(1.0, 1.5)(output, noisy)).backward()
    assert output.grad is not None and noisy.grad is None
