"""What can be wrong with a tilt series before a reconstruction, each said in one sentence.

Refused is what cannot give a tomogram; warned about is what gives a bad one.  The sign of the tilt angles, a constant
offset of them and the handedness leave no trace in the images: see :mod:`.orientation` for what a reference can tell.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from ..jobs import JobError, ReconstructionJob
from ..mrc import open_volume, read_header, size_text
from ..tilt_series import TiltSeries

Warn = Callable[[str], None]

FEWEST_VIEWS = 10
STEEPEST_DEGREES = 85.0
#: A tilt axis further than this from the vertical blurs a feature 500 pixels from the centre by 40 pixels.
AXIS_TOLERANCE_DEGREES = 5.0
SMALLEST_IMAGE = 16
THINNEST = 8


def check_tilts(series: TiltSeries, job: ReconstructionJob, warn: Warn) -> None:
    """Angles that can be reconstructed from, and an axis that is vertical or is made so by the transforms."""
    views = series.enabled_views
    if len(views) < FEWEST_VIEWS:
        raise JobError(f"{job.input} has {len(views)} views left; a tomogram needs at least {FEWEST_VIEWS}.")
    for view in views:
        tilt = view.tilt_angle_degrees + (-job.angle_offset if job.flip_tilt_sign else job.angle_offset)
        if abs(tilt) > STEEPEST_DEGREES:
            raise JobError(
                f"image {view.index + 1} of {job.input} is tilted by {tilt:g} degrees; angles beyond "
                f"{STEEPEST_DEGREES:g} cannot be used: check {job.tilt_angles} or exclude the image."
            )
    _check_axis(series, job, warn)
    angles = np.unique(series.tilt_angles_degrees)
    if np.ptp(angles) < 60:
        warn(f"the views span only {np.ptp(angles):g} degrees; expect a tomogram that is smeared along z.")
    gaps = np.diff(angles)
    if len(gaps) and gaps.max() > 6.01:
        low = angles[gaps.argmax()]
        warn(
            f"no view lies between {low:g} and {low + gaps.max():g} degrees; gaps of more than 6 degrees leave streaks."
        )


def _check_axis(series: TiltSeries, job: ReconstructionJob, warn: Warn) -> None:
    axis = _from_vertical(job.tilt_axis_angle)
    if not job.transforms:
        if axis > AXIS_TOLERANCE_DEGREES:
            raise JobError(
                f"the tilt axis of {job.input} lies at {job.tilt_axis_angle:g} degrees, not along y: align the series "
                "first, or give its transforms (.xf)."
            )
        return
    turns = [math.degrees(math.atan2(view.transform[1, 0], view.transform[0, 0])) for view in series.enabled_views]
    turn = float(np.median([_from_vertical(angle) for angle in turns]))
    if axis > AXIS_TOLERANCE_DEGREES and abs(turn - axis) > 2 * AXIS_TOLERANCE_DEGREES:
        warn(
            f"{job.transforms} turns the images by {turn:.0f} degrees but the tilt axis lies at "
            f"{job.tilt_axis_angle:g}; check that it belongs to this series."
        )


def _from_vertical(degrees: float) -> float:
    """Angle between a line in this direction and the vertical, 0 to 90 degrees."""
    folded = abs(degrees) % 180
    return min(folded, 180 - folded)


def check_size(series: TiltSeries, job: ReconstructionJob, warn: Warn) -> None:
    """A slab and images that remain something after binning, in a sensible proportion."""
    _, height, width = series.aligned_shape
    if min(height, width) // job.binning < SMALLEST_IMAGE:
        raise JobError(
            f"the images of {job.input} are {width} x {height} pixels; binned {job.binning} times they would have "
            f"fewer than {SMALLEST_IMAGE} along a side."
        )
    if round(job.thickness / job.binning) < THINNEST:
        raise JobError(
            f"thickness {job.thickness} is less than {THINNEST} voxels after binning {job.binning} times; it is given "
            "in voxels of the input."
        )
    if job.thickness > 2 * width:
        raise JobError(
            f"thickness {job.thickness} is more than twice the {width} pixels of the images' width; it is given in "
            "voxels of the input."
        )
    if job.thickness > width:
        warn(f"thickness {job.thickness} is more than the {width} pixels of the images' width; is that meant?")
    if job.width and not width / 4 <= job.width <= 4 * width:
        raise JobError(f"width {job.width} is far from the {width} pixels of the images; 0 takes theirs.")


def check_companions(series: TiltSeries, job: ReconstructionJob) -> None:
    """Stacks of halves as large as the series, and a reference of the tomogram's proportions."""
    wanted = read_header(series.stack_path).shape
    for path in filter(None, (job.even, job.odd)):
        found = read_header(path).shape
        if found != wanted:
            raise JobError(
                f"{path} is {size_text(found)} but {job.input} is {size_text(wanted)}; halves must match the input."
            )
        open_volume(path)
    if job.reference:
        check_reference(job.reference, (job.thickness, series.aligned_shape[1], job.width or series.aligned_shape[2]))


def check_reference(path: str, shape: tuple[int, int, int]) -> None:
    """Refuse a reference whose field of view along x and y has other proportions than the tomogram (z, y, x)."""
    depth, height, width = read_header(path).shape
    open_volume(path)
    if abs(math.log(width / shape[2] / (height / shape[1]))) < 0.03:
        return
    if abs(math.log(width / shape[2] / (depth / shape[1]))) < 0.03:
        raise JobError(
            f"the reference {path} has its sections along y ({size_text((depth, height, width))}): turn it first, as "
            "IMOD's trimvol -rx does."
        )
    raise JobError(
        f"the reference {path} is {size_text((depth, height, width))} but the tomogram would be {size_text(shape)}; "
        "they must show the same field of view."
    )


def usable_views(series: TiltSeries, warn: Warn) -> TiltSeries:
    """The series without its constant images.

    Raises
    ------
    JobError
        When images hold NaN or infinity (all are named), or too few views are left.
    """
    stack = open_volume(series.stack_path)
    broken, constant = [], []
    for view in series.enabled_views:
        image = stack[view.index]
        low, high = float(image.min()), float(image.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            broken.append(view.index + 1)
        elif low == high:
            constant.append(view.index + 1)
    if broken:
        raise JobError(
            f"{_images(broken)} of {series.stack_path} hold pixels that are not numbers (NaN or inf); repair the stack "
            f"or exclude {_list(broken)}."
        )
    if not constant:
        return series
    views = tuple(dataclasses.replace(v, enabled=v.enabled and v.index + 1 not in constant) for v in series.views)
    left = sum(view.enabled for view in views)
    if left < FEWEST_VIEWS:
        raise JobError(
            f"{_images(constant)} of {series.stack_path} are constant, which leaves {left} views; a tomogram needs at "
            f"least {FEWEST_VIEWS}."
        )
    warn(f"{_images(constant)} of {series.stack_path} are constant and were left out.")
    return dataclasses.replace(series, views=views)


def check_half(half: TiltSeries, whole: str) -> None:
    """Refuse a half with broken or constant images among those that are used of the ``whole``."""
    used = {view.index + 1 for view in half.enabled_views}
    left = {view.index + 1 for view in usable_views(half, lambda _: None).enabled_views}
    if left != used:
        raise JobError(
            f"{_images(sorted(used - left))} of {half.stack_path} are constant but not in {whole}; exclude "
            f"{_list(sorted(used - left))}."
        )


def _images(numbers: list[int]) -> str:
    return ("images " if len(numbers) > 1 else "image ") + _list(numbers)


def _list(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))
