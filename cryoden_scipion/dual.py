"""From Scipion's tomograms to the jobs of DUAL.

Pure functions: they read headers and names, start nothing and change nothing in the project.
"""

import os
import zlib
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Type, TypeVar

from pwem.objects import Volume
from tomo.objects import TiltSeries, Tomogram

from cryoden_core.jobs import DualTrainJob, Job, JobError

from .convert import ItemFolder, clean_path, even_and_odd

TiltRange = Tuple[float, float]
AnyJob = TypeVar("AnyJob", bound=Job)

#: An acquisition whose angles span less than this, in degrees, is taken as one that does not say them.
SMALLEST_RANGE = 10.0

#: Tilt ranges of one set may differ by this, in degrees.
RANGE_TOLERANCE = 3.0

_SEEDS = 2**31


def acquisition_range(tomogram: Tomogram) -> Optional[TiltRange]:
    """Lowest and highest tilt angle (degrees) as the acquisition of a tomogram says, or None where it does not."""
    acquisition = tomogram.getAcquisition()
    if acquisition is None:
        return None
    angles = [acquisition.getAngleMin(), acquisition.getAngleMax()]
    if None in angles or angles[1] - angles[0] < SMALLEST_RANGE:
        return None
    return float(angles[0]), float(angles[1])


def tilt_series_range(tilt_series: TiltSeries) -> TiltRange:
    """Lowest and highest tilt angle (degrees) of the views that are not excluded.

    Raises
    ------
    JobError
        When no view is left.
    """
    angles = [float(image.getTiltAngle()) for image in tilt_series.iterItems() if image.isEnabled()]
    if not angles:
        raise JobError("the tilt series %s has no view that is not excluded." % tilt_series.getTsId())
    return min(angles), max(angles)


def widest_range(ranges: Sequence[TiltRange]) -> TiltRange:
    """The tilt range that holds all others."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def ranges_differ(ranges: Sequence[TiltRange]) -> bool:
    """Whether tilt ranges that should be one are clearly different."""
    return any(max(ends) - min(ends) > RANGE_TOLERANCE for ends in zip(*ranges))


def seed_of(seed: int, ts_id: str) -> int:
    """The seed of one item: two items must not get the same noise."""
    return (seed + zlib.crc32(ts_id.encode("utf-8"))) % _SEEDS


def files_of(volumes: Iterable[Volume]) -> List[str]:
    """Absolute names of the files of tomograms or volumes."""
    return [os.path.abspath(clean_path(volume.getFileName())) for volume in volumes]


def train_job(
    noisy: Sequence[Tomogram],
    clean: Sequence[Volume],
    folder: ItemFolder,
    settings: Dict[str, Any],
    tilt_range: TiltRange,
    use_halves: bool = False,
    **files: Any,
) -> DualTrainJob:
    """The job that trains a model in ``folder``.

    Parameters
    ----------
    noisy, clean
        The two domains.
    settings
        The other parameters.
    tilt_range
        Of the noisy tomograms, degrees.
    use_halves
        Whether the halves of the noisy tomograms take part.
    files
        ``noisy_masks``, ``clean_masks``, ``validation_noisy`` and ``validation_clean``.

    Raises
    ------
    JobError
        When a parameter is out of its range or contradicts another, or halves are missing.
    """
    parameters = dict(settings, **files)
    parameters["tilt_min"], parameters["tilt_max"] = tilt_range
    if use_halves:
        halves = halves_of(noisy)
        parameters.update(noisy_even=[even for even, _ in halves], noisy_odd=[odd for _, odd in halves])
    parameters.update(
        noisy=files_of(noisy),
        clean=files_of(clean),
        noisy_voxel_size=float(noisy[0].getSamplingRate()),
        clean_voxel_size=float(clean[0].getSamplingRate()),
        output=os.path.abspath(folder.path),
        run_folder=os.path.abspath(folder.path),
    )
    job = DualTrainJob.from_parameters(parameters)
    assert isinstance(job, DualTrainJob)
    return job


def halves_of(tomograms: Iterable[Tomogram]) -> List[Tuple[str, str]]:
    """The even and the odd half of each tomogram, absolute names.

    Raises
    ------
    JobError
        When a tomogram has none.
    """
    found = []
    for tomogram in tomograms:
        halves = even_and_odd(tomogram)
        if halves is None:
            raise JobError("%s has no half maps; leave it out, or train without half maps." % tomogram.getTsId())
        found.append((os.path.abspath(halves[0]), os.path.abspath(halves[1])))
    return found


def item_job(
    job: Type[AnyJob], tomogram: Tomogram, folder: ItemFolder, settings: Dict[str, Any], model: str = ""
) -> AnyJob:
    """The job that processes one tomogram into ``folder``.

    Raises
    ------
    JobError
        When a parameter is out of its range.
    """
    parameters = dict(settings)
    parameters.update(
        input=os.path.abspath(clean_path(tomogram.getFileName())),
        output=os.path.abspath(folder.output),
        run_folder=os.path.abspath(folder.path),
        voxel_size=float(tomogram.getSamplingRate()),
        model=os.path.abspath(model) if model else "",
    )
    made = job.from_parameters(parameters)
    assert isinstance(made, job)
    return made
