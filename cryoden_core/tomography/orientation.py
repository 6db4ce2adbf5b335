"""Does a reconstruction lie as a reference tomogram of the same specimen does?

A wrong sign of the tilt angles gives exactly the tomogram mirrored in z, and a constant offset of the angles one that
is turned about the tilt axis; the projections are explained equally well in either case.  Only another tomogram, from
IMOD or AreTomo say, can tell.  Small weighted back-projections with several offsets of the angles are compared with the
small reference, as they are and mirrored, by normalised cross-correlation over all shifts.

The hand of the specimen is not known from this: it is the reference's, right or wrong.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import fft, ndimage

from ..mrc import open_volume, read_header
from ..progress import Progress
from .binning import fourier_crop
from .inputs import AlignedSeries
from .wbp import weighted_back_projection

#: Longest side of the small tomograms, voxels.
SMALL = 96
ANGLE_OFFSETS_DEGREES = (-4.0, -2.0, 0.0, 2.0, 4.0)
#: Below this correlation nothing is said: two reconstructions of the same series correlate by 0.5 or more at this size.
RECOGNISED = 0.15


@dataclass(frozen=True)
class Orientation:
    """How a reconstruction lies beside a reference.

    Parameters
    ----------
    correlation : float
        With the reference at the best shift, as the reconstruction is; -1 to 1.
    mirrored_correlation : float
        The same for the reconstruction mirrored in z.
    mirrored : bool
        Whether the mirrored one fits better by far.
    contrast_inverted : bool
        Whether densities have the opposite sign in the reference.
    angle_offset_degrees : float
        To add to the tilt angles for the best fit (after mirroring, when mirrored).
    shift : (x, y, z)
        How far features of the reference lie from those of the reconstruction (after mirroring), voxels.
    """

    correlation: float
    mirrored_correlation: float
    mirrored: bool
    contrast_inverted: bool
    angle_offset_degrees: float
    shift: tuple[float, float, float]


def check_orientation(series: AlignedSeries, reference: str, device: str | torch.device = "cpu") -> Orientation:
    """Compare what a series reconstructs to with a reference tomogram.

    Parameters
    ----------
    series : AlignedSeries
    reference : str
        Tomogram (MRC) with the same field of view along x and y, at any voxel size and thickness.
    device : str or torch.device
        Where to back-project.

    Returns
    -------
    Orientation
    """
    small, factor = _small(series, read_header(reference).shape)
    wanted = _small_reference(reference, small.volume_shape)
    best: dict[bool, tuple[float, tuple[float, float, float]]] = {}
    scores: dict[bool, list[float]] = {False: [], True: []}
    for offset in ANGLE_OFFSETS_DEGREES:
        tomogram = _back_projected(small, offset, device)
        for mirrored in (False, True):
            score, shift = _match(tomogram[::-1] if mirrored else tomogram, wanted)
            scores[mirrored].append(abs(score))
            if mirrored not in best or abs(score) > abs(best[mirrored][0]):
                best[mirrored] = (score, shift)
    straight, turned = abs(best[False][0]), abs(best[True][0])
    mirrored = turned > 1.1 * straight and turned > RECOGNISED
    score, (x, y, z) = best[mirrored]
    offset = _best_offset(scores[mirrored])
    return Orientation(
        correlation=best[False][0],
        mirrored_correlation=best[True][0],
        mirrored=mirrored,
        contrast_inverted=score < 0,
        # Mirroring turns the series' own offset round too.
        angle_offset_degrees=-offset - 2 * series.angle_offset_degrees if mirrored else offset,
        shift=(x * factor, y * factor, z * factor),
    )


def compare_with_reference(
    series: AlignedSeries, reference: str, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Check the orientation and warn of what differs; the entry for a job's result, empty without a reference."""
    if not reference:
        return {}
    progress.stage("comparing with the reference")
    found = check_orientation(series, reference, device)
    best = max(abs(found.correlation), abs(found.mirrored_correlation))
    if best < RECOGNISED:
        progress.warn(
            f"the tomogram resembles the reference {reference} in no orientation (correlation {best:.2f}); do they "
            "show the same specimen?"
        )
    elif found.mirrored:
        progress.warn(
            f"the tomogram is mirrored in z against the reference {reference} (correlation "
            f"{abs(found.mirrored_correlation):.2f} mirrored, {abs(found.correlation):.2f} as it is); change the sign "
            "of the tilt angles (flip_tilt_sign)."
        )
    if best >= RECOGNISED:
        _warn_of_displacement(found, max(series.volume_shape), progress)
    return {"orientation": asdict(found)}


