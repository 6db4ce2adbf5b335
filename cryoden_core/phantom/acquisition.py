"""From a density map to a noisy tilt series and its tomograms, as an electron microscope would give them.

Views are line integrals of the density (in voxels times density), blurred by :mod:`optics`, with noise added, and
reconstructed by weighted back-projection, the halves of the dose too.  Reconstruction is linear, so the noise that
gives a wanted signal-to-noise ratio is found by reconstructing noise alone, once.  The specimen stands in vacuum:
nothing lies outside the volume.  Views are not misaligned, and their noise is independent from pixel to pixel.

Halves hold half of the dose each: ``even + odd == full`` for views and tomograms alike, so a half has half of the
full signal and half of the full noise variance, and ``even - odd`` is noise with the variance of the full tomogram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..jobs import JobError
from .optics import CONTRAST_PER_ANGSTROM, Microscope, blur_views, transmission, weight_by_dose

NOISES = ("gaussian", "poisson")
SIGNS = ("dark", "bright")
#: Taken when nothing says how strong Gaussian noise is to be; that of a usual tomogram at 10 angstrom.
DEFAULT_VOXEL_SNR = 0.1


@dataclass(frozen=True, eq=False)
class Views:
    """A tilt series; arrays are (views, y, u) float32, ``full == even + odd`` up to rounding.

    ``noise_free`` is what ``full`` is on average.
    """

    full: np.ndarray
    even: np.ndarray
    odd: np.ndarray
    noise_free: np.ndarray


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What :func:`acquire` makes.

    Attributes
    ----------
    tilt_angles_degrees
        (views,).
    tilt_series
        The views, their halves, and without noise.
    tomogram, tomogram_even, tomogram_odd, noise_free
        (z, y, x) float32 reconstructions of these.
    noise_sd
        Standard deviation of the noise in a view, in voxels times density (average over all pixels).
    electrons_per_pixel
        Mean count in a view; NaN for Gaussian noise.
    voxel_snr
        Measured: variance of ``noise_free`` over that of the noise in the tomogram, inside the specimen mask.
    """

    tilt_angles_degrees: np.ndarray
    tilt_series: Views
    tomogram: np.ndarray
    tomogram_even: np.ndarray
    tomogram_odd: np.ndarray
    noise_free: np.ndarray
    noise_sd: float
    electrons_per_pixel: float
    voxel_snr: float


def tilt_angles(limit: float = 60.0, step: float = 3.0) -> np.ndarray:
    """Angles from ``-limit`` to ``limit`` degrees by ``step``, symmetric about 0, (views,) float64."""
    count = int(np.floor(limit / step + 1e-6))
    return step * np.arange(-count, count + 1, dtype=np.float64)


