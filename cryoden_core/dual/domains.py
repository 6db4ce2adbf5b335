"""The volumes of DUAL's two domains as its networks see them: one voxel size, bright density, mean 0 and spread 1.

Every volume is brought to the model's voxel size by Fourier cropping or padding along each axis (``scipy.signal``),
which is free of aliasing, is turned to bright density inside if its density is dark, and is standardised with
statistics that leave out the extremes: gold alone would otherwise hold much of the variance.  What was done is kept, so
that results go back to the file's own grid and grey scale.  Nothing is inverted silently: a volume whose contrast is
guessed is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import ndimage, signal

from .. import mrc
from ..contrast import CLEAR_SKEWNESS, contrast_of
from ..excerpts import robust_statistics
from ..fourier import edge_window, half_transform, missing_wedge_mask, radial_average, radial_power_spectrum
from ..jobs import DualTrainJob, DualWedgeJob, JobError
from ..report import central_block
from ..tiling import Shape, shape_of
from ..tilt_series import read_tilt_angles

if TYPE_CHECKING:
    from .model import DualModel

#: Beyond this many standard deviations values are compressed, and none goes beyond CLIP_END.
CLIP_START, CLIP_END = 6.0, 8.0
#: A value that this share of a tomogram has is padding.
PADDING_SHARE = 0.005

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Scale:
    """Grey scale of a volume: ``mean`` and ``sd`` of the file's values, ``sign`` 1 where density is bright, else -1."""

    mean: float
    sd: float
    sign: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Standardised values, density bright, float32."""
        return (np.asarray(values, np.float32) - np.float32(self.mean)) * np.float32(self.sign / self.sd)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """The file's grey scale again."""
        return np.asarray(values, np.float32) * np.float32(self.sign * self.sd) + np.float32(self.mean)


@dataclass
class DomainVolume:
    """A volume at the model's voxel size; regions of it are read standardised.

    ``data`` (z, y, x) holds the file's grey values, resampled (a memory map when no resampling was needed);
    ``file_shape``, ``voxel_size`` (angstrom) and ``origin`` (x, y, z, angstrom) are the file's; ``inside`` (z, y, x) is
    where training crops may lie, None for everywhere.
    """

    path: str
    data: np.ndarray
    scale: Scale
    model_voxel_size: float
    voxel_size: float
    file_shape: Shape
    origin: tuple[float, float, float]
    inside: np.ndarray | None = None

    @property
    def shape(self) -> Shape:
        """(z, y, x) at the model's voxel size."""
        return shape_of(self.data)

    def __getitem__(self, region: Any) -> np.ndarray:
        """Standardised values of a region, float32."""
        return self.scale.apply(self.data[region])

    def resample_back(self, values: np.ndarray) -> np.ndarray:
        """``values`` (z, y, x) of the model's grid on the file's grid, still standardised."""
        return resample(values, self.file_shape)


def open_volume_for(
    target: DualModel | float,
    path: str,
    *,
    domain: str = "noisy",
    contrast: str = "",
    voxel_size: float = 0.0,
    robust: bool = True,
    warn: Warn = print,
) -> DomainVolume:
    """Open a volume as a model, or models of a voxel size, want it.

    Parameters
    ----------
    target
        A model, or a voxel size in angstrom.
    path
        MRC file of any size and number format.
    domain
        ``noisy`` or ``clean``: whose contrast of the model is meant.
    contrast
        ``dark`` or ``bright`` density in the file, ``auto`` to guess it; empty takes the model's, or ``auto``.
    voxel_size
        Of the file in angstrom; 0 takes the header's.
    robust
        Leave the extremes out of mean and spread; otherwise those of all voxels, as in the paper.

    Raises
    ------
    JobError
        File missing, unreadable, not finite or constant; no voxel size; contrast asked for as auto and not clear.
    """
    header = mrc.read_header(path)
    data: np.ndarray = mrc.open_volume(path)
    found = mrc.check_finite_and_varying(data, path)
    size = mrc.voxel_size_of(path, voxel_size, warn)
    if not size:
        raise JobError(f"{path} has no voxel size in its header; give it with the voxel size parameter of its domain.")
    if isinstance(target, int | float):
        wanted, known = float(target), ""
    else:
        wanted, known = target.voxel_size, target.about["contrast"][domain]
    file_shape = shape_of(data)
    shape = resampled_shape(file_shape, size / wanted)
    if min(shape) < 8:
        raise JobError(f"{path} is only {mrc.size_text(shape)} voxels at {wanted:g} A; a larger volume is needed.")
    if size > 1.05 * wanted:
        warn(
            f"{path} has voxels of {size:g} A and is resampled to {wanted:g} A, which adds nothing: the outer "
            f"{100 * (1 - wanted / size):.0f} % of its frequencies are empty."
        )
    if shape != file_shape:
        data = resample(data, shape)
    sign = _sign(path, data, contrast, known, warn)
    mean, sd = robust_statistics(data) if robust else (found.mean, found.sd)
    return DomainVolume(path, data, Scale(mean, sd, sign), wanted, size, file_shape, header.origin)


