"""Is the modelled noise the tomogram's noise?  A table of checks, each with a figure, a limit and a verdict.

The checks are made against noise that the model has not seen: every second background block (or half-difference block)
is kept from it.  The limit on the power follows from the theory of recorrupted pairs: where noise dominates, synthetic
noise of c^2 times the true power leaves a gain of (1 - c^2) / (1 + a^2 c^2), so 10 % of power is 5 % of noise left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from ..fourier import cone_index, frequency_axes, frequency_radius
from ..noise_spectrum import Spectra
from ..spectrum import bands, hann_window
from ..tiling import Shape
from .noise_model import NoiseModel, excess_kurtosis


@dataclass(frozen=True)
class Check:
    """One row: ``value`` must lie within ``low`` and ``high``."""

    name: str
    value: float
    low: float
    high: float
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether the value lies within its limits."""
        return bool(np.isfinite(self.value)) and self.low <= self.value <= self.high


@dataclass(frozen=True)
class NoiseReport:
    """All rows, and how the noise was measured."""

    checks: list[Check]
    source: str
    samples: int

    @property
    def passed(self) -> bool:
        """Whether every row passes."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> list[str]:
        """Names of the rows that fail."""
        return [check.name for check in self.checks if not check.passed]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        rows = [{**asdict(check), "passed": check.passed} for check in self.checks]
        return {"passed": self.passed, "source": self.source, "samples": self.samples, "checks": rows}


def make_report(
    model: NoiseModel, real: list[torch.Tensor], spectra: Spectra, seed: int, device: torch.device, source: str
) -> NoiseReport:
    """Compare draws of ``model`` with blocks ``real`` of true noise (all of one shape, standardised).

    Real blocks cut from background hold some signal at low frequency, so everything is compared above the frequency
    where the spectra say that noise is at least nine tenths of the power.
    """
    generator = torch.Generator().manual_seed(seed)
    shape: Shape = tuple(real[0].shape)  # type: ignore[assignment]
    draws = [model.sample(shape, generator, device).cpu() for _ in range(max(len(real), 16))]
    band = noise_band(spectra, shape)
    true, drawn = _Statistics(real, shape, band), _Statistics(draws, shape, band)
    # No model can be nearer to few real blocks than they are to each other.
    halves = [_Statistics(real[first::2], shape, band).correlation for first in (0, 1)] if len(real) > 1 else []
    scatter = float((halves[0] - halves[1]).abs().max()) if halves else 0.0
    # Heavy tails are measured less well the heavier they are.
    tails = max(0.2, 2 * _standard_error(true.filtered))
    checks = [
        Check("mean", drawn.mean, -0.02, 0.02, "mean of the drawn noise over its standard deviation"),
        Check("variance", drawn.variance / true.variance, 0.9, 1.1, "variance, drawn over real, in the noise band"),
        Check("power by shell", _worst(drawn.shells, true.shells), 0, 0.15, "largest deviation of a shell's power"),
        Check("power by direction", _worst(drawn.cones, true.cones), 0, 0.2, "largest deviation of a cone's power"),
        Check("autocorrelation", float((drawn.correlation - true.correlation).abs().max()), 0, max(0.03, scatter),
              "largest difference up to 8 voxels; the limit is 0.03, or that of two halves of the real blocks"),
        Check("distribution", _kolmogorov(drawn.values, true.values), 0, 0.03, "Kolmogorov-Smirnov distance"),
        Check("skewness", float(stats.skew(drawn.values) - stats.skew(true.values)), -0.15, 0.15, "difference"),
        Check("excess kurtosis", float(excess_kurtosis(drawn.filtered) - excess_kurtosis(true.filtered)), -tails, tails,
              "difference; the limit is 0.2, or twice the standard error of the real one"),
        Check("wedge", drawn.wedge / max(true.wedge, 1e-9), 0.5, 2.0, "power in the weakest tenth of directions"),
        Check("memory", _largest_match(draws, real) / max(_largest_match(real, real), 1e-9), 0, 1.25,
              "best match with a real block, over that of two real blocks"),
    ]  # fmt: skip
    return NoiseReport(checks, source, len(real))


def noise_band(spectra: Spectra, shape: Shape) -> torch.Tensor:
    """True on the half grid of ``shape`` where noise is at least 0.9 of the power, judged by shell."""
    shells = 24
    index = bands(spectra.block, shells).clamp(max=shells - 1).flatten()
    noise = torch.bincount(index, spectra.noise.flatten(), shells)
    total = torch.bincount(index, spectra.total.flatten(), shells)
    dominated = noise / total.clamp_min(1e-12) > 0.9
    # The band is one piece: from the last shell below the limit upwards.
    below = (~dominated[: shells - 2]).nonzero()
    first = int(below[-1]) + 1 if len(below) else 1
    return bands(shape, shells) >= min(first, shells - 6)


class _Statistics:
    """Figures of a list of blocks, restricted to the noise band."""

    def __init__(self, blocks: list[torch.Tensor], shape: Shape, band: torch.Tensor) -> None:
        window = hann_window(shape)
        sd = torch.stack([block.std() for block in blocks]).mean()
        self.mean = float(torch.stack([block.mean() for block in blocks]).mean() / sd)
        self.filtered = [torch.fft.irfftn(torch.fft.rfftn(block) * band, s=shape) for block in blocks]
        self.values = torch.cat([block.flatten() for block in self.filtered]).numpy()
        self.values = self.values / max(float(self.values.std()), 1e-12)
        power = torch.stack(
            [torch.fft.rfftn((block - block.mean()) * window).abs().square() for block in blocks]
        ).mean(0) / window.numel()  # fmt: skip
        self.variance = float(power[band].mean())
        self.shells = _bin_means(power, bands(shape, 12).clamp(max=11), 12, band)
        direction = torch.from_numpy(cone_index(frequency_axes(shape)[0], frequency_radius(shape), 6))
        self.cones = _bin_means(power, direction, 6, band)
        self.wedge = float(torch.quantile(power[band], 0.1))
        covariance = torch.fft.irfftn(power * band, s=shape)
        self.correlation = covariance[:8, :8, :8] / covariance[0, 0, 0]


def _bin_means(power: torch.Tensor, index: torch.Tensor, bins: int, band: torch.Tensor) -> torch.Tensor:
    """Mean power of each bin within the band; NaN for bins with fewer than 20 coefficients."""
    counts = torch.bincount(index[band], minlength=bins)
    means = torch.bincount(index[band], power[band], bins) / counts.clamp_min(1)
    return torch.where(counts >= 20, means, torch.nan)


def _worst(drawn: torch.Tensor, true: torch.Tensor) -> float:
    """Largest |ratio - 1| over the bins with more than 5 % of the peak power.

    What is weaker is mostly what the window leaks into the missing wedge (4 % was measured), which has its own row.
    """
    used = torch.isfinite(true) & (true > 0.05 * true[torch.isfinite(true)].max())
    return float((drawn[used] / true[used] - 1).abs().max())


def _standard_error(blocks: list[torch.Tensor], groups: int = 8) -> float:
    """Of the excess kurtosis of all blocks, from its scatter over groups of them; 0 when there are too few to tell."""
    if len(blocks) < 2 * groups:
        return 0.0
    values = torch.stack([excess_kurtosis(blocks[first::groups]) for first in range(groups)])
    return float(values.std() / groups**0.5)


def _kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
    step = max(1, len(a) // 200_000), max(1, len(b) // 200_000)
    return float(stats.ks_2samp(a[:: step[0]], b[:: step[1]]).statistic)


def _largest_match(blocks: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """Largest correlation, over all shifts, between a block and another one."""
    best = 0.0
    for i, block in enumerate(blocks[:8]):
        for j, other in enumerate(others[:8]):
            if block is other or (blocks is others and i >= j):
                continue
            a, b = block - block.mean(), other - other.mean()
            match = torch.fft.irfftn(torch.fft.rfftn(a) * torch.fft.rfftn(b).conj(), s=a.shape)
            best = max(best, float(match.max() / (a.norm() * b.norm()).clamp_min(1e-12)))
    return best