def signal_to_noise(noise_free: np.ndarray, noise: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Variance of the signal over that of the noise, inside a mask (z, y, x; all voxels when None)."""
    inside = slice(None) if mask is None else np.asarray(mask, bool)
    return float(np.var(noise_free[inside], dtype=np.float64) / np.var(noise[inside], dtype=np.float64))


def project(density: np.ndarray, angles: np.ndarray, detector_width: int = 0, device: str = "cpu") -> np.ndarray:
    """Line integrals (views, y, u) of a density (z, y, x) in voxels times density; width 0 takes the volume's."""
    import torch

    from ..tomography.geometry import TiltGeometry
    from ..tomography.projector import Projector

    depth, height, width = density.shape
    geometry = TiltGeometry(np.asarray(angles, np.float64), (depth, height, width), detector_width or width)
    with torch.no_grad():
        volume = torch.as_tensor(np.ascontiguousarray(density, np.float32), device=device)
        return Projector(geometry, device=device).forward(volume).cpu().numpy()


def reconstruct(views: np.ndarray, angles: np.ndarray, thickness: int, width: int, device: str = "cpu") -> np.ndarray:
    """Weighted back-projection (z, y, x) of views (views, y, u)."""
    from ..tomography.wbp import weighted_back_projection

    return np.asarray(weighted_back_projection(views, angles, thickness, width, device=device), np.float32)


@dataclass(frozen=True, eq=False)
class _Expectation:
    """What is recorded on average, and how the noise is distributed over the pixels at unit dose."""

    signal: np.ndarray  # (views, y, u), with the sign of the data
    relative_sd: np.ndarray  # broadcasts to the signal's shape
    passed: np.ndarray  # (views, 1, 1), share of the electrons that pass the ice
    contrast: float  # signed change of relative intensity for a unit of signal

    @property
    def intensity(self) -> np.ndarray:
        """Electrons on a pixel, as a share of those that were sent."""
        return self.passed * (1 + self.contrast * self.signal)

    @property
    def noise_power(self) -> float:
        """Mean variance of the noise over all pixels at unit dose."""
        return float(np.mean(np.square(self.relative_sd, dtype=np.float64)))


def _expect(
    blurred: np.ndarray, angles: np.ndarray, thickness: int, pixel_size: float, microscope: Microscope, noise: str,
    sign: float,
) -> _Expectation:  # fmt: skip
    share = transmission(angles, thickness * pixel_size) if microscope.thickness_loss else np.ones(len(angles))
    passed = share.astype(np.float32)[:, None, None]
    if noise == "gaussian":
        return _Expectation(sign * blurred, 1 / np.sqrt(passed), passed, 0.0)
    # Protein is dark on the detector whatever sign is asked for: it scatters electrons away.
    contrast = CONTRAST_PER_ANGSTROM * pixel_size
    relative = np.exp(-contrast * blurred)
    signal = (-sign / contrast) * (relative - 1)
    return _Expectation(signal, np.sqrt(relative / passed) / contrast, passed, -sign * contrast)


def _record(expected: _Expectation, noise: str, variance: float, random: np.random.Generator) -> Views:
    """Add noise of a variance at unit dose, which for Poisson noise is one over the electrons on a pixel."""
    halves = []
    for _ in range(2):
        if noise == "gaussian":
            unit = random.standard_normal(expected.signal.shape, dtype=np.float32)
            half = 0.5 * expected.signal + np.float32(np.sqrt(0.5 * variance)) * expected.relative_sd * unit
        else:
            counts = random.poisson(0.5 / variance * expected.intensity.astype(np.float64))
            half = (counts * (variance / expected.passed) - 0.5) / expected.contrast
        halves.append(half.astype(np.float32))
    return Views(halves[0] + halves[1], halves[0], halves[1], expected.signal)


def acquire(
    density: np.ndarray,
    voxel_size: float,
    angles: np.ndarray,
    mask: np.ndarray | None = None,
    voxel_snr: float = 0.0,
    projection_snr: float = 0.0,
    electrons_per_pixel: float = 0.0,
    noise: str = "gaussian",
    sign: str = "dark",
    microscope: Microscope | None = None,
    defocus_per_view: np.ndarray | None = None,
    detector_width: int = 0,
    seed: int = 1,
    device: str = "cpu",
    on_step: Callable[[], None] | None = None,
) -> Acquisition:
    """Take a tilt series of a density and reconstruct it.

    Give at most one of ``voxel_snr``, ``projection_snr`` and ``electrons_per_pixel``; without any, the dose of the
    microscope sets Poisson noise, and a voxel signal-to-noise ratio of 0.1 sets Gaussian noise.

    Parameters
    ----------
    density
        (z, y, x), protein positive.
    voxel_size
        Angstrom.
    angles
        (views,) degrees.
    mask
        (z, y, x) bool, the specimen, in which the signal-to-noise ratio is measured; None takes all voxels.
    voxel_snr
        Variance of the signal over that of the noise in the tomogram, inside the mask.
    projection_snr
        The same in the views, over all their pixels.
    electrons_per_pixel
        In each view, for Poisson noise.
    noise
        ``gaussian`` or ``poisson``.
    sign
        ``dark`` or ``bright`` protein in everything that is returned.
    microscope
        Contrast transfer, dose and damage; None means an ideal one.
    defocus_per_view
        (views,) micrometres, in place of the microscope's one value.
    detector_width
        Pixels; 0 takes the volume's width.
    seed
        Of the noise.
    device
        For projections and reconstructions, a torch device.
    on_step
        Called after the projections and after each of three or four reconstructions.

    Raises
    ------
    JobError
        When choices contradict each other, the mask has another shape or the density is constant.
    """
    density = np.asarray(density, np.float32)
    microscope = microscope or Microscope()
    done = on_step or (lambda: None)
    _check(density, angles, mask, (voxel_snr, projection_snr, electrons_per_pixel), noise, sign)
    angles = np.asarray(angles, np.float64)
    thickness, width = density.shape[0], density.shape[2]
    blurred = blur_views(project(density, angles, detector_width, device), angles, voxel_size, microscope,
                         defocus_per_view)  # fmt: skip
    expected = _expect(blurred, angles, thickness, voxel_size, microscope, noise, -1.0 if sign == "dark" else 1.0)
    done()

    def tomogram(views: np.ndarray) -> np.ndarray:
        if microscope.dose_weighting:
            views = weight_by_dose(views, angles, voxel_size, microscope)
        volume = reconstruct(views, angles, thickness, width, device)
        done()
        return volume

    noise_free = tomogram(expected.signal)
    if noise == "poisson" and not (voxel_snr or projection_snr):
        variance = 1 / (electrons_per_pixel or microscope.dose_per_view * voxel_size**2)
    elif projection_snr:
        variance = float(np.var(expected.signal, dtype=np.float64)) / projection_snr / expected.noise_power
    else:
        # A generator of its own: how the level was found must not change the noise that is recorded.
        unit = np.random.default_rng([seed, 1]).standard_normal(expected.signal.shape, dtype=np.float32)
        trial = tomogram(expected.relative_sd * unit)
        variance = signal_to_noise(noise_free, trial, mask) / (voxel_snr or DEFAULT_VOXEL_SNR)
    views = _record(expected, noise, variance, np.random.default_rng([seed, 2]))
    even, odd = tomogram(views.even), tomogram(views.odd)
    full = even + odd
    counts = float(expected.intensity.mean(dtype=np.float64)) / variance if noise == "poisson" else float("nan")
    return Acquisition(
        angles, views, full, even, odd, noise_free, float(np.sqrt(variance * expected.noise_power)), counts,
        signal_to_noise(noise_free, full - noise_free, mask),
    )  # fmt: skip


def _check(
    density: np.ndarray, angles: np.ndarray, mask: np.ndarray | None, levels: tuple[float, float, float], noise: str,
    sign: str,
) -> None:  # fmt: skip
    if noise not in NOISES or sign not in SIGNS:
        raise JobError(f"noise must be one of {', '.join(NOISES)} and sign one of {', '.join(SIGNS)}.")
    if density.ndim != 3 or not np.isfinite(density).all() or float(np.ptp(density)) == 0:
        raise JobError("the density to be imaged must be a volume of finite values that are not all the same.")
    if len(angles) < 2 or np.max(np.abs(angles)) >= 90:
        raise JobError("a tilt series needs at least 2 angles, all between -90 and 90 degrees.")
    if mask is not None and (mask.shape != density.shape or not np.any(mask)):
        raise JobError(f"the specimen mask must have the density's shape {density.shape} and not be empty.")
    if sum(level > 0 for level in levels) > 1 or min(levels) < 0:
        raise JobError("give one of voxel_snr, projection_snr and electrons_per_pixel, as a positive number.")
    if levels[2] and noise != "poisson":
        raise JobError("a count of electrons per pixel belongs to Poisson noise; choose noise 'poisson'.")
