"""From Scipion's maps and atomic structures to the job that makes grand models, and from its result to Scipion's sets.

Pure functions: they read headers and tables, start nothing and change nothing in the project.
"""

import os
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple

import numpy as np
from emtable import Table
from pwem.objects import Volume
from pyworkflow.object import String
from tomo.constants import BOTTOM_LEFT_CORNER, TR_RELION
from tomo.objects import Coordinate3D, TomoAcquisition, Tomogram, TomoMask

from cryoden_core.jobs import CleanDomainJob, JobError
from cryoden_core.mrc import read_header, read_volume, write_volume

from .convert import ItemFolder, clean_path

#: A header's voxel size may differ from Scipion's sampling rate by this share; beyond, a copy is made.
HEADER_TOLERANCE = 0.001


class Placed(NamedTuple):
    """One object of a grand model: position (x, y, z) in voxels from 0, matrix (4, 4) as RELION has it, class."""

    position: np.ndarray
    matrix: np.ndarray
    label: int
    name: str


def volume_problems(volumes: Iterable[Volume]) -> List[str]:
    """What is wrong with maps that shall be packed, as far as headers tell."""
    problems = []
    for volume in volumes:
        path = clean_path(volume.getFileName())
        try:
            if (volume.getLocation()[0] or 0) > 1:
                raise JobError("the map %s is one of a stack; extract it as a volume of its own." % path)
            if min(read_header(path).shape) < 2:
                raise JobError("%s is an image, not a map." % path)
        except (JobError, OSError) as error:
            problems.append(str(error))
    return problems


def template_files(volumes: Iterable[Volume], folder: str) -> List[str]:
    """The maps as MRC files that say their own voxel size; where a header is wrong a copy is written in ``folder``."""
    paths = []
    for volume in volumes:
        path, wanted = clean_path(volume.getFileName()), float(volume.getSamplingRate())
        if abs(read_header(path).voxel_size - wanted) > HEADER_TOLERANCE * wanted:
            copy = os.path.join(os.path.abspath(folder), os.path.splitext(os.path.basename(path))[0] + ".mrc")
            if copy in paths:
                raise JobError("two of the maps are called %s; rename one." % os.path.basename(path))
            write_volume(copy, read_volume(path), wanted)
            path = copy
        paths.append(os.path.abspath(path))
    return paths


def clean_domain_job(folder: ItemFolder, settings: Dict[str, Any]) -> CleanDomainJob:
    """The job that fills ``folder`` with grand models.

    Raises
    ------
    JobError
        When a parameter is out of its range, or two of them exclude each other.
    """
    parameters = dict(settings, output=os.path.abspath(folder.path), resume=True)
    job = CleanDomainJob.from_parameters(parameters)
    assert isinstance(job, CleanDomainJob)
    return job


def grand_model_tomogram(entry: Dict[str, Any], folder: ItemFolder) -> Tomogram:
    """The tomogram to register for an entry of ``result.json``; a grand model has no missing wedge."""
    tomogram = Tomogram(tsId=entry["name"])
    tomogram.setLocation(model_file(entry, folder, "density"))
    tomogram.setSamplingRate(entry["voxel_size"])
    tomogram.setAcquisition(TomoAcquisition(angleMin=-90.0, angleMax=90.0))
    tomogram.setOrigin()
    return tomogram


def labels_mask(path: str, tomogram: Tomogram) -> TomoMask:
    """The labels of a tomogram, the number of the class of each voxel, as an object of the project."""
    mask = TomoMask(tsId=tomogram.getTsId())
    mask.copyInfo(tomogram)
    mask.setHalfMaps([])
    mask.setLocation(path)
    mask.setVolName(tomogram.getFileName())
    return mask


def model_file(entry: Dict[str, Any], folder: ItemFolder, role: str) -> str:
    """A file of a grand model (density, labels, particles), named relative to the project."""
    return os.path.join(folder.path, entry["name"], os.path.basename(entry[role]))


def placed_particles(path: str) -> List[Placed]:
    """What the table of particles of a grand model says.

    Raises
    ------
    JobError
        When the file is missing or is no such table.
    """
    rows = particle_rows(path)
    try:
        return [_placed(row) for row in rows]
    except (AttributeError, ValueError) as error:
        raise JobError("cannot read particles from %s: %s." % (path, error)) from error


def particle_rows(path: str) -> List[Any]:
    """The rows of a table of particles (STAR), values as text.

    Raises
    ------
    JobError
        When the file is missing or has no such table.
    """
    table = Table()
    try:
        table.read(path, "particles", guessType=False)
        return list(table)
    except IndexError:  # emtable writes a table without rows as its name alone, and cannot read that
        return []
    except (OSError, AttributeError, ValueError, TypeError) as error:
        raise JobError("cannot read particles from %s: %s." % (path, error)) from error


def _placed(row: Any) -> Placed:
    position = np.array([float(getattr(row, "rlnCoordinate" + axis)) for axis in "XYZ"])
    rot, tilt, psi = (np.radians(float(getattr(row, "rlnAngle" + name))) for name in ("Rot", "Tilt", "Psi"))
    matrix = np.eye(4)
    matrix[:3, :3] = _about_z(rot) @ _about_y(tilt) @ _about_z(psi)
    return Placed(position, matrix, int(float(row.rlnClassNumber)), str(row.cryodenClassName))


def _about_z(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def _about_y(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


def coordinates(placed: Iterable[Placed], tomogram: Tomogram) -> Iterator[Coordinate3D]:
    """Coordinates in a tomogram of the size of its grand model; the group is the number of the class."""
    for item in placed:
        coordinate = Coordinate3D(tomoId=tomogram.getTsId())
        coordinate.setVolume(tomogram)
        coordinate.setPosition(*(float(value) for value in item.position), BOTTOM_LEFT_CORNER)
        coordinate.setMatrix(item.matrix, convention=TR_RELION)
        coordinate.setGroupId(item.label)
        coordinate._className = String(item.name)
        yield coordinate