def resampled_shape(shape: Shape, factor: float) -> Shape:
    """Edges after the voxels became ``1 / factor`` times as large; a difference below 1 % of the voxel is none."""
    if abs(factor - 1) < 0.01:
        return shape
    z, y, x = (max(1, round(edge * factor)) for edge in shape)
    return z, y, x


def resample(volume: np.ndarray, shape: Shape) -> np.ndarray:
    """Fourier-crop or -pad a volume (z, y, x) to another shape of the same extent, float32.

    Memory maps are read by slabs.  The mean is kept.  The transform is periodic, so opposite faces that
    differ ring over a few voxels.
    """
    if tuple(volume.shape) == tuple(shape):
        return np.asarray(volume, np.float32)
    flat = np.empty((volume.shape[0], shape[1], shape[2]), np.float32)
    for slab in mrc.slabs(volume):
        part = signal.resample(np.asarray(volume[slab], np.float32), shape[2], axis=2)
        flat[slab] = signal.resample(part, shape[1], axis=1)
    if flat.shape[0] == shape[0]:
        return flat
    result = np.empty(shape, np.float32)
    for row in range(shape[1]):
        result[:, row] = signal.resample(flat[:, row], shape[0], axis=0)
    return result


def resample_numbers(numbers: np.ndarray, shape: Shape) -> np.ndarray:
    """Labels, or a mask, on another grid of the same extent, where :func:`resample` puts the densities.

    Each voxel takes its nearest one's; the first voxel stays in place.
    """
    index = [
        np.minimum(np.rint(np.arange(new) * old / new).astype(int), old - 1)
        for old, new in zip(numbers.shape, shape, strict=True)
    ]
    return numbers[np.ix_(*index)]


def soft_clip(values: np.ndarray) -> np.ndarray:
    """Compress standardised values beyond 6 so that none goes beyond 8; what training and networks see."""
    width = CLIP_END - CLIP_START
    excess = np.maximum(np.abs(values) - CLIP_START, 0)
    if not excess.any():
        return values
    return np.where(excess > 0, np.sign(values) * (CLIP_START + width * np.tanh(excess / width)), values)


def soft_unclip(values: np.ndarray) -> np.ndarray:
    """Undo :func:`soft_clip`, up to about 12 standard deviations; float32 cannot tell larger values apart."""
    width = CLIP_END - CLIP_START
    share = np.clip((np.abs(values) - CLIP_START) / width, 0, 0.995)
    return np.where(share > 0, np.sign(values) * (CLIP_START + width * np.arctanh(share)), values)


def _sign(path: str, data: np.ndarray, contrast: str, known: str, warn: Warn) -> int:
    """1 for bright density, else -1: as said, as ``known`` of the model, or as it looks."""
    guessed, clearness = contrast_of(data)
    name = {1: "bright", -1: "dark"}
    if (contrast or known or "auto") == "auto":
        if clearness < CLEAR_SKEWNESS:
            raise JobError(
                f"whether density is dark or bright in {path} cannot be seen from its values; say so with the contrast."
            )
        warn(f"density looks {name[guessed]} in {path} and is taken as that; if it is not, give the contrast.")
        return guessed
    sign = 1 if (contrast or known) == "bright" else -1
    if clearness > 2 * CLEAR_SKEWNESS and guessed != sign:
        said = f"was said to have {contrast} density" if contrast else f"is read with {known} density, as the model's"
        warn(f"{path} {said}, but looks {name[guessed]}; if it is, the result is worthless: give the contrast.")
    return sign


def restrict(volume: DomainVolume, mask: str = "", thickness: float = 0.0) -> None:
    """Say where crops of a volume may lie: inside a mask (> 0.5), within a central slab of ``thickness`` angstrom.

    Raises
    ------
    JobError
        The mask has another shape than the volume, or nothing is left.
    """
    inside = np.ones(volume.shape, bool)
    if mask:
        values = mrc.open_volume(mask)
        if tuple(values.shape) != volume.file_shape:
            raise JobError(
                f"the mask {mask} is {mrc.size_text(values.shape)} voxels but {volume.path} is "
                f"{mrc.size_text(volume.file_shape)}."
            )
        inside &= resample_numbers(np.asarray(values) > 0.5, volume.shape)
        if not inside.any():
            raise JobError(f"the mask {mask} is empty: no voxel is above 0.5.")
    if thickness:
        spare = max(0, round((volume.shape[0] - thickness / volume.model_voxel_size) / 2))
        inside[:spare] = False
        inside[volume.shape[0] - spare :] = False
    if not inside.all():
        volume.inside = inside if volume.inside is None else inside & volume.inside
        if not volume.inside.any():
            raise JobError(f"nothing of {volume.path} is left inside its mask, the slab and what is not padding.")


