"""What the microscope does to a projection: contrast transfer, radiation damage, dose weights, thickness.

The contrast transfer function is that of ``torch_ctf`` (positive underfocus, amplitude contrast positive at zero
frequency), so that bright protein stays bright before the sign is chosen.  Radiation damage and the dose weights are
the exposure filter of Grant & Grigorieff (eLife 2015, equation 3).  Inelastic loss follows the mean free path.
Astigmatism, the defocus gradient over a tilted view and the detector's transfer are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..jobs import JobError

#: Relative change of intensity for 1 angstrom of protein in ice at full contrast transfer: twice the phase shift,
#: with 6.5e-4 rad / (V angstrom) at 300 kV and 2.5 V between protein and ice.
CONTRAST_PER_ANGSTROM = 3.3e-3
#: Critical exposure at 300 kV, electrons per square angstrom: a * k ** b + c (Grant & Grigorieff 2015).
_CRITICAL_EXPOSURE = (0.24499, -1.6649, 2.8141)
#: Mean free path for inelastic scattering in vitreous ice at 300 kV, angstrom.
MEAN_FREE_PATH = 3100.0
#: Pixels of zero padding around an image, more than the contrast transfer spreads at any usual defocus.
_PADDING = 32


@dataclass(frozen=True)
class Microscope:
    """How views are taken.

    Attributes
    ----------
    defocus
        Underfocus in micrometres, positive; 0 means no contrast transfer function.
    voltage, spherical_aberration, amplitude_contrast
        Kilovolt, millimetres, fraction.
    dose_per_view
        Electrons per square angstrom; sets the damage, and the count of electrons where no signal-to-noise ratio does.
    radiation_damage
        Fade the signal with the dose that was accumulated, least tilted views first.
    dose_weighting
        Weight each recorded view by the same filter.
    thickness_loss
        Lose electrons with the path through the ice, ``exp(-thickness / (mean free path * cos(tilt)))``.
    """

    defocus: float = 0.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.07
    dose_per_view: float = 3.0
    radiation_damage: bool = False
    dose_weighting: bool = False
    thickness_loss: bool = False


def contrast_transfer(shape: tuple[int, int], pixel_size: float, defocus: float, microscope: Microscope) -> np.ndarray:
    """The contrast transfer function ``sin(chi + arcsin(amplitude contrast))`` of one view.

    Parameters
    ----------
    shape
        (y, x) of the image, pixels.
    pixel_size
        Angstrom.
    defocus
        Underfocus, micrometres.
    microscope
        Gives voltage, spherical aberration and amplitude contrast.

    Returns
    -------
    numpy.ndarray
        (y, x // 2 + 1) float32, zero frequency first, as ``numpy.fft.rfft2`` has it.
    """
    from torch_ctf import calculate_ctf_2d

    transfer = calculate_ctf_2d(
        defocus=defocus,
        astigmatism=0.0,
        astigmatism_angle=0.0,
        voltage=microscope.voltage,
        spherical_aberration=microscope.spherical_aberration,
        amplitude_contrast=microscope.amplitude_contrast,
        phase_shift=0.0,
        pixel_size=pixel_size,
        image_shape=(shape[0], shape[1]),
        rfft=True,
        fftshift=False,
    )
    return transfer.numpy().astype(np.float32)


def exposure_filter(shape: tuple[int, int], pixel_size: float, dose: float) -> np.ndarray:
    """Share of the signal that is left after a dose, ``exp(-dose / (2 critical exposure))``.

    Parameters
    ----------
    shape
        (y, x) of the image, pixels.
    pixel_size
        Angstrom.
    dose
        Accumulated, electrons per square angstrom.

    Returns
    -------
    numpy.ndarray
        (y, x // 2 + 1) float32, 1 at zero frequency.
    """
    frequency = np.hypot(np.fft.fftfreq(shape[0], pixel_size)[:, None], np.fft.rfftfreq(shape[1], pixel_size)[None])
    scale, power, offset = _CRITICAL_EXPOSURE
    with np.errstate(divide="ignore"):
        critical = scale * frequency**power + offset
    return np.exp(-0.5 * dose / critical).astype(np.float32)


def accumulated_dose(tilt_angles_degrees: np.ndarray, dose_per_view: float) -> np.ndarray:
    """Dose before the middle of each view of a dose-symmetric scheme, electrons per square angstrom, (views,)."""
    rank = np.argsort(np.argsort(np.abs(tilt_angles_degrees), kind="stable"), kind="stable")
    return (rank + 0.5) * dose_per_view


def transmission(tilt_angles_degrees: np.ndarray, thickness: float) -> np.ndarray:
    """Share of electrons that pass ``thickness`` angstrom of ice without inelastic loss, (views,)."""
    return np.exp(-thickness / (MEAN_FREE_PATH * np.cos(np.radians(tilt_angles_degrees))))


def weight_by_dose(
    views: np.ndarray, tilt_angles_degrees: np.ndarray, pixel_size: float, microscope: Microscope
) -> np.ndarray:
    """Weight recorded views (views, y, u) by the exposure filter of the dose each had."""
    doses = accumulated_dose(tilt_angles_degrees, microscope.dose_per_view)
    weighted = np.empty_like(views)
    for index, view in enumerate(views):
        weight = exposure_filter(view.shape, pixel_size, float(doses[index]))
        weighted[index] = np.fft.irfft2(np.fft.rfft2(view) * weight, view.shape)
    return weighted


def blur_views(
    projections: np.ndarray,
    tilt_angles_degrees: np.ndarray,
    pixel_size: float,
    microscope: Microscope,
    defocus_per_view: np.ndarray | None = None,
) -> np.ndarray:
    """Apply contrast transfer and radiation damage to noise-free projections.

    Parameters
    ----------
    projections
        (views, y, u), bright protein, zero outside.
    tilt_angles_degrees
        (views,).
    pixel_size
        Angstrom.
    microscope
        With the effects to apply.
    defocus_per_view
        (views,) micrometres, in place of the microscope's one value.

    Raises
    ------
    JobError
        When there is not one defocus for each view.
    """
    views = len(projections)
    if defocus_per_view is None:
        defocus_per_view = np.full(views, microscope.defocus)
    if len(defocus_per_view) != views:
        raise JobError(f"there are {views} views but {len(defocus_per_view)} defocus values; give one for each view.")
    if not microscope.radiation_damage and not np.any(defocus_per_view):
        return projections
    padded = np.pad(projections, [(0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING)])
    shape = (padded.shape[1], padded.shape[2])
    doses = accumulated_dose(tilt_angles_degrees, microscope.dose_per_view)
    for index in range(views):
        weight = np.ones(1, np.float32)
        if defocus_per_view[index]:
            weight = contrast_transfer(shape, pixel_size, float(defocus_per_view[index]), microscope)
        if microscope.radiation_damage:
            weight = weight * exposure_filter(shape, pixel_size, float(doses[index]))
        padded[index] = np.fft.irfft2(np.fft.rfft2(padded[index]) * weight, shape)
    return np.ascontiguousarray(padded[:, _PADDING:-_PADDING, _PADDING:-_PADDING])
