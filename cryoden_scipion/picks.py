"""From a tomogram of Scipion to the job that picks in it, and from the picks to coordinates.

Pure functions: they read tables, start nothing and change nothing in the project.
"""

import os
from typing import Any, Dict, Iterator, List

from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, Tomogram

from cryoden_core.jobs import JobError, PickJob
from cryoden_core.star import read_rows

from .convert import ItemFolder, clean_path


def picks_file(folder: ItemFolder) -> str:
    """The table of what was picked in a tomogram."""
    return os.path.splitext(folder.output)[0] + ".star"


def pick_job(tomogram: Tomogram, folder: ItemFolder, settings: Dict[str, Any], mask: str = "") -> PickJob:
    """The job that picks in one tomogram.

    Raises
    ------
    JobError
        When a parameter is out of its range.
    """
    parameters = dict(
        settings,
        input=os.path.abspath(clean_path(tomogram.getFileName())),
        output=os.path.abspath(picks_file(folder)),
        mask=mask,
        run_folder=os.path.abspath(folder.path),
        voxel_size=float(tomogram.getSamplingRate()),
    )
    job = PickJob.from_parameters(parameters)
    assert isinstance(job, PickJob)
    return job


def picked_coordinates(path: str, tomogram: Tomogram) -> Iterator[Coordinate3D]:
    """Coordinates in ``tomogram`` with their scores, from a table of picks.

    Raises
    ------
    JobError
        When the file is missing or is no such table.
    """
    for row in _rows(path):
        coordinate = Coordinate3D(tomoId=tomogram.getTsId())
        coordinate.setVolume(tomogram)
        position = (float(row.rlnCoordinateX), float(row.rlnCoordinateY), float(row.rlnCoordinateZ))
        coordinate.setPosition(*position, BOTTOM_LEFT_CORNER)
        coordinate.setScore(float(row.rlnAutopickFigureOfMerit))
        yield coordinate


def _rows(path: str) -> List[Any]:
    try:
        return read_rows(path, "particles")
    except (OSError, AttributeError, ValueError, TypeError) as error:
        raise JobError("cannot read picks from %s: %s." % (path, error)) from error
