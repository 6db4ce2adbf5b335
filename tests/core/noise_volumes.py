"""Small volumes with known noise, shared by the tests of NMSG."""

from __future__ import annotations

import numpy as np
import torch

from cryoden_core.fourier import frequency_radius

SHAPE = (32, 80, 80)


def wedge(shape: tuple[int, int, int], degrees: float = 60.0) -> np.ndarray:
    """1 where a tilt series up to ``degrees`` measures, 0 in the missing wedge, on the half grid."""
    kz = np.abs(np.fft.fftfreq(shape[0]))[:, None, None]
    kx = np.abs(np.fft.rfftfreq(shape[2]))[None, None, :]
    inside = kz <= np.tan(np.radians(degrees)) * kx
    return np.broadcast_to(inside, (shape[0], shape[1], shape[2] // 2 + 1)).astype(float)


def ramp_power(shape: tuple[int, int, int]) -> np.ndarray:
    """Power of back-projected white noise: rises with the distance from the tilt axis, nothing in the wedge."""
    kz = np.fft.fftfreq(shape[0])[:, None, None]
    kx = np.fft.rfftfreq(shape[2])[None, None, :]
    power = (np.sqrt(kz**2 + kx**2) + 0.02) * np.ones((1, shape[1], 1))
    radius = frequency_radius(shape)
    return power * wedge(shape) * np.exp(-((radius / 0.45) ** 4))


def coloured(shape: tuple[int, int, int] = SHAPE, seed: int = 0, power: np.ndarray | None = None) -> np.ndarray:
    """Gaussian noise of unit variance with the spectrum ``power`` (``ramp_power`` when None)."""
    white = np.random.default_rng(seed).normal(size=shape)
    amplitude = np.sqrt(ramp_power(shape) if power is None else power)
    noise = np.fft.irfftn(np.fft.rfftn(white) * amplitude, s=shape)
    return (noise / noise.std()).astype(np.float32)


def specimen(shape: tuple[int, int, int] = SHAPE, seed: int = 0, count: int = 6, radius: float = 5.0) -> np.ndarray:
    """A few dense balls in emptiness, crowded to one side, with soft edges; variance of order one inside."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).astype(np.float32)
    volume = np.zeros(shape, np.float32)
    for _ in range(count):
        centre = [rng.uniform(0.3 * n, 0.7 * n) for n in shape[:2]] + [rng.uniform(0.1, 0.5) * shape[2]]
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
        volume += 1 / (1 + np.exp(np.minimum((distance - radius) / 0.7, 50)))
    return volume


def as_measured(volume: np.ndarray) -> np.ndarray:
    """The volume without its missing wedge, as a tilt series would show it."""
    measured = np.fft.irfftn(np.fft.rfftn(volume) * wedge(volume.shape), s=volume.shape)
    return measured.astype(np.float32)


def shell_means(power: torch.Tensor | np.ndarray, shape: tuple[int, int, int], shells: int = 12) -> np.ndarray:
    """Mean of a half-grid spectrum in shells up to Nyquist."""
    index = (frequency_radius(shape) * 2 * shells).astype(int)
    inside = index < shells
    values = np.asarray(power, float)
    return np.bincount(index[inside], values[inside], shells) / np.bincount(index[inside], minlength=shells)


def mean_power(samples: list[np.ndarray]) -> np.ndarray:
    """Mean periodogram without a window, unit white noise is 1 (for periodic samples)."""
    return np.mean([np.abs(np.fft.rfftn(s)) ** 2 / s.size for s in samples], axis=0)
