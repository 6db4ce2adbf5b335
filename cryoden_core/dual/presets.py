"""What the presets of DUAL stand for.

``paper`` holds to the letter of Zeng et al. (2024) where the letter is known; what its main text leaves open (layers,
code length, batch) is a choice.  In two-dimensional trials its noise branch died: the simulator made no use of the
noise.  ``robust`` is the same method with a code that can hold the noise, losses with a floor,
measured filters in the simulator, and a denoiser that learns from what these make of the clean domain (see
:mod:`cryoden_core.dual.transfer`); ``fast`` is a small one of it for CPUs.  Both do without normalisation layers, which
take a third of the time and brought nothing.

Each choice was tried on packed phantoms; the figures are in ``benchmarks/RESULTS.md``.  A critic of denoised volumes
asks for what looks like the clean domain, not for what is likely: in 300 steps (one seed) the denoiser correlated with
the truth by 0.73, 0.75 and 0.77 with weights 0.3, 0.1 and 0, and by 0.70 with 1 and the gradient of the noisy cycle, as
published.  A little of it is kept, for tomograms that are unlike what the filters can make.

Halves of the noisy tomograms, where they are given, measure the filters and add a term that asks for what both of them
hold.  On one packed phantom, whose clean domain was of its kind, the term changed nothing (100 steps of ``fast``, two
seeds: 0.739 without, 0.735 with); whether it helps where the clean domain is unlike the specimen, which it is meant
for, has not been tried.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """One way to train DUAL.

    Parameters
    ----------
    steps, epochs, patch, batch
        Length of the training (where ``steps`` is 0, the times that the larger domain is seen in crops that do not
        overlap), edge of the crops in voxels, crops of each domain in a step.
    large_patch, large_batch, large_share
        The last share of the steps takes crops of another size; 0 for none.
    features, depth, norm, critic_features
        Sizes of the networks.
    transfer
        Give the simulator measured filters to begin with (see :mod:`cryoden_core.dual.transfer`).
    code, code_channels, printed_divergence
        The noise code, its length, and whether its divergence from N(0, 1) is in the direction printed.
    gan, bounded_critics, r1, r1_every
        Adversarial loss; spectral normalisation of the critics; weight of the R1 penalty and steps between two.
    reconstruction, adversarial, divergence
        The weights lambda 1, 2, 3.
    denoiser_adversarial, cycle_into_denoiser
        Lambda 2 of the critic of denoised volumes, and whether the noisy cycle's gradient goes into the denoiser.
    detail
        Weight of log(1 - correlation + floor) of clean volumes and what the clean cycle makes of them, with each
        frequency as strong as it stands out of the tomograms' noise.
    signal_spread
        Logarithm of the largest factor by which the strength of the signal is varied in what the denoiser learns from.
    floor
        Of both reconstruction losses.
    shown, moments, spectrum, decorrelation, jitter, identity
        Weights of the squared deviation of :meth:`transfer.Transfer.shown` from 1, of :func:`losses.moment_mismatch`,
        :func:`losses.spectral_mismatch`, and the square of :func:`losses.structure_in_noise`; noise added to what the
        cycles go through, in standard deviations; weight of Dn(v) = v during the first tenth.
    halves
        Weight of :func:`losses.half_disagreement`, where halves of the noisy tomograms are given.
    spectral_weight, mean_free
        Weight of the spectral head, and whether it sees spectra less their mean.
    rate, critic_rate, beta, schedule, ema, clip, precision
        Optimisation; AdamW's second beta is 0.999, weight decay 1e-6, eps 1e-8.
    robust_scale
        Standardise and clip without the extremes.
    keep_empty
        Share of the crops without structure that are kept.
    """

    steps: int
    patch: int
    batch: int
    features: int
    depth: int
    norm: str
    critic_features: int
    code: str
    code_channels: int
    rate: float
    critic_rate: float
    ema: float
    epochs: int = 0
    large_patch: int = 0
    large_batch: int = 4
    large_share: float = 0.0
    transfer: bool = True
    printed_divergence: bool = False
    gan: str = "hinge"
    bounded_critics: bool = True
    r1: float = 0.0
    r1_every: int = 16
    reconstruction: float = 1.0
    adversarial: float = 1.0
    denoiser_adversarial: float = 0.03
    cycle_into_denoiser: bool = False
    detail: float = 1.0
    signal_spread: float = 0.5
    divergence: float = 0.1
    floor: float = 0.1
    shown: float = 1.0
    moments: float = 1.0
    spectrum: float = 1.0
    decorrelation: float = 2.0
    jitter: float = 0.0
    identity: float = 0.1
    halves: float = 0.5
    spectral_weight: float = 0.5
    mean_free: bool = True
    beta: float = 0.5
    schedule: str = "linear"
    clip: float = 1.0
    precision: bool = True
    robust_scale: bool = True
    keep_empty: float = 0.2


PRESETS = {
    "paper": Preset(
        steps=0, epochs=20, patch=32, batch=64, features=32, depth=3, norm="batch", critic_features=64, code="vector",
        code_channels=16, rate=1e-4, critic_rate=1e-4, ema=0.0, printed_divergence=True, gan="bce",
        transfer=False, bounded_critics=False, floor=1e-8, denoiser_adversarial=1.0, cycle_into_denoiser=True,
        shown=0.0, moments=0.0, spectrum=0.0, decorrelation=0.0, identity=0.0, spectral_weight=1.0, mean_free=False,
        beta=0.9, schedule="constant", clip=float("inf"), precision=False, robust_scale=False, keep_empty=1.0,
    ),
    "robust": Preset(
        steps=20000, patch=32, batch=16, features=32, depth=3, norm="none", critic_features=64, code="map",
        code_channels=8, rate=2e-4, critic_rate=2e-4, ema=0.999, large_patch=64, large_batch=4, large_share=0.25,
        r1=1.0, jitter=0.05,
    ),
    "fast": Preset(
        steps=900, patch=32, batch=4, features=8, depth=2, norm="none", critic_features=16, code="map",
        code_channels=4, rate=1e-3, critic_rate=1e-3, ema=0.99,
    ),
}  # fmt: skip
