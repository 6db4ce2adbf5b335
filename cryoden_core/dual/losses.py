"""The losses of DUAL, with the equations of Zeng et al. (2024) repaired, and the terms that keep its training honest.

Printed equations 4 to 9 lost signs and expectations; they are given here as the text means them.  Reconstruction is
the logarithm of the mean squared error plus that of 1 - Pearson correlation, each with a floor: without one, closing a
cycle to the last digit is paid without limit, and the networks learn to hide the volume in what they make of it.  All
losses are computed in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

#: Added to variances, for crops in which nothing varies.
TINY = 1e-8


class Reconstruction(NamedTuple):
    """The two parts of a reconstruction's error over a batch, and the loss made of them."""

    loss: torch.Tensor
    square: torch.Tensor
    correlation: torch.Tensor


def pearson(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson correlation over all elements of two tensors; 0 where one of them is constant."""
    a, b = a.float() - a.float().mean(), b.float() - b.float().mean()
    return (a * b).mean() / (a.square().mean() * b.square().mean() + TINY).sqrt()


def reconstruction(original: torch.Tensor, copy: torch.Tensor, floor: float) -> Reconstruction:
    """Equations 4 and 5: log(MSE + floor) + log(1 - correlation + floor), over the whole batch.

    A batch and not a sample, since a sample of a clean domain may be constant and has no correlation.
    """
    square = (original.float() - copy.float()).square().mean()
    correlation = pearson(original, copy)
    return Reconstruction((square + floor).log() + unlikeness(correlation, floor), square, correlation)


def unlikeness(correlation: torch.Tensor, floor: float) -> torch.Tensor:
    """log(1 - correlation + floor)."""
    # Rounding can bring a correlation above 1.
    return ((1 - correlation).clamp_min(0) + floor).log()


def critic_loss(kind: str, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """What a critic minimises (equations 6 and 7) for scores of any shape: ``bce``, ``hinge`` or ``ls``."""
    real, fake = real.float(), fake.float()
    if kind == "bce":
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()
    if kind == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    return (real - 1).square().mean() + fake.square().mean()


def generator_loss(kind: str, fake: torch.Tensor) -> torch.Tensor:
    """What the generators minimise (equation 8, which does not saturate)."""
    fake = fake.float()
    if kind == "bce":
        return functional.softplus(-fake).mean()
    return -fake.mean() if kind == "hinge" else (fake - 1).square().mean()


def gradient_at_real(scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """R1 penalty (Mescheder et al. 2018): half the mean squared gradient of a critic at real samples.

    ``real`` must require a gradient.  Each score of a map is a patch's own, so their mean is taken.
    """
    (gradient,) = torch.autograd.grad(scores.float().flatten(1).mean(1).sum(), real, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()


def code_divergence(codes: torch.Tensor, printed: bool = False, shrinkage: float = 0.1) -> torch.Tensor:
    """Kullback-Leibler divergence between the batch's codes, taken as Gaussian, and N(0, 1), for each of K numbers.

    Parameters
    ----------
    codes
        (batch, K), or (batch, K, z, y, x) with each position a sample.
    printed
        The direction of equation 9, KL(N(0, 1) || codes), which needs the inverse of the covariance; otherwise
        KL(codes || N(0, 1)), as variational autoencoders have it.  Printed, the sum and not the mean over K is given.
    shrinkage
        Share of the unit matrix mixed into the covariance (of 1e-4 of it when printed), which is otherwise singular for
        fewer than K + 1 samples.

    Raises
    ------
    ValueError
        When printed and there are not more samples than numbers in a code.
    """
    samples = codes.float().flatten(2).transpose(1, 2).flatten(0, 1) if codes.dim() > 2 else codes.float()
    count, length = samples.shape
    if printed and count <= length:
        raise ValueError(f"{count} codes of {length} numbers have no covariance that can be inverted")
    mean = samples.mean(0)
    centred = samples - mean
    covariance = centred.T @ centred / (count - 1)
    unit = torch.eye(length, device=codes.device)
    if printed:
        covariance = covariance + 1e-4 * unit
        inverse = torch.linalg.inv(covariance)
        return 0.5 * (inverse.trace() + mean @ inverse @ mean - length + torch.logdet(covariance))
    covariance = (1 - shrinkage) * covariance + shrinkage * unit
    return 0.5 * (covariance.trace() + mean @ mean - length - torch.logdet(covariance)) / length


def moment_mismatch(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Squared differences of mean and of logarithm of the standard deviation, over the batch."""
    fake, real = fake.float(), real.float()
    spread = (fake.var() + TINY).log() / 2 - (real.var() + TINY).log() / 2
    return (fake.mean() - real.mean()).square() + spread.square()


def spectral_mismatch(standardised: torch.Tensor) -> torch.Tensor:
    """Mean over frequencies of the squared distance of a batch's mean log spectrum from the real one's.

    ``standardised`` (batch, 1, kz, ky, kx) has mean 0 and spread 1 at each frequency for real volumes (see
    :meth:`~cryoden_core.nets.critics.SpectralCritic3d.standardised`).  What a batch of real volumes would have by
    chance is taken off.  The spectral critic asks for the same in the end, but this gets there in tens of steps.
    """
    return standardised.mean(0).square().mean() - 1 / len(standardised)


def pooled(volumes: torch.Tensor) -> torch.Tensor:
    """Means of blocks of 4 x 4 x 4 voxels, in which there is more structure and less noise."""
    return functional.avg_pool3d(volumes.float(), 4)


def structure_in_noise(noise: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Correlation of what the code carries, Gn(E(t)), with t itself at low resolution: 0 if the code is all noise."""
    return pearson(pooled(noise), pooled(noisy))


def half_disagreement(denoised: torch.Tensor, other: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """1 - correlation of one half, denoised, less its missing wedge, with the other half as it is.

    The noise of the halves being independent, only structure that is in the data can bring it down: the idea of
    Noise2Noise (Lehtinen et al. 2018), here whatever the grey scales of the two domains.  ``measured`` as in
    :func:`visible`.
    """
    return 1 - pearson(visible(denoised, measured), other)


def visible(volumes: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """What the views show of volumes (batch, 1, z, y, x), with ``measured`` 1 where they measure (z, y, x // 2 + 1)."""
    transform = torch.fft.rfftn(volumes.float(), dim=(-3, -2, -1))
    return torch.fft.irfftn(transform * measured, s=volumes.shape[-3:], dim=(-3, -2, -1))


def whiteness(noise: torch.Tensor) -> torch.Tensor:
    """Mean squared autocorrelation of noise (batch, 1, z, y, x) at lags 1 and 2 along each axis; 0 when it is white."""
    values = noise.float() - noise.float().mean()
    variance = values.square().mean() + TINY
    terms = []
    for axis in (-3, -2, -1):
        for lag in (1, 2):
            size = values.shape[axis]
            shifted = values.narrow(axis, lag, size - lag) * values.narrow(axis, 0, size - lag)
            terms.append((shifted.mean() / variance).square())
    return torch.stack(terms).mean()
