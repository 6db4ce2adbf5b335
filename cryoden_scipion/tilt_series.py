"""From a tilt series of Scipion to the files of a reconstruction job, and from its result to a tomogram.

Angles, transforms and the excluded mark are taken image by image through the index in the stack and written in the
order of the stack: a list sorted by angle beside a dose-symmetric stack reconstructs to nonsense without a word.
"""

import os
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
from tomo.objects import TiltImage, TiltSeries, Tomogram

from cryoden_core.jobs import JobError, MlpJob
from cryoden_core.mrc import read_header

from .convert import ItemFolder, clean_path, two_paths

#: A tilt axis that is off the vertical by more than this, in degrees, needs an alignment.
VERTICAL_TOLERANCE = 3.0

HALVES_NONE, HALVES_STACKS, HALVES_VIEWS = "none", "stacks", "views"


class StackImages(NamedTuple):
    """What is known of each image of a stack, in the order of the stack.

    ``angles`` and ``doses`` (degrees; electrons per square angstrom, 0 where unknown) and ``matrices`` (3 x 3, raw to
    aligned) have one entry an image; ``excluded`` holds image numbers from 1.
    """

    path: str
    angles: List[float]
    matrices: List[np.ndarray]
    doses: List[float]
    excluded: List[int]


def stack_images(ts: TiltSeries) -> StackImages:
    """Read a tilt series by index; images of the stack that the series does not know count as excluded.

    Raises
    ------
    JobError
        When the images lie in more than one file, or the file cannot be read.
    """
    images = [image.clone() for image in ts.iterItems(orderBy=TiltImage.INDEX_FIELD)]
    paths = {clean_path(image.getFileName()) for image in images}
    if len(paths) != 1:
        raise JobError(
            "the images of %s lie in %d files; import or stack them as one MRC stack." % (ts.getTsId(), len(paths))
        )
    path = paths.pop()
    count = read_header(path).shape[0]
    angles, doses = [0.0] * count, [0.0] * count
    matrices = [np.eye(3) for _ in range(count)]
    excluded = set(range(1, count + 1))
    for image in images:
        number = image.getIndex()
        if not 1 <= number <= count:
            raise JobError("%s has an image %d but its stack %s has %d." % (ts.getTsId(), number, path, count))
        angles[number - 1] = float(image.getTiltAngle())
        if image.hasTransform():
            matrices[number - 1] = np.asarray(image.getTransform().getMatrix(), dtype=float)
        acquisition = image.getAcquisition()
        doses[number - 1] = float((acquisition.getAccumDose() if acquisition is not None else 0) or 0)
        if image.isEnabled():
            excluded.discard(number)
    return StackImages(path, angles, matrices, doses, sorted(excluded))


def needs_alignment(ts: TiltSeries) -> bool:
    """Whether the tilt axis is not along y and no alignment says how to bring it there."""
    if ts.hasAlignment() or ts.interpolated():
        return False
    return off_vertical(tilt_axis_angle(ts)) > VERTICAL_TOLERANCE


def off_vertical(angle: float) -> float:
    """Degrees between a tilt axis and the vertical, 0 to 90."""
    return abs((angle + 90.0) % 180.0 - 90.0)


def tilt_axis_angle(ts: TiltSeries) -> float:
    """Direction of the tilt axis in the raw images, degrees from the vertical; 0 where unknown."""
    acquisition = ts.getAcquisition()
    return float((acquisition.getTiltAxisAngle() if acquisition is not None else 0) or 0)


def tilt_series_problems(ts: TiltSeries, halves: str) -> List[str]:
    """What is wrong with one tilt series, as far as headers can tell."""
    try:
        images = stack_images(ts)
        left = len(images.angles) - len(images.excluded)
        if left < 10:
            raise JobError("only %d images are enabled; a reconstruction needs at least 10." % left)
        if needs_alignment(ts):
            raise JobError(
                "its tilt axis is at %.1f degrees from the vertical and it has no alignment; align it first."
                % tilt_axis_angle(ts)
            )
        if halves == HALVES_STACKS:
            _half_stacks(ts)
    except (JobError, OSError) as error:
        return ["*%s*: %s" % (ts.getTsId(), error)]
    return []


