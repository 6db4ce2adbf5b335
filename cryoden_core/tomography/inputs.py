"""A tilt series made ready for reconstruction: checked, aligned with one interpolation, binned, with its geometry.

Every reconstruction (weighted back-projection, SIRT, the coordinate network) begins here, so that all of them take the
same images at the same angles and put the specimen in the same place, which is where IMOD's ``tilt -AdjustOrigin``
followed by ``trimvol -rx`` puts it.  Sizes and shifts are given in unbinned pixels, as IMOD's are, and leave here in
binned ones.  Binning crops the Fourier transform of the aligned images.

What is wrong with the input is found before anything is written, see :mod:`.series_checks`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .. import mrc
from ..jobs import JobError, ReconstructionJob, RunFolder, read_json, write_json
from ..progress import Progress
from ..runs import file_state
from ..tilt_series import TiltSeries, View
from .binning import bin_image, centre_shift
from .geometry import TiltGeometry
from .series_checks import (
    check_companions,
    check_half,
    check_size,
    check_tilts,
    usable_views,
)
from .view_order import SUSPECT, likeness_of_neighbours

#: Dose after which half of the power at 20 angstrom is gone, electrons per square angstrom: the critical exposure of
#: Grant and Grigorieff, eLife 4, e06980 (2015), 0.245 k^-1.665 + 2.81, at k = 1/20.
CRITICAL_DOSE = 38.7


@dataclass(eq=False)
class AlignedSeries:
    """Views in alignment and where they look from; everything in binned pixels, excluded views gone.

    Parameters
    ----------
    projections : ndarray (views, y, x) float32
        In stack order, tilt axis along y; sums of density along the rays in (binned) voxels.  A memory map of the
        run folder's stack when the images had to be aligned, binned or converted, else of the file itself.
    tilt_angles_degrees : ndarray (views,)
        With the sign flipped when that was asked for, without the offset.
    image_numbers : ndarray (views,) int
        Place of each view in the file, from 1.
    weights : ndarray (views,)
        How much a view counts, by its dose; their mean is 1.
    thickness, width : int
        Of the tomogram, voxels.
    voxel_size : float
        Angstrom; 0 where unknown.
    angle_offset_degrees, tilt_axis_shift, x_shift, z_shift : float
        See :class:`~cryoden_core.tomography.geometry.TiltGeometry`.
    origin : (x, y, z)
        Of the tomogram's header, angstrom, as IMOD gives it: the specimen's coordinates begin at the first pixel of
        the images, and half way through the slab.
    """

    projections: np.ndarray
    tilt_angles_degrees: np.ndarray
    image_numbers: np.ndarray
    weights: np.ndarray
    thickness: int
    width: int
    voxel_size: float
    angle_offset_degrees: float = 0.0
    tilt_axis_shift: float = 0.0
    x_shift: float = 0.0
    z_shift: float = 0.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.projections)

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of the tomogram."""
        return self.thickness, int(self.projections.shape[1]), self.width

    @property
    def levels(self) -> np.ndarray:
        """Median of each view (of every fourth pixel along each side), (views,): what empty ice looks like there."""
        return np.array([np.median(view[::4, ::4]) for view in self.projections], dtype=np.float32)

    def geometry(self, width: int | None = None, views: np.ndarray | None = None) -> TiltGeometry:
        """The geometry of the tomogram, of another ``width``, or of some ``views`` (indices or a boolean mask)."""
        depth, height, own_width = self.volume_shape
        angles = self.tilt_angles_degrees if views is None else self.tilt_angles_degrees[views]
        return TiltGeometry(
            angles, (depth, height, width or own_width), int(self.projections.shape[2]), self.angle_offset_degrees,
            self.tilt_axis_shift, self.x_shift, self.z_shift,
        )  # fmt: skip

    def subset(self, views: np.ndarray) -> AlignedSeries:
        """Some of the views (indices or a boolean mask), with weights whose mean is 1 again.

        Views at equal distances in the stack stay a view of the same memory; others are copied.
        """
        chosen = np.flatnonzero(views) if np.asarray(views).dtype == bool else np.asarray(views, dtype=np.intp)
        if not len(chosen):
            raise JobError("a part of a tilt series needs at least one view.")
        steps = np.unique(np.diff(chosen))
        where = slice(chosen[0], chosen[-1] + 1, steps[0] if len(steps) else 1)
        even = len(steps) <= 1 and (not len(steps) or steps[0] > 0)
        return dataclasses.replace(
            self,
            projections=self.projections[where] if even else self.projections[chosen],
            tilt_angles_degrees=self.tilt_angles_degrees[chosen],
            image_numbers=self.image_numbers[chosen],
            weights=self.weights[chosen] / self.weights[chosen].mean(),
        )

    def binned(self, factor: int) -> AlignedSeries:
        """The same specimen at a ``factor`` times larger voxel size; the projections are held in memory.

        Densities keep their values.  Sizes are rounded to whole voxels about the same centre.
        """
        if factor == 1:
            return self
        height, detector = self.projections.shape[1:]
        if min(height, detector, self.width, self.thickness) < factor:
            raise JobError(f"images of {detector} x {height} pixels cannot be binned {factor} times.")
        projections = np.stack([bin_image(view, factor) / np.float32(factor) for view in self.projections])
        return dataclasses.replace(
            self,
            projections=projections,
            thickness=max(1, round(self.thickness / factor)),
            width=max(1, self.width // factor),
            voxel_size=self.voxel_size * factor,
            tilt_axis_shift=self.tilt_axis_shift / factor + centre_shift(detector, factor),
            x_shift=self.x_shift / factor,
            z_shift=self.z_shift / factor,
        )


def open_series(
    job: ReconstructionJob,
    folder: RunFolder,
    progress: Progress,
    check: Callable[[tuple[int, int, int], int], None] | None = None,
) -> AlignedSeries:
    """Check, align and bin the tilt series of a job.

    Parameters
    ----------
    job : ReconstructionJob
    folder : RunFolder
        Where the aligned stack goes; :func:`remove_aligned` removes it when the run has succeeded.
    progress : Progress
        Gets the warnings.
    check : callable, optional
        Told the shape (z, y, x) of the tomogram and the number of views before anything is written; may refuse.

    Returns
    -------
    AlignedSeries

    Raises
    ------
    JobError
        When the series, its angles or what belongs to it is wrong; nothing has been written then.
    """
    progress.stage("checking the tilt series")
    series = TiltSeries.from_files(
        job.input, job.tilt_angles, job.transforms or None, job.excluded_images(), job.doses or None
    )
    check_tilts(series, job, progress.warn)
    check_size(series, job, progress.warn)
    check_companions(series, job)
    series = usable_views(series, progress.warn)
    for which in ("even", "odd") if job.halves == "stacks" else ():
        check_half(_half(job, which, series), job.input)
    if check is not None:
        check(_tomogram_shape(series, job), len(series.enabled_views))
    voxel_size = job.voxel_size or series.voxel_size
    if not voxel_size:
        progress.warn(f"{job.input} has no pixel size and none was given; the tomogram will have none either.")
    projections = _projections(series, job, folder.aligned(), voxel_size * job.binning, progress)
    aligned = _with_geometry(series, job, projections, voxel_size)
    likeness = likeness_of_neighbours(projections, aligned.tilt_angles_degrees)
    if likeness is not None and likeness < SUSPECT:
        progress.warn(
            f"views of {job.input} that are neighbours by {job.tilt_angles} look unlike each other: the angles may be "
            "in another order than the images, or the images not aligned."
        )
    return aligned


def open_halves(
    job: ReconstructionJob, series: AlignedSeries, folder: RunFolder, progress: Progress
) -> tuple[AlignedSeries, AlignedSeries] | None:
    """The even and the odd half of a series: from the stacks of even and odd frames, or every second view.

    Views are counted in the order of their angles, so that both halves cover the whole range at twice the step.

    Parameters
    ----------
    job : ReconstructionJob
    series : AlignedSeries
        What :func:`open_series` gave for the same job.
    folder, progress
        As there.

    Returns
    -------
    tuple of AlignedSeries, or None
        Even, odd; None when the job asks for no halves.
    """
    if job.halves == "none":
        return None
    if job.halves == "views":
        order = np.argsort(series.tilt_angles_degrees, kind="stable")
        return series.subset(np.sort(order[0::2])), series.subset(np.sort(order[1::2]))
    whole = TiltSeries.from_files(job.input, job.tilt_angles, job.transforms or None)
    used = set(series.image_numbers)
    whole = dataclasses.replace(whole, views=tuple(view for view in whole.views if view.index + 1 in used))
    even, odd = (
        dataclasses.replace(
            series,
            projections=_projections(_half(job, which, whole), job, folder.aligned(which), series.voxel_size, progress),
        )
        for which in ("even", "odd")
    )
    return even, odd


def _half(job: ReconstructionJob, which: str, series: TiltSeries) -> TiltSeries:
    """The series with the stack of its even or odd frames."""
    return dataclasses.replace(series, stack_path=job.even if which == "even" else job.odd)


def remove_aligned(folder: RunFolder) -> None:
    """Remove the aligned stacks of a run that has succeeded."""
    for which in ("", "even", "odd"):
        for path in (folder.aligned(which), _about(folder.aligned(which))):
            if os.path.exists(path):
                os.remove(path)


def _tomogram_shape(series: TiltSeries, job: ReconstructionJob) -> tuple[int, int, int]:
    """Voxels (z, y, x) after binning."""
    _, height, detector = series.aligned_shape
    return (
        max(1, round(job.thickness / job.binning)), height // job.binning,
        max(1, (job.width or detector) // job.binning),
    )  # fmt: skip


def _with_geometry(
    series: TiltSeries, job: ReconstructionJob, projections: np.ndarray, voxel_size: float
) -> AlignedSeries:
    binning = job.binning
    detector = series.aligned_shape[2]
    width = job.width or detector
    thickness, _, binned_width = _tomogram_shape(series, job)
    views = series.enabled_views
    weights = np.exp([-view.dose / (2 * CRITICAL_DOSE) for view in views])
    # IMOD's origin: feature x = 0 is the first pixel of the images, z = 0 the middle of the unshifted slab.
    origin = (
        voxel_size * (job.x_shift - (detector - width) / 2), 0.0, voxel_size * (job.thickness / 2 - job.z_shift)
    )  # fmt: skip
    return AlignedSeries(
        projections,
        series.tilt_angles_degrees * (-1 if job.flip_tilt_sign else 1),
        np.array([view.index + 1 for view in views]),
        weights / weights.mean(),
        thickness=thickness,
        width=binned_width,
        voxel_size=voxel_size * binning,
        angle_offset_degrees=job.angle_offset,
        tilt_axis_shift=job.tilt_axis_shift / binning + centre_shift(detector, binning),
        x_shift=job.x_shift / binning,
        z_shift=job.z_shift / binning,
        origin=origin,
    )


def _projections(
    series: TiltSeries, job: ReconstructionJob, path: str, voxel_size: float, progress: Progress
) -> np.ndarray:
    """The enabled images, aligned and binned: the file's own where that is all there is to it, else ``path``."""
    stack = mrc.open_volume(series.stack_path)
    views = series.enabled_views
    still = all(np.array_equal(view.transform, np.eye(3)) for view in views)
    if still and job.binning == 1 and len(views) == len(stack) and stack.dtype == np.dtype("<f4"):
        return stack
    made_from = _fingerprint(series.stack_path, views, job.binning)
    if job.resume and os.path.exists(path) and read_json(_about(path)) == made_from:
        return mrc.open_volume(path)
    if os.path.exists(_about(path)):
        os.remove(_about(path))
    _, height, width = series.aligned_shape
    shape = (len(views), height // job.binning, width // job.binning)
    progress.stage("aligning the images" if not still else "preparing the images", len(views))
    with mrc.create_volume(path, shape, voxel_size) as target:
        for place, image in enumerate(_binned(series.aligned_images(), job.binning)):
            target[place] = image
            progress.advance()
    write_json(made_from, _about(path))
    return mrc.open_volume(path)


def _binned(images: Iterator[np.ndarray], factor: int) -> Iterator[np.ndarray]:
    # Divided by the factor: a ray crosses that many times fewer voxels, and densities shall keep their values.
    return (bin_image(image, factor) / np.float32(factor) for image in images)


def _fingerprint(stack: str, views: tuple[View, ...], binning: int) -> dict[str, object]:
    """What an aligned stack is made from, in a form that JSON gives back unchanged."""
    return {
        "stack": os.path.abspath(stack), "state": file_state(stack), "binning": binning,
        "images": [view.index + 1 for view in views], "transforms": [view.transform.tolist() for view in views],
    }  # fmt: skip


def _about(path: str) -> str:
    """The file beside an aligned stack that says what it was made from; it is written last."""
    return os.path.splitext(path)[0] + ".json"