def mask_padding(volume: DomainVolume, warn: Warn, consequence: str = "no crops are taken there") -> None:
    """Keep crops out of voxels of one single value, which a tomogram gets where it was padded or cut.

    They are left out of mean and spread too; ``consequence`` ends the sentence that says so.
    """
    file = mrc.open_volume(volume.path)
    sample = np.asarray(file[tuple(slice(None, None, max(1, size // 96)) for size in file.shape)])
    values, counts = np.unique(sample, return_counts=True)
    common = values[counts.argmax()]
    # Integers repeat by nature; padding stands out from the other values.
    if counts.max() < PADDING_SHARE * sample.size or counts.max() < 10 * np.median(counts):
        return
    padded = np.asarray(file) == common
    # Single voxels that happen to have the value are not padding.
    padded = ndimage.binary_dilation(ndimage.binary_erosion(padded, border_value=1)) & padded
    share = float(padded.mean())
    if share < PADDING_SHARE:
        return
    warn(f"{100 * share:.0f} % of {volume.path} is padding with the value {common:g}; {consequence}.")
    inside = ~resample_numbers(padded, volume.shape)
    volume.inside = inside if volume.inside is None else inside & volume.inside
    kept = np.asarray(file[~padded], np.float32)
    edge = int(kept.size ** (1 / 3))
    if edge and kept.std() > 0:
        mean, sd = robust_statistics(kept[: edge**3].reshape(edge, edge, edge))
        volume.scale = Scale(mean, sd, volume.scale.sign)


def check_tomogram(volume: DomainVolume, tilt_range: tuple[float, float], warn: Warn) -> None:
    """Warn about a tomogram that was filtered, or whose missing wedge does not lie about z in the (x, z) plane."""
    block = central_block(mrc.open_volume(volume.path))
    frequency, power = radial_power_spectrum(block, edge_taper=0.5)
    middle, high = power[(frequency > 0.15) & (frequency < 0.3)].mean(), power[frequency > 0.4].mean()
    if high < 1e-4 * middle:
        warn(f"{volume.path} has no power at high frequencies: it was filtered or denoised.")
    if tilt_range[1] - tilt_range[0] > 150:
        return
    orders = {"z": (0, 1, 2), "y": (1, 0, 2), "z with the tilt axis along x": (0, 2, 1), "x": (2, 1, 0)}
    fullness = {name: wedge_ratio(block.transpose(order), *tilt_range) for name, order in orders.items()}
    emptiest = min(fullness, key=lambda name: fullness[name])
    if emptiest != "z" and fullness[emptiest] < 0.5 * fullness["z"]:
        warn(
            f"the missing wedge of {volume.path} seems to lie about {emptiest}, not about z with the tilt axis along "
            "y; rotate the tomogram (IMOD: trimvol -rx), or its noise will be learned wrongly."
        )


AnyJob = TypeVar("AnyJob", DualTrainJob, DualWedgeJob)


def with_tilt_range(job: AnyJob) -> AnyJob:
    """A job with the tilt range of its file of angles, where it names one.

    Raises
    ------
    JobError
        The file cannot be read, or its range is none that the job allows.
    """
    if not job.tilt_angles:
        return job
    angles = read_tilt_angles(job.tilt_angles)
    known = dataclasses.replace(job, tilt_min=min(angles), tilt_max=max(angles))
    known.validate()
    return known


def wedge_ratio(volume: np.ndarray, tilt_min_degrees: float = -60.0, tilt_max_degrees: float = 60.0) -> float:
    """Power in the missing wedge over that in the measured region, the mean over shells from 0.05 to 0.35 per voxel."""
    block = central_block(volume)
    block = (block - block.mean()) * edge_window(block.shape, 0.1)
    power = np.abs(half_transform(block)) ** 2
    measured = missing_wedge_mask(block.shape, tilt_min_degrees, tilt_max_degrees)
    frequency, inside = radial_average(power, block.shape, inside=measured)
    _, outside = radial_average(power, block.shape, inside=~measured)
    band = (frequency >= 0.05) & (frequency <= 0.35) & np.isfinite(inside) & np.isfinite(outside) & (inside > 0)
    return float(np.mean(outside[band] / inside[band]))
