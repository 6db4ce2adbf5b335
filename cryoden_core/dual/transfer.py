"""The linear part of DUAL's simulator, measured on the two domains before training.

A tomogram is, to first order, t = H v + N n: the density v seen through the contrast transfer and the missing wedge,
and white noise n coloured by N.  Of the noisy domain the power P(k) and the share of signal in it s(k) are known, the
latter from halves or from the emptiest parts of each tomogram (see :mod:`cryoden_core.spectrum`), and of the clean
domain the power V(k).  So

    H(k)^2 = s(|k|) W(k) P(|k|) / V(|k|),      N(k)^2 = P(k) - H(k)^2 V(|k|),

with P(|k|) the mean over the measured region and W = P(k) / P(|k|), at most 1, which has the missing wedge.  Powers are
measured in windowed blocks, which blur them; so H^2 V is blurred like P before the difference is taken, and W and N^2
are sharpened (:func:`_sharpened`).  Both filters are amplitudes; the phase of contrast transfer, which inverts details
beyond its first zero, is left to what is learned.

The paper (Zeng et al. 2024) has the simulator learn all of this from the critics.  A small network that has to learn
spectra first never comes to finer things: on packed phantoms (300 steps of ``fast``) the denoiser, which learns from
simulations, correlated with the truth by 0.64 to 0.69, and by 0.75 with H and N measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from ..excerpts import robust_statistics
from ..fourier import frequency_radius, missing_wedge_mask, radial_average
from ..noise_spectrum import measure_spectra
from ..spectrum import hann_window, resample_spectrum
from ..tomogram import HalfDifference
from .crops import CropSource, batches

#: Edge of the blocks whose spectra are measured; H and N are convolutions with kernels of this edge.
TRANSFER_EDGE = 32
#: Crops of each domain that its power is measured on.
MEASURED_CROPS = 512
#: Largest amplitude of H: in standardised volumes signal is never stronger than the whole by much.
LARGEST_GAIN = 2.0
#: Least share of the power that is noise; without any there would be nothing to simulate.
LEAST_NOISE = 0.02

#: Rounds in which the edges of the missing wedge are sharpened; each adds to the scatter.
SHARPENING_STEPS = 3
#: Beyond this frequency (cycles per voxel) no signal is told from noise, where noise has at least this share of the
#: power.
NOISE_BAND, MOSTLY_NOISE = 0.4, 0.9

#: Blocks of a tomogram must differ by this factor in power for the emptiest to be taken for noise.
LOWEST_CONTRAST = 1.15
#: Level of the background (:class:`~cryoden_core.spectrum.NoiseShare`) below which a volume was denoised.
LEAST_LEVEL = 0.7
#: Noise below this share of its mean counts as this much: in the missing wedge there is next to none.
LEAST_WEIGHED_NOISE = 0.05

#: Frequencies in cycles per voxel, and a value at each.
Curve = tuple[np.ndarray, np.ndarray]


class Transfer(nn.Module):
    """t = H v + N n, with both filters fixed; they are the identity until :meth:`set` is called.

    Buffers ``signal`` and ``noise``: amplitudes (edge, edge, edge // 2 + 1), half layout of ``rfftn``.
    """

    def __init__(self, edge: int = TRANSFER_EDGE) -> None:
        super().__init__()
        self.signal: torch.Tensor
        self.noise: torch.Tensor
        for name in ("signal", "noise"):
            self.register_buffer(name, torch.ones(edge, edge, edge // 2 + 1))
        self._forget()

    def _forget(self) -> None:
        """Keep no response; see :meth:`_response`."""
        self._made: dict[str, torch.Tensor] = {}
        self._made_from: tuple[int, ...] = ()
        self._held: tuple[torch.Tensor, ...] = ()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy counts the changes of its filters anew.
        super().__setstate__(state)
        self._forget()

    def set(self, signal: torch.Tensor, noise: torch.Tensor) -> None:
        """Fix both filters."""
        self.signal.copy_(signal)
        self.noise.copy_(noise)

    def forward(self, clean: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """H v and N n of volumes (batch, 1, z, y, x), mirrored at their faces; float32."""
        return self._filtered(clean, "signal")[0], self._filtered(noise, "noise")[0]

    def shown(self, noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """How much of the signal H v of clean volumes noisy ones show: 1 where it is as measured, 0 where it is lost.

        The slope of a fit to all voxels of the batch in which each frequency has the weight that its noise allows.
        """
        expected, weighted = self._filtered(clean, "signal", "weighted signal")
        return (noisy.float() * weighted).mean() / (expected * weighted).mean().clamp_min(1e-8)

    def above_noise(self, volumes: torch.Tensor) -> torch.Tensor:
        """Clean volumes with each frequency as strong as it stands out of a tomogram's noise: under H / N."""
        return self._filtered(volumes, "signal above noise")[0]

    def _filtered(self, volumes: torch.Tensor, *names: str) -> list[torch.Tensor]:
        """Volumes under some of the filters."""
        return _convolved(volumes, _block(self.signal), lambda full: [self._response(name, full) for name in names])

    def _response(self, name: str, full: Sequence[int]) -> torch.Tensor:
        """A filter on the frequency grid of volumes of one size, kept while that size and the filters stay the same."""
        # What is written into a tensor counts its version up, and a network that moves to a device gets other tensors;
        # those it had are held, lest a new one take the identity of one that is gone.
        made_from = (id(self.signal), self.signal._version, id(self.noise), self.noise._version, *full)
        if self._made_from != made_from:
            self._forget()
            self._made_from, self._held = made_from, (self.signal, self.noise)
        if name not in self._made:
            self._made[name] = _response(self._filter(name), _block(self.signal), full)
        return self._made[name]

    def _filter(self, name: str) -> torch.Tensor:
        if name in ("signal", "noise"):
            return {"signal": self.signal, "noise": self.noise}[name]
        noise = self.noise.square()
        power = noise + LEAST_WEIGHED_NOISE * noise.mean()
        return self.signal / (power if name == "weighted signal" else power.sqrt())


def convolve(volumes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Volumes (..., z, y, x) under a filter of amplitudes on the grid of a block (bz, by, bx // 2 + 1), in float32.

    The convolution with the filter's kernel, which has the block's edges.  The volumes are mirrored at their faces, by
    half a block, or by half of themselves where they are smaller than a block.
    """
    block = _block(weights)
    return _convolved(volumes, block, lambda full: [_response(weights, block, full)])[0]


#: Makes the filters on the frequency grid of volumes of a size.
Responses = Callable[[Sequence[int]], list[torch.Tensor]]


def _block(weights: torch.Tensor) -> tuple[int, int, int]:
    """The block on whose grid a filter is."""
    return weights.shape[0], weights.shape[1], 2 * (weights.shape[2] - 1)


def _convolved(volumes: torch.Tensor, block: Sequence[int], responses: Responses) -> list[torch.Tensor]:
    """Volumes (..., z, y, x) under each of some filters with kernels of one size; see :func:`convolve`."""
    with torch.autocast(volumes.device.type, enabled=False):
        values = volumes.float()
        size = values.shape[-3:]
        margins = [min(edge // 2, n // 2) for edge, n in zip(block, size, strict=True)]
        pads = [margin for margin in reversed(margins) for _ in range(2)]
        mirrored = functional.pad(values.reshape(-1, 1, *size), pads, mode="reflect")
        full = mirrored.shape[-3:]
        spectrum = torch.fft.rfftn(mirrored, dim=(-3, -2, -1))
        results = []
        for response in responses(full):
            result = torch.fft.irfftn(spectrum * response, s=full, dim=(-3, -2, -1))
            for axis, (margin, n) in zip((-3, -2, -1), zip(margins, size, strict=True), strict=True):
                result = result.narrow(axis, margin, n)
            results.append(result.reshape(volumes.shape))
        return results


def _response(weights: torch.Tensor, block: Sequence[int], full: Sequence[int]) -> torch.Tensor:
    """The filter on the frequency grid of volumes of another size, by way of its kernel."""
    kernel = torch.fft.fftshift(torch.fft.irfftn(weights.float(), s=tuple(block)))
    for axis, (have, want) in enumerate(zip(block, full, strict=True)):
        if want < have:
            kernel = kernel.narrow(axis, have // 2 - want // 2, want)
    padded = kernel.new_zeros(tuple(full))
    padded[tuple(slice(0, edge) for edge in kernel.shape)] = kernel
    centred = padded.roll([-(edge // 2) for edge in kernel.shape], dims=(0, 1, 2))
    return torch.fft.rfftn(centred)


def noise_share(
    data: np.ndarray,
    difference: HalfDifference | None,
    tilt_range: tuple[float, float],
    inside: np.ndarray | None = None,
) -> tuple[Curve, bool]:
    """Noise power over power of a tomogram by frequency, from its halves or from its emptiest parts.

    Parameters
    ----------
    data
        The tomogram (z, y, x).
    difference
        Of its halves, None where there are none.
    tilt_range
        Degrees; only the measured region is looked at.
    inside
        Where there are data, (z, y, x); None for everywhere.  The box around it is looked at.

    Returns
    -------
    share, sure
        ``sure`` is False when no part of the tomogram is emptier than the rest, so that its noise may be measured too
        high.
    """
    if inside is not None:
        box = ndimage.find_objects(inside.astype(np.uint8))[0]
        data = data[box]
        if difference is not None:
            difference = HalfDifference(difference.even[box], difference.odd[box], difference.gain)
    spectra = measure_spectra(data, *robust_statistics(data), difference)
    measured = missing_wedge_mask(spectra.block, *tilt_range)
    frequency, total = radial_average(spectra.total.numpy(), spectra.block, inside=measured)
    _, noise = radial_average(spectra.noise.numpy(), spectra.block, inside=measured)
    known = np.isfinite(total) & np.isfinite(noise) & (total > 0)
    share = np.minimum(noise[known] / total[known], 1)
    if spectra.share.level < LEAST_LEVEL:
        share = share * spectra.share.level
    highest = share[frequency[known] > NOISE_BAND]
    if len(highest) and highest.mean() > MOSTLY_NOISE:
        # The scatter of measured spectra, cut off at 1, leaves some percent that would pass for signal.
        share = np.minimum(share / highest.mean(), 1)
    return (frequency[known], share), difference is not None or spectra.share.contrast >= LOWEST_CONTRAST


def measure_transfer(
    noisy: CropSource,
    clean: CropSource,
    signal_share: Curve,
    tilt_range: tuple[float, float],
    seed: int,
    clean_has_wedge: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """H and N of the module's text.

    Parameters
    ----------
    noisy, clean
        The two domains.
    signal_share
        Share of the noisy domain's power in its measured region that is signal.
    tilt_range
        Of the noisy domain, degrees.
    seed
        Of the crops.
    clean_has_wedge
        The clean domain are tomograms too, whose power is that of their measured region.

    Returns
    -------
    signal, noise
        As :class:`Transfer` has them.
    """
    smallest = min(min(volume.shape) for source in (noisy, clean) for volume in source.volumes)
    edge = min(TRANSFER_EDGE, smallest - smallest % 2)
    block = (edge,) * 3
    measured, radius = missing_wedge_mask(block, *tilt_range), frequency_radius(block)
    power = mean_power(noisy, edge, seed).numpy()
    of_noisy = np.interp(radius, *_profile(power, measured))
    known = measured if clean_has_wedge else np.ones_like(measured)
    of_clean = np.interp(radius, *_profile(mean_power(clean, edge, seed).numpy(), known))
    seen = _sharpened(np.clip(power / of_noisy, 0, 1))
    signal = np.clip(np.interp(radius, *signal_share), 0, 1 - LEAST_NOISE) * of_noisy * seen
    gain = np.minimum(np.sqrt(signal / np.maximum(of_clean, 1e-12)), LARGEST_GAIN)
    rest = _sharpened(np.maximum(power - _through_window(gain**2 * of_clean), LEAST_NOISE * power))
    full = (TRANSFER_EDGE,) * 3
    of_signal, of_noise = (torch.from_numpy(values.astype(np.float32)) for values in (gain, np.sqrt(rest)))
    return resample_spectrum(of_signal, full), resample_spectrum(of_noise, full)


def _sharpened(measured: np.ndarray) -> np.ndarray:
    """The power that a filter must have for blocks of what it makes of white noise to have the power that was measured.

    The window of the blocks blurs the edges of the missing wedge; a filter of the measured power, measured again, would
    have them blurred twice.  Found by correcting it with the ratio of the two a few times.
    """
    found = measured.copy()
    for _ in range(SHARPENING_STEPS):
        found *= measured / np.maximum(_through_window(found), 1e-9 * measured.max())
    return found


def _through_window(power: np.ndarray) -> np.ndarray:
    """Mean periodogram, in windowed blocks, of white noise under the filter with this power (half grid of a block)."""
    edges = (power.shape[0],) * 3
    twice = tuple(2 * edge for edge in edges)
    kernel = np.fft.fftshift(np.fft.irfftn(np.sqrt(power), s=edges))
    window = hann_window(edges).numpy()
    covariance, of_window = (
        np.fft.irfftn(np.abs(np.fft.rfftn(values, s=twice)) ** 2, s=twice) for values in (kernel, window)
    )
    blurred = np.fft.rfftn(covariance * of_window / window.size).real
    return np.maximum(blurred[::2, ::2, ::2], 0)


def mean_power(source: CropSource, edge: int, seed: int) -> torch.Tensor:
    """Mean periodogram of a domain's crops, (edge, edge, edge // 2 + 1); unit white noise gives 1."""
    window = hann_window((edge,) * 3)
    total = torch.zeros(edge, edge, edge // 2 + 1)
    for crops in batches(source, MEASURED_CROPS // 8, 8, edge, seed):
        # The mean of a crop would leak into all low frequencies.
        values = crops - (crops * window).mean(dim=(-3, -2, -1), keepdim=True) / window.mean()
        total += torch.fft.rfftn(values * window, dim=(-3, -2, -1)).abs().square().sum(dim=(0, 1))
    return total / (MEASURED_CROPS * window.numel())


def _profile(power: np.ndarray, inside: np.ndarray) -> Curve:
    """Mean by shell of a spectrum on the half grid of a block with an even edge, where there is one."""
    block = (*power.shape[:2], 2 * (power.shape[2] - 1))
    frequency, values = radial_average(power, block, inside=inside)
    known = np.isfinite(values)
    return frequency[known], values[known]