def _warn_of_displacement(found: Orientation, longest: int, progress: Progress) -> None:
    x, y, z = found.shift
    # Half a voxel of the small tomograms is as well as this can be known.
    if max(abs(x), abs(y), abs(z)) > max(1.5, 0.5 * longest / SMALL):
        progress.warn(f"features of the reference lie {x:.0f}, {y:.0f}, {z:.0f} voxels (x, y, z) from the tomogram's.")
    if abs(found.angle_offset_degrees) > 1:
        progress.warn(
            f"the reference fits best with the tilt angles changed by {found.angle_offset_degrees:.1f} degrees."
        )
    if found.contrast_inverted:
        progress.warn("densities have the opposite sign in the reference.")


def _small(series: AlignedSeries, reference: tuple[int, int, int]) -> tuple[AlignedSeries, int]:
    """The series binned to at most :data:`SMALL` voxels a side and to no finer voxels than the reference's; the bin."""
    _, height, width = series.volume_shape
    factor = math.ceil(max(max(series.volume_shape) / SMALL, height / reference[1], width / reference[2]))
    factor = max(1, min(factor, height, width, series.thickness))
    return series.binned(factor), factor


def _small_reference(path: str, shape: tuple[int, int, int]) -> np.ndarray:
    """The reference on the small tomogram's grid along x and y, and as thick as it is there, band-passed."""
    volume = open_volume(path)
    sections = np.stack([fourier_crop(section, shape[1:]) for section in volume])
    depth = min(len(volume), max(1, round(len(volume) * shape[2] / volume.shape[2])))
    return _band_passed(np.moveaxis(fourier_crop(np.moveaxis(sections, 0, -1), (depth,)), -1, 0))


def _back_projected(series: AlignedSeries, offset: float, device: str | torch.device) -> np.ndarray:
    return _band_passed(
        weighted_back_projection(
            series.projections, series.tilt_angles_degrees, series.thickness, series.width,
            angle_offset_degrees=series.angle_offset_degrees + offset, tilt_axis_shift=series.tilt_axis_shift,
            x_shift=series.x_shift, z_shift=series.z_shift, device=device,
        )
    )  # fmt: skip


def _band_passed(volume: np.ndarray) -> np.ndarray:
    """Without the noise of single voxels and without what varies over more than about 30 voxels."""
    return ndimage.gaussian_filter(volume, 1.0) - ndimage.gaussian_filter(volume, 8.0)


def _match(volume: np.ndarray, reference: np.ndarray) -> tuple[float, tuple[float, float, float]]:
    """Highest correlation over all shifts, with its sign, and where the reference lies from the volume (x, y, z)."""
    sizes = [fft.next_fast_len(a + b // 2, real=True) for a, b in zip(volume.shape, reference.shape, strict=True)]
    axes = (0, 1, 2)
    ahead = fft.rfftn(reference, sizes, axes)
    surface = fft.irfftn(ahead * fft.rfftn(volume, sizes, axes).conj(), sizes, axes)
    peak = np.unravel_index(np.abs(surface).argmax(), surface.shape)
    norm = float(np.linalg.norm(volume) * np.linalg.norm(reference)) or 1.0
    shift = []
    for axis, place in enumerate(peak):
        line = [abs(surface[(*peak[:axis], (place + d) % sizes[axis], *peak[axis + 1 :])]) for d in (-1, 0, 1)]
        moved = (place + sizes[axis] // 2) % sizes[axis] - sizes[axis] // 2
        # Shifts are between first voxels; features are compared between centres.
        moved += (volume.shape[axis] - reference.shape[axis]) / 2
        shift.append(float(moved + _vertex(*line)))
    return float(surface[peak]) / norm, (shift[2], shift[1], shift[0])


def _vertex(before: float, top: float, after: float) -> float:
    """Where the parabola through three equidistant values has its extreme, from the middle one; within half a step."""
    bend = before - 2 * top + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))


def _best_offset(scores: list[float]) -> float:
    """The offset with the best score, refined by a parabola."""
    best = int(np.argmax(scores))
    step = ANGLE_OFFSETS_DEGREES[1] - ANGLE_OFFSETS_DEGREES[0]
    if not 0 < best < len(scores) - 1:
        return ANGLE_OFFSETS_DEGREES[best]
    return ANGLE_OFFSETS_DEGREES[best] + step * _vertex(*scores[best - 1 : best + 2])