def _half_stacks(ts: TiltSeries) -> Tuple[str, str]:
    """The stacks of the even and odd frames.

    Raises
    ------
    JobError
        When there are none.
    """
    first = ts.getFirstItem()
    if first is None or not first.hasOddEven():
        raise JobError("it has no stacks of even and odd frames; choose halves from every second view, or none.")
    odd, even = two_paths(list(first.getOddEven()), ts.getTsId())
    for path in (even, odd):
        if not os.path.exists(path):
            raise JobError("the stack %s of one half does not exist." % path)
    return even, odd


def mlp_job(ts: TiltSeries, folder: ItemFolder, settings: Dict[str, Any], weigh_by_dose: bool = False) -> MlpJob:
    """Write the files of one tilt series into ``folder`` and make the job that reconstructs it.

    Parameters
    ----------
    settings
        Parameters of :class:`MlpJob` that do not depend on the tilt series.
    weigh_by_dose
        Whether images of high dose count less; without known doses nothing is weighed.

    Raises
    ------
    JobError
        When the images cannot be read or a parameter is out of its range.
    """
    images = stack_images(ts)
    os.makedirs(folder.path, exist_ok=True)
    parameters = dict(settings)
    parameters.update(
        input=os.path.abspath(images.path),
        output=os.path.abspath(folder.output),
        run_folder=os.path.abspath(folder.path),
        voxel_size=float(ts.getSamplingRate()),
        exclude=",".join(map(str, images.excluded)),
        tilt_angles=_written(folder, ".tlt", ["%.4f" % angle for angle in images.angles]),
    )
    if ts.hasAlignment():
        parameters["transforms"] = _written(folder, ".xf", [_xf_line(matrix) for matrix in images.matrices])
    elif not ts.interpolated():
        parameters["tilt_axis_angle"] = tilt_axis_angle(ts)
    if weigh_by_dose and any(images.doses):
        parameters["doses"] = _written(folder, "_doses.txt", ["%.4f" % dose for dose in images.doses])
    if parameters.get("halves") == HALVES_STACKS:
        even, odd = _half_stacks(ts)
        parameters.update(even=os.path.abspath(even), odd=os.path.abspath(odd))
    if parameters.get("halves", HALVES_NONE) != HALVES_NONE:
        even, odd = folder.halves
        parameters.update(output_even=os.path.abspath(even), output_odd=os.path.abspath(odd))
    job = MlpJob.from_parameters(parameters)
    assert isinstance(job, MlpJob)
    return job


def _xf_line(matrix: np.ndarray) -> str:
    return " ".join("%.7f" % value for value in (*matrix[0, :2], *matrix[1, :2], matrix[0, 2], matrix[1, 2]))


def _written(folder: ItemFolder, ending: str, lines: List[str]) -> str:
    path = os.path.abspath(os.path.join(folder.path, folder.name + ending))
    with open(path, "w", encoding="ascii") as stream:
        stream.writelines(line + "\n" for line in lines)
    return path


def reconstructed_tomogram(ts: TiltSeries, folder: ItemFolder, settings: Dict[str, Any]) -> Tomogram:
    """The tomogram to register: described like its tilt series, where IMOD's would be.

    ``settings`` are those of the job: binning and shifts are taken from them.
    """
    tomogram = Tomogram(tsId=ts.getTsId())
    tomogram.copyInfo(ts)
    tomogram.setLocation(folder.output)
    tomogram.setSamplingRate(ts.getSamplingRate() * settings.get("binning", 1))
    tomogram.setCtfCorrected(ts.ctfCorrected())
    tomogram.setHalfMaps(list(folder.halves) if all(os.path.exists(half) for half in folder.halves) else [])
    tomogram.setOrigin()
    shifts = [settings.get(name, 0.0) * ts.getSamplingRate() for name in ("x_shift", "z_shift")]
    if any(shifts):
        x, y, z = tomogram.getShiftsFromOrigin()
        tomogram.setShiftsInOrigin(x - shifts[0], y, z - shifts[1])
    return tomogram
